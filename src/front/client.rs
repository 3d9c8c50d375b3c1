//! Connections that the program opens itself, and free jobs: the calls for both.

use std::net::SocketAddr;

use super::server::{Control, Server};
use crate::core::codec::Codec;
use crate::core::handler::Handler;
use crate::core::session::Once;
use crate::edge::connector::{ConnectOptions, Connecting, Target};
use crate::edge::idle_pool::{IdlePool, PoolOptions};
use crate::edge::reconnect::{Reconnect, ReconnectOptions};
use crate::words::error::Error;
use crate::words::error::SpawnError;
use crate::words::sync::Arc;

impl Control {
    /// Opens a connection to `target`, with the default [`ConnectOptions`]: one like every other,
    /// with a codec and a handler, under the same limits. The handler is made by `handler` for the
    /// address that has answered, once, and where handlers run; a panic in it ends the connection.
    ///
    /// Never blocks and may be called from any thread, handlers included; a name is looked up by a
    /// thread of the pool. Every request has an answer: see [`Connecting`]. It counts against
    /// [`connections_max`](crate::Limits::connections_max) from the beginning, with one for each
    /// address that is tried at the same time. A server that drains or stops makes no connections:
    /// those that are being made then are given up.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), echo).start()?;
    ///
    /// let (sender, replies) = mpsc::channel();
    /// let listen = move |_peer| handler_fn(move |_, bytes| sender.send(bytes));
    /// let handle = server.connect(server.local_addr(), Raw::new(), listen).wait()?;
    /// handle.try_send("hello")?;
    /// assert_eq!(&replies.recv()?[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<C, H>(
        &self,
        target: impl Into<Target>,
        codec: C,
        handler: impl FnOnce(SocketAddr) -> H + Send + 'static,
    ) -> Connecting<C::Message>
    where
        C: Codec,
        H: Handler<C::Frame, C::Message>,
    {
        self.connect_with(&ConnectOptions::new(), target, codec, handler)
    }

    /// Like [`connect`](Control::connect), with options of its own. One that is outside of its
    /// range is told by the answer, [`Options`](crate::client::ConnectCause::Options).
    pub fn connect_with<C, H>(
        &self,
        options: &ConnectOptions,
        target: impl Into<Target>,
        codec: C,
        handler: impl FnOnce(SocketAddr) -> H + Send + 'static,
    ) -> Connecting<C::Message>
    where
        C: Codec,
        H: Handler<C::Frame, C::Message>,
    {
        let factory = Arc::new(Once::new(codec, handler));
        self.dialer.connect(options, target.into(), factory)
    }

    /// Opens a connection to `target`, and opens it again whenever it ends or cannot be opened: see
    /// [`Reconnect`]. Each gets a clone of `codec` and a handler of its own; a name is looked up
    /// again for each.
    ///
    /// ```
    /// use switchboard::client::ReconnectOptions;
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().start()?;
    /// let quiet = |_peer| handler_fn(|_cx, _bytes| Ok::<_, switchboard::Error>(()));
    /// let options = ReconnectOptions::new().watch(|event| println!("{event:?}"));
    /// let connection = server.control().reconnect(options, "127.0.0.1:9", Raw::new(), quiet);
    /// if let Some(handle) = connection.handle() {
    ///     handle.try_send("hello")?;
    /// }
    /// connection.stop();
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconnect<C, H>(
        &self,
        options: ReconnectOptions,
        target: impl Into<Target>,
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
    ) -> Reconnect<C::Message>
    where
        C: Codec + Clone + Sync,
        H: Handler<C::Frame, C::Message>,
    {
        Reconnect::start(self.dialer.clone(), options, target.into(), codec, handler)
    }

    /// A pool of connections to `target`, for threads that are no handlers: see [`IdlePool`].
    /// Nothing is connected before somebody asks for it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use switchboard::client::PoolOptions;
    /// use switchboard::{LengthPrefixed, Server, handler_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let codec = LengthPrefixed::u32();
    /// let server = Server::builder().listen("127.0.0.1:0", codec.clone(), echo).start()?;
    ///
    /// let pool = server.control().pool(PoolOptions::new(), server.local_addr(), codec)?;
    /// let patience = Duration::from_secs(5);
    /// for question in ["one", "two"] {
    ///     let mut connection = pool.checkout(patience)?;
    ///     connection.send(question)?;
    ///     assert_eq!(connection.recv(patience)?, question);
    /// }
    /// assert_eq!(pool.counts(), (1, 1)); // idle, total: one was enough
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for an option outside of its range.
    pub fn pool<C>(
        &self,
        options: PoolOptions,
        target: impl Into<Target>,
        codec: C,
    ) -> Result<IdlePool<C>, Error>
    where
        C: Codec<Frame: Send> + Clone + Sync,
    {
        IdlePool::new(self.dialer.clone(), options, target.into(), codec)
    }

    /// Has `job` run by a thread of the pool, however busy the reactors are: for work that belongs
    /// to no connection, as blocking calls and lookups do. It counts as a slow handler does; where
    /// there are no workers a reactor runs it. A panic in it is counted and harms nobody.
    ///
    /// When the server ends, those that have begun are waited for like handlers, those that have
    /// not are dropped.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use switchboard::Server;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().start()?;
    /// let (sender, results) = mpsc::channel();
    /// server.control().spawn(move || _ = sender.send(6 * 7))?;
    /// assert_eq!(results.recv()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SpawnError::Full`] if [`jobs_max`](crate::Limits::jobs_max) jobs wait already,
    /// [`SpawnError::Stopping`] if the server ends. The job is dropped.
    pub fn spawn(&self, job: impl FnOnce() + Send + 'static) -> Result<(), SpawnError> {
        self.dialer.spawner().spawn(job)
    }
}

impl Server {
    /// See [`Control::connect`].
    pub fn connect<C, H>(
        &self,
        target: impl Into<Target>,
        codec: C,
        handler: impl FnOnce(SocketAddr) -> H + Send + 'static,
    ) -> Connecting<C::Message>
    where
        C: Codec,
        H: Handler<C::Frame, C::Message>,
    {
        self.control_ref().connect(target, codec, handler)
    }
}
