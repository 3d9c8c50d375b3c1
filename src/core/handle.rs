//! `Handle`: one connection as other threads see it.

use std::any::TypeId;
use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;

use bytes::Bytes;

use super::context::Context;
use super::gate::{ENDED, Gate, OPEN};
use super::hand::Hand;
use super::post::{Command, Guarded, MESSAGE_OVERHEAD_BYTES, Parcel, Post, weight};
use super::visit::Visit;
use crate::words::error::Outcome;
use crate::words::id::ConnId;
use crate::words::sync::atomic::Ordering;
use crate::words::sync::{Arc, lock};

/// One connection, for any thread: small, cloned freely, and harmless when the connection is gone.
///
/// Made by [`Context::handle`](crate::Context::handle). Messages of one thread leave in the order
/// in which it sent them; those of several threads never interleave within a message. No call
/// blocks; one that finds the reactor asleep makes the system call that wakes it. Messages are
/// encoded on the thread that runs the handler, before the next frame is shown to it.
///
/// ```
/// use std::io::Read;
/// use std::net::TcpStream;
/// use std::sync::mpsc;
/// use bytes::BytesMut;
/// use switchboard::{Context, Handle, Handler, Outcome, Raw, Server};
///
/// struct Newcomer(mpsc::Sender<Handle>);
///
/// impl Handler for Newcomer {
///     fn on_open(&mut self, cx: &mut Context) -> Outcome {
///         Ok(self.0.send(cx.handle())?)
///     }
///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, newcomers) = mpsc::channel();
/// let newcomer = move |_peer| Newcomer(sender.clone());
/// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), newcomer).start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
///
/// let handle = newcomers.recv()?;
/// handle.try_send("from another thread")?;
/// handle.close();
/// assert!(handle.try_send("too late").is_err());
///
/// let mut received = String::new();
/// client.read_to_string(&mut received)?;
/// assert_eq!(received, "from another thread");
/// # Ok(())
/// # }
/// ```
pub struct Handle<M = Bytes> {
    gate: Arc<Gate>,
    message: PhantomData<fn(M)>,
}

