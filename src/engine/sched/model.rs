//! Loom models: every interleaving (within a bound) of the lease, the deep sleep, the pool, the
//! mailbox and the end.
//!
//! Run by `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib model`. A lost
//! wake-up shows as a deadlock. Each planted mutation must make one of these fail.

use loom::model;
use loom::model::Builder;

use super::idle::{Order, Seat};
use super::lease::{Slot, Ticket};
use super::pool::{Pool, Rest};
use super::sentinel::{Nap, Pulse, Sentinel, Watch};
use super::worker::{Advance, Shared, advance};
use super::{Leased, Mode, SchedConfig, Step};
use crate::parts::mailbox::{Mailbox, Wake};
use crate::words::clock::Time;
use crate::words::sync::{Arc, Condvar, Mutex, lock, thread, wait};

/// A reactor that has `todo` jobs run and stops when it has heard of all of them.
struct Script {
    desk: Arc<Desk>,
    todo: u32,
    heard: u32,
}

/// The mailbox of a [`Script`], whose bell rings for it.
struct Desk {
    mailbox: Mailbox<Posted>,
    bell: Arc<Seat<()>>,
}

/// What came by mail.
#[derive(Debug, PartialEq, Eq)]
struct Posted {
    name: u32,
    overtaken: bool,
}

impl Wake for Arc<Seat<()>> {
    fn wake(&self) {
        self.put(());
    }
}

impl Desk {
    fn new() -> Arc<Desk> {
        let bell = Arc::new(Seat::new());
        Arc::new(Desk { mailbox: Mailbox::new(Box::new(Arc::clone(&bell))), bell })
    }

    /// What a reactor does when it has nothing to do.
    fn poll(&self) -> Vec<Posted> {
        let mut mail = Vec::new();
        if self.mailbox.fall_asleep() {
            self.bell.wait();
            self.mailbox.wake_up();
        }
        self.mailbox.drain_into(&mut mail);
        mail
    }
}

impl Leased for Script {
    type Job = u32;
    type Done = u32;
    type Desk = Desk;

    fn step(&mut self) -> Step<u32> {
        if self.todo > 0 {
            self.todo -= 1;
            return Step::Run(self.todo);
        }
        while self.heard > 0 {
            for posted in self.desk.poll() {
                assert!(posted.overtaken, "only who was overtaken posts here");
                self.heard -= 1;
            }
        }
        Step::Stopped
    }

    fn apply(&mut self, _name: u32) {
        self.heard -= 1;
    }

    fn run(name: u32, _desk: &Arc<Desk>) -> u32 {
        name
    }

    fn post(desk: &Arc<Desk>, name: u32, overtaken: bool) {
        desk.mailbox.post(Posted { name, overtaken });
    }
}

/// One reactor with `jobs` jobs, and room for `workers` threads beside its own.
fn scripted(jobs: u32, workers: usize) -> Arc<Shared<Script>> {
    let desk = Desk::new();
    let script = Script { desk: Arc::clone(&desk), todo: jobs, heard: jobs };
    let pool = Arc::new(pool(1, workers));
    Arc::new(Shared::new(vec![Box::new(script)], vec![desk], pool))
}

fn pool<J>(reactors: usize, workers: usize) -> Pool<J> {
    let mode = Mode::TakeOver;
    let config = SchedConfig { reactors, workers, workers_max: workers, mode, name: String::new() };
    Pool::new(&config).0
}

/// Lets a reactor go as far as its first job, which is "running" from then on.
fn first_job(shared: &Shared<Script>) -> (Ticket, u32) {
    let held = shared.slots[0].pick_up(Ticket::FIRST).expect("nobody else is here yet");
    match advance(held) {
        Advance::Job { ticket, job } => (ticket, job),
        Advance::Pause(..) | Advance::Stopped => unreachable!("it has a job"),
    }
}

