//! Something that is done again and again, on a thread of its own, until it is dropped.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Dropping it ends the thread and waits for it.
pub(crate) struct Every {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Every {
    pub(crate) fn new(period: Duration, mut act: impl FnMut() + Send + 'static) -> Self {
        let (end, over) = mpsc::channel();
        let thread = thread::spawn(move || {
            while over.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                act();
            }
        });
        Every { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Every {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}
