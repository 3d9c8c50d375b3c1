//! The gateway: answers reports, commands single devices and whole fleets, and loses no command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use switchboard::close::Blame;
use switchboard::group::Group;
use switchboard::{
    Builder, CloseReason, ConnId, Context, Error, Handle, Handler, LengthPrefixed, Outcome, Server,
};

use crate::board::Board;
use crate::words::Word;

/// How many fleets there are.
pub(crate) const FLEETS: usize = 8;
/// How long the store takes, in which some reports have to be put before they are answered.
const STORE_TAKES: Duration = Duration::from_millis(50);
/// After so many commands to single devices there is one to a whole fleet.
const ONES_PER_ALL: usize = 20;

/// The wire format of all connections.
pub(crate) fn codec() -> LengthPrefixed {
    LengthPrefixed::u16().frame_max(256)
}

/// What all sessions share.
pub(crate) struct Gateway {
    board: Arc<Board>,
    fleets: Vec<Group>,
    desk: Mutex<Desk>,
}

/// From where commands are sent, one at a time.
#[derive(Default)]
struct Desk {
    devices: BTreeMap<ConnId, Handle>,
    /// Whose turn it was last.
    last: Option<ConnId>,
    turns: usize,
    /// Commands to each fleet.
    sent: [u64; FLEETS],
    /// The gateway comes to its end: no further commands.
    closed: bool,
}

/// One device, as the gateway sees it.
struct Session {
    gateway: Arc<Gateway>,
    /// Commands to this device alone.
    ones: Numbers,
    /// `None` until it has said hello.
    member: Option<Member>,
    /// It closes when all commands are confirmed.
    ends: bool,
}

/// A device in its fleet.
struct Member {
    id: ConnId,
    fleet: usize,
    /// The last command to the fleet that it has confirmed, or that was before its time.
    confirmed: u64,
}

/// Commands are numbered from 1, and confirmed in this order.
#[derive(Clone, Copy, Default)]
struct Numbers {
    sent: u64,
    confirmed: u64,
}

impl Gateway {
    pub(crate) fn new(board: &Arc<Board>) -> Arc<Self> {
        let fleets = (0..FLEETS).map(|_| Group::new(codec())).collect();
        Arc::new(Gateway { board: Arc::clone(board), fleets, desk: Mutex::default() })
    }

    pub(crate) fn start(
        self: &Arc<Self>,
        builder: Builder,
        addr: SocketAddr,
    ) -> Result<Server, Error> {
        let gateway = Arc::clone(self);
        builder.listen(addr, codec(), move |_peer| Session::new(&gateway)).start()
    }

    /// Commands the next device, and from time to time a fleet.
    pub(crate) fn command(&self) {
        let mut desk = self.desk();
        if desk.closed {
            return;
        }
        if let Some(device) = desk.next_device() {
            // Runs on the device's connection, between two calls of its handler.
            let queued = device.run(|session: &mut Session, cx| session.command(cx));
            self.board.note_refused(queued.is_err());
        }
        if desk.turns % ONES_PER_ALL == 0 {
            let fleet = desk.turns / ONES_PER_ALL % FLEETS;
            desk.sent[fleet] += 1;
            let queued = self.fleets[fleet].broadcast(Word::All(desk.sent[fleet]));
            self.board.note_refused(queued.is_err());
        }
        desk.turns += 1;
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// One after the other, in the order of their names.
    fn next_device(&mut self) -> Option<Handle> {
        let from = self.last.map_or(Unbounded, Excluded);
        let later = self.devices.range((from, Unbounded)).next();
        let (id, handle) = later.or_else(|| self.devices.iter().next())?;
        self.last = Some(*id);
        Some(handle.clone())
    }
}

impl Session {
    fn new(gateway: &Arc<Gateway>) -> Self {
        let (gateway, ones) = (Arc::clone(gateway), Numbers::default());
        Session { gateway, ones, member: None, ends: false }
    }

    fn enter(&mut self, cx: &mut Context, fleet: usize) -> Outcome {
        let group = self.gateway.fleets.get(fleet).ok_or("there is no such fleet")?;
        let mut desk = self.gateway.desk();
        // While the desk is ours nothing is sent; what is sent later reaches this device.
        cx.join(group);
        self.member = Some(Member { id: cx.id(), fleet, confirmed: desk.sent[fleet] });
        desk.devices.insert(cx.id(), cx.handle());
        Ok(())
    }

    /// Sends a command to this device alone.
    fn command(&mut self, cx: &mut Context) -> Outcome {
        self.ones.sent += 1;
        Ok(cx.send(Word::One(self.ones.sent))?)
    }

    /// Commands to its fleet that a device may have confirmed, and those that it has.
    fn fleet_numbers(&self) -> Numbers {
        self.member.as_ref().map_or(Numbers::default(), |member| Numbers {
            sent: self.gateway.desk().sent[member.fleet],
            confirmed: member.confirmed,
        })
    }

    /// The device has carried out command `number`.
    fn confirm(&mut self, cx: &mut Context, number: u64, to_fleet: bool) -> Outcome {
        let numbers = if to_fleet { self.fleet_numbers() } else { self.ones };
        if number <= numbers.confirmed || number > numbers.sent {
            return Err(format!("command {number} is not to be confirmed").into());
        }
        match self.member.as_mut().filter(|_| to_fleet) {
            Some(member) => member.confirmed = number,
            None => self.ones.confirmed = number,
        }
        // What it has not got before this one, since its queue was full, it will never get.
        self.gateway.board.confirm(number - numbers.confirmed - 1);
        self.close_if_done(cx);
        Ok(())
    }

    fn owed(&self) -> u64 {
        self.ones.owed() + self.fleet_numbers().owed()
    }

    fn close_if_done(&self, cx: &mut Context) {
        if self.ends && self.owed() == 0 {
            cx.close();
        }
    }
}

impl Numbers {
    fn owed(self) -> u64 {
        self.sent - self.confirmed
    }
}

impl Handler for Session {
    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        match Word::parse(&frame)? {
            Word::Hello(fleet) => return self.enter(cx, usize::try_from(fleet)?),
            Word::Report(number) => cx.send(Word::Reply(number))?,
            Word::Archive(number) => {
                // Blocks this thread. Whoever else it had to serve is served by another one.
                thread::sleep(STORE_TAKES);
                cx.send(Word::Reply(number))?;
            }
            Word::OneDone(number) => return self.confirm(cx, number, false),
            Word::AllDone(number) => return self.confirm(cx, number, true),
            word @ (Word::Reply(_) | Word::One(_) | Word::All(_)) => {
                return Err(format!("a device does not say `{word}`").into());
            }
        }
        self.gateway.board.count_report();
        Ok(())
    }

    /// The gateway comes to its end: it sends nothing new, and hears out who has a command.
    fn on_drain(&mut self, cx: &mut Context) -> Outcome {
        self.gateway.desk().closed = true;
        self.ends = true;
        self.close_if_done(cx);
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        let board = &self.gateway.board;
        board.count_end(self.owed(), reason.blame() == Blame::Peer);
        if let Some(member) = &self.member {
            self.gateway.desk().devices.remove(&member.id);
        }
    }
}