#[test]
fn owner_against_rescuer() {
    model(|| {
        let shared = scripted(1, 1);
        let (ticket, job) = first_job(&shared);
        let other = Arc::clone(&shared);
        let rescuer = thread::spawn(move || other.take_over(0, ticket).is_some());
        let owner_has_it = shared.resume(0, ticket, job).is_some();
        let rescuer_has_it = rescuer.join().unwrap();
        // The rescuer may be later than the owner's lay-down, but not with the old ticket.
        assert!(owner_has_it != rescuer_has_it);
        assert_eq!(shared.desks[0].mailbox.len(), usize::from(rescuer_has_it));
        assert!(shared.slots[0].sample().ticket().is_some_and(|now| now != ticket));
    });
}

#[test]
fn one_ticket_three_hands() {
    model(|| {
        let slot = Arc::new(Slot::new(Box::new(0_u32)));
        let ticket = slot.pick_up(Ticket::FIRST).expect("nobody else is here yet").lay_down();
        // Whoever gets it lays it down again, under another ticket, and picks that up.
        let reach = |slot: Arc<Slot<u32>>| {
            move || {
                let Some(mut held) = slot.pick_up(ticket) else {
                    return 0;
                };
                *held += 1;
                let next = held.lay_down();
                assert_ne!(next, ticket);
                let mut held = slot.pick_up(next).expect("nobody else knows this ticket");
                *held += 1;
                1
            }
        };
        let others = [0, 1].map(|_| thread::spawn(reach(Arc::clone(&slot))));
        let mine = reach(Arc::clone(&slot))();
        let theirs: u32 = others.into_iter().map(|other| other.join().unwrap()).sum();
        assert_eq!(mine + theirs, 1, "exactly one wins, and a stale ticket fails for ever");
        let last = slot.sample().ticket().expect("all hands are empty");
        assert_eq!(*slot.pick_up(last).expect("all hands are empty"), 2);
    });
}

#[test]
fn a_completion_after_the_reactor_moved_on() {
    model(|| {
        let shared = scripted(2, 1);
        let (ticket, job) = first_job(&shared);
        let other = Arc::clone(&shared);
        let rescuer = thread::spawn(move || {
            let Some(held) = other.take_over(0, ticket) else {
                return;
            };
            other.turn(0, held);
        });
        if let Some(held) = shared.resume(0, ticket, job) {
            shared.turn(0, held);
        }
        rescuer.join().unwrap();
        // The reactor has heard of both jobs, or it would not have stopped.
        shared.wait_stopped();
        let script = shared.slots[0].take_retired().expect("it has stopped");
        assert_eq!((script.todo, script.heard), (0, 0));
        assert!(!shared.desks[0].mailbox.has_mail());
    });
}

#[test]
fn the_sentinel_sleeps_only_while_all_sleep() {
    model(|| {
        let pulse = Pulse::new();
        pulse.fall_asleep();
        let parts = Arc::new((Watch::new(), [pulse]));
        let other = Arc::clone(&parts);
        let reactor = thread::spawn(move || {
            let (watch, [pulse]) = &*other;
            pulse.wake_up(watch);
            pulse.fall_asleep();
            pulse.wake_up(watch);
            // It stays awake, stuck perhaps: the sentinel must not sleep from now on.
        });
        let (watch, pulses) = &*parts;
        for _ in 0..2 {
            watch.rise();
            if watch.sink(pulses) {
                assert!(watch.sleep(Nap::Deep));
            }
        }
        reactor.join().unwrap();
        watch.rise();
        assert!(!watch.sink(pulses));
    });
}

#[test]
fn the_sentinel_does_not_sleep_through_a_job_from_outside() {
    model(|| {
        let pool = Arc::new(pool(1, 1));
        pool.pulses[0].fall_asleep();
        let other = Arc::clone(&pool);
        let outsider = thread::spawn(move || {
            assert!(other.offload_from_outside(0, 7).is_ok());
        });
        if pool.sink_sentinel() {
            assert!(pool.watch.sleep(Nap::Deep));
        }
        outsider.join().unwrap();
        assert!(pool.slow_work_waits());
    });
}

