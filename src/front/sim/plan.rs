//! `Plan`: all that a seed decides in advance: the server, its clients, and what goes wrong.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::keep::KeepPlan;
use super::lend::LendPlan;
use super::random::{Odds, Random};
use super::rates::Bounds;
use super::route::{Fate, Route};
use super::series::Series;
use crate::engine::common::DialTimes;
use crate::engine::sched::{Mode, SchedConfig};
use crate::words::clock::Time;
use crate::words::config::{Evict, Idle, Limits, Listening, Placement, Rate, Timeouts, WhenFull};

/// What is to be simulated.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) sched: SchedConfig,
    pub(super) limits: Limits,
    /// What the connections of the first listener may read and write together.
    pub(super) group: Bounds,
    pub(super) placement: Placement,
    pub(super) listening: Vec<Listening>,
    pub(super) clients: usize,
    /// What lies behind the addresses that the server may connect to.
    pub(super) routes: Vec<Route>,
    /// The requests to connect; each has some of the addresses to itself.
    pub(super) dials: Vec<DialPlan>,
    /// The connections that are made again and again.
    pub(super) keeps: Vec<KeepPlan>,
    /// The pools of connections.
    pub(super) lends: Vec<LendPlan>,
    /// The handlers get bytes as they come, and cut their frames out themselves.
    pub(super) raw: bool,
    pub(super) arming: Arming,
    /// The kernel's promise about short reads.
    pub(super) short_read_drains: bool,
    pub(super) faults: Faults,
    /// Whether there are groups; else handlers may change their codec.
    pub(super) circles: bool,
    pub(super) ending: Ending,
    /// Over what time a drain asks.
    pub(super) spread: Duration,
    /// What the clock says at the beginning.
    pub(super) epoch: Time,
    /// How long there are faults.
    pub(super) storm: Duration,
    /// The most that one step of a thread takes.
    pub(super) step: Duration,
    /// The bytes that fit into one direction of a connection.
    pub(super) window: usize,
    /// The most that a byte travels.
    pub(super) latency: Duration,
}

/// One request to connect.
#[derive(Clone, Debug)]
pub(super) struct DialPlan {
    pub(super) start: Duration,
    pub(super) routes: Range<usize>,
    pub(super) times: DialTimes,
    /// Who asks wants to be called.
    pub(super) then: bool,
}

/// When a poll tells of a source again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arming {
    /// After whatever arrives: epoll, kqueue.
    Edge,
    /// Windows and poll(2), as mio has them: what was told of a direction is not told again before
    /// a call has answered `WouldBlock`.
    Told,
}

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A drain when all clients have left.
    Quiet,
    /// A drain in the middle of everything.
    Drain,
    /// A stop in the middle of everything.
    Stop,
}

/// What goes wrong, and how often.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// A read brings less than there is (only where the kernel does not promise otherwise).
    pub(super) short_read: Odds,
    /// A write takes less than there is room for.
    pub(super) short_write: Odds,
    /// A poll keeps an event back for a while.
    pub(super) withhold: Odds,
    /// A poll tells of something that is not so.
    pub(super) spurious: Odds,
    /// A poll tells of a socket that was closed meanwhile.
    pub(super) stale: Odds,
    /// A poll returns for nothing.
    pub(super) empty: Odds,
    /// One client is lost while it is accepted.
    pub(super) accept_lost: Odds,
    /// The system runs out of descriptors for a while.
    pub(super) exhausted: Odds,
    /// A listener breaks for good.
    pub(super) broken: Odds,
    /// A socket cannot be watched.
    pub(super) watch: Odds,
    /// A callback of the handler panics.
    pub(super) panic: Odds,
    /// A callback answers with an error.
    pub(super) fail: Odds,
    /// A callback takes its time.
    pub(super) stall: Odds,
    /// The system stops a thread for a while where it lays down or picks up.
    pub(super) pause: Odds,
    /// The sentinel is late.
    pub(super) late_sample: Odds,
    /// The sentinel looks twice.
    pub(super) double_sample: Odds,
    /// The system starts no further thread.
    pub(super) spawn: Odds,
    /// Another thread sends to, closes or aborts a connection.
    pub(super) handle: Odds,
    /// The operator suspends and resumes.
    pub(super) suspend: Odds,
    /// The operator changes who is let in.
    pub(super) readmit: Odds,
    /// The longest pause, and whatever else is late.
    pub(super) delay: Duration,
    /// The longest stall: sometimes long enough for a reactor to be missed.
    pub(super) stall_max: Duration,
    /// The longest that news of input is kept back.
    pub(super) hold: Duration,
}

