//! `Group`: connections that are told the same, whatever reactor or server they belong to.

mod builder;
mod hub;
#[cfg(all(test, loom))]
mod model;
mod seats;

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;

pub use self::builder::{GroupBuilder, SlowPolicy};
pub(crate) use self::hub::{Hub, Seat};
pub(crate) use self::seats::Seats;
use super::codec::Codec;
use super::context::Context;
use super::handle::Handle;
use super::post::{Command, Post};
use crate::parts::buf::Outbox;
use crate::parts::pending::Shot;
use crate::words::error::BoxError;
use crate::words::id::ConnId;
use crate::words::sync::Arc;
use crate::words::sync::atomic::Ordering;

/// Connections that are told the same: a room, a topic, the subscribers of a feed.
///
/// Small and cloned freely; all clones are the same group. It may be made before any server is
/// there, and have members of several. Connections enter it by [`Context::join`] or
/// [`Handle::join`], and leave it by [`Context::leave`], [`Handle::leave`], or by ending.
///
/// # How a message gets to the members
///
/// [`broadcast`](Group::broadcast) encodes it once, on the thread that calls, with a clone of the
/// group's codec, and leaves it with each reactor that has members: one message per reactor, not
/// per member. There it goes to each member by no call of a handler. The members have to speak
/// what the codec of the group writes; nobody checks that. A codec whose output depends on what it
/// wrote before does not fit.
///
/// A member that keeps up is written to from the bytes that all share. For one that is behind,
/// because earlier output waits, messages wait outside of its send queue, and
/// [`SlowPolicy`] says what becomes of them if they are too many. What is dropped is counted, and
/// the member's handler is told by [`on_lagged`](crate::Handler::on_lagged).
///
/// # Order
///
/// What one thread broadcasts reaches each member in that order, and so does what one thread
/// broadcasts after it was told of another thread's broadcast. A message comes to a member whole,
/// between two messages of its own; there is no order between those and the group's: what a
/// handler sends may overtake messages of the group that wait. A member that
/// [finishes](Context::finish) or [closes](Context::close) gets no more, and what waits for it is
/// dropped. A drain is no reason to close the group: it goes on until the last member has ended.
///
/// ```
/// use std::io::Read;
/// use std::net::TcpStream;
/// use bytes::BytesMut;
/// use switchboard::group::Group;
/// use switchboard::{Context, Handler, LengthPrefixed, Outcome, Server};
///
/// struct Subscriber(Group);
///
/// impl Handler for Subscriber {
///     fn on_open(&mut self, cx: &mut Context) -> Outcome {
///         cx.join(&self.0);
///         Ok(cx.send("welcome")?)
///     }
///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
///         Ok(())
///     }
///     fn on_lagged(&mut self, cx: &mut Context, lost: u64) -> Outcome {
///         Ok(cx.send(format!("{lost} ticks were left out"))?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ticks = Group::new(LengthPrefixed::u16());
/// let feed = ticks.clone();
/// let server = Server::builder()
///     .listen("127.0.0.1:0", LengthPrefixed::u16(), move |_peer| Subscriber(feed.clone()))
///     .start()?;
///
/// let mut client = TcpStream::connect(server.local_addr())?;
/// let mut welcome = [0; 9];
/// client.read_exact(&mut welcome)?;
/// // Who was welcomed has joined.
/// ticks.broadcast("tick")?;
/// let mut tick = [0; 6];
/// client.read_exact(&mut tick)?;
/// assert_eq!(&tick, b"\x00\x04tick");
/// # Ok(())
/// # }
/// ```
pub struct Group<M = Bytes> {
    hub: Arc<Hub>,
    encoder: Arc<dyn Encoder<M>>,
}

/// The wire format of a group.
trait Encoder<M>: Send + Sync {
    /// The bytes of a message.
    fn encode(&self, message: M) -> Result<Bytes, BoxError>;

    /// What the message is about.
    fn key(&self, message: &M) -> u64;
}

/// A codec to clone, and what tells messages apart.
struct Writer<C: Codec> {
    codec: C,
    key: Option<Box<builder::Key<C::Message>>>,
}

