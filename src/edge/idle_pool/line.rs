//! `Line`: one connection of a pool, as the thread sees it that has it; and its handler, `Ear`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use crate::core::codec::Codec;
use crate::core::context::Context;
use crate::core::handle::{Handle, TrySendError};
use crate::core::handler::Handler;
use crate::words::error::Outcome;
use crate::words::reason::CloseReason;
use crate::words::sync::atomic::{AtomicU64, Ordering};

/// One connection: where to send, and what it has received.
pub(crate) struct Line<C: Codec> {
    handle: Handle<C::Message>,
    frames: Frames<C::Frame>,
    /// Messages sent less frames received; below zero is as bad as above.
    outstanding: i64,
}

/// What a connection has received, for whoever has it.
pub(super) struct Frames<F> {
    number: u64,
    received: Receiver<F>,
}

/// The handler of a connection: hands on what it hears.
pub(super) struct Ear<F> {
    number: u64,
    frames: SyncSender<F>,
    /// Called when the connection has ended.
    end: Option<Box<dyn FnOnce() + Send>>,
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// None has come in time.
    TimedOut,
    /// The connection has ended, and everything that came before was received.
    Gone,
}

/// The two ends of one connection within the pool, under a number of their own.
pub(super) fn ends<F>(frames_max: usize) -> (Ear<F>, Frames<F>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: a name, and paired with nothing.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (frames, received) = sync_channel(frames_max);
    (Ear { number, frames, end: None }, Frames { number, received })
}

impl<F> Ear<F> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn telling(self, end: impl FnOnce() + Send + 'static) -> Self {
        Ear { end: Some(Box::new(end)), ..self }
    }
}

impl<F: Send + 'static, M> Handler<F, M> for Ear<F> {
    fn on_frame(&mut self, _: &mut Context<'_, M>, frame: F) -> Outcome {
        let full = "more frames came than anybody takes";
        self.frames.try_send(frame).map_err(|_| full.into())
    }

    fn on_close(&mut self, _: &CloseReason) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

impl<C: Codec> Line<C> {
    pub(super) fn new(handle: Handle<C::Message>, frames: Frames<C::Frame>) -> Self {
        Line { handle, frames, outstanding: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.frames.number
    }

    /// Whether the next one who has it finds it as if it were new.
    pub(super) fn is_fresh(&self) -> bool {
        let silent = matches!(self.frames.received.try_recv(), Err(TryRecvError::Empty));
        silent && self.outstanding == 0 && self.handle.takes_messages()
    }

    pub(crate) fn send(&mut self, message: C::Message) -> Result<(), TrySendError<C::Message>> {
        self.handle.try_send(message)?;
        self.outstanding += 1;
        Ok(())
    }

    pub(crate) fn recv(&mut self, patience: Duration) -> Result<C::Frame, RecvError> {
        let frame = self.frames.received.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => RecvError::TimedOut,
            RecvTimeoutError::Disconnected => RecvError::Gone,
        })?;
        self.outstanding -= 1;
        Ok(frame)
    }

    pub(crate) fn settle(&mut self) {
        self.outstanding = 0;
    }

    pub(crate) fn close(&self) {
        self.handle.close();
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecvError::TimedOut => "no frame has come in time",
            RecvError::Gone => "the connection has ended",
        })
    }
}

impl StdError for RecvError {}
