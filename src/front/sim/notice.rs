//! `Notices`: which messages want a notice, and what has to be written before each is told of.

use std::collections::VecDeque;

use bytes::Bytes;

use super::app::Talker;
use super::net::Net;
use crate::core::context::Context;
use crate::core::refusal::SendError;
use crate::words::sync::lock;

/// The notices of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Notices {
    /// Bytes that the handler itself has sent; messages of other threads come on top.
    said_bytes: usize,
    /// The keys of those that are due, in order, and what was said up to the end of each.
    due: VecDeque<(u64, usize)>,
    next: u64,
}

impl Notices {
    /// None is left, though the connection has ended well.
    pub(super) fn are_told(&self) -> bool {
        self.due.is_empty()
    }

    /// Takes the next one, which has to be this one.
    pub(super) fn take(&mut self, key: u64, net: &Net, id: usize) -> Result<(), String> {
        let Some((expected, said)) = self.due.pop_front() else {
            return Err(format!("notice {key}, which nobody waits for"));
        };
        let written = net.sockets[id].facts.written_bytes;
        if key != expected {
            return Err(format!("notice {key} instead of {expected}"));
        }
        if written < said {
            return Err(format!("notice {key} after {written} bytes of {said}"));
        }
        Ok(())
    }
}

impl Talker {
    /// Sends a message, sometimes with a notice.
    pub(super) fn say(&self, cx: &mut Context<'_>, message: Bytes) -> Result<(), SendError> {
        let message = self.app.pack(message);
        let mut book = lock(&self.app.book);
        let wants = book.random.one_in(4);
        let notices = &mut book.life(self.id).notices;
        let before = cx.queued_bytes();
        if wants {
            cx.send_with_notice(message, notices.next)?;
        } else {
            cx.send(message)?;
        }
        notices.said_bytes += cx.queued_bytes() - before;
        if wants {
            notices.due.push_back((notices.next, notices.said_bytes));
            notices.next += 1;
        }
        Ok(())
    }
}
