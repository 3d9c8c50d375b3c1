//! `Crowd`, `Doorman`, `Ear`: that nobody comes in beyond a limit, that all counts are exact, and
//! that no alarm rings all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::net::Net;
use super::plan::Plan;
use crate::core::limits::{Admission, AlarmKind, Held, Via};
use crate::engine::common::TellAlarm;
use crate::words::clock::Time;
use crate::words::config::{Rate, WhenFull};
use crate::words::sync::lock;

/// Where connections come from that the server opens itself.
pub(super) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What was held at the last look.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    server: usize,
    listeners: Vec<usize>,
}

/// What may pass at the doors, and what has passed.
#[derive(Debug)]
pub(super) struct Doorman {
    /// Sockets that the server may hold, those included that are not let in.
    pub(super) held_max: usize,
    /// Connections may be ended to make room.
    pub(super) evicts: bool,
    server: Pace,
    /// By the number of the listener.
    own: Vec<Pace>,
}

#[derive(Debug)]
struct Pace {
    /// `None` if there is none, or it is not kept by waiting.
    rate: Option<Rate>,
    passed: Vec<Time>,
}

impl Crowd {
    /// Compares what is held with who is there.
    pub(super) fn check(
        &mut self,
        admission: &Admission,
        there: &[(Via, IpAddr)],
    ) -> Result<(), String> {
        let settings = admission.settings();
        // And one for all that the server opens itself.
        let mut listeners = vec![0; settings.listeners.len() + 1];
        let mut clients = BTreeMap::new();
        for (via, ip) in there {
            listeners[via.index()] += 1;
            if via.is_counted() {
                *clients.entry(admission.client(*ip)).or_insert(0) += 1;
            }
        }
        let counted = clients.values().sum();
        let server = there.len();
        let expected =
            Held { server, listeners: listeners.clone(), counted, clients: clients.len() };
        let held = admission.held();
        if held != expected {
            return Err(format!("permits are out: {held:?}, but there are {expected:?}"));
        }
        let most = clients.into_iter().max_by_key(|&(_, count)| count);
        if let (Some(max), Some((ip, count))) = (settings.connections_per_client_max, most) {
            if count > max {
                return Err(format!("{count} connections of {ip}, but {max} allowed"));
            }
        }
        // A maximum that was lowered throws nobody out, but lets nobody in.
        let before = std::mem::replace(self, Crowd { server, listeners });
        exceeds("of the server", server, before.server, settings.connections_max)?;
        for (number, own) in settings.listeners.iter().enumerate() {
            let was = before.listeners.get(number).copied().unwrap_or(0);
            let max = own.connections_max.unwrap_or(usize::MAX);
            exceeds("of a listener", self.listeners[number], was, max)?;
        }
        Ok(())
    }
}

fn exceeds(whose: &str, count: usize, before: usize, max: usize) -> Result<(), String> {
    if count > max && count > before {
        return Err(format!("{count} connections {whose}, but {max} allowed"));
    }
    Ok(())
}

impl Net {
    /// One was accepted from this listening socket: not too fast?
    pub(super) fn check_pace(&mut self, socket: usize) {
        let number = self.listeners[socket].number;
        let passed = self.doorman.pass(number, self.now);
        passed.unwrap_or_else(|what| self.fail(what));
    }
}

impl Doorman {
    /// Nobody has passed.
    pub(super) fn new(plan: &Plan) -> Self {
        let pace = |rate: Option<Rate>| Pace { rate, passed: Vec::new() };
        // Who is turned away for the rate has passed none the less.
        let waits = |policy| policy == WhenFull::Pause;
        let all_wait = plan.listening.iter().all(|listening| waits(listening.when_too_fast));
        let own = plan.listening.iter();
        let own = own.map(|own| pace(own.accept_rate.filter(|_| waits(own.when_too_fast))));
        Doorman {
            held_max: plan.limits.connections_max.saturating_add(spare(plan)),
            evicts: plan.evicts(),
            server: pace(plan.limits.accept_rate.filter(|_| all_wait)),
            own: own.collect(),
        }
    }

    /// One was accepted.
    fn pass(&mut self, listener: usize, now: Time) -> Result<(), String> {
        self.server.pass(now)?;
        self.own[listener].pass(now)
    }
}

impl Pace {
    /// In no time whatever have more passed than the burst and what the rate gives.
    fn pass(&mut self, now: Time) -> Result<(), String> {
        self.passed.push(now);
        let Some(rate) = self.rate else { return Ok(()) };
        for (index, since) in self.passed.iter().enumerate() {
            let (count, time) = ((self.passed.len() - index) as u64, now.since(*since));
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let granted = rate.depth() + nanos.saturating_mul(rate.refill()) / 1_000_000_000;
            if count > granted {
                return Err(format!("{count} accepts in {time:?} at {rate:?}"));
            }
        }
        Ok(())
    }
}

/// Hears of alarms.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear(Arc<Mutex<Vec<AlarmKind>>>);

impl Ear {
    /// What tells it.
    pub(super) fn tell(&self) -> Arc<TellAlarm> {
        let heard = Arc::clone(&self.0);
        Arc::new(move |alarm| lock(&heard).push(alarm.kind))
    }

    /// No kind was told more often than once in a cool-down.
    pub(super) fn check(&self, plan: &Plan, elapsed: Duration) -> Result<(), String> {
        let heard = lock(&self.0);
        let cool_downs = elapsed.as_nanos() / plan.limits.alarm_cool_down.as_nanos();
        for kind in heard.iter() {
            let count = heard.iter().filter(|other| *other == kind).count();
            if count as u128 > cool_downs + 1 {
                return Err(format!("{count} alarms about {kind:?} in {cool_downs} cool-downs"));
            }
        }
        Ok(())
    }
}

/// How many sockets beyond the maximum the server may hold for a moment: of clients that are turned
/// away, one for each reactor; of clients for whom room is made, one for each door.
fn spare(plan: &Plan) -> usize {
    let turns_away = plan.turns_away().contains(&true);
    let (reactors, doors) = (plan.sched.reactors, plan.listening.len());
    let away = if turns_away { reactors } else { 0 };
    let guests = if plan.evicts() { reactors * doors } else { 0 };
    away + guests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_too_many_is_noticed() {
        let mut pace = Pace { rate: Some(Rate::per_second(10).burst(2)), passed: Vec::new() };
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        assert!(pace.pass(at(0)).is_ok() && pace.pass(at(0)).is_ok());
        assert!(pace.pass(at(100)).is_ok());
        assert!(pace.pass(at(199)).is_err());
    }
}
