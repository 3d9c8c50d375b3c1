//! `Alarms`: when an operator is told that a limit is near or reached: once, not all the time.

use std::net::IpAddr;
use std::time::Duration;

use super::Admission;
use crate::words::clock::Time;
use crate::words::id::ConnId;
use crate::words::sync::atomic::{AtomicBool, Ordering};
use crate::words::sync::{Mutex, MutexGuard, lock};

/// Something that an operator may want to know of: a limit is near or reached, or handlers do not
/// come back; or that is over.
///
/// Told to the callback of [`Builder::on_alarm`](crate::Builder::on_alarm).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alarm {
    /// Which limit.
    pub kind: AlarmKind,
    /// True when it begins, false when it is over.
    pub raised: bool,
    /// How often the limit was met since the last alarm of this kind.
    pub times: u64,
    /// How many there are, where the limit is a number of something: connections, clients that
    /// wait, connections of the client. Of handlers: how many of the reactor that noticed it are
    /// late. Else 0.
    pub count: usize,
    /// How many there may be. Else 0.
    pub max: usize,
    /// Who met the limit last, if it is that of a client: the first address of its network. The
    /// client of that connection, if it is a handler.
    pub client: Option<IpAddr>,
    /// The connection whose handler is away longest, if it is about handlers.
    pub connection: Option<ConnId>,
}

impl Alarm {
    /// One that knows nothing yet but what it is about.
    pub(crate) fn of(kind: AlarmKind) -> Self {
        let (raised, client, connection) = (false, None, None);
        Alarm { kind, raised, times: 0, count: 0, max: 0, client, connection }
    }
}

/// What an [`Alarm`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The server has nearly as many connections as it may: `alarm_percent` of `connections_max`.
    /// Over at nine tenths of that.
    Connections,
    /// Clients come faster than a rate of accepts allows. Over when that was not met for as long as
    /// the cool-down.
    AcceptRate,
    /// The system is out of descriptors or buffers. Over when it has not said so for as long as the
    /// cool-down.
    Descriptors,
    /// A client has as many connections as it may. Over when none was turned away for it for as
    /// long as the cool-down.
    Client,
    /// Nearly as many clients wait to be accepted as the system keeps for one listening socket:
    /// `alarm_percent`. Over when that was not seen for as long as the cool-down. Linux only:
    /// other systems do not tell.
    Backlog,
    /// Handlers have not come back for [`handler_patience`](crate::Limits::handler_patience): they
    /// block, or compute, or no thread is free for them. Over when none was seen for as long as the
    /// cool-down. Without workers nobody is left to tell of it.
    Handlers,
}

/// The state of all alarms of one server.
#[derive(Debug)]
pub(crate) struct Alarms {
    percent: usize,
    cool_down: Duration,
    /// There may be many connections: who ends one is to look whether there still are. SeqCst, with
    /// the count: it is set before the count is looked at, and looked at after a count has changed,
    /// so that one of two notices the other.
    is_high: AtomicBool,
    states: [Mutex<State>; KINDS.len()],
}

const KINDS: [AlarmKind; 6] = [
    AlarmKind::Connections,
    AlarmKind::AcceptRate,
    AlarmKind::Descriptors,
    AlarmKind::Client,
    AlarmKind::Backlog,
    AlarmKind::Handlers,
];

/// What is known of one kind.
#[derive(Debug)]
struct State {
    /// The last thing that was told is that it began.
    told: bool,
    /// Until when nothing is told.
    quiet_until: Time,
    /// It is on until then, unless it is met again; `NEVER` if it is a level, and high.
    on_until: Time,
    alarm: Alarm,
}

/// What is to be done about an alarm.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Now(Alarm),
    /// Look again then.
    Later(Time),
    Nothing,
}

impl Alarms {
    /// No alarm is on.
    pub(crate) fn new(percent: u8, cool_down: Duration) -> Self {
        let state = |kind| {
            let (alarm, at) = (Alarm::of(kind), Time::ZERO);
            Mutex::new(State { told: false, quiet_until: at, on_until: at, alarm })
        };
        let is_high = AtomicBool::new(false);
        Alarms { percent: usize::from(percent), cool_down, is_high, states: KINDS.map(state) }
    }