impl<C: Codec + Clone + Sync> Encoder<C::Message> for Writer<C> {
    /// By a codec of its own: threads that broadcast at the same time do not wait for each other.
    fn encode(&self, message: C::Message) -> Result<Bytes, BoxError> {
        let mut outbox = Outbox::new();
        self.codec.clone().encode(message, &mut outbox).map_err(Into::into)?;
        Ok(outbox.into_bytes())
    }

    fn key(&self, message: &C::Message) -> u64 {
        self.key.as_ref().map_or(0, |key| key(message))
    }
}

impl<M: Send + 'static> Group<M> {
    /// A group whose members speak what `codec` writes, with the defaults of [`GroupBuilder`].
    #[must_use]
    pub fn new<C>(codec: C) -> Self
    where
        C: Codec<Message = M> + Clone + Sync,
    {
        Group::builder(codec).build()
    }

    /// Says what the group is to be.
    #[must_use]
    pub fn builder<C>(codec: C) -> GroupBuilder<C>
    where
        C: Codec<Message = M> + Clone + Sync,
    {
        GroupBuilder::new(codec)
    }

    /// Tells all members, without waiting for any of them: never blocks.
    ///
    /// `Ok` means that the message is on its way to everybody who has joined before this call and
    /// does not leave before it arrives; each of them gets it, or is told that it did not. Without
    /// members nothing is sent.
    ///
    /// Can be called from handlers, members or not.
    ///
    /// # Errors
    /// [`BroadcastError::Full`] if a reactor has more to pass on already than
    /// [`backlog_max_bytes`](GroupBuilder::backlog_max_bytes): nobody gets the message, which is
    /// given back. [`BroadcastError::Refused`] if the codec cannot encode it.
    pub fn broadcast(&self, message: impl Into<M>) -> Result<(), BroadcastError<M>> {
        let message = message.into();
        let seats = self.hub.roll.all();
        // Before it is encoded, so that it can be given back: each publisher may go beyond the
        // maximum by the one message that it is about to send.
        if let Some(full) = seats.iter().find(|seat| seat.is_full()) {
            let (backlog_bytes, max_bytes) = (full.backlog_bytes(), self.hub.backlog_max_bytes);
            return Err(BroadcastError::Full { message, backlog_bytes, max_bytes });
        }
        let key = self.encoder.key(&message);
        let bytes = self.encoder.encode(message).map_err(BroadcastError::Refused)?;
        if bytes.is_empty() {
            return Ok(());
        }
        for seat in seats.iter() {
            seat.post(Shot { bytes: bytes.clone(), key });
        }
        Ok(())
    }

    /// How many members it had a moment ago. Those that are closing count until a message finds
    /// them so, or they have ended; those that are joining do not count yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hub.members.load(Ordering::Relaxed)
    }

    /// Whether it had no members a moment ago.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the group was a moment ago. Reads counters and asks nobody.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        let Hub { delivered, lost, abandoned, kicked, roll, .. } = &*self.hub;
        GroupStats {
            members: self.len(),
            delivered: delivered.load(Ordering::Relaxed),
            lost: lost.load(Ordering::Relaxed),
            abandoned: abandoned.load(Ordering::Relaxed),
            kicked: kicked.load(Ordering::Relaxed),
            backlog_bytes: roll.all().iter().map(|seat| seat.backlog_bytes()).sum(),
        }
    }

    /// Has the connection join. By letter, like a broadcast: what comes later is behind it.
    fn enter(&self, id: ConnId, post: &Arc<dyn Post>) {
        if let Some(seat) = self.hub.claim(post) {
            post.command(Command::Join(id, seat));
        }
    }

    /// Has the connection leave.
    fn exit(&self, id: ConnId, post: &Arc<dyn Post>) {
        if let Some(seat) = self.hub.find(post) {
            post.command(Command::Leave(id, seat));
        }
    }
}

impl<M: Send + 'static> Context<'_, M> {
    /// Makes the connection a member of a group; nothing happens if it is one. What is broadcast
    /// from now on reaches it: also if the message is broadcast by this very call, or by somebody
    /// who was told by what this call sends.
    pub fn join(&mut self, group: &Group<M>) {
        group.enter(self.id(), &self.post());
    }

    /// Ends the membership, if there is one. What is broadcast from now on does not reach the
    /// connection, and what waits for it outside of its send queue is dropped.
    pub fn leave(&mut self, group: &Group<M>) {
        group.exit(self.id(), &self.post());
    }
}

