//! `Admission`: who is let in and when, as it may be changed while the server runs.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Limits, Listening, Rate, check};
use crate::words::error::Error;

/// What is done about a client for whom there is no room, or who comes too fast.
///
/// ```
/// use switchboard::config::WhenFull;
/// use switchboard::{Raw, Server, handler_fn};
///
/// // A full server says so at once: a balancer in front of it is to try the next one.
/// let server = Server::builder()
///     .limits(|limits| limits.connections_max = 1_000)
///     .listen_with("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, b| cx.send(b)), |public| {
///         public.when_full = WhenFull::Reject;
///         public.farewell = "try the next one\n".into();
///     })
///     .start()?;
/// # server.stop();
/// # Ok::<(), switchboard::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Nothing is accepted: clients wait in the system's queue until there is room, and nobody is
    /// turned away but by the system, when its queue is full.
    #[default]
    Pause,
    /// The client is accepted and its connection closed at once: with the listener's
    /// [`farewell`](Listening::farewell), or with RST if there is none. For a moment each reactor
    /// holds one socket more than the maximum. Exact among listeners that do not pause: one that
    /// does counts as one connection more while it asks the system for its next client.
    Reject,
    /// The connection that is the furthest beyond the silence it is used to makes room
    /// ([`Cause::Evicted`](crate::close::Cause)). Each reactor looks at some of its own connections
    /// only, a few hundred at a time and others the next time, as Redis does with its keys. Only
    /// such are taken as have nothing under way: no handler at work, no frame half received, no
    /// output that waits; and none that may be silent for ever
    /// ([`Idle::Never`](crate::config::Idle)) or was opened by the program itself. If there is no
    /// such connection it is as with
    /// [`Pause`](WhenFull::Pause), and after `accept_retry` they are looked at again. While room is
    /// made, each listener of a reactor may hold one socket more than the maximum.
    ///
    /// Whoever comes with many connections makes others leave; so it is best together with
    /// [`connections_per_client_max`](Limits::connections_per_client_max).
    EvictIdle,
}

/// Who is let in and when: the part of the settings that may be changed while the server runs, see
/// [`Control::admission`](crate::control::Control::admission). What each means, and its range, is
/// said where it is set before: in [`Limits`] and in [`Listening`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admission {
    /// See [`Limits::connections_max`].
    pub connections_max: usize,
    /// See [`Limits::connections_per_client_max`].
    pub connections_per_client_max: Option<usize>,
    /// See [`Limits::accept_rate`].
    pub accept_rate: Option<Rate>,
    /// What holds for each listener, in the order in which they were asked for. Their number stays
    /// as it is.
    pub listeners: Vec<ListenerAdmission>,
}

/// Who is let in through one listener: the part of [`Admission`] that each listener has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerAdmission {
    /// See [`Listening::connections_max`].
    pub connections_max: Option<usize>,
    /// See [`Listening::accept_rate`].
    pub accept_rate: Option<Rate>,
    /// See [`Listening::when_full`].
    pub when_full: WhenFull,
    /// See [`Listening::when_too_fast`].
    pub when_too_fast: WhenFull,
}

/// The most connections that a maximum may say.
const CONNECTIONS_MAX: usize = 1 << 31;
/// Accepts per second, and accepts at once.
const ACCEPTS_MAX: u64 = 1_000_000;

impl Admission {
    /// What holds when the server starts.
    pub(crate) fn new(limits: &Limits, listening: &[Listening]) -> Self {
        Admission {
            connections_max: limits.connections_max,
            connections_per_client_max: limits.connections_per_client_max,
            accept_rate: limits.accept_rate,
            listeners: listening.iter().map(ListenerAdmission::of).collect(),
        }
    }

    /// Refuses what is outside of its range; there are `listeners` listeners.
    pub(crate) fn check(&self, listeners: usize) -> Result<(), Error> {
        check("connections_max", self.connections_max, 1..=CONNECTIONS_MAX)?;
        if let Some(max) = self.connections_per_client_max {
            check("connections_per_client_max", max, 1..=CONNECTIONS_MAX)?;
        }
        check_accept_rate(self.accept_rate)?;
        check("listeners", self.listeners.len(), listeners..=listeners)?;
        self.listeners.iter().try_for_each(ListenerAdmission::check)
    }