    /// Whether there are so many of `max` that it is worth a closer look.
    pub(crate) fn is_near(&self, count: usize, max: usize) -> bool {
        count >= self.high(max)
    }

    /// Whether [`Alarms::weigh`] may have something to say.
    pub(crate) fn concerns(&self, count: usize, max: usize) -> bool {
        self.is_high.load(Ordering::SeqCst) || self.is_near(count, max)
    }

    /// A limit was met, of which `met` has everything but how often.
    pub(crate) fn meet(&self, met: Alarm, now: Time) -> Told {
        let mut state = self.state(met.kind);
        let times = state.alarm.times.saturating_add(1);
        state.alarm = Alarm { times, ..met };
        state.on_until = now + self.cool_down;
        self.tell(&mut state, now)
    }

    /// The number of connections has changed, or is to be looked at.
    pub(crate) fn weigh(&self, admission: &Admission, now: Time) -> Told {
        let mut state = self.state(AlarmKind::Connections);
        self.is_high.store(true, Ordering::SeqCst);
        // Counted under the lock: whoever comes last knows of both of two changes.
        let (count, max) = (admission.count(), admission.max());
        let high = self.high(max);
        let was_on = state.on_until > now;
        let is_on = count >= high || (was_on && count > high - high.div_ceil(10));
        state.alarm.times = state.alarm.times.saturating_add(u64::from(is_on && !was_on));
        state.on_until = if is_on { Time::NEVER } else { Time::ZERO };
        self.is_high.store(is_on, Ordering::SeqCst);
        (state.alarm.count, state.alarm.max) = (count, max);
        self.tell(&mut state, now)
    }

    /// The time has come to look at `kind` again.
    pub(crate) fn review(&self, kind: AlarmKind, admission: &Admission, now: Time) -> Told {
        match kind {
            AlarmKind::Connections => self.weigh(admission, now),
            AlarmKind::AcceptRate
            | AlarmKind::Descriptors
            | AlarmKind::Client
            | AlarmKind::Backlog
            | AlarmKind::Handlers => self.tell(&mut self.state(kind), now),
        }
    }

    fn high(&self, max: usize) -> usize {
        // Rounded up, and without overflow.
        (max / 100 * self.percent + (max % 100 * self.percent).div_ceil(100)).max(1)
    }

