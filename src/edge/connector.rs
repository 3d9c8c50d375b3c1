//! Connectors: from a name or an address to a request that a reactor answers.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;

use crate::core::dial::{ConnectCause, ConnectError, rejected};
use crate::core::handle::Handle;
use crate::core::job::Call;
use crate::core::session::Factory;
use crate::engine::common::{Common, DialTimes};
use crate::engine::request::{Answer, Answered, Ticket};
use crate::engine::spawn::Spawner;
use crate::sys::{Kernel, MioKernel};
use crate::words::clock::Time;
use crate::words::config::check_time;
use crate::words::error::SpawnError;
use crate::words::sync::{Arc, Mutex, lock};

/// Where to connect to: addresses, or a name with a port.
///
/// ```
/// use std::net::SocketAddr;
/// use switchboard::client::Target;
///
/// let one = SocketAddr::from(([192, 0, 2, 1], 80));
/// assert_eq!(Target::from(one).to_string(), "192.0.2.1:80");
/// assert_eq!(Target::from("db.example:5432").to_string(), "db.example:5432");
/// assert_eq!(Target::from(("::1", 80)).to_string(), "[::1]:80");
/// assert_eq!(Target::from(&[one, one][..]).to_string(), "192.0.2.1:80, 192.0.2.1:80");
/// ```
#[derive(Clone, Debug)]
pub struct Target(Place);

#[derive(Clone, Debug)]
enum Place {
    /// In the order in which they are preferred.
    Addrs(Vec<SocketAddr>),
    /// To be looked up.
    Name(String),
}

/// How a connection is made.
///
/// ```
/// use std::time::Duration;
/// use switchboard::client::ConnectOptions;
///
/// let options = ConnectOptions::new()
///     .timeout(Duration::from_secs(2))
///     .attempt_delay(Duration::from_millis(100));
/// ```
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    timeout: Duration,
    attempt_delay: Duration,
}

/// A connection that is being made. Dropping it changes nothing: the connection is made all the
/// same, and its handler is told.
#[must_use = "whether the connection was made is told here alone"]
pub struct Connecting<M = Bytes> {
    ticket: Arc<Ticket>,
    message: PhantomData<fn(M)>,
}

/// What makes connections for a server.
#[derive(Debug)]
pub(crate) struct Dialer<K: Kernel = MioKernel> {
    common: Arc<Common<K>>,
    spawner: Arc<Spawner<K>>,
}

const MS: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(10);

impl ConnectOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let (timeout, attempt_delay) = (Duration::from_secs(5), Duration::from_millis(250));
        ConnectOptions { timeout, attempt_delay }
    }

    /// How long it may take until there is a connection, all addresses together. The lookup of a
    /// name is not counted: no system lets it be interrupted. Default: 5 s. Range: 1 ms to 10 min.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// After which time without an answer the next address is tried beside the ones before
    /// (RFC 8305). After a failure it is tried at once. Default: 250 ms. Range: 10 ms to 10 s.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    fn times(&self) -> Result<DialTimes, ConnectCause> {
        check_time("timeout", self.timeout, MS..=TIMEOUT_MAX)
            .and_then(|()| check_time("attempt_delay", self.attempt_delay, DELAY_MIN..=DELAY_MAX))
            .map_err(rejected)?;
        Ok(DialTimes { timeout: self.timeout, delay: self.attempt_delay })
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions::new()
    }
}

impl<K: Kernel> Dialer<K> {
    pub(crate) fn new(common: Arc<Common<K>>, spawner: Arc<Spawner<K>>) -> Self {
        Dialer { common, spawner }
    }

