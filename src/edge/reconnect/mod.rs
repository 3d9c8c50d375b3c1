//! `Reconnect`: one connection that is made again whenever it ends, until it is told to stop.

mod cycle;
mod watched;

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;

use self::cycle::{Cycle, Phase};
use self::watched::{Tell, Watched};
use super::backoff::{Backoff, Dice};
use super::connector::{ConnectOptions, Dialer, Target};
use crate::core::codec::Codec;
use crate::core::dial::{ConnectError, rejected};
use crate::core::handle::Handle;
use crate::core::handler::Handler;
use crate::core::post::discard;
use crate::core::session::{Factory, Once};
use crate::sys::{Kernel, MioKernel};
use crate::words::reason::CloseReason;
use crate::words::sync::{Arc, Mutex, lock};

/// One connection that is made again whenever it ends or cannot be made, after a wait that a
/// [`Backoff`] decides. Made by [`Control::reconnect`](crate::control::Control::reconnect).
///
/// It goes on until [`stop`](Reconnect::stop) is called, until it is dropped, or until the server
/// drains or ends.
#[must_use = "it stops when it is dropped"]
pub struct Reconnect<M: Send + 'static = Bytes> {
    keeper: Arc<Keeper<M>>,
}

/// How a connection is made again.
///
/// ```
/// use std::time::Duration;
/// use switchboard::client::{Backoff, ConnectOptions, ReconnectEvent, ReconnectOptions};
///
/// let options = ReconnectOptions::new()
///     .connect(ConnectOptions::new().timeout(Duration::from_secs(2)))
///     .backoff(Backoff::new().max(Duration::from_secs(10)))
///     .watch(|event| match event {
///         ReconnectEvent::Waiting(delay) => println!("again in {delay:?}"),
///         event => println!("{event:?}"),
///     });
/// ```
#[derive(Clone)]
pub struct ReconnectOptions {
    connect: ConnectOptions,
    backoff: Backoff,
    watch: Option<Arc<Watch>>,
}

/// Told everything that happens.
type Watch = dyn Fn(ReconnectEvent<'_>) + Send + Sync;

/// What a [`Reconnect`] tells of itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ReconnectEvent<'a> {
    /// An attempt begins; they are numbered from 1.
    Connecting(u64),
    /// It has become a connection.
    Connected,
    /// It has failed.
    Failed(&'a ConnectError),
    /// The connection has ended; without a reason if its handler could not be made.
    Closed(Option<&'a CloseReason>),
    /// The next attempt begins after this time.
    Waiting(Duration),
    /// There will be none. Of one that is under way may be told how it ends, [`Failed`] or
    /// [`Closed`]; nothing else follows.
    ///
    /// [`Failed`]: ReconnectEvent::Failed
    /// [`Closed`]: ReconnectEvent::Closed
    Stopped,
}

/// Where a [`Reconnect`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconnectState {
    /// It waits before the next attempt.
    Waiting,
    /// An attempt is being made.
    Connecting,
    /// The connection is open.
    Connected,
    /// There will be no further attempt.
    Stopped,
}

/// What the attempts of one [`Reconnect`] share: all of it, but for its end when it is dropped.
pub(crate) struct Keeper<M: Send + 'static, K: Kernel = MioKernel> {
    dialer: Dialer<K>,
    options: ReconnectOptions,
    target: Target,
    make: Box<Make>,
    state: Mutex<State<M>>,
}

/// Makes the session of one attempt, which is to tell of its end.
type Make = dyn Fn(Tell) -> Arc<dyn Factory> + Send + Sync;

struct State<M> {
    cycle: Cycle,
    handle: Option<Handle<M>>,
}

impl ReconnectOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        ReconnectOptions { connect: ConnectOptions::new(), backoff: Backoff::new(), watch: None }
    }

    /// How each attempt is made. Default: [`ConnectOptions::new`].
    #[must_use]
    pub fn connect(mut self, options: ConnectOptions) -> Self {
        self.connect = options;
        self
    }

    /// How long to wait between attempts. Default: [`Backoff::new`].
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Calls `watch` with everything that happens: on the thread that asked for the connection or
    /// for its stop, or where handlers run. Events of one attempt may come at the same time, if its
    /// connection ends as soon as it has begun. A panic in it harms nobody.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(ReconnectEvent<'_>) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }
}

impl Default for ReconnectOptions {
    fn default() -> Self {
        ReconnectOptions::new()
    }
}

impl fmt::Debug for ReconnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectOptions")
            .field("connect", &self.connect)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static> Reconnect<M> {
    /// Begins with the first attempt.
    pub(crate) fn start<C, H>(
        dialer: Dialer,
        options: ReconnectOptions,
        target: Target,
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
    ) -> Self
    where
        C: Codec<Message = M> + Clone + Sync,
        H: Handler<C::Frame, M>,
    {
        let dice = Dice::unforeseen();
        Reconnect { keeper: Keeper::start(dialer, options, target, dice, codec, handler) }
    }

    /// The connection, if there is one now. Never blocks. By the time that it is used it may have
    /// ended, which its answers tell; the next one has another handle.
    #[must_use]
    pub fn handle(&self) -> Option<Handle<M>> {
        self.keeper.handle()
    }

    /// Where it stood a moment ago. Never blocks.
    #[must_use]
    pub fn state(&self) -> ReconnectState {
        self.keeper.state()
    }

    /// Makes no further attempt, and closes the connection, as [`Handle::close`] does. An attempt
    /// that is under way is closed once it has become a connection.
    pub fn stop(&self) {
        self.keeper.stop();
    }
}