impl<M: Send + 'static> Handle<M> {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Handle { gate, message: PhantomData }
    }

    /// The connection's name, also when it has ended.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.gate.id
    }

    /// Whether the connection had not ended a moment ago. One that is closing has not ended yet,
    /// but takes no more messages.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.gate.state.load(Ordering::Acquire) != ENDED
    }

    /// The mailbox of its reactor.
    pub(crate) fn post(&self) -> &Arc<dyn Post> {
        &self.gate.post
    }

    /// Whether it had neither ended nor begun to end a moment ago.
    pub(crate) fn takes_messages(&self) -> bool {
        self.gate.state.load(Ordering::Acquire) == OPEN
    }

    /// Output that waits for the connection, in bytes. A message that was sent through a handle and
    /// is not encoded yet counts 64 bytes more; one that is no [`Bytes`] counts as the size of its
    /// type until then.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.gate.queued()
    }

    /// Sends a message.
    ///
    /// `Ok` means queued: it will be handed to the system unless the connection ends before.
    ///
    /// # Errors
    /// [`TrySendError::Full`] if the queue would exceed `send_max_bytes`, or the server is out of
    /// memory ([`memory_max`](crate::Limits::memory_max)); [`TrySendError::Gone`] if the connection
    /// has ended, or our side of it has. Both give the message back.
    pub fn try_send(&self, message: impl Into<M>) -> Result<(), TrySendError<M>> {
        let message = message.into();
        let cost = weight(&message);
        self.put(message, cost, Parcel::pack)
    }

    /// Like [`try_send`](Handle::try_send), and has [`on_flushed`](crate::Handler::on_flushed) of
    /// the connection called with `key` once the system has taken the message and all that was
    /// sent before it.
    ///
    /// # Errors
    /// As [`try_send`](Handle::try_send).
    pub fn try_send_with_notice(
        &self,
        message: impl Into<M>,
        key: u64,
    ) -> Result<(), TrySendError<M>> {
        let message = message.into();
        let cost = weight(&message);
        self.put(message, cost, |message| Parcel::Noticed(Box::new(Parcel::pack(message)), key))
    }

    /// Sends a message; a connection that has no room for it is reset
    /// ([`Cause::Overflow`](crate::close::Cause)), since its peer is too slow. For messages that
    /// nobody is to miss and still be served.
    ///
    /// # Errors
    /// [`TrySendError::Gone`] if the connection has ended, or our side of it has;
    /// [`TrySendError::Full`] if it is being reset. Both give the message back.
    pub fn send_or_close(&self, message: impl Into<M>) -> Result<(), TrySendError<M>> {
        let sent = self.try_send(message);
        if let Err(TrySendError::Full { .. }) = &sent {
            self.gate.post.command(Command::Overflow(self.gate.id));
        }
        sent
    }

    /// Runs a closure on the connection: between two calls of its handler, after what this thread
    /// sent before and before the next frame. It gets the handler and its context, may block as a
    /// callback may, and an error closes the connection. It counts against `send_max_bytes` with
    /// its size and 64 bytes until it runs.
    ///
    /// `Ok` means queued: it runs unless the connection ends before, or its handler is
    /// [replaced](crate::Context::switch).
    ///
    /// ```
    /// use std::net::TcpStream;
    /// use std::io::Read;
    /// use std::sync::mpsc;
    /// use bytes::BytesMut;
    /// use switchboard::{Context, Handle, Handler, Outcome, Raw, Server};
    ///
    /// struct Device {
    ///     name: String,
    ///     online: mpsc::Sender<Handle>,
    /// }
    ///
    /// impl Handler for Device {
    ///     fn on_open(&mut self, cx: &mut Context) -> Outcome {
    ///         Ok(self.online.send(cx.handle())?)
    ///     }
    ///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (online, devices) = mpsc::channel();
    /// let device = move |_peer| Device { name: String::from("pump"), online: online.clone() };
    /// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), device).start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    ///
    /// devices.recv()?.run(|device: &mut Device, cx| {
    ///     cx.send(format!("hello {}", device.name))?;
    ///     cx.close();
    ///     Ok(())
    /// })?;
    /// let mut greeting = String::new();
    /// client.read_to_string(&mut greeting)?;
    /// assert_eq!(greeting, "hello pump");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TrySendError::Full`] and [`TrySendError::Gone`] as [`try_send`](Handle::try_send);
    /// [`TrySendError::WrongHandler`] if the handler is not an `H`. All give the closure back.
    pub fn run<H, F>(&self, call: F) -> Result<(), TrySendError<F>>
    where
        H: 'static,
        F: FnOnce(&mut H, &mut Context<'_, M>) -> Outcome + Send + 'static,
    {
        if *lock(&self.gate.handler) != TypeId::of::<H>() {
            return Err(TrySendError::WrongHandler(call));
        }
        self.put(call, size_of::<F>(), |call| {
            Parcel::Visit(Guarded::new::<Visit<H, M>>(Box::new(call)))
        })
    }

    /// Posts something, if the connection takes it.
    fn put<T>(
        &self,
        content: T,
        weight: usize,
        pack: impl FnOnce(T) -> Parcel,
    ) -> Result<(), TrySendError<T>> {
        if self.gate.state.load(Ordering::Acquire) != OPEN {
            return Err(TrySendError::Gone(content));
        }
        let cost = weight + MESSAGE_OVERHEAD_BYTES;
        if let Err(queued_bytes) = self.gate.admit(cost) {
            let max_bytes = self.gate.max;
            return Err(TrySendError::Full { message: content, queued_bytes, max_bytes });
        }
        let parcel = pack(content);
        self.gate.post.command(Command::Send { id: self.gate.id, parcel, cost });
        Ok(())
    }

    /// How the connection was a moment ago. Reads three counters one after the other and asks
    /// nobody: what changes meanwhile may show in one of them and not yet in another.
    #[must_use]
    pub fn stats(&self) -> HandleStats {
        let state = self.gate.state.load(Ordering::Acquire);
        HandleStats {
            is_open: state != ENDED,
            takes_messages: state == OPEN,
            posted_bytes: self.gate.posted.load(Ordering::Relaxed),
            unsent_bytes: self.gate.unsent.load(Ordering::Relaxed),
            max_bytes: self.gate.max,
        }
    }

    /// Closes the connection after what was sent before; messages of other threads that come later
    /// are refused. Nothing happens if it has ended. Returns at once; the end is told by
    /// [`on_close`](crate::Handler::on_close).
    pub fn close(&self) {
        if self.is_open() {
            if !cfg!(switchboard_mutant = "close_unsaid") {
                self.gate.finish();
            }
            self.gate.post.command(Command::Close(self.gate.id));
        }
    }

    /// Resets the connection; output that waits is lost. Nothing happens if it has ended. Returns
    /// at once; a handler of the connection that is running is not interrupted.
    pub fn abort(&self) {
        if self.is_open() {
            self.gate.post.command(Command::Abort(self.gate.id));
        }
    }
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { gate: Arc::clone(&self.gate), message: PhantomData }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.gate.id)
    }
}

