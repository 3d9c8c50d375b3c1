//! The third listener of the server: its handlers have groups, timers, work of their own and
//! connections that they open.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use switchboard::control::Control;
use switchboard::group::Group;
use switchboard::{Context, Handle, Handler, Outcome, Raw};

use crate::common::{frames, pause};

/// What the first byte of a frame asks for.
pub(crate) const JOIN: u8 = b'j';
/// The rest is told to all of the room.
pub(crate) const TELL: u8 = b'g';
/// The rest comes back once a timer has fired, after as many milliseconds as the second byte says.
pub(crate) const LATER: u8 = b't';
/// The rest comes back from a thread that has blocked for as many milliseconds.
pub(crate) const WORK: u8 = b'o';
/// The rest comes back from the listener that echoes, over a connection that the server opens.
pub(crate) const FETCH: u8 = b'c';

/// How many rooms there are; the second byte of a join names one.
pub(crate) const ROOMS: u8 = 4;

/// What all errands share.
pub(crate) struct Common {
    pub(crate) rooms: Vec<Group>,
    /// Set once the server has started, before it is told to anybody.
    pub(crate) control: OnceLock<(Control, SocketAddr)>,
}

impl Common {
    pub(crate) fn new() -> Arc<Self> {
        let room = |_| Group::builder(frames()).queue_max_bytes(1 << 20).build();
        Arc::new(Common { rooms: (0..ROOMS).map(room).collect(), control: OnceLock::new() })
    }

    /// How many are in the rooms.
    pub(crate) fn members(&self) -> usize {
        self.rooms.iter().map(Group::len).sum()
    }
}

pub(crate) struct Errands {
    common: Arc<Common>,
    room: usize,
    /// What is said when a timer fires; its key is the place here.
    later: Vec<Bytes>,
}

impl Errands {
    pub(crate) fn new(common: &Arc<Common>) -> Self {
        Errands { common: Arc::clone(common), room: 0, later: Vec::new() }
    }

    fn fetch(&self, cx: &mut Context, question: Bytes) -> Outcome {
        let (control, echo) = self.common.control.get().ok_or("not started yet")?;
        let (client, wanted) = (cx.handle(), question.len());
        let back = client.clone();
        let answer = move |_| Answer { back: back.clone(), wanted, have: BytesMut::new() };
        control.connect(*echo, Raw::new(), answer).then(move |opened| {
            // Either may have ended meanwhile.
            if !opened.is_ok_and(|handle| handle.try_send(question).is_ok()) {
                client.abort();
            }
        });
        Ok(())
    }
}

impl Handler for Errands {
    fn on_frame(&mut self, cx: &mut Context, mut frame: BytesMut) -> Outcome {
        let rest = frame.split_off(2.min(frame.len())).freeze();
        let &[kind, number] = &frame[..] else { return Err("two bytes at least".into()) };
        let time = Duration::from_millis(number.into());
        match kind {
            JOIN => {
                self.room = usize::from(number % ROOMS);
                cx.join(&self.common.rooms[self.room]);
                cx.send("joined")?;
            }
            TELL => drop(self.common.rooms[self.room].broadcast(rest)),
            LATER => {
                cx.set_timer(self.later.len() as u64, time)?;
                self.later.push(rest);
            }
            WORK => cx.offload(
                move || {
                    pause(time);
                    rest
                },
                |_: &mut Errands, cx: &mut Context, rest| Ok(cx.send(rest)?),
            )?,
            FETCH => self.fetch(cx, rest)?,
            _ => return Err("no errand".into()),
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context, key: u64) -> Outcome {
        let place = usize::try_from(key)?;
        Ok(cx.send(std::mem::take(&mut self.later[place]))?)
    }
}

/// Collects an answer and passes it on.
struct Answer {
    back: Handle,
    wanted: usize,
    have: BytesMut,
}

impl Handler for Answer {
    fn on_frame(&mut self, cx: &mut Context, bytes: BytesMut) -> Outcome {
        self.have.extend_from_slice(&bytes);
        if self.have.len() == self.wanted {
            cx.close();
            // The client may not wait for it any more.
            let _gone = self.back.try_send(self.have.split().freeze()).is_err();
        }
        Ok(())
    }
}
