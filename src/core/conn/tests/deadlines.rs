//! Random lives with a real wheel, against an oracle that knows what the manual says about time.

use super::*;
use crate::core::timers::Timers;
use crate::parts::timer::Wheel;
use crate::words::config::Idle;
use crate::words::config::Timeouts;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
enum Op {
    /// Input comes.
    Receive(usize),
    /// The job that is out ends.
    Done { frames: u32, left: usize, pause: Option<bool>, timer: Option<(u64, u64)> },
    /// So many milliseconds pass.
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let timer = prop::option::weighted(0.3, (0..4u64, 1..3_000u64));
    let pause = prop::option::weighted(0.3, any::<bool>());
    let done = (0..3u32, 0..30usize, pause, timer);
    prop_oneof![
        6 => (1..39usize).prop_map(Op::Receive),
        10 => done.prop_map(|(frames, left, pause, timer)| Op::Done { frames, left, pause, timer }),
        8 => (0..2_500u64).prop_map(Op::Pass),
    ]
}

fn setting() -> impl Strategy<Value = Timeouts> {
    let time = || prop::option::of((500..4_000u64).prop_map(Duration::from_millis));
    let idle = prop_oneof![
        1 => Just(Idle::Never),
        3 => (500..4_000u64).prop_map(|ms| Idle::After(Duration::from_millis(ms))),
        2 => (1..2_000u64, 1..4u32, 2_000..90_000u64).prop_map(|(min, factor, max)| {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            Idle::Adaptive { min, factor, max }
        }),
    ];
    let rate = prop_oneof![Just(0), 1..50u32];
    (time(), time(), rate, idle).prop_map(|(first_frame, frame, frame_rate_min, idle)| Timeouts {
        first_frame,
        frame,
        frame_rate_min,
        idle,
        ..Timeouts::default()
    })
}

/// What a reader of the manual expects of a connection, in milliseconds.
#[derive(Debug, Default)]
struct Oracle {
    now: u64,
    seen: u64,
    /// When the frame began that is not whole, and how much of it is there.
    frame: Option<u64>,
    partial: usize,
    greeted: bool,
    paused: bool,
    /// When the job that is out began, and when the last one ended.
    out_since: u64,
    back_since: u64,
    timers: BTreeMap<u64, u64>,
}

/// The oracle and the connection with a wheel of its own.
struct Trial {
    rig: Rig,
    wheel: Wheel,
    oracle: Oracle,
}

impl Trial {
    /// What the oracle says is due next, and what that does; `None` under a learned timeout.
    fn due(&self) -> Option<(u64, &'static str)> {
        let (oracle, times) = (&self.oracle, &self.rig.limits.timeouts);
        let millis = |time: Duration| u64::try_from(time.as_millis()).expect("a short time");
        let never = u64::MAX;
        let idle = match times.idle {
            Idle::Never => never,
            Idle::After(after) => oracle.seen + millis(after),
            Idle::Adaptive { .. } => return None,
        };
        let frame = oracle.frame.map_or(never, |began| {
            if !oracle.greeted {
                return times.first_frame.map_or(never, |time| began + millis(time));
            }
            let granted = match times.frame_rate_min {
                0 => 0,
                rate => oracle.partial as u64 * 1_000 / u64::from(rate),
            };
            times.frame.map_or(never, |time| began + millis(time) + granted)
        });
        let first = if oracle.greeted { "frame_timeout" } else { "first_frame_timeout" };
        let timer = oracle.timers.values().copied().min().unwrap_or(never);
        let owed = if frame < idle { (frame, first) } else { (idle, "idle_timeout") };
        let owed = if oracle.paused { (never, "") } else { owed };
        // What the peer owes comes first, if both have come while the session was out.
        let first = owed.0 <= timer || owed.0 <= oracle.now;
        Some(if first { owed } else { (timer, "timer") })
    }

    /// What the engine does after each step; the wheel never fires too late.
    fn arm(&mut self) {
        let conn = &mut self.rig.conn;
        if conn.wants_arming() {
            conn.handle_armed();
            let deadline = conn.deadline(rules(&self.rig.limits));
            if deadline != Time::NEVER {
                match *conn.timer_mut() {
                    None => *conn.timer_mut() = Some(self.wheel.schedule(id(), deadline)),
                    Some(timer) => self.wheel.bring_forward(timer, id(), deadline),
                }
            }
        }
        let deadline = self.rig.deadline();
        if deadline != Time::NEVER {
            let fires = self.wheel.next_deadline().expect("something is armed");
            assert!(
                fires <= deadline.max(self.rig.now),
                "it fires at {fires:?}, and {deadline:?} is awaited"
            );
        }
        if self.rig.out.is_none() && !self.rig.conn.flags.discarding && !self.rig.conn.flags.dead {
            if let Some((due, _)) = self.due() {
                let due = due.min(self.oracle.timers.values().copied().min().unwrap_or(due));
                let at =
                    if due == u64::MAX { Time::NEVER } else { Time::ZERO + MS * millis32(due) };
                assert_eq!(deadline, at, "{:?}", self.oracle);
            }
        }
    }

