//! `IdlePool`: connections to one destination, for threads that ask and wait for the answer.

mod line;
mod shelf;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use self::line::Frames;
pub(crate) use self::line::Line;
pub use self::line::RecvError;
pub(crate) use self::shelf::{Asked, Grant};
use self::shelf::{Bounds, Shelf};
use super::connector::{ConnectOptions, Connecting, Dialer, Target};
use crate::core::codec::Codec;
use crate::core::dial::ConnectError;
use crate::core::handle::TrySendError;
use crate::core::session::Once;
use crate::sys::{Kernel, MioKernel};
use crate::words::clock::Time;
use crate::words::config::{check, check_time};
use crate::words::error::Error;
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait_timeout};

/// Connections to one destination that are used again, for threads that are no handlers: each
/// sends messages and waits for the frames that answer them. Made by
/// [`Control::pool`](crate::control::Control::pool).
///
/// The handlers of its connections are the pool's own: what they receive waits in the connection,
/// up to [`frames_max`](PoolOptions::frames_max) frames, for whoever has it. The one that was used
/// last is given out first. One is given out only if it has not ended, takes messages and nothing
/// has arrived on it unasked; that its peer is just closing it, nobody can know. One that has been
/// idle for too long is closed.
///
/// When the server drains, all connections of the pool are closed, those that are in use too.
///
/// A clone is the same pool. When the last one is gone, and what was given out has come back, its
/// connections are closed.
pub struct IdlePool<C: Codec<Frame: Send> + Clone + Sync> {
    inner: Arc<Stock<C>>,
}

/// A connection of a pool, for as long as it is kept: it goes back when it is dropped.
///
/// It goes back only if as many frames were received as messages were sent. Otherwise what still
/// comes would be taken for the answer to the next question, so it is closed; where one message
/// does not mean one frame, see [`settle`](Pooled::settle).
pub struct Pooled<C: Codec<Frame: Send> + Clone + Sync> {
    /// `None` once it was discarded.
    line: Option<Line<C>>,
    inner: Arc<Stock<C>>,
}

/// How much a pool may have, and how its connections are made.
///
/// ```
/// use std::time::Duration;
/// use switchboard::client::PoolOptions;
///
/// let options = PoolOptions::new().total_max(4).idle_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct PoolOptions {
    total_max: usize,
    idle_max: usize,
    idle_timeout: Duration,
    frames_max: usize,
    connect: ConnectOptions,
}

/// Why a pool has given no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckoutError {
    /// No connection has become free in time.
    TimedOut,
    /// The pool is closed.
    Closed,
    /// A new one could not be made.
    Connect(ConnectError),
}

/// What the owners of a pool and of its connections share: the pool itself, but for the waiting.
///
/// Every call of it returns at once, so that a simulation can play the threads that wait.
pub(crate) struct Stock<C: Codec<Frame: Send> + Clone + Sync, K: Kernel = MioKernel> {
    dialer: Dialer<K>,
    target: Target,
    codec: C,
    options: PoolOptions,
    state: Mutex<State<C>>,
    /// Somebody was granted something.
    granted: Condvar,
}

struct State<C: Codec<Frame: Send> + Clone + Sync> {
    shelf: Shelf<Line<C>>,
    /// Somebody will look for those that have been idle for too long.
    sweeps: bool,
}

/// What a grant comes to.
pub(crate) enum Given<C: Codec> {
    Line(Line<C>),
    /// There will be one.
    Making(Making<C>),
}

/// A connection of a pool that is being made.
pub(crate) struct Making<C: Codec> {
    connecting: Connecting<C::Message>,
    frames: Frames<C::Frame>,
}