impl Faults {
    /// Whether no thread and no handler ever takes its time.
    pub(super) fn are_instant(&self) -> bool {
        self.stall.is_off() && self.pause.is_off()
    }
}

/// What clients are told who are turned away: no frame begins like that.
pub(super) const FAREWELL: &[u8] = b"\xff\xfffull";

const MICRO: Duration = Duration::from_micros(1);
const MILLI: Duration = Duration::from_millis(1);

impl Plan {
    /// Addresses to which the program connects again and again.
    pub(super) fn series(&self) -> impl Iterator<Item = Series> {
        let keeps = self.keeps.iter().map(|plan| plan.series.clone());
        keeps.chain(self.lends.iter().map(|plan| plan.series.clone()))
    }

    /// Whether memory is short.
    pub(super) fn is_scarce(&self) -> bool {
        self.limits.memory_max < 1 << 20
    }

    /// How long output waits at most.
    pub(super) fn write_stall(&self) -> Duration {
        self.limits.timeouts.write_stall.unwrap_or(Duration::MAX)
    }

    /// Whether clients may be turned away for that: a maximum, a rate, too many of one.
    pub(super) fn turns_away(&self) -> [bool; 3] {
        let any = |is: fn(&Listening) -> bool| self.listening.iter().any(is);
        let full = any(|listening| listening.when_full != WhenFull::Pause);
        let fast = any(|listening| listening.when_too_fast == WhenFull::Reject);
        let paced = self.limits.accept_rate.is_some() || any(|l| l.accept_rate.is_some());
        [full, fast && paced, self.limits.connections_per_client_max.is_some()]
    }

    /// Whether connections may be ended to make room.
    pub(super) fn evicts(&self) -> bool {
        self.listening.iter().any(|listening| listening.when_full == WhenFull::EvictIdle)
    }

    /// What `random` will have it.
    pub(super) fn draw(random: &mut Random) -> Plan {
        let short_read_drains = random.one_in(3);
        let edge = short_read_drains || random.one_in(3);
        let arming = if edge { Arming::Edge } else { Arming::Told };
        let storm = MILLI * u32::try_from(random.magnitude(1, 400)).unwrap_or(1);
        let (mut routes, dials) = dials(random, storm);
        let ending = ending(random);
        let keeps = Plan::draw_keeps(random, &mut routes, storm, ending == Ending::Quiet);
        let lends = Plan::draw_lends(random, &mut routes);
        let sched = sched(random);
        let mut limits = limits(random);
        let scarce = random.one_in(6);
        if scarce {
            squeeze(random, &mut limits, sched.reactors);
        }
        let group = Bounds::draw(random, &mut limits);
        let listening = (0..random.size(1, 2)).map(|_| listening(random, &limits)).collect();
        Plan {
            sched,
            limits,
            group,
            listening,
            placement: match random.one_in(2) {
                true => Placement::ReusePort,
                false => Placement::LeastLoaded,
            },
            clients: if scarce { random.size(12, 24) } else { random.magnitude(1, 24) },
            arming,
            short_read_drains,
            faults: faults(random),
            ending,
            circles: random.one_in(2),
            spread: MILLI * u32::try_from(random.size(0, 3) * random.size(0, 60)).unwrap_or(0),
            epoch: epoch(random),
            storm,
            routes,
            dials,
            keeps,
            lends,
            raw: random.one_in(4),
            step: MICRO * u32::try_from(random.magnitude(1, 120)).unwrap_or(1),
            window: random.magnitude(64, 16 << 10),
            latency: MICRO * u32::try_from(random.magnitude(1, 4_000)).unwrap_or(1),
        }
    }
}

