//! `Client`: a simulated client, which knows what it must get back and complains if it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{HEAD, Op, frame, parse};
use super::circle::CIRCLE;
use super::net::{Net, Received, Socket};
use super::plan::{FAREWELL, Plan};
use super::random::Random;
use super::trace::{Note, Verb};
use crate::words::clock::Time;

/// One client, for one connection.
#[derive(Debug)]
pub(super) struct Client {
    script: Script,
    random: Random,
    /// Its socket, once it has connected.
    pub(super) socket: Option<usize>,
    /// What it sends, frame by frame.
    output: Vec<u8>,
    /// Where each of its frames ends in there.
    ends: Vec<usize>,
    sent: usize,
    input: Vec<u8>,
    received: usize,
    /// Replies that came.
    pub(super) replies: u32,
    pushes: u32,
    /// Handlers that it has seen replaced.
    switched: u32,
    drops: u32,
    /// What it was told as a member of circles.
    pub(super) heard: BTreeMap<usize, Vec<u32>>,
    act_at: Time,
    /// Who was deaf and silent now says at least that it is at the end.
    calm: bool,
    pub(super) end: Option<End>,
}

/// How it was for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody listened, or the server never came.
    Refused,
    /// The server finished, and so did we.
    Eof,
    /// We were reset.
    Reset,
    /// We left without waiting for the end.
    Left,
}

/// What a client is going to do.
#[derive(Clone, Debug)]
struct Script {
    start: Duration,
    listener: usize,
    frames: Vec<(Op, usize)>,
    /// Frames in flight at most.
    ahead: usize,
    /// The most that is sent and read at once, and how long it waits between.
    write: usize,
    read: usize,
    pace: Duration,
    leave: Leave,
}

/// When and how a client ends its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// FIN when all replies have come.
    Done,
    /// FIN when all is sent; the replies come afterwards.
    HalfClose,
    /// FIN when so many bytes are sent.
    CutAt(usize),
    /// Reset when so many bytes are sent.
    ResetAt(usize),
    /// Reset when so many bytes have come.
    ResetFrom(usize),
    /// Closes without reading any more when so many bytes are sent.
    VanishAt(usize),
    /// Its machine loses its power when so many bytes are sent.
    DeadAt(usize),
    /// Reads nothing and stays.
    Deaf,
}

impl Client {
    /// A client as `random` will have it.
    pub(super) fn draw(plan: &Plan, mut random: Random) -> Client {
        let script = Script::draw(plan, &mut random);
        let act_at = plan.epoch + script.start;
        Client {
            script,
            random,
            socket: None,
            output: Vec::new(),
            ends: Vec::new(),
            sent: 0,
            input: Vec::new(),
            received: 0,
            replies: 0,
            pushes: 0,
            switched: 0,
            drops: 0,
            heard: BTreeMap::new(),
            act_at,
            calm: false,
            end: None,
        }
    }

    /// One that the server connects to, by way of this route.
    pub(super) fn behind(plan: &Plan, random: Random, id: usize) -> Client {
        let mut client = Client::draw(plan, random);
        client.act_at = plan.epoch;
        client.prepare(id);
        client
    }

    /// When it can do something next; `None` if it waits for the server.
    pub(super) fn acts_at(&self, net: &Net) -> Option<Time> {
        if self.end.is_some() {
            return None;
        }
        let Some(id) = self.socket else { return Some(self.act_at) };
        if net.routes.get(id).is_some_and(|route| !route.is_taken()) {
            return net.routes[id].over.then_some(self.act_at);
        }
        let acts = self.reads(net, id) || self.may_send(net, id) > 0 || self.leaves(net, id);
        acts.then_some(self.act_at)
    }

    /// Does one thing.
    pub(super) fn step(&mut self, net: &mut Net) {
        self.act_at = net.now + self.random_pace();
        let Some(id) = self.socket else { return self.connect(net) };
        if net.routes.get(id).is_some_and(|route| !route.is_taken()) {
            self.end = Some(End::Refused);
            return;
        }
        if self.leaves(net, id) {
            self.leave(net, id);
        } else if self.reads(net, id) {
            self.read(net, id);
        }
        if self.end.is_none() {
            self.write(net, id);
        }
    }

    /// The faults are over: who was deaf or silent comes to an end now, and nobody dawdles.
    pub(super) fn calm_down(&mut self) {
        self.script.pace = self.script.pace.min(Duration::from_micros(100));
        self.calm = true;
    }

    /// How many whole frames it has sent.
    pub(super) fn frames_sent(&self) -> usize {
        self.frames_within(self.sent)
    }

    /// How many whole frames its first `bytes` bytes are.
    pub(super) fn frames_within(&self, bytes: usize) -> usize {
        self.ends.iter().filter(|&&end| end <= bytes).count()
    }

    /// Whether so many bytes of it are whole frames.
    pub(super) fn is_whole(&self, bytes: usize) -> bool {
        bytes == 0 || self.ends.contains(&bytes)
    }

