//! The whole scheduler on real threads.

mod fake;

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use self::fake::{Bench, Mail, PATIENCE, Task, config, long, parts, quick};
use super::{Mode, SchedConfig};
use crate::words::sync::{Arc, Condvar, Mutex, lock, thread, wait_timeout};

#[test]
fn the_owner_returns_in_time() {
    for mode in [Mode::TakeOver, Mode::Inline] {
        let bench = Bench::start(config(1, 0, mode));
        for name in 0..100 {
            bench.post(0, Mail::Run(quick(name)));
            let done = bench.finished();
            assert_eq!((done.name, done.overtaken), (name, false));
            assert_eq!(done.thread, "test-reactor-0");
        }
        let joined = bench.stop(PATIENCE);
        assert_eq!((joined.stuck, joined.reactors.len(), joined.unserved.len()), (0, 1, 0));
        assert_eq!((joined.stats.take_overs, joined.stats.spawned), (0, 1));
    }
}

#[test]
fn without_workers_the_slow_lane_gives_jobs_back() {
    let bench = Bench::start(config(1, 0, Mode::TakeOver));
    bench.post(0, Mail::Slow(quick(1)));
    assert_eq!(bench.finished().thread, "test-reactor-0");
    assert_eq!(bench.stop(PATIENCE).stats.offloads, 0);
}

#[test]
fn a_stuck_job_is_taken_over() {
    let bench = Bench::start(config(1, 1, Mode::TakeOver));
    let (stuck, strings) = long(1);
    bench.post(0, Mail::Run(stuck));
    strings.wait_begun();
    bench.post(0, Mail::Run(quick(2)));
    let done = bench.finished();
    assert_eq!((done.name, done.overtaken), (2, false));
    assert_ne!(done.thread, "test-reactor-0", "that one is stuck");
    assert_eq!((bench.stats().stuck, bench.stats().lost_races), (1, 0));
    strings.end.send(()).unwrap();
    let done = bench.finished();
    assert_eq!((done.name, done.overtaken), (1, true));
    let joined = bench.stop(PATIENCE);
    assert_eq!((joined.stuck, joined.stats.stuck, joined.stats.lost_races), (0, 0, 1));
}

#[test]
fn many_stuck_jobs_cost_a_thread_each() {
    let bench = Bench::start(config(1, 1, Mode::TakeOver));
    let mut pulled = Vec::new();
    for name in 0..8 {
        let (stuck, strings) = long(name);
        bench.post(0, Mail::Run(stuck));
        strings.wait_begun();
        pulled.push(strings);
    }
    bench.post(0, Mail::Run(quick(100)));
    assert_eq!(bench.finished().name, 100);
    assert_eq!(bench.stats().threads, 9, "the bound: one reactor, eight workers");
    drop(pulled);
    let mut names: Vec<_> = (0..8).map(|_| bench.finished().name).collect();
    names.sort_unstable();
    assert_eq!(names, (0..8).collect::<Vec<_>>());
    assert_eq!(bench.stop(PATIENCE).stuck, 0);
}

#[test]
fn a_rescuer_has_the_queued_work_too() {
    let bench = Bench::start(config(1, 1, Mode::TakeOver));
    let (stuck, strings) = long(0);
    let gate = long(99);
    bench.post(0, Mail::Run(gate.0));
    gate.1.wait_begun();
    bench.post(0, Mail::Run(stuck));
    (1..50).for_each(|name| bench.post(0, Mail::Run(quick(name))));
    drop(gate.1);
    let mut names: Vec<_> = (0..50).map(|_| bench.finished().name).collect();
    names.sort_unstable();
    names.dedup();
    assert!(!names.contains(&0) && names.len() == 50, "{names:?}");
    drop(strings);
    assert_eq!(bench.finished().name, 0);
    bench.stop(PATIENCE);
}

#[test]
fn a_heavy_reactor_is_stolen_from() {
    const TASKS: u32 = 400;
    let bench = Bench::start(config(1, 2, Mode::TakeOver));
    let mut sent = 0;
    // Each task burns a while, and there are always some queued: that is what heavy means. A thread
    // that was overtaken and comes back late steals without being called: so wait for both.
    while bench.stats().steals == 0 || bench.stats().helper_calls == 0 {
        assert!(sent < 1_000 * TASKS, "{:?}", bench.stats());
        (0..TASKS).for_each(|name| bench.post(0, Mail::Run(burning(sent + name))));
        sent += TASKS;
        (0..TASKS).for_each(|_| drop(bench.finished()));
    }
    assert_eq!(bench.stop(PATIENCE).stuck, 0);
}