fn ending(random: &mut Random) -> Ending {
    match random.below(7) {
        0 => Ending::Stop,
        1 | 2 => Ending::Drain,
        _ => Ending::Quiet,
    }
}

/// Zero, or shortly before the clock's milliseconds need one more group of bits.
fn epoch(random: &mut Random) -> Time {
    let bits = [0, 32, 36, 42][random.below(4)];
    let nanos = (1_u64 << bits) * 1_000_000;
    Time::from_nanos(nanos.saturating_sub(random.range(1, 100) * 1_000_000))
}

fn sched(random: &mut Random) -> SchedConfig {
    let mode = match random.below(8) {
        0 => Mode::HandOff,
        1 => Mode::Inline,
        _ => Mode::TakeOver,
    };
    let workers = random.size(usize::from(mode == Mode::HandOff), 3);
    SchedConfig {
        reactors: random.size(1, 3),
        workers,
        workers_max: workers + random.size(0, 6),
        mode,
        name: String::from("sim"),
    }
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::for_descriptors(None);
    if random.one_in(2) {
        limits.connections_max = random.size(1, 6);
    }
    admission(random, &mut limits);
    limits.accepts_per_turn = random.size(1, 8);
    limits.broadcasts_per_turn = random.size(1, 6);
    limits.read_chunk_bytes = random.magnitude(512, 8 << 10);
    limits.frames_per_turn = random.magnitude(1, 16);
    limits.pool_retained_max = random.size(0, 4);
    limits.send_high_bytes = random.magnitude(64, 16 << 10);
    limits.send_low_bytes = random.size(0, limits.send_high_bytes);
    limits.send_max_bytes = limits.send_high_bytes + random.magnitude(1 << 10, 256 << 10);
    let stall = MILLI * u32::try_from(random.size(100, 600)).unwrap_or(1);
    limits.timeouts.write_stall = Some(stall);
    let linger = MILLI * u32::try_from(random.size(200, 1_000)).unwrap_or(1);
    limits.timeouts.linger = Some(linger);
    if random.one_in(2) {
        hurry(random, &mut limits.timeouts);
    }
    limits.linger_bytes = random.magnitude(64, 64 << 10);
    limits.accept_retry = MILLI * u32::try_from(random.size(1, 50)).unwrap_or(1);
    limits
}

fn admission(random: &mut Random, limits: &mut Limits) {
    if random.one_in(4) {
        limits.connections_per_client_max = Some(random.size(1, 4));
        limits.client_prefix_v4 = [0, 24, 32][random.below(3)];
        limits.client_prefix_v6 = [48, 64, 128][random.below(3)];
    }
    limits.accept_rate = rate(random);
    limits.alarm_percent = u8::try_from(random.size(1, 100)).unwrap_or(100);
    limits.alarm_cool_down = MILLI * u32::try_from(random.magnitude(1, 1_000)).unwrap_or(1);
}

fn listening(random: &mut Random, limits: &Limits) -> Listening {
    let mut listening = Listening::of(limits);
    listening.connections_max = random.one_in(3).then(|| random.size(1, 4));
    listening.accept_rate = rate(random);
    listening.when_full = policy(random);
    if random.one_in(4) {
        listening.when_too_fast = WhenFull::Reject;
    }
    if random.one_in(2) {
        listening.farewell = Bytes::from_static(FAREWELL);
    }
    listening
}

fn rate(random: &mut Random) -> Option<Rate> {
    let rate = Rate::per_second(random.magnitude(20, 5_000) as u64);
    let burst = random.size(1, 8) as u64;
    random.one_in(5).then(|| rate.burst(burst))
}

