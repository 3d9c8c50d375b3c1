//! `Handler`: what a protocol does when something happens on one of its connections.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::context::Context;
use super::group::Group;
use super::overload::Overloaded;
use crate::words::error::{BoxError, Outcome};
use crate::words::reason::CloseReason;

/// A protocol's side of one connection.
///
/// `F` is the codec's frame and `M` its message; for all byte-oriented codecs they are the
/// defaults, so one writes `impl Handler for Device`.
///
/// The calls for one connection come one at a time and in order, on changing threads; each sees
/// what the ones before it wrote. A call may block or burn CPU: other connections are not delayed,
/// and the input of this one waits in the system (backpressure). `on_open` comes first and once,
/// `on_close` last and once, also after a panic; only a handler that was never made, because the
/// server ended first or the making panicked, sees neither.
///
/// `Err` from a call closes the connection, after what was sent before, and becomes part of the
/// close reason: so `?` works. A panic ends this connection and nothing else.
pub trait Handler<F = BytesMut, M = Bytes>: Send + 'static {
    /// The connection is there.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_open(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// A frame has arrived.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_frame(&mut self, cx: &mut Context<'_, M>, frame: F) -> Outcome;

    /// A frame had waited for longer than [`queue_wait_max`](crate::Limits::queue_wait_max) when
    /// its turn came: the server is offered more than it can handle. This is called instead of
    /// [`on_frame`](Handler::on_frame); it is to be quick: tell the peer to come again later, or
    /// drop what can be dropped. By default the connection is closed, with
    /// [`Overloaded`] as the error: nothing is lost in silence.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_shed(&mut self, cx: &mut Context<'_, M>, frame: F) -> Outcome {
        drop(frame);
        Err(Overloaded { waited: cx.queue_wait() }.into())
    }

    /// The peer has finished sending; all of its frames were handled. By default we finish too; a
    /// handler that goes on sending (half-close) overrides this and calls
    /// [`finish`](Context::finish) when it is done.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_eof(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        cx.finish();
        Ok(())
    }

    /// Queued output has fallen from `send_high_bytes` or more to `send_low_bytes` or less: input
    /// is read again, and a handler that held output back may go on. What one call has sent counts,
    /// also if the system takes all of it at once. Not called after `finish`.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_drained(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        let _ = cx;
        Ok(())
    }

    /// The connection was so far behind that it did not get `lost` messages of its groups, since
    /// this was last called; now it makes progress again. Where in the output they are missing is
    /// for the messages themselves to say. Not called after `finish`, nor for what waited for a
    /// connection that left.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_lagged(&mut self, cx: &mut Context<'_, M>, lost: u64) -> Outcome {
        let _ = (cx, lost);
        Ok(())
    }

    /// A timer that [`set_timer`](Context::set_timer) set has fired; input that has arrived was
    /// shown before. One that was cancelled, or replaced, never gets here.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_timer(&mut self, cx: &mut Context<'_, M>, key: u64) -> Outcome {
        let _ = (cx, key);
        Ok(())
    }

    /// The system has taken a message that was sent with a notice, and all that was sent before it.
    /// That says nothing about the peer, which may not have got it.
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_flushed(&mut self, cx: &mut Context<'_, M>, key: u64) -> Outcome {
        let _ = (cx, key);
        Ok(())
    }

    /// The server drains and asks the protocol to come to an end: say goodbye, answer what is in
    /// flight, then close. By default the connection is closed after what was sent. An end that is
    /// asked for from now on, in this call or a later one, has the cause
    /// [`Drained`](crate::close::Cause::Drained).
    ///
    /// # Errors
    /// Any: it closes the connection.
    fn on_drain(&mut self, cx: &mut Context<'_, M>) -> Outcome {
        cx.close();
        Ok(())
    }

    /// The connection is gone; the handler is dropped after this, on the same thread. May block, as
    /// the others may.
    fn on_close(&mut self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// A handler for protocols that need nothing but frames.
///
/// ```
/// use switchboard::{Raw, Server, handler_fn};
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
///     .start()?;
/// server.stop();
/// # Ok::<(), switchboard::Error>(())
/// ```
pub fn handler_fn<T, E>(on_frame: T) -> HandlerFn<T>
where
    T: FnMut(&mut Context<'_>, BytesMut) -> Result<(), E> + Send + 'static,
    E: Into<BoxError>,
{
    HandlerFn { on_frame, opening: () }
}

/// Made by [`handler_fn`].
#[derive(Clone, Copy)]
pub struct HandlerFn<T, O = ()> {
    on_frame: T,
    opening: O,
}

/// What a [`HandlerFn`] does when its connection opens: nothing, or join a group.
pub trait Opening: Send + 'static {
    /// Called once, first.
    #[doc(hidden)]
    fn open(&self, cx: &mut Context<'_>);
}

impl Opening for () {
    fn open(&self, _: &mut Context<'_>) {}
}

impl Opening for Group {
    fn open(&self, cx: &mut Context<'_>) {
        cx.join(self);
    }
}

impl<T> HandlerFn<T> {
    /// Has the connection join `group` when it opens, as [`Context::join`] does in
    /// [`on_open`](Handler::on_open).
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    /// use switchboard::group::Group;
    /// use switchboard::{LengthPrefixed, Server, handler_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let everybody = Group::new(LengthPrefixed::u16());
    /// let members = everybody.clone();
    /// let echo = move |_peer| handler_fn(|cx, frame| cx.send(frame)).joining(&members);
    /// let server =
    ///     Server::builder().listen("127.0.0.1:0", LengthPrefixed::u16(), echo).start()?;
    ///
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// client.write_all(b"\x00\x04ping")?;
    /// let mut frame = [0; 6];
    /// client.read_exact(&mut frame)?;
    /// // Who is answered has joined.
    /// everybody.broadcast("news")?;
    /// client.read_exact(&mut frame)?;
    /// assert_eq!(&frame, b"\x00\x04news");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn joining(self, group: &Group) -> HandlerFn<T, Group> {
        HandlerFn { on_frame: self.on_frame, opening: group.clone() }
    }
}

impl<T, O> fmt::Debug for HandlerFn<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}

impl<T, E, O> Handler for HandlerFn<T, O>
where
    T: FnMut(&mut Context<'_>, BytesMut) -> Result<(), E> + Send + 'static,
    E: Into<BoxError>,
    O: Opening,
{
    fn on_open(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.opening.open(cx);
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, frame: BytesMut) -> Outcome {
        (self.on_frame)(cx, frame).map_err(Into::into)
    }
}