#[cfg(any(test, feature = "sim"))]
impl<C: Codec> Making<C> {
    /// Whether it is clear what has become of it.
    pub(crate) fn is_done(&self) -> bool {
        self.connecting.is_done()
    }
}

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl PoolOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        PoolOptions {
            total_max: 16,
            idle_max: 16,
            idle_timeout: Duration::from_secs(60),
            frames_max: 64,
            connect: ConnectOptions::new(),
        }
    }

    /// Connections at once, those that are given out or being made included. Default: 16. Range: 1
    /// to 65,536.
    #[must_use]
    pub fn total_max(mut self, count: usize) -> Self {
        self.total_max = count;
        self
    }

    /// Connections that are kept while nobody has them; more than `total_max` there never are.
    /// Default: 16. Range: 0 to 65,536.
    #[must_use]
    pub fn idle_max(mut self, count: usize) -> Self {
        self.idle_max = count;
        self
    }

    /// How long one is kept while nobody has it. Default: 60 s. Range: 1 ms to 1 day.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Frames that may wait in one connection; one more ends it. Default: 64. Range: 1 to 65,536.
    #[must_use]
    pub fn frames_max(mut self, count: usize) -> Self {
        self.frames_max = count;
        self
    }

    /// How a connection is made. Default: [`ConnectOptions::new`].
    #[must_use]
    pub fn connect(mut self, options: ConnectOptions) -> Self {
        self.connect = options;
        self
    }

    fn check(&self) -> Result<(), Error> {
        check("total_max", self.total_max, 1..=65_536)?;
        check("idle_max", self.idle_max, 0..=65_536)?;
        check_time("idle_timeout", self.idle_timeout, MS..=DAY)?;
        check("frames_max", self.frames_max, 1..=65_536)
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions::new()
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> IdlePool<C> {
    pub(crate) fn new(
        dialer: Dialer,
        options: PoolOptions,
        target: Target,
        codec: C,
    ) -> Result<Self, Error> {
        Ok(IdlePool { inner: Arc::new(Stock::new(dialer, options, target, codec)?) })
    }

    /// Gives a connection: an idle one, a new one, or one that becomes free within `patience`. Who
    /// came first is served first. Blocks; not to be called from a handler.
    ///
    /// # Errors
    /// [`CheckoutError`]; a connection that cannot be made is not tried again.
    pub fn checkout(&self, patience: Duration) -> Result<Pooled<C>, CheckoutError> {
        let deadline = self.inner.dialer.now() + patience;
        let grant = match self.inner.ask() {
            Asked::Granted(grant) => grant,
            Asked::Wait(waiter) => self.inner.wait_for_grant(waiter, deadline)?,
            Asked::Closed => return Err(CheckoutError::Closed),
        };
        let line = match self.inner.follow(grant) {
            Given::Line(line) => line,
            Given::Making(making) => self.inner.wait_for(making, deadline)?,
        };
        Ok(Pooled { line: Some(line), inner: Arc::clone(&self.inner) })
    }

    /// Connections that nobody has, and all that there are, those being made included; as of a
    /// moment ago. Never blocks.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.inner.counts()
    }

    /// Gives no connection any more: closes those that are idle, tells those who wait, and closes
    /// the others when they come back.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync, K: Kernel> Stock<C, K> {
    pub(crate) fn new(
        dialer: Dialer<K>,
        options: PoolOptions,
        target: Target,
        codec: C,
    ) -> Result<Self, Error> {
        options.check()?;
        let PoolOptions { total_max, idle_max, idle_timeout, .. } = options;
        let shelf = Shelf::new(Bounds { total_max, idle_max, idle_timeout });
        let state = Mutex::new(State { shelf, sweeps: false });
        Ok(Stock { dialer, target, codec, options, state, granted: Condvar::new() })
    }

    /// Idle ones, and all that there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        lock(&self.state).shelf.counts()
    }

    pub(crate) fn close(&self) {
        let idle = lock(&self.state).shelf.close();
        self.granted.notify_all();
        idle.iter().for_each(Line::close);
    }

    /// One that was given out, or was to be made, is no more.
    fn discard(&self) {
        lock(&self.state).shelf.discard();
        self.granted.notify_all();
    }

    /// An idle one has died.
    fn handle_end(&self, number: u64) {
        let dead = lock(&self.state).shelf.remove(|line| line.number() == number);
        if dead.is_some() {
            self.granted.notify_all();
        }
    }

    /// Somebody wants one.
    pub(crate) fn ask(&self) -> Asked<Line<C>> {
        lock(&self.state).shelf.ask()
    }

    /// What was granted to somebody who waits; `None` if nothing was yet.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn look(&self, waiter: u64) -> Option<Result<Grant<Line<C>>, CheckoutError>> {
        lock(&self.state).look(waiter)
    }

    /// Whether there is something to be told to somebody who waits.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn is_granted(&self, waiter: u64) -> bool {
        let shelf = &lock(&self.state).shelf;
        shelf.is_closed() || shelf.is_granted(waiter)
    }

    /// Somebody waits no longer. What was granted at the last moment is granted all the same.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn give_up(&self, waiter: u64) -> Option<Grant<Line<C>>> {
        lock(&self.state).shelf.give_up(waiter)
    }

    fn wait_for_grant(&self, waiter: u64, deadline: Time) -> Result<Grant<Line<C>>, CheckoutError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(granted) = state.look(waiter) {
                return granted;
            }
            let left = deadline.since(self.dialer.now());
            if left.is_zero() {
                return state.shelf.give_up(waiter).ok_or(CheckoutError::TimedOut);
            }
            state = wait_timeout(&self.granted, state, left);
        }
    }

    /// Closes those that have been idle for too long, and comes again for the next ones.
    fn sweep(self: &Arc<Self>) {
        let now = self.dialer.now();
        let (expired, next) = {
            let mut state = lock(&self.state);
            let expired = state.shelf.expire(now);
            let next = state.shelf.next_expiry();
            state.sweeps = next.is_some();
            (expired, next)
        };
        expired.iter().for_each(Line::close);
        if let Some(next) = next {
            self.sweep_after(next.since(now));
        }
    }

    fn sweep_after(self: &Arc<Self>, time: Duration) {
        let pool = Arc::downgrade(self);
        self.dialer.later_unless_over(time, move || {
            if let Some(pool) = pool.upgrade() {
                pool.sweep();
            }
        });
    }

    /// One comes back, in good order or not.
    pub(crate) fn give_back(self: &Arc<Self>, line: Line<C>) {
        if line.is_fresh() {
            self.put(line);
        } else {
            self.end(&line);
        }
    }

    /// One that was given out is used no more.
    pub(crate) fn end(&self, line: &Line<C>) {
        line.close();
        self.discard();
    }

    fn put(self: &Arc<Self>, line: Line<C>) {
        let now = self.dialer.now();
        let (surplus, begins) = {
            let mut state = lock(&self.state);
            let surplus = state.shelf.put(line, now);
            let begins = !state.sweeps && state.shelf.next_expiry().is_some();
            state.sweeps |= begins;
            (surplus, begins)
        };
        self.granted.notify_all();
        surplus.iter().for_each(Line::close);
        if begins {
            self.sweep_after(self.options.idle_timeout);
        }
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync, K: Kernel> Stock<C, K> {
    /// Makes the best of what was granted: an idle one that has died leaves its place to a new one.
    pub(crate) fn follow(self: &Arc<Self>, grant: Grant<Line<C>>) -> Given<C> {
        let blind = cfg!(switchboard_sim_mutant = "dead_given_out");
        match grant {
            Grant::Item(line) if blind || line.is_fresh() => Given::Line(line),
            Grant::Item(dead) => {
                dead.close();
                Given::Making(self.make())
            }
            Grant::Room => Given::Making(self.make()),
        }
    }

    fn make(self: &Arc<Self>) -> Making<C> {
        let (ear, frames) = line::ends(self.options.frames_max);
        let (number, pool) = (ear.number(), Arc::downgrade(self));
        let ear = ear.telling(move || {
            if let Some(pool) = pool.upgrade() {
                pool.handle_end(number);
            }
        });
        let factory = Arc::new(Once::new(self.codec.clone(), move |_| ear));
        let target = self.target.clone();
        let connecting = self.dialer.connect(&self.options.connect, target, factory);
        Making { connecting, frames }
    }

    /// Waits for one that is being made; its place is given back if there is none in time.
    pub(crate) fn wait_for(
        self: &Arc<Self>,
        making: Making<C>,
        deadline: Time,
    ) -> Result<Line<C>, CheckoutError> {
        let Making { connecting, frames } = making;
        match connecting.wait_within(deadline.since(self.dialer.now())) {
            Ok(Ok(handle)) => Ok(Line::new(handle, frames)),
            Ok(Err(error)) => {
                self.discard();
                Err(CheckoutError::Connect(error))
            }
            Err(connecting) => {
                // It keeps its place until it is clear what becomes of it.
                let pool = Arc::clone(self);
                connecting.then(move |answer| match answer {
                    Ok(handle) => pool.give_back(Line::new(handle, frames)),
                    Err(_) if cfg!(switchboard_sim_mutant = "place_of_pool_kept") => {}
                    Err(_) => pool.discard(),
                });
                Err(CheckoutError::TimedOut)
            }
        }
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> State<C> {
    fn look(&mut self, waiter: u64) -> Option<Result<Grant<Line<C>>, CheckoutError>> {
        let granted = self.shelf.take(waiter).map(Ok);
        granted.or_else(|| self.shelf.is_closed().then_some(Err(CheckoutError::Closed)))
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync, K: Kernel> Drop for Stock<C, K> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> Pooled<C> {
    /// Sends a message.
    ///
    /// # Errors
    /// As [`Handle::try_send`](crate::Handle::try_send).
    pub fn send(&mut self, message: impl Into<C::Message>) -> Result<(), TrySendError<C::Message>> {
        self.line_mut().send(message.into())
    }

    /// Waits for the next frame, for `patience` at the longest. Blocks; not to be called from a
    /// handler.
    ///
    /// # Errors
    /// [`RecvError`]; the connection is not used again then, unless [`settle`](Pooled::settle) says
    /// so.
    pub fn recv(&mut self, patience: Duration) -> Result<C::Frame, RecvError> {
        self.line_mut().recv(patience)
    }

    /// Says that no answer is outstanding, so that it may go back: after an answer of several
    /// frames, or a message that has none.
    pub fn settle(&mut self) {
        self.line_mut().settle();
    }

    /// Closes the connection instead of giving it back: whoever comes next gets another one.
    pub fn discard(mut self) {
        if let Some(line) = self.line.take() {
            self.inner.end(&line);
        }
    }

    fn line_mut(&mut self) -> &mut Line<C> {
        self.line.as_mut().expect("only `discard` takes it, and consumes this")
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> Drop for Pooled<C> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            self.inner.give_back(line);
        }
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> Clone for IdlePool<C> {
    fn clone(&self) -> Self {
        IdlePool { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> fmt::Debug for IdlePool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle, total) = lock(&self.inner.state).shelf.counts();
        f.debug_struct("IdlePool").field("idle", &idle).field("total", &total).finish()
    }
}

impl<C: Codec<Frame: Send> + Clone + Sync> fmt::Debug for Pooled<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pooled")
    }
}

impl fmt::Display for CheckoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckoutError::TimedOut => f.write_str("no connection has become free in time"),
            CheckoutError::Closed => f.write_str("the pool is closed"),
            CheckoutError::Connect(error) => write!(f, "{error}"),
        }
    }
}

impl StdError for CheckoutError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            CheckoutError::TimedOut | CheckoutError::Closed => None,
            CheckoutError::Connect(error) => Some(error),
        }
    }
}