/// A task of some 100 µs: its end is pulled by nobody, but the wait costs that long.
fn burning(name: u32) -> Task {
    let (keep, end) = channel();
    thread_of_ends().send(keep).expect("that thread never ends");
    Task { name, begun: None, end: Some(end) }
}

/// Ends tasks one after the other, each with a pause.
fn thread_of_ends() -> Sender<Sender<()>> {
    static ENDS: Mutex<Option<Sender<Sender<()>>>> = Mutex::new(None);
    let mut ends = lock(&ENDS);
    ends.get_or_insert_with(|| {
        let (sender, receiver) = channel::<Sender<()>>();
        thread::spawn(move || {
            let (pause, never) = (Mutex::new(()), Condvar::new());
            for end in receiver {
                drop(wait_timeout(&never, lock(&pause), Duration::from_micros(50)));
                drop(end);
            }
        });
        sender
    })
    .clone()
}

#[test]
fn the_slow_lane_is_bounded() {
    let bounded = SchedConfig { workers_max: 3, ..config(1, 1, Mode::TakeOver) };
    let bench = Bench::start(bounded);
    let strings: Vec<_> = (0..4)
        .map(|name| {
            let (task, strings) = long(name);
            bench.post(0, Mail::Slow(task));
            strings
        })
        .collect();
    assert_eq!((strings[0].wait_begun(), strings[1].wait_begun()), (0, 1));
    assert!(strings[2].has_not_begun() && strings[3].has_not_begun(), "three less one reactor");
    let (stuck, last) = long(5);
    bench.post(0, Mail::Run(stuck));
    last.wait_begun();
    bench.post(0, Mail::Run(quick(6)));
    assert_eq!(bench.finished().name, 6, "somebody was left to pick up");
    drop(strings);
    drop(last);
    let mut names: Vec<_> = (0..5).map(|_| bench.finished().name).collect();
    names.sort_unstable();
    assert_eq!(names, [0, 1, 2, 3, 5]);
    assert_eq!(bench.stop(PATIENCE).stats.offloads, 4);
}

#[test]
fn hand_off_runs_everything_in_the_pool() {
    let bench = Bench::start(config(1, 3, Mode::HandOff));
    let (held_up, strings) = long(0);
    bench.post(0, Mail::Run(held_up));
    strings.wait_begun();
    for name in 1..500 {
        bench.post(0, Mail::Run(quick(name)));
        let done = bench.finished();
        assert_eq!((done.name, done.overtaken), (name, false));
    }
    drop(strings);
    assert_eq!(bench.finished().name, 0);
    let stats = bench.stop(PATIENCE).stats;
    assert_eq!((stats.offloads, stats.samples, stats.spawned), (500, 0, 4));
}

#[test]
fn a_quiet_scheduler_takes_no_samples() {
    let bench = Bench::start(config(2, 1, Mode::TakeOver));
    for round in 0..5 {
        bench.post(0, Mail::Run(quick(round)));
        bench.finished();
        // Deep: while we wait far longer than a nap, at most the sample in progress is counted.
        let pause = (Mutex::new(()), Condvar::new());
        let mut before = bench.stats().samples;
        loop {
            drop(wait_timeout(&pause.1, lock(&pause.0), Duration::from_millis(50)));
            let now = bench.stats().samples;
            if now == before {
                break;
            }
            before = now;
        }
    }
    // And it still comes to the rescue.
    let (stuck, strings) = long(100);
    bench.post(0, Mail::Run(stuck));
    strings.wait_begun();
    bench.post(0, Mail::Run(quick(101)));
    assert_eq!(bench.finished().name, 101);
    drop(strings);
    bench.stop(PATIENCE);
}

