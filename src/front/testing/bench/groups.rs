//! `Groups`: the groups that the connection of a bench is a member of, as a reactor with one
//! connection has them.

use slab::Slab;

use crate::core::conn::Connection;
use crate::core::group::Seat;
use crate::parts::pending::Shot;
use crate::words::sync::Arc;
use crate::words::sync::atomic::Ordering::Relaxed;

/// Each group has the number under which it stands here.
#[derive(Debug, Default)]
pub(super) struct Groups {
    seats: Slab<Arc<Seat>>,
}

impl Groups {
    fn number(&self, seat: &Arc<Seat>) -> Option<usize> {
        self.seats.iter().find(|(_, other)| Arc::ptr_eq(other, seat)).map(|(number, _)| number)
    }

    /// The connection is a member from now on, if it is not yet, and has not begun to end.
    pub(super) fn join(&mut self, conn: &mut Connection, seat: Arc<Seat>) {
        if !conn.takes_broadcasts() || self.number(&seat).is_some() {
            return seat.release();
        }
        seat.hub.members.fetch_add(1, Relaxed);
        let number = self.seats.insert(Arc::clone(&seat));
        conn.join(name(number), 0, seat);
    }

    /// The connection is a member no longer.
    pub(super) fn leave(&mut self, conn: &mut Connection, seat: &Arc<Seat>) {
        if let Some(number) = self.number(seat) {
            self.part(conn, number);
        }
    }

    /// The connection is a member of nothing any more.
    pub(super) fn leave_all(&mut self, conn: &mut Connection) {
        while let Some((number, _)) = self.seats.iter().next() {
            self.part(conn, number);
        }
    }

    /// The connection is told what a group is told.
    pub(super) fn tell(&mut self, conn: &mut Connection, seat: &Arc<Seat>, shot: Shot) {
        seat.taken(&shot);
        let Some(number) = self.number(seat) else { return };
        if conn.takes_broadcasts() {
            conn.handle_told(name(number), &[shot], 0);
        } else {
            self.part(conn, number);
        }
    }

    fn part(&mut self, conn: &mut Connection, number: usize) {
        let seat = self.seats.remove(number);
        conn.leave(name(number));
        seat.hub.members.fetch_sub(1, Relaxed);
        seat.release();
    }
}

fn name(number: usize) -> u32 {
    u32::try_from(number).expect("a connection is a member of fewer groups than 2^32")
}
