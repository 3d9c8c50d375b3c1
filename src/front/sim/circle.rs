//! `Circle`: a group of the simulated program, and what its members must have got in the end.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::app::{App, Book, Life, Op, frame};
use super::client::Client;
use super::random::Random;
use crate::core::codec::LengthPrefixed;
use crate::core::context::Context;
use crate::core::group::{Group, SlowPolicy};
use crate::words::sync::lock;

/// One group, and how many messages it was told: their numbers begin at zero.
#[derive(Debug)]
pub(super) struct Circle {
    group: Group,
    told: u32,
    kicks: bool,
}

/// From which message on a connection was a member, and up to which; that is `None` while it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    from: u32,
    to: Option<u32>,
}

/// What stands in messages in the place of a socket: circles begin here.
pub(super) const CIRCLE: usize = 0xFFFF_0000;

impl Circle {
    /// A few, as `random` will have them.
    pub(super) fn draw(random: &mut Random) -> Vec<Circle> {
        (0..random.size(0, 3)).map(|_| Circle::draw_one(random)).collect()
    }

    fn draw_one(random: &mut Random) -> Circle {
        let what = random.below(8);
        let policy = match what {
            0 => SlowPolicy::Kick,
            1 | 2 => SlowPolicy::DropNewest,
            3 | 4 => SlowPolicy::conflate(|message: &Bytes| u64::from(message[8] % 4)),
            _ => SlowPolicy::DropOldest,
        };
        let builder = Group::builder(LengthPrefixed::u16()).policy(policy);
        let builder = builder.queue_max_bytes(match random.one_in(2) {
            true => 1 << 20,
            false => random.magnitude(64, 4_000) - 64,
        });
        let group = builder.backlog_max_bytes(random.magnitude(100, 100_000)).build();
        Circle { group, told: 0, kicks: what == 0 }
    }

    /// Nothing of it may be left when all connections have ended.
    pub(super) fn check_over(&self) -> Result<(), String> {
        let stats = self.group.stats();
        let left = (stats.members, stats.backlog_bytes);
        if left != (0, 0) {
            return Err(format!("(members, backlog) of a group are left: {left:?}"));
        }
        Ok(())
    }
}

impl Book {
    /// Tells one of the groups a few things.
    fn broadcast(&mut self) {
        let Some(at) = self.any_circle() else { return };
        for _ in 0..self.random.size(1, 6) {
            let len = self.random.magnitude(1, 600);
            let circle = &mut self.circles[at];
            let message = frame(Op::Cast, CIRCLE + at, circle.told, len);
            circle.told += u32::from(circle.group.broadcast(message).is_ok());
        }
    }

    fn any_circle(&mut self) -> Option<usize> {
        (!self.circles.is_empty()).then(|| self.random.below(self.circles.len()))
    }

    /// Notes that a connection joins, and answers with the group.
    fn enter(&mut self, id: usize, at: usize) -> Group {
        let Circle { group, told, kicks } = &self.circles[at];
        let (group, told, kicks) = (group.clone(), *told, *kicks);
        let life = self.life(id);
        life.lagged_out |= kicks;
        let spans = life.spans.entry(at).or_default();
        if spans.last().is_none_or(|span| span.to.is_some()) {
            spans.push(Span { from: told, to: None });
        }
        group
    }

    /// Notes that a connection leaves, and answers with the group.
    fn exit(&mut self, id: usize, at: usize) -> Group {
        let (group, told) = (self.circles[at].group.clone(), self.circles[at].told);
        if let Some(span) = self.life(id).spans.get_mut(&at).and_then(|spans| spans.last_mut()) {
            span.to.get_or_insert(told);
        }
        group
    }

    /// A connection begins as a member, or does not.
    pub(super) fn begin_in_circle(&mut self, id: usize, cx: &mut Context<'_>) {
        if let Some(at) = self.any_circle().filter(|_| self.random.one_in(2)) {
            cx.join(&self.enter(id, at));
        }
    }

    /// A handler joins, leaves or tells the others.
    pub(super) fn use_circles(&mut self, id: usize, cx: &mut Context<'_>) {
        let what = self.random.below(12);
        let Some(at) = self.any_circle() else { return };
        match what {
            0..4 => cx.join(&self.enter(id, at)),
            4 => cx.leave(&self.exit(id, at)),
            5..8 => self.broadcast(),
            _ => {}
        }
    }

    /// What went through the groups, and what did not.
    pub(super) fn circle_sums(&self) -> (u64, u64) {
        let stats = self.circles.iter().map(|circle| circle.group.stats());
        stats.fold((0, 0), |(came, lost), stats| (came + stats.delivered, lost + stats.lost))
    }

    /// What must be true of all members together: what is missing in the middle of what a polite
    /// client got was dropped for being too much, and losses were told once at most.
    pub(super) fn judge_circles(&self, misses: &BTreeMap<usize, u64>) -> Result<(), String> {
        for (at, circle) in self.circles.iter().enumerate() {
            circle.check_over()?;
            let (missed, lost) = (misses.get(&at).copied().unwrap_or(0), circle.group.stats().lost);
            if missed > lost {
                return Err(format!("{missed} messages of circle {at} are missing, {lost} lost"));
            }
        }
        let told: u64 = self.lives.iter().map(|life| life.lagged).sum();
        let (_, lost) = self.circle_sums();
        if told > lost {
            return Err(format!("members were told of {told} lost messages, there were {lost}"));
        }
        Ok(())
    }
}

impl App {
    /// A thread of the user's tells a group something.
    pub(super) fn broadcast(&self) {
        lock(&self.book).broadcast();
    }

    /// ... or has a connection join or leave one.
    pub(super) fn move_member(&self) {
        let mut book = lock(&self.book);
        let Some(at) = book.any_circle() else { return };
        if book.handles.is_empty() {
            return;
        }
        let count = book.handles.len();
        let which = book.random.below(count);
        let (id, handle) = book.handles[which].clone();
        if book.random.one_in(3) {
            handle.leave(&book.exit(id, at));
        } else {
            handle.join(&book.enter(id, at));
        }
    }
}

/// What is wrong with what a client was told as a member of groups. `polite`: its connection ended
/// well, so that nothing is missing but what was lost; the number of those goes to `misses`.
pub(super) fn judge_member(
    life: &Life,
    client: &Client,
    polite: bool,
    misses: &mut BTreeMap<usize, u64>,
) -> Result<(), String> {
    let mut spans = life.spans.clone();
    for (&at, heard) in &client.heard {
        let spans = spans.remove(&at).unwrap_or_default();
        let is_due = |number: u32| {
            let holds = |span: &Span| number >= span.from && span.to.is_none_or(|to| number < to);
            spans.iter().any(holds)
        };
        if let Some(number) = heard.iter().find(|&&number| !is_due(number)) {
            return Err(format!("message {number} of circle {at} came to no member: {spans:?}"));
        }
        if let ([Span { from, to: None }], Some(&last), true) = (&spans[..], heard.last(), polite) {
            let missing = u64::from(last + 1 - from) - heard.len() as u64;
            *misses.entry(at).or_default() += missing;
        }
    }
    Ok(())
}
