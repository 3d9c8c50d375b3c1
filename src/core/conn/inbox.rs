//! What waits for a session from elsewhere than its peer: messages, visits, results, notices.

use super::Connection;
use super::halves::SendHalf;
use crate::core::hand::Hand;
use crate::core::post::Parcel;
use crate::core::session::Inbox;
use crate::words::clock::Time;
use crate::words::reason::Cause;

impl Connection {
    /// Another thread sent a message; false if the connection takes no more.
    pub(crate) fn handle_parcel(&mut self, parcel: Parcel, cost: usize) -> bool {
        if self.flags.dead || self.send != SendHalf::Open {
            self.count_taken(cost);
            return false;
        }
        let inbox = self.inbox_mut();
        inbox.parcels.push_back(parcel);
        inbox.posted_bytes += cost;
        true
    }

    /// An off-loaded job is over; `None` if it panicked.
    pub(crate) fn handle_back(&mut self, result: Option<Parcel>) {
        self.offloads -= 1;
        match result {
            Some(result) => {
                self.handle_parcel(result, 0);
            }
            None => self.abort(Cause::HandlerPanicked),
        }
    }

    /// The server drains: the session is to be asked to come to an end, after the input that has
    /// arrived already; whether there is some, a read shall tell. False if it is closing anyway.
    pub(crate) fn handle_drain(&mut self, now: Time) -> bool {
        let goes_on = !self.flags.dead && !self.flags.discarding;
        if goes_on {
            self.flags.drain_due = true;
            self.handle_readable(false, now);
        }
        goes_on
    }

    pub(super) fn inbox_mut(&mut self) -> &mut Inbox {
        self.inbox.get_or_insert_default()
    }

    /// Messages of a job want a notice when they are written; some may be already.
    pub(super) fn take_marks(&mut self, hand: &mut Hand) {
        let gone = hand.said_bytes - hand.outbox.len_bytes();
        let queued = self.queued_bytes();
        let marks = self.rare.get_or_insert_default().marks.get_or_insert_default();
        for (end, key) in hand.marks.drain(..) {
            let early = cfg!(switchboard_sim_mutant = "notice_early");
            let gone = if early { end } else { gone };
            marks.set(queued + end.saturating_sub(gone), key);
        }
        self.tell_flushed();
    }

    /// Notices that the job did not tell come before those that are due since.
    pub(super) fn take_flushed_back(&mut self, hand: &mut Hand) {
        let mut flushed = std::mem::take(&mut hand.flushed_left);
        if !self.flags.dead {
            let inbox = self.inbox_mut();
            flushed.append(&mut inbox.flushed);
            inbox.flushed = flushed;
        }
    }

    pub(super) fn tell_flushed(&mut self) {
        let Some(marks) = self.rare.as_mut().and_then(|rare| rare.marks.as_mut()) else { return };
        while let Some(key) = marks.pop_passed() {
            self.inbox.get_or_insert_default().flushed.push_back(key);
        }
        if marks.is_empty() {
            self.forget_rare(|rare| rare.marks = None);
        }
    }
}