    /// Whether it was told anything.
    pub(super) fn was_told(&self) -> bool {
        self.received > 0
    }

    /// Whether it has stopped to listen, so that nothing can be said of what it was sent.
    pub(super) fn is_rude(&self) -> bool {
        match self.script.leave {
            Leave::ResetAt(_)
            | Leave::ResetFrom(_)
            | Leave::VanishAt(_)
            | Leave::DeadAt(_)
            | Leave::Deaf => true,
            Leave::Done | Leave::HalfClose | Leave::CutAt(_) => false,
        }
    }

    fn random_pace(&mut self) -> Duration {
        let most = u64::try_from(self.script.pace.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.range(0, most))
    }

    fn connect(&mut self, net: &mut Net) {
        let Some(id) = net.connect(self.script.listener) else {
            self.end = Some(End::Refused);
            return;
        };
        self.prepare(id);
    }

    /// It has this socket, and says what it has to say.
    fn prepare(&mut self, id: usize) {
        self.socket = Some(id);
        let mut switched = 0;
        for (number, &(op, len)) in (0..).zip(&self.script.frames) {
            let payload = frame(op, id, number, len);
            let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            let prefix = len.to_be_bytes();
            self.output.extend_from_slice(&prefix[prefix.len() - width(switched)..]);
            switched += u32::from(op == Op::Switch);
            self.output.extend_from_slice(&payload);
            self.ends.push(self.output.len());
        }
    }

    /// How much it may send now, by its script and by the window.
    fn may_send(&self, net: &Net, id: usize) -> usize {
        let ahead = usize::try_from(self.replies).unwrap_or(0) + self.script.ahead;
        let allowed = match ahead.checked_sub(1).and_then(|last| self.ends.get(last)) {
            Some(&end) => end,
            None => self.output.len(),
        };
        let allowed = match self.script.leave {
            Leave::CutAt(at) | Leave::ResetAt(at) | Leave::VanishAt(at) | Leave::DeadAt(at) => {
                allowed.min(at)
            }
            Leave::Done | Leave::HalfClose | Leave::ResetFrom(_) | Leave::Deaf => allowed,
        };
        allowed.saturating_sub(self.sent).min(net.send_room(id))
    }

    fn write(&mut self, net: &mut Net, id: usize) {
        let most = self.may_send(net, id).min(self.script.write);
        if most == 0 {
            return;
        }
        let count = self.random.size(1, most);
        let urgent = net.short_read_drains && self.random.one_in(16);
        net.send(id, &self.output[self.sent..self.sent + count], urgent);
        self.sent += count;
    }

    /// Whether its time has come to end its side.
    fn leaves(&self, net: &Net, id: usize) -> bool {
        if net.sockets[id].facts.client_finished || net.sockets[id].reset_down {
            return false;
        }
        let all_sent = self.sent == self.output.len();
        match self.script.leave {
            Leave::Done => all_sent && self.replies as usize >= self.ends.len(),
            Leave::HalfClose => all_sent,
            Leave::CutAt(at) | Leave::ResetAt(at) | Leave::VanishAt(at) | Leave::DeadAt(at) => {
                self.sent >= at.min(self.output.len())
            }
            Leave::ResetFrom(at) => self.received >= at,
            Leave::Deaf => self.calm,
        }
    }

    fn leave(&mut self, net: &mut Net, id: usize) {
        match self.script.leave {
            Leave::Done | Leave::HalfClose | Leave::CutAt(_) | Leave::Deaf => net.finish(id),
            Leave::ResetAt(_) | Leave::ResetFrom(_) => {
                net.reset(id);
                self.end = Some(End::Left);
            }
            Leave::VanishAt(_) => {
                net.close(id);
                self.end = Some(End::Left);
            }
            Leave::DeadAt(_) => {
                net.lose_power(id);
                self.end = Some(End::Left);
            }
        }
    }

    /// Whether there is something for it to read; the deaf only notice that it is over.
    fn reads(&self, net: &Net, id: usize) -> bool {
        let Socket { down, reset_down, .. } = &net.sockets[id];
        match self.script.leave {
            Leave::Deaf => *reset_down || down.fin_arrived,
            Leave::Done
            | Leave::HalfClose
            | Leave::CutAt(_)
            | Leave::ResetAt(_)
            | Leave::ResetFrom(_)
            | Leave::VanishAt(_)
            | Leave::DeadAt(_) => net.has_news(id),
        }
    }

    fn read(&mut self, net: &mut Net, id: usize) {
        let most = self.random.size(1, self.script.read);
        match net.receive(id, most) {
            Received::Bytes(bytes) => {
                self.received += bytes.len();
                self.input.extend_from_slice(&bytes);
                if let Err(what) = self.digest(id) {
                    net.fail(format!("client of socket {id}: {what}"));
                }
            }
            Received::Nothing => {}
            Received::Eof => {
                if !net.sockets[id].facts.client_finished {
                    net.finish(id);
                }
                self.finish(net, id, End::Eof);
            }
            Received::Reset => self.finish(net, id, End::Reset),
        }
    }