    /// Input came while it listened, and a job is out with it.
    fn read(&mut self) {
        if self.rig.out.is_some() {
            self.oracle.out_since = self.oracle.now;
            if !self.oracle.paused {
                self.oracle.seen = self.oracle.now;
            }
        }
    }

    fn done(&mut self, frames: u32, left: usize, pause: Option<bool>, timer: Option<(u64, u64)>) {
        let Trial { rig, oracle, .. } = self;
        let now = rig.now;
        rig.finish_job(|out| {
            while let Some(key) = out.hand.pop_timer() {
                let at = oracle.timers.remove(&key).expect("it was set");
                assert!(at <= oracle.out_since, "timer {key} is early");
            }
            assert!(oracle.timers.values().all(|&at| at > oracle.out_since), "none is late");
            out.hand.paused = pause.unwrap_or(out.hand.paused);
            if let Some((key, after)) = timer {
                let timers = out.hand.timers.get_or_insert_with(Box::<Timers>::default);
                timers.set(key, now + MS * millis32(after), 8);
                oracle.timers.insert(key, oracle.now + after);
            }
            let count = out.input.len();
            let shown = if out.hand.paused { 0 } else { frames.min(u32::from(count > 0)) };
            out.hand.frames_count = shown as usize;
            if shown > 0 {
                drop(out.input.split_to(count - left.min(count - 1)));
                (oracle.greeted, oracle.frame, oracle.seen) = (true, None, oracle.now);
            } else {
                oracle.seen += oracle.now - oracle.out_since;
            }
            oracle.back_since = oracle.now;
            out.hand.unserved = out.hand.paused && !out.input.is_empty();
            out.hand.eof_left = out.hand.paused && out.errand.eof;
            oracle.partial = out.input.len();
            if std::mem::replace(&mut oracle.paused, out.hand.paused) && !out.hand.paused {
                oracle.seen = oracle.now;
                oracle.frame = oracle.frame.map(|_| oracle.now);
            }
            if oracle.partial > 0 {
                oracle.frame.get_or_insert(oracle.now);
            }
        });
        self.read();
    }

    /// Lets time pass as the reactor does: to each deadline of the wheel in turn.
    fn pass(&mut self, millis: u64) {
        let end = self.rig.now + MS * millis32(millis);
        while let Some(at) = self.wheel.next_deadline().filter(|&at| at <= end) {
            let mut due = Vec::new();
            self.rig.now = self.rig.now.max(at);
            self.oracle.now = self.rig.now.as_nanos() / 1_000_000;
            self.wheel.expire(self.rig.now, &mut due);
            if due.is_empty() {
                continue;
            }
            *self.rig.conn.timer_mut() = None;
            self.fire();
            self.arm();
        }
        self.rig.now = end;
        self.oracle.now = end.as_nanos() / 1_000_000;
    }

    fn fire(&mut self) {
        let watched = self.rig.out.is_none() && !self.rig.conn.flags.discarding;
        let expected = self.due().filter(|_| watched && !self.rig.conn.flags.dead);
        let rested = self.rig.out.is_none();
        self.rig.expire(self.rig.now);
        if rested && self.rig.out.is_some() {
            self.oracle.out_since = self.oracle.now;
        }
        let Some((at, what)) = expected else { return };
        if at > self.oracle.now {
            assert!(self.rig.out.is_none() && self.rig.label().is_empty(), "{what} is early");
        } else if what == "timer" {
            assert!(self.rig.out.is_some(), "the timer makes a job");
        } else {
            let at = at.max(self.oracle.back_since);
            assert_eq!((at, self.rig.label()), (self.oracle.now, what), "at its time");
        }
    }
}

fn millis32(millis: u64) -> u32 {
    u32::try_from(millis).expect("a test lasts no month")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1024 }))]
    #[test]
    fn every_deadline_is_kept_to_the_millisecond(
        times in setting(),
        ops in vec(op(), 1..100),
    ) {
        let mut rig = Rig::open();
        rig.limits.timeouts = times;
        let wheel = Wheel::new(Time::ZERO);
        let oracle = Oracle { frame: Some(0), ..Oracle::default() };
        let mut trial = Trial { rig, wheel, oracle };
        trial.arm();
        for op in ops {
            if trial.rig.conn.flags.discarding || trial.rig.conn.flags.dead {
                break;
            }
            match op {
                // Less than one read takes, so that one job is for all of it.
                Op::Receive(count) if !trial.rig.peer.fin && trial.rig.peer.incoming == 0 => {
                    let rested = trial.rig.out.is_none();
                    trial.rig.receive(count);
                    trial.rig.run();
                    if rested {
                        trial.read();
                    }
                }
                Op::Receive(_) => {}
                Op::Done { frames, left, pause, timer } => {
                    if trial.rig.out.is_some() {
                        trial.done(frames, left, pause, timer);
                    }
                }
                Op::Pass(millis) => trial.pass(millis),
            }
            trial.arm();
        }
        let label = trial.rig.label();
        prop_assert!(["", "first_frame_timeout", "frame_timeout", "idle_timeout"].contains(&label));
    }
}