/// One of them, most often to wait.
pub(super) fn policy(random: &mut Random) -> WhenFull {
    match random.below(6) {
        0 => WhenFull::Reject,
        1 => WhenFull::EvictIdle,
        _ => WhenFull::Pause,
    }
}

/// Little memory: enough for the records of all, and for what a few connections hold.
fn squeeze(random: &mut Random, limits: &mut Limits, reactors: usize) {
    limits.read_chunk_bytes = random.magnitude(512, 2 << 10);
    let records = reactors * RECORDS;
    limits.memory_max = records + random.magnitude(4 << 10, 128 << 10);
    limits.connections_max = 64;
    limits.send_high_bytes = random.magnitude(4 << 10, 32 << 10);
    limits.send_low_bytes = random.size(0, limits.send_high_bytes);
    limits.send_max_bytes = limits.send_high_bytes + random.magnitude(8 << 10, 64 << 10);
    if random.one_in(8) {
        limits.evict = Evict::Never;
    }
}

/// More than the tables of one reactor take in a plan, by so much that nothing is short of memory
/// for them alone.
const RECORDS: usize = 18 << 10;

/// Times that come to an end while clients dawdle.
fn hurry(random: &mut Random, timeouts: &mut Timeouts) {
    let mut time = || MILLI * u32::try_from(random.magnitude(20, 800)).unwrap_or(1);
    timeouts.first_frame = Some(time());
    timeouts.frame = Some(time());
    timeouts.idle = Idle::After(time());
    timeouts.frame_rate_min = if random.one_in(2) { 0 } else { 10_000 };
    timeouts.idle_counts_sent = random.one_in(2);
}

fn dials(random: &mut Random, storm: Duration) -> (Vec<Route>, Vec<DialPlan>) {
    let (mut routes, mut dials) = (Vec::new(), Vec::new());
    let storm = u64::try_from(storm.as_nanos()).unwrap_or(u64::MAX);
    let count = if random.one_in(3) { 0 } else { random.size(1, 6) };
    for _ in 0..count {
        let first = routes.len();
        for _ in 0..random.size(1, 4) {
            let fate = match random.below(10) {
                0 => Fate::Unreachable,
                1 | 2 => Fate::Refuses,
                3 => Fate::Silent,
                4 => Fate::Resets,
                _ => Fate::Accepts,
            };
            let delay = MICRO * u32::try_from(random.magnitude(1, 60_000)).unwrap_or(1);
            routes.push(Route::new(fate, delay));
        }
        let millis = |count: usize| MILLI * u32::try_from(count).unwrap_or(1);
        dials.push(DialPlan {
            start: Duration::from_nanos(random.range(0, storm)),
            routes: first..routes.len(),
            times: DialTimes {
                timeout: millis(random.magnitude(1, 400)),
                delay: millis(random.magnitude(1, 100)),
            },
            then: random.one_in(2),
        });
    }
    (routes, dials)
}

fn faults(random: &mut Random) -> Faults {
    let rare = random.one_in(16);
    let delay = MICRO * u32::try_from(random.magnitude(200, 20_000)).unwrap_or(1);
    let stall_max = delay * if random.one_in(6) { 30 } else { 1 };
    let mut odds = |most| Odds::swarm(random, most);
    Faults {
        short_read: odds(95),
        short_write: odds(95),
        withhold: odds(60),
        spurious: odds(30),
        stale: odds(90),
        empty: odds(30),
        accept_lost: odds(30),
        exhausted: odds(20),
        broken: if rare { odds(2) } else { Odds::default() },
        watch: odds(10),
        panic: odds(5),
        fail: odds(5),
        stall: odds(30),
        pause: odds(10),
        late_sample: odds(50),
        double_sample: odds(50),
        spawn: odds(90),
        handle: odds(60),
        suspend: odds(2),
        readmit: odds(10),
        delay,
        stall_max,
        hold: MICRO * u32::try_from(random.size(200, 400_000)).unwrap_or(1),
    }
}