    fn finish(&mut self, net: &mut Net, id: usize, end: End) {
        self.end = Some(end);
        net.note(Note::Client(id, Verb::End, self.received));
    }

    /// Takes the frames apart that have come.
    fn digest(&mut self, id: usize) -> Result<(), String> {
        if self.input.first() == FAREWELL.first() {
            let alone = self.received == self.input.len() && FAREWELL.starts_with(&self.input);
            return if alone { Ok(()) } else { Err(String::from("a farewell among replies")) };
        }
        loop {
            let width = width(self.switched);
            let Some(prefix) = self.input.get(..width) else { return Ok(()) };
            let len = prefix.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
            let Some(payload) = self.input.get(width..width + len) else { return Ok(()) };
            if payload.first() == Some(&Op::Cast.code()) {
                self.hear(width, len)?;
                continue;
            }
            let (op, number) = parse(payload, id)?;
            let expected = match op {
                Op::Push => &mut self.pushes,
                Op::Drop => {
                    // Each flood counts from zero.
                    if number == 0 {
                        self.drops = 0;
                    }
                    &mut self.drops
                }
                Op::Echo
                | Op::Close
                | Op::Finish
                | Op::Abort
                | Op::Flood
                | Op::Share
                | Op::Switch
                | Op::Cast => {
                    let asked = self.script.frames.get(number as usize);
                    if asked != Some(&(op, len - HEAD)) {
                        return Err(format!("a reply to what was never sent: {op:?} {number}"));
                    }
                    &mut self.replies
                }
            };
            if number != *expected {
                return Err(format!("{op:?} {number} came instead of {expected}"));
            }
            *expected += 1;
            self.switched += u32::from(op == Op::Switch);
            self.input.drain(..width + len);
        }
    }
}

impl Client {
    /// Takes a message of a circle from the input: those of one circle come in order, each once.
    fn hear(&mut self, width: usize, len: usize) -> Result<(), String> {
        let payload: Vec<u8> = self.input.drain(..width + len).skip(width).collect();
        let whose = payload.get(1..5).ok_or("a short frame")?;
        let whose = whose.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let circle = whose.checked_sub(CIRCLE).ok_or("a message of no circle")?;
        let (_, number) = parse(&payload, whose)?;
        let heard = self.heard.entry(circle).or_default();
        if let Some(last) = heard.last().filter(|&&last| last >= number) {
            return Err(format!("message {number} of circle {circle} came after {last}"));
        }
        heard.push(number);
        Ok(())
    }
}

/// The bytes of a length, as the handler with this number has them.
fn width(number: u32) -> usize {
    if number % 2 == 0 { 2 } else { 4 }
}

impl Script {
    fn draw(plan: &Plan, random: &mut Random) -> Script {
        let count = random.size(0, 10);
        let mut frames: Vec<(Op, usize)> = Vec::new();
        for _ in 0..count {
            let op = match random.below(24) {
                // Who fills memory, takes its time to read or never does.
                _ if plan.is_scarce() && random.one_in(3) => Op::Flood,
                0 => Op::Flood,
                1..4 => Op::Share,
                // Members of a group speak alike.
                4 | 5 if !plan.circles && !plan.raw => Op::Switch,
                _ => Op::Echo,
            };
            frames.push((op, random.magnitude(1, 3_000) - 1));
        }
        let last = match random.below(10) {
            0 | 1 => Some(Op::Close),
            2 => Some(Op::Finish),
            3 => Some(Op::Abort),
            _ => None,
        };
        frames.extend(last.map(|op| (op, random.size(0, 50))));
        let total: usize = frames.iter().map(|frame| frame.1 + HEAD + 2).sum();
        let at = random.size(0, total);
        let leave = match random.below(15) {
            0 => Leave::CutAt(at),
            1 => Leave::ResetAt(at),
            2 => Leave::ResetFrom(at),
            3 => Leave::VanishAt(at),
            4 => Leave::Deaf,
            14 => Leave::DeadAt(at),
            5..8 => Leave::HalfClose,
            _ => Leave::Done,
        };
        let storm = u64::try_from(plan.storm.as_nanos()).unwrap_or(u64::MAX);
        // Long after everybody else, when idle threads have left.
        let late = Duration::from_secs(if random.one_in(64) { 12 } else { 0 });
        Script {
            start: Duration::from_nanos(random.range(0, storm)) + late,
            listener: random.below(plan.listening.len()),
            frames,
            ahead: if random.one_in(2) { 1 } else { random.size(1, 12) },
            write: random.magnitude(1, 4_000) + 16,
            read: random.magnitude(1, 4_000) + 16,
            pace: Duration::from_micros(random.magnitude(1, 4_000) as u64),
            leave,
        }
    }
}
