//! `Admission`: who may come in, decided once for all reactors: maxima, rates, clients.

use std::net::IpAddr;

use super::clients::Clients;
use super::gauge::Gauge;
use crate::words::bucket::Bucket;
use crate::words::clock::Time;
use crate::words::config::{self, Rate, WhenFull};
use crate::words::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::words::sync::{Mutex, lock};

/// All that limits who comes in.
#[derive(Debug)]
pub(crate) struct Admission {
    server: Gauge,
    pace: Pace,
    entrances: Box<[Entrance]>,
    clients: Clients,
    /// What an operator sees and changes; the rest of this is what is read on every accept.
    settings: Mutex<config::Admission>,
}

/// What limits those who come through one listener.
#[derive(Debug)]
struct Entrance {
    gauge: Gauge,
    pace: Pace,
    when_full: Policy,
    when_too_fast: Policy,
}

/// A policy that may change. Relaxed: it guards nothing, and holds from some accept on.
#[derive(Debug)]
struct Policy(AtomicU8);

/// A rate of accepts that may change, or none.
#[derive(Debug)]
struct Pace {
    /// There is one: so that without nobody takes the lock. Relaxed: the lock guards the rest.
    is_on: AtomicBool,
    bucket: Mutex<Option<Bucket>>,
}

/// The right to hold one connection. It is given back by [`Admission::release`], never dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit(());

/// Where a connection came in, and so what is to be given back for it. It stands in every record:
/// all else that release needs can be found out again from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Via(u16);

/// The right to accept once, at a certain rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    own: Time,
    server: Time,
}

/// Which maximum is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of the listener.
    Listener,
    /// That of the server.
    Server,
}

/// What is held, to be compared with what there is.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) server: usize,
    pub(crate) listeners: Vec<usize>,
    /// Counted connections of clients, and of how many clients.
    pub(crate) counted: usize,
    pub(crate) clients: usize,
}

impl Via {
    /// The bit that says that the client's connections are counted.
    const COUNTED: u16 = 1 << 15;

    /// Through listener number `listener`.
    pub(crate) fn door(listener: u16) -> Self {
        debug_assert!(listener < Self::COUNTED);
        Via(listener)
    }

    /// The number of the listener.
    #[inline]
    pub(crate) fn listener(self) -> u16 {
        self.0 & !Self::COUNTED
    }

    /// The same, to look something up with.
    #[inline]
    pub(crate) fn index(self) -> usize {
        usize::from(self.listener())
    }

    /// Whether it counts among the connections of its client.
    pub(crate) fn is_counted(self) -> bool {
        self.0 & Self::COUNTED != 0
    }
}

impl From<Via> for usize {
    #[inline]
    fn from(via: Via) -> usize {
        via.index()
    }
}

impl Admission {
    /// Nobody is in yet.
    pub(crate) fn new(settings: config::Admission, clients: Clients) -> Self {
        let entrance = |listener: &config::ListenerAdmission| Entrance {
            gauge: Gauge::new(listener.connections_max),
            pace: Pace::new(listener.accept_rate),
            when_full: Policy::new(listener.when_full),
            when_too_fast: Policy::new(listener.when_too_fast),
        };
        // The number after those of the listeners is that of all that the program opens itself.
        let outbound = Entrance {
            gauge: Gauge::new(None),
            pace: Pace::new(None),
            when_full: Policy::new(WhenFull::Pause),
            when_too_fast: Policy::new(WhenFull::Pause),
        };
        Admission {
            server: Gauge::new(Some(settings.connections_max)),
            pace: Pace::new(settings.accept_rate),
            entrances: settings.listeners.iter().map(entrance).chain([outbound]).collect(),
            clients,
            settings: Mutex::new(settings),
        }
    }

    /// Whether accepts are counted against the time.
    pub(crate) fn is_paced(&self, listener: u16) -> bool {
        self.pace.is_on() || self.entrance(listener).pace.is_on()
    }

    /// The right to accept one through `listener` now.
    ///
    /// # Errors
    /// When it is worth asking again.
    pub(crate) fn take_tokens(&self, listener: u16, now: Time) -> Result<Tokens, Time> {
        let entrance = self.entrance(listener);
        let own = entrance.pace.take(now)?;
        match self.pace.take(now) {
            Ok(server) => Ok(Tokens { own, server }),
            Err(at) => {
                entrance.pace.refund(own);
                Err(at)
            }
        }
    }

    /// Nobody was accepted after all.
    pub(crate) fn refund(&self, listener: u16, tokens: Tokens) {
        self.entrance(listener).pace.refund(tokens.own);
        self.pace.refund(tokens.server);
    }

    /// A place for one that comes through `listener`.
    ///
    /// # Errors
    /// Which maximum is reached. A place of the listener may have been held for a moment.
    pub(crate) fn try_admit(&self, listener: u16) -> Result<Permit, Full> {
        let own = &self.entrance(listener).gauge;
        if !own.try_add() {
            return Err(Full::Listener);
        }
        if self.server.try_add() {
            return Ok(Permit(()));
        }
        own.sub();
        Err(Full::Server)
    }

    /// How connections come that the program opens itself.
    pub(crate) fn outbound(&self) -> Via {
        let number = u16::try_from(self.entrances.len() - 1);
        Via::door(number.expect("listeners are counted in 15 bits"))
    }