#[test]
fn the_mailbox_loses_no_wake_up() {
    model(|| {
        let desk = Desk::new();
        let posters = [0, 1].map(|name| {
            let desk = Arc::clone(&desk);
            thread::spawn(move || desk.mailbox.post(Posted { name, overtaken: false }))
        });
        let mut heard = 0;
        while heard < 2 {
            heard += desk.poll().len();
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        assert!(!desk.mailbox.has_mail());
    });
}

#[test]
fn the_mailbox_is_not_asleep_after_all() {
    model(|| {
        let desk = Desk::new();
        let other = Arc::clone(&desk);
        let poster = thread::spawn(move || {
            (0..2).for_each(|name| other.mailbox.post(Posted { name, overtaken: false }));
        });
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(desk.poll().into_iter().map(|posted| posted.name));
        }
        poster.join().unwrap();
        assert_eq!(heard, [0, 1], "in order");
    });
}

/// Like `model`, for one with so much to explore that three preemptions would take minutes.
fn model_of_many(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(2).min(2));
    builder.check(check);
}

/// Counts jobs that were run, and lets a thread wait for the last one.
struct Tally {
    left: Mutex<u32>,
    zero: Condvar,
}

impl Tally {
    fn new(left: u32) -> Arc<Tally> {
        Arc::new(Tally { left: Mutex::new(left), zero: Condvar::new() })
    }

    fn count(&self) {
        *lock(&self.left) -= 1;
        self.zero.notify_all();
    }

    fn wait_zero(&self) {
        let mut left = lock(&self.left);
        while *left > 0 {
            left = wait(&self.zero, left);
        }
    }
}

/// The loop of a pool thread, without reactors to turn.
fn serve(pool: &Pool<Arc<Tally>>) {
    let seat = Arc::new(Seat::new());
    while !pool.quits() {
        if let Some(work) = pool.find_work(0) {
            work.job.count();
            continue;
        }
        match pool.rest(&seat) {
            Rest::Called(Order::Work) => pool.idle.begin_search(),
            Rest::Called(Order::Quit) | Rest::Leave => return,
            Rest::Called(Order::PickUp(..)) => unreachable!("nobody orders that here"),
            Rest::Again => {}
        }
    }
}

/// `threads` serve a slow lane of `permits` while `jobs` are offloaded; then all end.
fn pool_serves(threads: usize, workers: usize, jobs: u32) {
    let check = move || {
        let pool = Arc::new(pool(1, workers));
        let tally = Tally::new(jobs);
        let served: Vec<_> = (0..threads)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || serve(&pool))
            })
            .collect();
        for _ in 0..jobs {
            assert!(pool.offload(0, Arc::clone(&tally)).is_ok());
        }
        tally.wait_zero();
        pool.tell_to_quit();
        for thread in served {
            thread.join().expect("a panic there ends the model");
        }
        assert!(pool.queues.slow_is_empty());
    };
    if threads == 1 { model(check) } else { model_of_many(check) }
}

#[test]
fn the_pool_misses_no_job() {
    pool_serves(1, 1, 1);
}

#[test]
fn the_pool_misses_no_second_job() {
    pool_serves(1, 1, 2);
}

#[test]
fn two_threads_share_one_permit() {
    pool_serves(2, 2, 2);
}

#[test]
fn two_threads_have_two_permits() {
    pool_serves(2, 3, 2);
}

#[test]
fn it_stops_while_leased() {
    model_of_many(|| {
        let shared = scripted(2, 1);
        let owner = Arc::clone(&shared);
        let owner = thread::spawn(move || {
            let held = owner.slots[0].pick_up(Ticket::FIRST).expect("nobody else has it");
            owner.turn(0, held);
            lead_on(&owner);
        });
        let standby = Arc::clone(&shared);
        let standby = thread::spawn(move || lead_on(&standby));
        let mut sentinel = Sentinel::new(1);
        for look in 0..3 {
            let now = Time::from_nanos(look);
            let call = |order| shared.pool.idle.call(order);
            sentinel.sample(now, &shared.slots, &shared.pool, call);
        }
        shared.wait_stopped();
        shared.pool.tell_to_quit();
        owner.join().unwrap();
        standby.join().unwrap();
        assert!(shared.slots[0].take_retired().is_some());
        assert!(!shared.desks[0].mailbox.has_mail(), "it has heard of every job");
    });
}

/// What a thread does when it has lost its reactor: like `Shared::live`, without the net.
fn lead_on(shared: &Shared<Script>) {
    let seat = Arc::new(Seat::new());
    while let Some(order) = shared.serve(&seat) {
        shared.obey(order);
    }
}
