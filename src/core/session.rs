//! `Session`: a codec and a handler joined, their types forgotten; and what a job asks of it.

use std::any::TypeId;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;

use super::codec::Codec;
use super::framed::Framed;
use super::hand::Hand;
use super::handler::Handler;
use super::post::{Office, Parcel};
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::{Mutex, lock};

/// The user's half of a connection.
pub(crate) trait Session: Send {
    /// Makes the calls that `errand` asks for, and forgets what it has made: what is left when the
    /// hand names another session is for that one. `Err` is what ends the connection.
    fn serve(
        &mut self,
        errand: &mut Errand,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause>;

    /// The last call.
    fn close(&mut self, reason: &CloseReason);

    /// The handler, for a test that wants to look into it.
    #[cfg(any(test, feature = "testing"))]
    fn handler_mut(&mut self) -> Option<&mut dyn std::any::Any> {
        None
    }
}

impl fmt::Debug for dyn Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// What a job has to do beside decoding its input. Most often nothing.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    pub(crate) open: bool,
    pub(crate) eof: bool,
    /// The server drains.
    pub(crate) drain: bool,
    pub(crate) inbox: Option<Box<Inbox>>,
}

/// What has come for a session from elsewhere than the peer.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) parcels: VecDeque<Parcel>,
    /// The connection was closed behind them.
    pub(crate) closes: bool,
    /// What these were counted for at the gate.
    pub(crate) posted_bytes: usize,
    /// Messages that the system has taken, of those that asked for a notice.
    pub(crate) flushed: VecDeque<u64>,
    /// Output has fallen to the low watermark.
    pub(crate) drained: bool,
    /// Messages of its groups that it did not get.
    pub(crate) lagged: u64,
}

impl Inbox {
    /// Whether it holds what is served to a connection that finishes, and is `closing` or not.
    pub(crate) fn is_due(&self, closing: bool) -> bool {
        closing || !self.flushed.is_empty()
    }
}

impl Errand {
    /// Whether it is done, but for what a reader of the input does anyway.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        !self.eof && !self.drain && self.inbox.is_none()
    }
}

#[cfg(any(test, feature = "sim"))]
impl Errand {
    pub(crate) fn inbox_mut(&mut self) -> &mut Inbox {
        self.inbox.get_or_insert_default()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.drained)
    }

    pub(crate) fn is_drain(&self) -> bool {
        self.drain
    }
}

/// Makes the session of a new connection; user code, hence called in a job.
pub(crate) trait Factory: Send + Sync {
    fn session(&self, peer: SocketAddr) -> Box<dyn Session>;

    /// Of what type the handlers are.
    fn handler(&self) -> TypeId;

    /// Whether this client may have one.
    fn admits(&self, _peer: SocketAddr) -> bool {
        true
    }
}

/// A factory from a codec to clone and a closure that makes handlers.
pub(crate) struct Maker<C, N> {
    pub(crate) codec: C,
    pub(crate) handler: N,
}

impl<C, N, H> Factory for Maker<C, N>
where
    C: Codec + Clone + Sync,
    N: Fn(SocketAddr) -> H + Send + Sync,
    H: Handler<C::Frame, C::Message>,
{
    fn session(&self, peer: SocketAddr) -> Box<dyn Session> {
        Box::new(Framed::new(self.codec.clone(), (self.handler)(peer)))
    }

    fn handler(&self) -> TypeId {
        TypeId::of::<H>()
    }
}

/// A factory for one session.
pub(crate) struct Once<C, N>(Mutex<Option<(C, N)>>);

impl<C, N> Once<C, N> {
    pub(crate) fn new(codec: C, handler: N) -> Self {
        Once(Mutex::new(Some((codec, handler))))
    }
}

impl<C, N, H> Factory for Once<C, N>
where
    C: Codec,
    N: FnOnce(SocketAddr) -> H + Send,
    H: Handler<C::Frame, C::Message>,
{
    fn session(&self, peer: SocketAddr) -> Box<dyn Session> {
        let parts = lock(&self.0).take();
        let (codec, handler) = parts.expect("a connection that was asked for is opened once");
        Box::new(Framed::new(codec, handler(peer)))
    }

    fn handler(&self) -> TypeId {
        TypeId::of::<H>()
    }
}