    /// A place for one that the program opens itself: it counts against the server's maximum.
    pub(crate) fn try_dial(&self) -> Option<Permit> {
        self.try_admit(self.outbound().listener()).ok()
    }

    /// Which maximum one of `listener` would meet now, as far as a look can tell.
    pub(crate) fn is_full(&self, listener: u16) -> Option<Full> {
        if self.entrance(listener).gauge.is_full() {
            return Some(Full::Listener);
        }
        self.server.is_full().then_some(Full::Server)
    }

    /// Counts it among the connections of its client. `None` if that has as many as it may.
    pub(crate) fn try_count(&self, listener: u16, ip: IpAddr) -> Option<Via> {
        if self.clients.max() == 0 {
            return Some(Via::door(listener));
        }
        self.clients.try_add(ip).then_some(Via(listener | Via::COUNTED))
    }

    /// Gives back what one that came in so from `ip` held.
    pub(crate) fn release(&self, permit: Permit, via: Via, ip: IpAddr) {
        let Permit(()) = permit;
        if via.is_counted() {
            self.clients.sub(ip);
        }
        if !cfg!(switchboard_sim_mutant = "place_kept") {
            self.entrances[via.index()].gauge.sub();
        }
        self.server.sub();
    }

    /// What is done about one for whom there is no room.
    pub(crate) fn when_full(&self, listener: u16) -> WhenFull {
        self.entrance(listener).when_full.get()
    }

    /// What is done about one who comes too fast.
    pub(crate) fn when_too_fast(&self, listener: u16) -> WhenFull {
        self.entrance(listener).when_too_fast.get()
    }

    /// How many are in.
    pub(crate) fn count(&self) -> usize {
        self.server.count()
    }

    /// How many may be in.
    pub(crate) fn max(&self) -> usize {
        self.server.max()
    }

    /// How many connections a client may have; 0 if that does not matter.
    pub(crate) fn client_max(&self) -> usize {
        self.clients.max()
    }

    /// The client that an address belongs to, as an address.
    pub(crate) fn client(&self, ip: IpAddr) -> IpAddr {
        self.clients.client(ip)
    }

    /// What holds now.
    pub(crate) fn settings(&self) -> config::Admission {
        lock(&self.settings).clone()
    }

    /// Lets hold from now on what `new`, which was checked, says otherwise than `base`. Nobody is
    /// sent away; who waits is to be called.
    pub(crate) fn change(&self, base: &config::Admission, new: &config::Admission, now: Time) {
        // The lock is kept, so that two changes are not mixed up with each other.
        let mut settings = lock(&self.settings);
        let before = settings.clone();
        settings.merge(base, new);
        self.server.set_max(Some(settings.connections_max));
        self.clients.set_max(settings.connections_per_client_max);
        self.pace.set(before.accept_rate, settings.accept_rate, now);
        let changed = before.listeners.iter().zip(&settings.listeners);
        for (entrance, (before, after)) in self.entrances.iter().zip(changed) {
            entrance.gauge.set_max(after.connections_max);
            entrance.pace.set(before.accept_rate, after.accept_rate, now);
            entrance.when_full.set(after.when_full);
            entrance.when_too_fast.set(after.when_too_fast);
        }
    }

    /// What is held.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn held(&self) -> Held {
        let (clients, counted) = self.clients.totals();
        let listeners = self.entrances.iter().map(|entrance| entrance.gauge.count()).collect();
        Held { server: self.server.count(), listeners, counted, clients }
    }

    fn entrance(&self, listener: u16) -> &Entrance {
        &self.entrances[usize::from(listener)]
    }
}

impl Policy {
    const ALL: [WhenFull; 3] = [WhenFull::Pause, WhenFull::Reject, WhenFull::EvictIdle];

    fn new(policy: WhenFull) -> Self {
        Policy(AtomicU8::new(policy as u8))
    }

    fn get(&self) -> WhenFull {
        let index = usize::from(self.0.load(Ordering::Relaxed));
        Self::ALL.get(index).copied().unwrap_or_default()
    }

    fn set(&self, policy: WhenFull) {
        self.0.store(policy as u8, Ordering::Relaxed);
    }
}

impl Pace {
    fn new(rate: Option<Rate>) -> Self {
        let bucket = rate.map(|rate| Bucket::new(rate, Time::ZERO));
        Pace { is_on: AtomicBool::new(rate.is_some()), bucket: Mutex::new(bucket) }
    }

    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Takes one: for which moment. Or: when there will be one.
    fn take(&self, now: Time) -> Result<Time, Time> {
        if !self.is_on() {
            return Ok(now);
        }
        let mut bucket = lock(&self.bucket);
        let Some(bucket) = bucket.as_mut() else { return Ok(now) };
        let at = bucket.ready_at(1, now);
        if at > now {
            return Err(at);
        }
        bucket.take(1, now);
        Ok(now)
    }

    fn refund(&self, taken: Time) {
        if !self.is_on() {
            return;
        }
        if let Some(bucket) = lock(&self.bucket).as_mut() {
            bucket.refund(1, taken);
        }
    }

    fn set(&self, before: Option<Rate>, after: Option<Rate>, now: Time) {
        if before == after {
            return;
        }
        let mut bucket = lock(&self.bucket);
        match (bucket.as_mut(), after) {
            (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
            (_, after) => *bucket = after.map(|rate| Bucket::new(rate, now)),
        }
        self.is_on.store(after.is_some(), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
