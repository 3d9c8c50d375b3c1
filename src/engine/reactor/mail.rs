//! Reading the mailbox: what other threads, other reactors and the operator want.

use std::time::Duration;

use super::drain::Farewells;
use super::stream::May;
use super::{Course, Phase, Reactor};
use crate::core::conn::{Connection, Rules};
use crate::core::post::{Command, Post};
use crate::engine::desk::{Letter, Order};
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::id::ConnId;
use crate::words::reason::Cause;

impl<K: Kernel> Reactor<K> {
    /// Takes everything that was there when it began.
    pub(super) fn receive_mail(&mut self) {
        if !self.desk.mailbox.has_mail() {
            return;
        }
        let mut letters = std::mem::take(&mut self.letters);
        self.desk.mailbox.drain_into(&mut letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Done { done, overtaken } => {
                    let (id, kind) = (done.job.hand.id, done.kind);
                    self.take_back(done);
                    if overtaken && kind.has_connection() {
                        self.learn_overtaken(id);
                    }
                }
                Letter::Command(command) => self.obey(command),
                // Opened in the next phase: mail runs no user code.
                Letter::Adopt(newcomer) => self.newcomers.push_back(newcomer),
                Letter::Retry(freed) => {
                    self.doors.iter_mut().for_each(|door| door.handle_release(freed));
                }
                // The next phase looks.
                Letter::Look => self.io.budget.ask_soon(),
                Letter::Order(order) => self.follow(&order),
                Letter::Asked => self.take_requests(),
            }
        }
        self.letters = letters;
    }

    /// A command for one connection; one for a connection that is gone is normal.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Send { id, parcel, cost } => {
                if self.table.contains(id) {
                    self.with(id, |conn, _, _| {
                        conn.handle_parcel(parcel, cost);
                    });
                } else {
                    self.table.note_stale();
                    self.desk.taken(cost);
                }
            }
            Command::Close(id) => self.with(id, Connection::handle_close),
            Command::Join(id, seat) => self.fans.join(id, seat, &mut self.table),
            Command::Leave(id, seat) => self.fans.leave(id, &seat, &mut self.table),
            Command::Broadcast(seat, shot) => self.fans.receive(&seat, shot),
            Command::Overflow(id) => self.with(id, |conn, _, _| conn.abort(Cause::Overflow)),
            Command::Back { id, result } => self.with(id, |conn, _, _| conn.handle_back(result)),
            Command::Abort(id) => self.with(id, |conn, _, _| conn.abort(Cause::Aborted)),
        }
    }

    /// Changes one record, then sees to what that makes necessary.
    fn with(&mut self, id: ConnId, change: impl FnOnce(&mut Connection, Time, Rules<'_>)) {
        let Some(entry) = self.table.get_mut(id) else { return };
        change(&mut entry.conn, self.io.now, self.io.rules(entry.door));
        self.io.advance(id, entry, May::Queue);
    }

    fn follow(&mut self, order: &Order) {
        match order {
            Order::Suspend => self.doors.iter_mut().for_each(super::Door::suspend),
            Order::Resume => self.doors.iter_mut().for_each(super::Door::resume),
            Order::Drain(spread) => self.drain(*spread),
            Order::Stop => self.stop(),
            Order::Abandon => {
                self.course = Course::Abandon;
                self.give_up_dials();
            }
            Order::Snapshot(reply) => {
                // The asker may have given up waiting.
                let _gone = reply.send(self.snapshot()).is_err();
            }
        }
    }

    fn drain(&mut self, spread: Duration) {
        if self.course != Course::Serve {
            return;
        }
        self.course = Course::Drain;
        self.give_up_dials();
        self.doors.iter_mut().for_each(super::Door::close_when_empty);
        self.farewells = Some(Farewells::new(self.table.ids(), self.io.now, spread));
    }

    pub(super) fn stop(&mut self) {
        self.course = Course::Stop;
        self.give_up_dials();
        self.close_doors();
        self.with_each(|conn, _, _| conn.die(Cause::ServerStopped));
    }

    fn with_each(&mut self, change: impl Fn(&mut Connection, Time, Rules<'_>)) {
        let ids: Vec<ConnId> = self.table.ids().collect();
        for id in ids {
            self.with(id, &change);
        }
    }

    /// The turn goes on, or the reactor ends if there is nothing left.
    pub(super) fn end_turn(&mut self) {
        self.weigh();
        self.look_at_queues();
        self.look_at_handlers();
        self.table.shrink();
        self.audit_at_times();
        if self.table.is_empty() {
            self.io.pool.trim(1);
        }
        self.phase = if self.is_over() { Phase::Stopped } else { Phase::Sleep };
    }
}
