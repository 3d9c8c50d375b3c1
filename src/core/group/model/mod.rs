//! Models of groups: who joins and leaves while others broadcast, over the real hub, roll, seats
//! and mailbox.
//!
//! What a reactor does with the letters is plain code without threads; a list of members stands for
//! it here. A lost wake-up shows as a deadlock. Loom takes every turn of few threads, Shuttle some
//! turns of many.

#[cfg(not(shuttle))]
mod every;
#[cfg(shuttle)]
mod some;

use std::any::TypeId;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Group, Seat, Seats};
use crate::core::codec::Raw;
use crate::core::gate::Gate;
use crate::core::handle::Handle;
use crate::core::post::{Command, Post};
use crate::parts::mailbox::{Mailbox, Wake};
use crate::words::id::ConnId;
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait};

/// What threads share with a reactor.
struct Desk {
    mailbox: Mailbox<Command>,
    bell: Arc<Bell>,
    seats: Seats,
}

/// What the reactor sleeps by.
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Arc<Bell> {
    fn wake(&self) {
        *lock(&self.rung) = true;
        self.heard.notify_one();
    }
}

impl Post for Desk {
    fn command(&self, command: Command) {
        self.mailbox.post(command);
    }

    fn enroll(&self, seat: &Arc<Seat>) -> bool {
        self.seats.enroll(seat)
    }

    fn dismiss(&self, seat: &Arc<Seat>) {
        self.seats.dismiss(seat);
    }
}

impl Desk {
    fn new() -> Arc<Desk> {
        let bell = Arc::new(Bell { rung: Mutex::new(false), heard: Condvar::new() });
        let mailbox = Mailbox::new(Box::new(Arc::clone(&bell)));
        Arc::new(Desk { mailbox, bell, seats: Seats::new() })
    }

    /// A connection of its reactor.
    fn connection(self: &Arc<Self>, slot: usize) -> Handle {
        let post = Arc::clone(self) as Arc<dyn Post>;
        let id = ConnId::new(0, slot, 1);
        Handle::new(Arc::new(Gate::new(id, TypeId::of::<()>(), usize::MAX, post)))
    }

    /// The last letter of a thread.
    fn end(&self) {
        self.command(Command::Close(ConnId::new(0, 0, 0)));
    }

    /// All letters, of which there is one.
    fn poll(&self) -> Vec<Command> {
        let mut letters = Vec::new();
        if self.mailbox.fall_asleep() {
            let mut rung = lock(&self.bell.rung);
            while !*rung {
                rung = wait(&self.bell.heard, rung);
            }
            *rung = false;
            drop(rung);
            self.mailbox.wake_up();
        }
        self.mailbox.drain_into(&mut letters);
        letters
    }
}

/// The one who reads the letters.
struct Reader {
    desk: Arc<Desk>,
    members: Vec<(Arc<Seat>, ConnId)>,
    told: BTreeMap<ConnId, Vec<Bytes>>,
    ends: usize,
}

impl Reader {
    fn of(desk: &Arc<Desk>) -> Reader {
        let desk = Arc::clone(desk);
        Reader { desk, members: Vec::new(), told: BTreeMap::new(), ends: 0 }
    }

    /// Goes on until so many threads have written their last letter.
    fn read(&mut self, ends: usize) {
        while self.ends < ends {
            for letter in self.desk.poll() {
                self.obey(letter);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let at = |members: &[(Arc<Seat>, ConnId)], seat: &Arc<Seat>, id| {
            members.iter().position(|(there, member)| Arc::ptr_eq(there, seat) && *member == id)
        };
        match command {
            Command::Join(id, seat) if at(&self.members, &seat, id).is_none() => {
                self.members.push((seat, id));
            }
            Command::Join(_, seat) => seat.release(),
            Command::Leave(id, seat) => {
                if let Some(at) = at(&self.members, &seat, id) {
                    self.members.remove(at);
                    seat.release();
                }
            }
            Command::Broadcast(seat, shot) => {
                for (_, id) in self.members.iter().filter(|(at, _)| Arc::ptr_eq(at, &seat)) {
                    self.told.entry(*id).or_default().push(shot.bytes.clone());
                }
                seat.taken(&shot);
            }
            Command::Close(_) => self.ends += 1,
            Command::Send { .. } | Command::Abort(_) | Command::Overflow(_) => unreachable!(),
            Command::Back { .. } => unreachable!(),
        }
    }

    fn told(&self, member: &Handle) -> &[Bytes] {
        self.told.get(&member.id()).map_or(&[], Vec::as_slice)
    }
}

fn group() -> Group {
    Group::new(Raw::new())
}

/// All have left: nothing of the group is left in any reactor.
fn assert_over(group: &Group) {
    assert!(group.hub.roll.all().is_empty(), "a seat is left");
}