    fn state(&self, kind: AlarmKind) -> MutexGuard<'_, State> {
        lock(&self.states[kind as usize])
    }

    fn tell(&self, state: &mut State, now: Time) -> Told {
        let is_on = state.on_until > now;
        if is_on == state.told {
            let ends = is_on && state.on_until != Time::NEVER;
            return if ends { Told::Later(state.on_until) } else { Told::Nothing };
        }
        if now < state.quiet_until {
            return Told::Later(state.quiet_until);
        }
        state.told = is_on;
        state.quiet_until = now + self.cool_down;
        let alarm = Alarm { raised: is_on, ..state.alarm.clone() };
        state.alarm.times = 0;
        Told::Now(alarm)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::{Clients, Permit, Prefixes, Via};
    use super::*;
    use crate::words::config::{self, Limits, Listening};

    const COOL_DOWN: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn admission(max: usize) -> Admission {
        let mut limits = Limits::for_descriptors(None);
        limits.connections_max = max;
        let settings = config::Admission::new(&limits, &[Listening::of(&limits)]);
        Admission::new(settings, Clients::new(Prefixes { v4: 32, v6: 64 }, None))
    }

    fn fill(admission: &Admission, count: usize) -> Vec<Permit> {
        (0..count).map(|_| admission.try_admit(0).expect("there is room")).collect()
    }

    fn empty(admission: &Admission, permits: impl IntoIterator<Item = Permit>) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        permits.into_iter().for_each(|permit| admission.release(permit, Via::door(0), ip));
    }

    /// Whether it was told, and what.
    fn told(told: &Told) -> Option<(bool, u64)> {
        match told {
            Told::Now(alarm) => Some((alarm.raised, alarm.times)),
            Told::Later(_) | Told::Nothing => None,
        }
    }

    #[test]
    fn near_the_maximum_is_told_once_and_its_end_well_below() {
        let (alarms, admission) = (Alarms::new(90, COOL_DOWN), admission(100));
        let mut permits = fill(&admission, 89);
        assert_eq!(alarms.weigh(&admission, at(1)), Told::Nothing);
        permits.extend(fill(&admission, 1));
        assert_eq!(told(&alarms.weigh(&admission, at(2))), Some((true, 1)));
        // To and fro above the lower mark is no news.
        empty(&admission, permits.drain(82..));
        assert_eq!(alarms.weigh(&admission, at(100)), Told::Nothing);
        permits.extend(fill(&admission, 18));
        assert_eq!(alarms.weigh(&admission, at(101)), Told::Nothing);
        empty(&admission, permits.drain(81..));
        assert_eq!(told(&alarms.weigh(&admission, at(102))), Some((false, 0)));
        empty(&admission, permits);
    }

    #[test]
    fn at_most_one_per_cool_down_and_what_came_in_between_is_told_when_it_is_over() {
        let (alarms, admission) = (Alarms::new(50, COOL_DOWN), admission(4));
        let permits = fill(&admission, 2);
        assert_eq!(told(&alarms.weigh(&admission, at(10))), Some((true, 1)));
        empty(&admission, permits);
        assert_eq!(alarms.weigh(&admission, at(20)), Told::Later(at(70)));
        let permits = fill(&admission, 3);
        assert_eq!(alarms.weigh(&admission, at(30)), Told::Nothing, "as it was told");
        empty(&admission, permits);
        assert_eq!(alarms.weigh(&admission, at(40)), Told::Later(at(70)));
        let review = |seconds| alarms.review(AlarmKind::Connections, &admission, at(seconds));
        assert_eq!(told(&review(70)), Some((false, 1)));
        assert_eq!(review(71), Told::Nothing);
    }

    #[test]
    fn what_is_met_again_and_again_is_told_when_it_begins_and_when_it_has_ended() {
        let (alarms, admission) = (Alarms::new(90, COOL_DOWN), admission(4));
        let client = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let met = Alarm { count: 5, max: 5, client, ..Alarm::of(AlarmKind::Client) };
        let meet = |seconds| alarms.meet(met.clone(), at(seconds));
        let Told::Now(alarm) = meet(5) else { panic!("the first is told") };
        assert_eq!((alarm.client, alarm.count, alarm.max, alarm.times), (client, 5, 5, 1));
        for seconds in 6..200 {
            assert_eq!(meet(seconds), Told::Later(at(seconds + 60)));
        }
        let review = |seconds| alarms.review(AlarmKind::Client, &admission, at(seconds));
        assert_eq!(review(230), Told::Later(at(259)));
        assert_eq!(told(&review(259)), Some((false, 194)));
        assert_eq!(meet(260), Told::Later(at(319)));
        assert_eq!(told(&review(319)), Some((true, 1)));
        // Kinds do not know of each other.
        let rate = alarms.meet(Alarm::of(AlarmKind::AcceptRate), at(319));
        assert_eq!(told(&rate), Some((true, 1)));
    }

    #[test]
    fn marks_are_rounded_so_that_none_is_zero_or_above_the_maximum() {
        for percent in [1, 50, 90, 99, 100] {
            let alarms = Alarms::new(percent, COOL_DOWN);
            for max in [1, 2, 8, 99, 100, 101, 1 << 31, usize::MAX] {
                let high = alarms.high(max);
                assert!((1..=max).contains(&high), "{high} of {max}");
                assert!(alarms.is_near(max, max) && !alarms.is_near(0, max));
            }
        }
        assert_eq!(Alarms::new(90, COOL_DOWN).high(8), 8);
        assert_eq!(Alarms::new(90, COOL_DOWN).high(1_000), 900);
    }
}