impl<M: Send + 'static> Drop for Reconnect<M> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<M: Send + 'static> fmt::Debug for Reconnect<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<M: Send + 'static, K: Kernel> Keeper<M, K> {
    /// Begins with the first attempt; `dice` say how long to wait between attempts.
    pub(crate) fn start<C, H>(
        dialer: Dialer<K>,
        options: ReconnectOptions,
        target: Target,
        dice: Dice,
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        C: Codec<Message = M> + Clone + Sync,
        H: Handler<C::Frame, M>,
    {
        let handler = Arc::new(handler);
        let make = move |tell: Tell| -> Arc<dyn Factory> {
            let handler = Arc::clone(&handler);
            let once = Once::new(codec.clone(), move |peer| handler(peer));
            Arc::new(Watched::new(once, tell))
        };
        let cycle = Cycle::new(options.backoff, dice);
        let state = Mutex::new(State { cycle, handle: None });
        let keeper = Arc::new(Keeper { dialer, options, target, make: Box::new(make), state });
        match keeper.options.backoff.check() {
            Ok(()) => keeper.begin(),
            Err(error) => {
                let target = keeper.target.to_string();
                let error = ConnectError::new(target, rejected(error), Vec::new());
                keeper.tell(ReconnectEvent::Failed(&error));
                keeper.stop();
            }
        }
        keeper
    }

    pub(crate) fn handle(&self) -> Option<Handle<M>> {
        lock(&self.state).handle.clone()
    }

    pub(crate) fn state(&self) -> ReconnectState {
        match lock(&self.state).cycle.phase() {
            Phase::Waiting => ReconnectState::Waiting,
            Phase::Connecting => ReconnectState::Connecting,
            Phase::Open(_) => ReconnectState::Connected,
            Phase::Stopped => ReconnectState::Stopped,
        }
    }

    fn tell(&self, event: ReconnectEvent<'_>) {
        if let Some(watch) = &self.options.watch {
            // Its panic must not keep us from going on.
            catch_unwind(AssertUnwindSafe(|| watch(event))).unwrap_or_else(discard);
        }
    }

    /// The next attempt, unless it was stopped.
    fn begin(self: &Arc<Self>) {
        let Some(attempt) = lock(&self.state).cycle.begin() else { return };
        self.tell(ReconnectEvent::Connecting(attempt));
        let keeper = Arc::clone(self);
        let tell = move |reason: Option<&CloseReason>| keeper.handle_closed(attempt, reason);
        let factory = (self.make)(Box::new(tell));
        let connecting = self.dialer.connect(&self.options.connect, self.target.clone(), factory);
        let keeper = Arc::clone(self);
        connecting.then(move |answer| match answer {
            Ok(handle) => keeper.handle_opened(attempt, handle),
            Err(error) => {
                keeper.tell(ReconnectEvent::Failed(&error));
                if error.is_final() { keeper.stop() } else { keeper.wait(attempt) }
            }
        });
    }

    fn handle_opened(&self, attempt: u64, handle: Handle<M>) {
        let mut state = lock(&self.state);
        let now = self.dialer.now();
        if state.cycle.handle_opened(attempt, now) {
            state.handle = Some(handle);
            drop(state);
            self.tell(ReconnectEvent::Connected);
        } else {
            // Stopped meanwhile; or over, and this changes nothing.
            drop(state);
            handle.close();
        }
    }

    fn handle_closed(self: &Arc<Self>, attempt: u64, reason: Option<&CloseReason>) {
        self.tell(ReconnectEvent::Closed(reason));
        self.wait(attempt);
    }

    /// An attempt has failed, or its connection has ended.
    fn wait(self: &Arc<Self>, attempt: u64) {
        let now = self.dialer.now();
        let delay = {
            let mut state = lock(&self.state);
            let delay = state.cycle.handle_ended(attempt, now);
            if delay.is_some() {
                state.handle = None;
            }
            delay
        };
        let Some(delay) = delay else { return };
        self.tell(ReconnectEvent::Waiting(delay));
        let keeper = Arc::clone(self);
        // A server that comes to its end lets it begin at once, and that attempt finds out.
        let after =
            if cfg!(switchboard_sim_mutant = "backoff_skipped") { Duration::ZERO } else { delay };
        self.dialer.later(after, move || keeper.begin());
    }

    pub(crate) fn stop(&self) {
        let (stopped, handle) = {
            let mut state = lock(&self.state);
            (state.cycle.stop(), state.handle.take())
        };
        handle.iter().for_each(Handle::close);
        if stopped {
            self.tell(ReconnectEvent::Stopped);
        }
    }
}