#[test]
fn a_panic_of_a_reactor_costs_a_turn() {
    for (mode, workers) in [(Mode::TakeOver, 1), (Mode::Inline, 0)] {
        let bench = Bench::start(config(1, workers, mode));
        bench.post(0, Mail::Panic);
        bench.until(|stats| stats.panics == 1);
        bench.post(0, Mail::Run(quick(1)));
        assert_eq!(bench.finished().name, 1);
        let joined = bench.stop(PATIENCE);
        assert_eq!((joined.stats.panics, joined.stats.stuck, joined.stuck), (1, 0, 0));
    }
}

#[test]
fn join_leaves_the_stuck_behind() {
    let bench = Bench::start(config(1, 1, Mode::TakeOver));
    let ((stuck, strings), (slow, slow_strings)) = (long(1), long(2));
    bench.post(0, Mail::Run(stuck));
    strings.wait_begun();
    bench.post(0, Mail::Slow(slow));
    slow_strings.wait_begun();
    let desk = Arc::clone(&bench.desks[0]);
    let joined = bench.stop(Duration::from_millis(5));
    assert_eq!((joined.stuck, joined.stats.threads), (2, 2));
    drop((strings, slow_strings));
    let mut letters = Vec::new();
    let clock = crate::words::clock::Clock::start();
    while letters.len() < 2 {
        assert!(clock.now().as_nanos() < 60_000_000_000);
        desk.mailbox.drain_into(&mut letters);
        thread::yield_now();
    }
    let overtaken = |mail: &Mail| matches!(mail, Mail::Done { name: 1, overtaken: true });
    assert_eq!(letters.iter().filter(|mail| overtaken(mail)).count(), 1, "they still report");
}

#[test]
fn jobs_nobody_ran_come_back() {
    let bounded = SchedConfig { workers_max: 1, ..config(1, 1, Mode::TakeOver) };
    let bench = Bench::start(bounded);
    let (slow, strings) = long(1);
    bench.post(0, Mail::Slow(slow));
    strings.wait_begun();
    bench.post(0, Mail::Slow(quick(2)));
    bench.until(|stats| stats.offloads == 2);
    let joined = bench.stop(Duration::from_millis(5));
    assert_eq!(joined.stuck, 1);
    assert_eq!(joined.unserved.iter().map(|job| (job.0, job.1.name)).collect::<Vec<_>>(), [(0, 2)]);
    drop(strings);
}

#[test]
fn a_thousand_cycles_leak_nothing() {
    for cycle in 0..1_000 {
        let mode = [Mode::TakeOver, Mode::HandOff, Mode::Inline][cycle % 3];
        let bench = Bench::start(config(1 + cycle % 2, 1, mode));
        if cycle % 5 == 0 {
            bench.post(0, Mail::Run(quick(0)));
            bench.finished();
        }
        let desks = bench.desks.clone();
        let joined = bench.stop(PATIENCE);
        assert_eq!((joined.stuck, joined.stats.threads), (0, 0));
        drop(joined);
        // The threads have let go of all they shared, the desks among it.
        assert!(desks.iter().all(|desk| Arc::strong_count(desk) == 1));
    }
}

#[test]
fn a_refused_thread_undoes_the_start() {
    for spawn_max in 0..4 {
        let (scheduler, reactors, desks, _done) = parts(config(2, 2, Mode::TakeOver));
        let refused = scheduler.start_with(reactors, spawn_max);
        assert!(refused.is_err_and(|error| error.to_string() == "planted"));
        assert!(desks.iter().all(|desk| Arc::strong_count(desk) == 1));
    }
}

#[test]
fn a_refused_thread_is_survived_later() {
    let (scheduler, reactors, desks, done) = parts(config(1, 1, Mode::TakeOver));
    let running = scheduler.start_with(reactors, 2).unwrap();
    let bench = Bench { running, desks, done };
    let ((first, first_strings), (second, second_strings)) = (long(1), long(2));
    bench.post(0, Mail::Run(first));
    first_strings.wait_begun();
    bench.post(0, Mail::Run(second));
    second_strings.wait_begun();
    bench.until(|stats| stats.spawn_failures > 0);
    bench.post(0, Mail::Run(quick(3)));
    drop(second_strings);
    let names = [bench.finished().name, bench.finished().name];
    assert_eq!(names, [2, 3], "it goes on when a thread comes back");
    drop(first_strings);
    assert_eq!(bench.finished().name, 1);
    assert_eq!(bench.stop(PATIENCE).stats.spawned, 2);
}