impl<M: Send + 'static> Handle<M> {
    /// Makes the connection a member of a group, as [`Context::join`] does. Returns at once; what
    /// this thread broadcasts from now on reaches the connection. Nothing happens if it is a member
    /// already, or has ended.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::TcpStream;
    /// use std::sync::mpsc;
    /// use bytes::BytesMut;
    /// use switchboard::group::{Group, SlowPolicy};
    /// use switchboard::{Context, Handle, Handler, Outcome, Raw, Server};
    ///
    /// struct Player(mpsc::Sender<Handle>);
    ///
    /// impl Handler for Player {
    ///     fn on_open(&mut self, cx: &mut Context) -> Outcome {
    ///         Ok(self.0.send(cx.handle())?)
    ///     }
    ///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, players) = mpsc::channel();
    /// let player = move |_peer| Player(sender.clone());
    /// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), player).start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    ///
    /// // Of each position only the newest is of use to a player who lags behind.
    /// let room = Group::builder(Raw::new())
    ///     .policy(SlowPolicy::conflate(|position: &bytes::Bytes| u64::from(position[0])))
    ///     .build();
    /// players.recv()?.join(&room);
    /// room.broadcast("begin")?;
    /// let mut begin = [0; 5];
    /// client.read_exact(&mut begin)?;
    /// assert_eq!(&begin, b"begin");
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self, group: &Group<M>) {
        if self.takes_messages() {
            group.enter(self.id(), self.post());
        }
    }

    /// Ends the membership, if there is one, as [`Context::leave`] does.
    pub fn leave(&self, group: &Group<M>) {
        if self.takes_messages() {
            group.exit(self.id(), self.post());
        }
    }
}

impl<M> Clone for Group<M> {
    fn clone(&self) -> Self {
        Group { hub: Arc::clone(&self.hub), encoder: Arc::clone(&self.encoder) }
    }
}

impl<M> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} members)", self.hub.members.load(Ordering::Relaxed))
    }
}

/// A group at one moment. What is counted is counted since it was made, once for each member that
/// it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Members, as [`Group::len`] counts them.
    pub members: usize,
    /// Messages that were handed to the system, or to the send queue of a member.
    pub delivered: u64,
    /// Messages that were dropped because a member was behind, by the group's [`SlowPolicy`].
    pub lost: u64,
    /// Messages that waited for a member which left, or ended, before they were delivered.
    pub abandoned: u64,
    /// Members that were reset because they were behind, by [`SlowPolicy::Kick`].
    pub kicked: u64,
    /// Messages that are on their way to the members and were not passed on yet, in bytes and 64
    /// for each message, once for each reactor.
    pub backlog_bytes: usize,
}

/// Why a message was not broadcast. Nobody has got it.
#[non_exhaustive]
pub enum BroadcastError<M> {
    /// A reactor does not keep up with what is broadcast.
    #[non_exhaustive]
    Full {
        /// The message.
        message: M,
        /// What is on its way already, as [`GroupStats::backlog_bytes`] counts it, in the reactor
        /// that has most to do.
        backlog_bytes: usize,
        /// The limit, in bytes: [`backlog_max_bytes`](GroupBuilder::backlog_max_bytes).
        max_bytes: usize,
    },
    /// The codec refused the message.
    Refused(BoxError),
}

impl<M> BroadcastError<M> {
    /// The message, unless the codec has refused and used it up.
    pub fn into_message(self) -> Option<M> {
        match self {
            BroadcastError::Full { message, .. } => Some(message),
            BroadcastError::Refused(_) => None,
        }
    }
}

impl<M> fmt::Display for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::Full { backlog_bytes, max_bytes, .. } => {
                write!(f, "the backlog is full: {backlog_bytes} of at most {max_bytes} bytes")
            }
            BroadcastError::Refused(error) => write!(f, "the codec refused the message: {error}"),
        }
    }
}

impl<M> fmt::Debug for BroadcastError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastError({self})")
    }
}

impl<M> StdError for BroadcastError<M> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            BroadcastError::Refused(error) => Some(&**error),
            BroadcastError::Full { .. } => None,
        }
    }
}