/// A connection, as its handles see it: made by [`Handle::stats`]. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleStats {
    /// Whether it had not ended.
    pub is_open: bool,
    /// Whether it takes messages: our side had not finished.
    pub takes_messages: bool,
    /// What handles have sent and the codec has not encoded yet, with 64 bytes for each message.
    pub posted_bytes: usize,
    /// Encoded output that the system has not taken.
    pub unsent_bytes: usize,
    /// What both may be together: `send_max_bytes`.
    pub max_bytes: usize,
}

/// Why a message was not taken; it is given back.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<M> {
    /// The connection's queue has no room for it; or, if it has, the server has used up
    /// [`memory_max`](crate::Limits::memory_max).
    #[non_exhaustive]
    Full {
        /// The message.
        message: M,
        /// What is queued, as [`Handle::queued_bytes`] counts it.
        queued_bytes: usize,
        /// The limit, in bytes: `send_max_bytes`.
        max_bytes: usize,
    },
    /// The connection has ended, or takes no more output.
    Gone(M),
    /// The handler is of another type than the closure asks for.
    WrongHandler(M),
}

impl<M> TrySendError<M> {
    /// The message that was not sent.
    pub fn into_message(self) -> M {
        match self {
            TrySendError::Full { message, .. }
            | TrySendError::Gone(message)
            | TrySendError::WrongHandler(message) => message,
        }
    }
}

impl<M> fmt::Display for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full { queued_bytes, max_bytes, .. } => {
                write!(f, "the send queue is full: {queued_bytes} of at most {max_bytes} bytes")
            }
            TrySendError::Gone(_) => f.write_str("the connection has ended"),
            TrySendError::WrongHandler(_) => f.write_str("the handler is of another type"),
        }
    }
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrySendError({self})")
    }
}

impl<M> StdError for TrySendError<M> {}

impl<M> Context<'_, M> {
    /// The connection for other threads, or for later; see [`Handle`] for an example.
    ///
    /// The first one of a connection costs an allocation, every further one a counter.
    #[must_use]
    pub fn handle(&mut self) -> Handle<M>
    where
        M: Send + 'static,
    {
        let (office, _) = self.office_and_id();
        let Hand { id, gate, send_max_bytes, handler, .. } = self.hand_mut();
        let make = || Arc::new(Gate::new(*id, *handler, *send_max_bytes, office.post()));
        Handle::new(Arc::clone(gate.get_or_insert_with(make)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::words::sync::Mutex;

    #[derive(Default)]
    struct Sink(Mutex<Vec<Command>>);

    impl Post for Sink {
        fn command(&self, command: Command) {
            self.0.lock().expect("no panic under the lock").push(command);
        }
    }

    fn gate(max: usize) -> (Arc<Gate>, Arc<Sink>) {
        let sink = Arc::new(Sink::default());
        let id = ConnId::new(1, 2, 3);
        (Arc::new(Gate::new(id, TypeId::of::<()>(), max, Arc::clone(&sink) as Arc<dyn Post>)), sink)
    }

    #[test]
    fn a_full_queue_gives_the_message_back_and_takes_it_again_later() {
        let (gate, sink) = gate(2 * MESSAGE_OVERHEAD_BYTES + 8);
        let handle: Handle = Handle::new(Arc::clone(&gate));
        assert_eq!(handle.try_send("12345678"), Ok(()));
        let refused = handle.try_send("abc").expect_err("full");
        assert!(refused.to_string().contains("72 of at most 136"), "{refused}");
        assert_eq!(refused.into_message(), "abc");
        gate.taken(8 + MESSAGE_OVERHEAD_BYTES);
        gate.publish_unsent(8);
        assert_eq!(handle.try_send("abc"), Ok(()));
        assert_eq!(handle.queued_bytes(), 8 + 3 + MESSAGE_OVERHEAD_BYTES);
        assert_eq!(sink.0.lock().expect("no panic under the lock").len(), 2);
    }

    #[test]
    fn a_dead_connection_takes_nothing() {
        let (gate, sink) = gate(1 << 20);
        let handle: Handle = Handle::new(Arc::clone(&gate));
        gate.shut();
        assert_eq!(handle.try_send("x"), Err(TrySendError::Gone(Bytes::from("x"))));
        handle.close();
        handle.abort();
        assert!(sink.0.lock().expect("no panic under the lock").is_empty());
    }

    #[test]
    fn a_parcel_comes_out_as_what_went_in() {
        assert_eq!(Parcel::pack(Bytes::from("a")).unpack::<Bytes>(), Some(Bytes::from("a")));
        assert_eq!(Parcel::pack(7u32).unpack::<u32>(), Some(7));
        assert_eq!(Parcel::pack(7u32).unpack::<u64>(), None);
        assert_eq!(Parcel::pack(Bytes::new()).unpack::<u64>(), None);
    }
}