    /// Takes over what `new` says otherwise than `base`: so changes that are made at the same time
    /// all count, unless they are of the same setting.
    pub(crate) fn merge(&mut self, base: &Admission, new: &Admission) {
        take(&mut self.connections_max, &base.connections_max, &new.connections_max);
        let per_client = |of: &Admission| of.connections_per_client_max;
        take(&mut self.connections_per_client_max, &per_client(base), &per_client(new));
        take(&mut self.accept_rate, &base.accept_rate, &new.accept_rate);
        let pairs = base.listeners.iter().zip(&new.listeners);
        for (own, (base, new)) in self.listeners.iter_mut().zip(pairs) {
            take(&mut own.connections_max, &base.connections_max, &new.connections_max);
            take(&mut own.accept_rate, &base.accept_rate, &new.accept_rate);
            take(&mut own.when_full, &base.when_full, &new.when_full);
            take(&mut own.when_too_fast, &base.when_too_fast, &new.when_too_fast);
        }
    }
}

impl ListenerAdmission {
    fn of(listening: &Listening) -> Self {
        let &Listening { connections_max, accept_rate, when_full, when_too_fast, .. } = listening;
        ListenerAdmission { connections_max, accept_rate, when_full, when_too_fast }
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(max) = self.connections_max {
            check("connections_max", max, 1..=CONNECTIONS_MAX)?;
        }
        check_accept_rate(self.accept_rate)?;
        check_when_too_fast(self.when_too_fast)
    }
}

impl Listening {
    /// Refuses what is outside of its range, of what is about admission.
    pub(super) fn check_admission(&self) -> Result<(), Error> {
        check("farewell", self.farewell.len(), 0..=FAREWELL_MAX)?;
        ListenerAdmission::of(self).check()
    }
}

/// The longest farewell, in bytes: what the send buffer of a new connection takes anywhere.
const FAREWELL_MAX: usize = 4_096;

fn take<T: Clone + PartialEq>(own: &mut T, base: &T, new: &T) {
    if base != new {
        own.clone_from(new);
    }
}

/// Refuses a rate of accepts that is outside of its range.
pub(super) fn check_accept_rate(rate: Option<Rate>) -> Result<(), Error> {
    let Some(rate) = rate else { return Ok(()) };
    check("accept_rate", rate.refill(), 1..=ACCEPTS_MAX)?;
    check("accept_rate", rate.depth(), 1..=ACCEPTS_MAX)
}

/// Refuses what does not make accepts any slower.
pub(super) fn check_when_too_fast(policy: WhenFull) -> Result<(), Error> {
    match policy {
        WhenFull::Pause | WhenFull::Reject => Ok(()),
        WhenFull::EvictIdle => Err(Error::config("when_too_fast", "EvictIdle", "Pause or Reject")),
    }
}

/// Says who may come in, by the address.
#[derive(Clone)]
pub(crate) struct Filter(Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>);

impl Filter {
    pub(super) fn new(admits: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Filter(Arc::new(admits))
    }

    /// User code: whether this client may come in.
    pub(crate) fn admits(&self, peer: SocketAddr) -> bool {
        (self.0)(peer)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Admission {
        let limits = Limits::for_descriptors(None);
        Admission::new(&limits, &[Listening::of(&limits), Listening::of(&limits)])
    }

    #[test]
    fn changes_made_at_the_same_time_all_count() {
        let base = settings();
        let (mut one, mut other) = (base.clone(), base.clone());
        one.connections_max = 7;
        one.listeners[0].when_full = WhenFull::Reject;
        other.accept_rate = Some(Rate::per_second(5));
        other.listeners[1].connections_max = Some(3);
        let mut both = base.clone();
        both.merge(&base, &one);
        both.merge(&base, &other);
        let mut expected = one;
        expected.accept_rate = other.accept_rate;
        expected.listeners[1].connections_max = Some(3);
        assert_eq!(both, expected);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let refused = |change: fn(&mut Admission)| {
            let mut changed = settings();
            change(&mut changed);
            changed.check(2).expect_err("out of range").to_string()
        };
        assert!(settings().check(2).is_ok());
        assert!(refused(|a| a.connections_max = 0).contains("`connections_max` is 0"));
        assert!(refused(|a| a.connections_per_client_max = Some(0)).contains("1 to 2147483648"));
        assert!(refused(|a| a.accept_rate = Some(Rate::per_second(0))).contains("1 to 1000000"));
        assert!(refused(|a| a.listeners.truncate(1)).contains("`listeners` is 1, but must be 2"));
        let fast = refused(|a| a.listeners[1].when_too_fast = WhenFull::EvictIdle);
        assert_eq!(fast, "`when_too_fast` is EvictIdle, but must be Pause or Reject");
        let burst = refused(|a| a.listeners[0].accept_rate = Some(Rate::per_second(1).burst(0)));
        assert!(burst.contains("`accept_rate` is 0"));
    }
}
