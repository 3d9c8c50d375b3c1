//! `Post`, `Office`, `Command`, `Parcel`: what others ask of a connection, and the way there.

use std::any::Any;
use std::fmt;
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::group::Seat;
use super::job::Call;
use crate::parts::pending::Shot;
use crate::words::clock::Time;
use crate::words::config::Timeouts;
use crate::words::error::SpawnError;
use crate::words::id::ConnId;
use crate::words::sync::Arc;

/// What each queued message costs beside its bytes, so that empty ones are bounded too.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// What other threads ask of a reactor for one of its connections.
#[derive(Debug)]
pub(crate) enum Command {
    /// Encode and send this; `cost` was counted at the gate.
    Send { id: ConnId, parcel: Parcel, cost: usize },
    /// Flush, finish, linger.
    Close(ConnId),
    /// Reset.
    Abort(ConnId),
    /// Reset, since a message found no room.
    Overflow(ConnId),
    /// A job that the connection had off-loaded is over; `None` if it panicked.
    Back { id: ConnId, result: Option<Parcel> },
    /// Make it a member of this group; its seat was claimed.
    Join(ConnId, Arc<Seat>),
    /// End its membership.
    Leave(ConnId, Arc<Seat>),
    /// Tell all members.
    Broadcast(Arc<Seat>, Shot),
}

/// Where commands go: the mailbox of the connection's reactor.
pub(crate) trait Post: Send + Sync {
    /// Takes the command and wakes the reactor if it sleeps.
    fn command(&self, command: Command);

    /// Counts a message that is about to be posted; false if there is no memory for it.
    fn admit(&self, cost: usize) -> bool {
        let _ = cost;
        true
    }

    /// The reactor took, or dropped, messages of this cost.
    fn taken(&self, cost: usize) {
        let _ = cost;
    }

    /// Remembers a seat that is to be given up when the reactor ends; false if it has.
    fn enroll(&self, seat: &Arc<Seat>) -> bool {
        let _ = seat;
        true
    }

    /// Forgets a seat that nobody claims any more.
    fn dismiss(&self, seat: &Arc<Seat>) {
        let _ = seat;
    }
}

/// What user code may ask of its surroundings: the mailbox for a first handle, the time, settings.
pub(crate) trait Office {
    /// The mailbox of the reactor at hand.
    fn post(&self) -> Arc<dyn Post>;

    /// Has a thread of the pool make a call.
    fn spawn(&self, call: Call) -> Result<(), SpawnError>;

    /// The present moment.
    fn now(&self) -> Time;

    /// The timeouts of a listener.
    fn timeouts(&self, listener: u16) -> Timeouts;
}

/// Something on its way to a session, its type forgotten.
pub(crate) enum Parcel {
    /// A message.
    Bytes(Bytes),
    /// A message of another type.
    Other(Guarded),
    /// A message of which a notice is due when the system has taken it, under this key.
    Noticed(Box<Parcel>, u64),
    /// A closure for the handler.
    Visit(Guarded),
}

/// A message whose drop may panic and harms nobody: it is user code, but one that is not wanted
/// any more is dropped wherever it happens to be.
pub(crate) struct Guarded(Option<Box<dyn Any + Send>>);

impl Guarded {
    pub(super) fn new<T: Send + 'static>(content: T) -> Self {
        Guarded(Some(Box::new(Some(content))))
    }

    /// What it holds; `None` if that is of another type.
    pub(super) fn take<T: 'static>(&mut self) -> Option<T> {
        self.0.as_mut()?.downcast_mut::<Option<T>>()?.take()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(message) = self.0.take() {
            discard(message);
        }
    }
}

impl Parcel {
    /// Packs a message; one of `Bytes` without a new allocation.
    pub(super) fn pack<M: Send + 'static>(message: M) -> Parcel {
        let mut message = Some(message);
        let as_bytes = (&mut message as &mut dyn Any).downcast_mut::<Option<Bytes>>();
        if let Some(bytes) = as_bytes.and_then(Option::take) {
            return Parcel::Bytes(bytes);
        }
        Parcel::Other(Guarded(
            message.map(|message| Box::new(Some(message)) as Box<dyn Any + Send>),
        ))
    }

    /// The message again; `None` if it was packed as another type.
    pub(crate) fn unpack<M: 'static>(self) -> Option<M> {
        match self {
            Parcel::Bytes(bytes) => {
                let mut bytes = Some(bytes);
                let message = (&mut bytes as &mut dyn Any).downcast_mut::<Option<M>>();
                message.and_then(Option::take)
            }
            Parcel::Other(mut guarded) => guarded.take(),
            Parcel::Noticed(parcel, _) => parcel.unpack(),
            Parcel::Visit(_) => None,
        }
    }
}

/// Drops what a panic or a message carried; its drop is user code too, and may panic in turn.
pub(crate) fn discard(mut payload: Box<dyn Any + Send>) {
    // A message whose drop panics leaves the payload of that panic, which is dropped in turn.
    for _ in 0..DROPS_MAX {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(again) => payload = again,
        }
    }
    // A payload whose drop panics with such a payload over and over is given up.
    std::mem::forget(payload);
}

/// How many drops that panic one after the other are put up with.
const DROPS_MAX: usize = 4;

/// What a message weighs: its bytes where they are known, else the size of its type.
pub(super) fn weight<M: 'static>(message: &M) -> usize {
    let bytes = (message as &dyn Any).downcast_ref::<Bytes>();
    bytes.map_or(size_of::<M>(), Bytes::len)
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parcel::Bytes(bytes) => write!(f, "Parcel({} bytes)", bytes.len()),
            Parcel::Noticed(parcel, key) => write!(f, "{parcel:?}, notice {key}"),
            Parcel::Other(_) | Parcel::Visit(_) => f.write_str("Parcel"),
        }
    }
}
