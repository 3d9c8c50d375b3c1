//! `Peer`: what a pool connects to: it answers each frame with the same frame, sometimes says what
//! nobody has asked for, and leaves when it likes.

use std::time::Duration;

use super::net::{Net, Received};
use super::random::Random;
use crate::words::clock::Time;

/// One of them, for one connection.
#[derive(Debug)]
pub(super) struct Peer {
    id: usize,
    random: Random,
    pace: Duration,
    /// Answers after which it leaves; `None`: when the server does.
    answers_max: Option<u32>,
    answers: u32,
    /// One in so many answers comes twice.
    babbles: u64,
    resets: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    act_at: Time,
    over: bool,
}

impl Peer {
    /// One that waits behind this route.
    pub(super) fn draw(mut random: Random, id: usize, babbles: bool) -> Peer {
        let pace = Duration::from_micros(random.magnitude(1, 4_000) as u64);
        let answers_max = random.one_in(2).then(|| u32::try_from(random.below(6)).unwrap_or(0));
        let babbles = if babbles { 4 } else { u64::MAX };
        let resets = random.one_in(3);
        Peer {
            id,
            random,
            pace,
            answers_max,
            answers: 0,
            babbles,
            resets,
            input: Vec::new(),
            output: Vec::new(),
            act_at: Time::ZERO,
            over: false,
        }
    }

    pub(super) fn id(&self) -> usize {
        self.id
    }

    /// Whether its connection has ended, or there never will be one.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// When it can do something next; `None` if it waits for the server.
    pub(super) fn acts_at(&self, net: &Net) -> Option<Time> {
        let route = &net.routes[self.id];
        if self.over || !(route.is_taken() || route.over) {
            return None;
        }
        let sends = !self.output.is_empty() && net.send_room(self.id) > 0;
        let acts = !route.is_taken() || net.has_news(self.id) || sends || self.leaves(net);
        acts.then_some(self.act_at)
    }

    /// Does one thing.
    pub(super) fn step(&mut self, net: &mut Net) {
        let most = u64::try_from(self.pace.as_nanos()).unwrap_or(u64::MAX);
        self.act_at = net.now + Duration::from_nanos(self.random.range(0, most));
        if !net.routes[self.id].is_taken() {
            self.over = true;
        } else if self.leaves(net) {
            self.leave(net);
        } else if net.has_news(self.id) {
            self.read(net);
        } else {
            let count = self.output.len().min(net.send_room(self.id));
            let bytes: Vec<u8> = self.output.drain(..count).collect();
            net.send(self.id, &bytes, false);
        }
    }

    fn leaves(&self, net: &Net) -> bool {
        let finished = net.sockets[self.id].facts.client_finished;
        let enough = self.answers_max.is_some_and(|max| self.answers >= max);
        enough && self.output.is_empty() && !finished
    }

    fn leave(&mut self, net: &mut Net) {
        if self.resets {
            net.reset(self.id);
            self.over = true;
        } else {
            net.finish(self.id);
        }
    }

    fn read(&mut self, net: &mut Net) {
        match net.receive(self.id, 4_000) {
            Received::Bytes(bytes) => {
                self.input.extend(bytes);
                self.answer();
            }
            Received::Nothing => {}
            Received::Eof => {
                if !net.sockets[self.id].facts.client_finished {
                    net.finish(self.id);
                }
                self.over = true;
            }
            Received::Reset => self.over = true,
        }
    }

    fn answer(&mut self) {
        while let Some(prefix) = self.input.get(..2) {
            let end = 2 + usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
            if self.input.len() < end {
                break;
            }
            let frame: Vec<u8> = self.input.drain(..end).collect();
            self.output.extend(&frame);
            self.answers += 1;
            if self.random.one_in(self.babbles) {
                self.output.extend(&frame);
            }
        }
    }
}
