//! `Reconnect`: one connection that is made again whenever it ends, until it is told to stop.

mod cycle;

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;

use self::cycle::{Cycle, Phase};
use super::backoff::{Backoff, Dice};
use super::connector::{ConnectOptions, Dialer, Target};
use crate::core::codec::Codec;
use crate::core::context::Context;
use crate::core::dial::{ConnectError, rejected};
use crate::core::handle::Handle;
use crate::core::handler::Handler;
use crate::core::job::Call;
use crate::core::post::discard;
use crate::core::session::{Factory, Once};
use crate::words::error::Outcome;
use crate::words::reason::CloseReason;
use crate::words::sync::{Arc, Mutex, lock};

/// One connection that is made again whenever it ends or cannot be made, after a wait that a
/// [`Backoff`] decides. Made by [`Control::reconnect`](crate::control::Control::reconnect).
///
/// It goes on until [`stop`](Reconnect::stop) is called, until it is dropped, or until the server
/// drains or ends.
#[must_use = "it stops when it is dropped"]
pub struct Reconnect<M: Send + 'static = Bytes> {
    shared: Arc<Shared<M>>,
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
    /// There will be none: the last event.
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

/// What the attempts of one [`Reconnect`] share.
struct Shared<M> {
    dialer: Dialer,
    options: ReconnectOptions,
    target: Target,
    make: Box<Make<M>>,
    state: Mutex<State<M>>,
}

/// Makes the sessions of one attempt.
type Make<M> = dyn Fn(Arc<Shared<M>>, u64) -> Arc<dyn Factory> + Send + Sync;

struct State<M> {
    cycle: Cycle,
    handle: Option<Handle<M>>,
}

/// The user's handler, and what tells of its end.
struct Watched<H, M: Send + 'static> {
    handler: H,
    // Dropped after the handler.
    end: End<M>,
}

/// Tells of the end of a connection when it is dropped, whatever became of its handler.
struct End<M: Send + 'static> {
    shared: Arc<Shared<M>>,
    attempt: u64,
    reason: Option<CloseReason>,
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
        let handler = Arc::new(handler);
        let make = move |shared: Arc<Shared<M>>, attempt| -> Arc<dyn Factory> {
            let handler = Arc::clone(&handler);
            let watched = move |peer| {
                let end = End { shared, attempt, reason: None };
                Watched { handler: handler(peer), end }
            };
            Arc::new(Once::new(codec.clone(), watched))
        };
        let cycle = Cycle::new(options.backoff, Dice::unforeseen());
        let state = Mutex::new(State { cycle, handle: None });
        let make = Box::new(make);
        let shared = Arc::new(Shared { dialer, options, target, make, state });
        match shared.options.backoff.check() {
            Ok(()) => shared.begin(),
            Err(error) => {
                let target = shared.target.to_string();
                let error = ConnectError::new(target, rejected(error), Vec::new());
                shared.tell(ReconnectEvent::Failed(&error));
                shared.stop();
            }
        }
        Reconnect { shared }
    }

    /// The connection, if there is one now. Never blocks. By the time that it is used it may have
    /// ended, which its answers tell; the next one has another handle.
    #[must_use]
    pub fn handle(&self) -> Option<Handle<M>> {
        lock(&self.shared.state).handle.clone()
    }

    /// Where it stood a moment ago. Never blocks.
    #[must_use]
    pub fn state(&self) -> ReconnectState {
        match lock(&self.shared.state).cycle.phase() {
            Phase::Waiting => ReconnectState::Waiting,
            Phase::Connecting => ReconnectState::Connecting,
            Phase::Open(_) => ReconnectState::Connected,
            Phase::Stopped => ReconnectState::Stopped,
        }
    }

    /// Makes no further attempt, and closes the connection, as [`Handle::close`] does. An attempt
    /// that is under way is closed once it has become a connection.
    pub fn stop(&self) {
        self.shared.stop();
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

impl<M: Send + 'static> Shared<M> {
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
        let factory = (self.make)(Arc::clone(self), attempt);
        let connecting = self.dialer.connect(&self.options.connect, self.target.clone(), factory);
        let shared = Arc::clone(self);
        connecting.then(move |answer| match answer {
            Ok(handle) => shared.handle_opened(attempt, handle),
            Err(error) => {
                shared.tell(ReconnectEvent::Failed(&error));
                if error.is_final() { shared.stop() } else { shared.wait(attempt) }
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
        let shared = Arc::clone(self);
        // A server that comes to its end lets it begin at once, and that attempt finds out.
        self.dialer.later(delay, move || shared.begin());
    }

    fn stop(&self) {
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

impl<M: Send + 'static> Drop for End<M> {
    fn drop(&mut self) {
        let (shared, attempt) = (Arc::clone(&self.shared), self.attempt);
        let reason = self.reason.take();
        // It may be dropped by a panic, and what it calls is user code.
        let _panicked = Call::new(move || shared.handle_closed(attempt, reason.as_ref())).run();
    }
}

impl<F, M, H> Handler<F, M> for Watched<H, M>
where
    M: Send + 'static,
    H: Handler<F, M>,
{
    fn on_open(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        self.handler.on_open(cx)
    }

    fn on_frame(&mut self, cx: &mut Context<'_, M>, frame: F) -> Outcome {
        self.handler.on_frame(cx, frame)
    }

    fn on_eof(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        self.handler.on_eof(cx)
    }

    fn on_drained(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        self.handler.on_drained(cx)
    }

    fn on_drain(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        self.handler.on_drain(cx)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.end.reason = Some(reason.clone());
        self.handler.on_close(reason);
    }
}