    pub(crate) fn spawner(&self) -> &Spawner<K> {
        &self.spawner
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Time {
        self.common.desks()[0].now()
    }

    /// Calls `call` where handlers run, once so much time has passed; at once if the server comes
    /// to its end, on this thread if it already has.
    pub(crate) fn later(&self, after: Duration, call: impl FnOnce() + Send + 'static) {
        let refused = self.common.later(after, Call::new(call));
        let _panicked = refused.is_some_and(Call::run);
    }

    /// The same, but not once the server has come to its end.
    pub(crate) fn later_unless_over(&self, after: Duration, call: impl FnOnce() + Send + 'static) {
        drop(self.common.later(after, Call::new(call)));
    }

    /// Asks for a connection.
    pub(crate) fn connect<M>(
        &self,
        options: &ConnectOptions,
        target: Target,
        factory: Arc<dyn Factory>,
    ) -> Connecting<M> {
        let (answer, ticket) = Answer::new(target.to_string());
        let called = match (options.times(), target.0) {
            (Err(cause), _) => answer.fail(cause, Vec::new()),
            (Ok(times), Place::Addrs(addrs)) => self.common.dial(addrs, times, factory, answer),
            (Ok(times), Place::Name(name)) => self.look_up(name, times, factory, answer),
        };
        debug_assert!(called.is_none(), "nobody could ask for a call yet");
        Connecting { ticket, message: PhantomData }
    }

    /// Looks a name up on the pool, and goes on from there.
    fn look_up(
        &self,
        name: String,
        times: DialTimes,
        factory: Arc<dyn Factory>,
        answer: Answer,
    ) -> Option<Call> {
        // Shared, so that it is still here if the job is not taken.
        let answer = Arc::new(Mutex::new(Some(answer)));
        let (common, its) = (Arc::clone(&self.common), Arc::clone(&answer));
        let spawned = self.spawner.spawn(move || {
            let resolved = resolve(&name);
            let Some(answer) = lock(&its).take() else { return };
            let called = match resolved {
                Ok(addrs) => common.dial(addrs, times, factory, answer),
                Err(error) => answer.fail(ConnectCause::Resolve(error), Vec::new()),
            };
            let _panicked = called.is_some_and(Call::run);
        });
        let cause = match spawned {
            Ok(()) => return None,
            Err(SpawnError::Full) => ConnectCause::Busy,
            Err(SpawnError::Stopping) => ConnectCause::Stopping,
        };
        let answer = lock(&answer).take();
        answer.and_then(|answer| answer.fail(cause, Vec::new()))
    }
}

impl<K: Kernel> Clone for Dialer<K> {
    fn clone(&self) -> Self {
        Dialer { common: Arc::clone(&self.common), spawner: Arc::clone(&self.spawner) }
    }
}

fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(name.to_socket_addrs()?.collect())
}

impl<M: Send + 'static> Connecting<M> {
    /// Waits until the connection is there or has failed. `Ok` says that the peer has taken it;
    /// `on_open` may still be running. What is sent through the handle comes after `on_open`.
    ///
    /// Blocks; not to be called from a handler, which would hold a thread for nothing: see
    /// [`then`](Connecting::then).
    ///
    /// # Errors
    /// Why there is no connection. One that is asked for always has an answer, also if the server
    /// drains or stops meanwhile.
    #[expect(clippy::missing_panics_doc, reason = "an invariant: the ticket is ours alone")]
    pub fn wait(self) -> Result<Handle<M>, ConnectError> {
        let answered = self.ticket.wait().expect("an answer is taken once");
        answered.map(Handle::new)
    }

    /// The same for `patience` at the longest; gives itself back if there is no answer by then.
    pub(crate) fn wait_within(
        self,
        patience: Duration,
    ) -> Result<Result<Handle<M>, ConnectError>, Self> {
        match self.ticket.wait_within(patience) {
            Some(answered) => Ok(answered.map(Handle::new)),
            None => Err(self),
        }
    }

    /// Whether there is an answer, so that [`wait`](Connecting::wait) does not block.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ticket.is_told()
    }

    /// Calls `then` once with the answer: where handlers run, or at once on this thread if it is
    /// there already; by the thread that ends the server, if that comes first. It may block. Where
    /// handlers run, a panic in it harms nobody.
    ///
    /// If the server is stopped while handlers that do not return hold all of its threads, the
    /// call is never made, as [`Report::unserved`](crate::control::Report::unserved) tells.
    pub fn then(self, then: impl FnOnce(Result<Handle<M>, ConnectError>) + Send + 'static) {
        let then = |answered: Answered| then(answered.map(Handle::new));
        if let Some((then, answered)) = self.ticket.then(then) {
            then(answered);
        }
    }
}

impl<M> fmt::Debug for Connecting<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("is_done", &self.ticket.is_told()).finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Name(name) => f.write_str(name),
            Place::Addrs(addrs) => {
                for (index, addr) in addrs.iter().enumerate() {
                    write!(f, "{}{addr}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Target(Place::Addrs(vec![addr]))
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Self {
        Target(Place::Addrs(addrs))
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addrs: &[SocketAddr]) -> Self {
        Target(Place::Addrs(addrs.to_vec()))
    }
}

/// `host:port`, where the host is an address or a name.
impl From<&str> for Target {
    fn from(name: &str) -> Self {
        name.parse::<SocketAddr>().map_or_else(|_| Target(Place::Name(name.to_owned())), Self::from)
    }
}

/// `host:port`, where the host is an address or a name.
impl From<String> for Target {
    fn from(name: String) -> Self {
        Target::from(name.as_str())
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from(addr: (IpAddr, u16)) -> Self {
        Target::from(SocketAddr::from(addr))
    }
}

impl From<(Ipv4Addr, u16)> for Target {
    fn from(addr: (Ipv4Addr, u16)) -> Self {
        Target::from(SocketAddr::from(addr))
    }
}

impl From<(Ipv6Addr, u16)> for Target {
    fn from(addr: (Ipv6Addr, u16)) -> Self {
        Target::from(SocketAddr::from(addr))
    }
}

/// An address or a name, and a port.
impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        match host.parse::<IpAddr>() {
            Ok(addr) => Target::from((addr, port)),
            Err(_) => Target(Place::Name(format!("{host}:{port}"))),
        }
    }
}
