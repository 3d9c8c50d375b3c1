//! `Listening`: what one listener does otherwise than its server.

use std::net::SocketAddr;

use bytes::Bytes;

use super::admission::Filter;
use super::{Limits, Rate, Shaper, Timeouts, WhenFull, check_rate};
use crate::words::error::Error;

/// The settings of one listener. They begin as those of its server and are changed through
/// [`listen_with`](crate::Builder::listen_with).
///
/// ```
/// use switchboard::config::{Rate, WhenFull};
/// use switchboard::{Raw, Server, handler_fn};
///
/// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
/// let server = Server::builder()
///     .listen_with("127.0.0.1:0", Raw::new(), echo, |public| {
///         public.connections_max = Some(10_000);
///         public.accept_rate = Some(Rate::per_second(500).burst(2_000));
///         public.when_full = WhenFull::Reject;
///         public.farewell = "busy\r\n".into();
///         public.filter(|peer| peer.ip().is_loopback());
///     })
///     .start()?;
/// # server.stop();
/// # Ok::<(), switchboard::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listening {
    /// For the connections of this listener. Default: [`Limits::timeouts`].
    pub timeouts: Timeouts,
    /// Connections open at once that came through this listener, over all reactors. They count
    /// against the server's maximum as well. Default: `None`, no maximum of its own. Range: 1 to
    /// 2³¹.
    pub connections_max: Option<usize>,
    /// Connections accepted per second through this listener, over all reactors; the server's rate
    /// holds as well. Default: `None`, as many as come. Range: 1 to 1,000,000 per second and at
    /// once.
    pub accept_rate: Option<Rate>,
    /// What is done when a client comes through this listener and one of the maxima, the server's
    /// or its own, is reached. With [`WhenFull::EvictIdle`] one of this listener makes room if its
    /// own maximum is reached, else one of any. Default: [`Limits::when_full`].
    pub when_full: WhenFull,
    /// What is done when clients come faster than one of the rates, the server's or its own:
    /// [`WhenFull::Pause`] or [`WhenFull::Reject`]. Default: [`Limits::when_too_fast`].
    pub when_too_fast: WhenFull,
    /// What a client is told who is turned away, by [`WhenFull::Reject`] or since it has too many
    /// connections: these bytes, then the end. Empty: it is reset without a word. Default: empty.
    /// At most 4,096 bytes.
    ///
    /// As much is written as the system takes at once, which for a new connection is all of it, and
    /// what the client has said by then is read once and thrown away, at most `read_chunk_bytes`
    /// of it. So a client that has spoken gets it as well. One that says more than that before it
    /// has read it may see a reset instead, on some systems; nobody waits for that.
    pub farewell: Bytes,
    pub(crate) filter: Option<Filter>,
    /// What may be read from each connection of this listener, in bytes. Default:
    /// [`Limits::read_rate`].
    pub read_rate: Option<Rate>,
    /// What may be written to each connection of this listener, in bytes. Default:
    /// [`Limits::send_rate`].
    pub send_rate: Option<Rate>,
    /// What the connections of this listener, and of all others that have the same shaper, may
    /// read and write together. Default: `None`.
    pub shaper: Option<Shaper>,
}

impl Listening {
    /// A listener that does as its server does.
    pub(crate) fn of(limits: &Limits) -> Self {
        Listening {
            timeouts: limits.timeouts.clone(),
            read_rate: limits.read_rate,
            send_rate: limits.send_rate,
            shaper: None,
            connections_max: None,
            accept_rate: None,
            when_full: limits.when_full,
            when_too_fast: limits.when_too_fast,
            farewell: Bytes::new(),
            filter: None,
        }
    }

    /// Lets only those come in for whom `admits` answers yes; the others are reset
    /// ([`Cause::Refused`](crate::close::Cause)), before there is a handler. A second filter
    /// replaces the first.
    ///
    /// It runs where handlers run, for several clients at once, and may take its time: others are
    /// not delayed by it. Until it has answered the connection counts as open. A panic in it ends
    /// that connection.
    pub fn filter(&mut self, admits: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) {
        self.filter = Some(Filter::new(admits));
    }

    /// For the connections that we open: it is for us to speak first.
    pub(crate) fn outbound(limits: &Limits) -> Self {
        let mut listening = Listening::of(limits);
        listening.timeouts.first_frame = None;
        listening
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.timeouts.check()?;
        self.check_admission()?;
        check_rate("read_rate", self.read_rate)?;
        check_rate("send_rate", self.send_rate)
    }
}
