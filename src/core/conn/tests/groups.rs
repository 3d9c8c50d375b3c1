//! Random lives of one member of two groups, against a peer that takes now more and now less.

use super::*;
use crate::core::conn::groups::FEED_BYTES;
use crate::core::group::{Hub, Seat};
use crate::parts::pending::{Policy, SHOT_OVERHEAD_BYTES, Shot};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// What may wait for the member in each group.
const QUEUE_MAX: usize = 1_000;
/// The longest message.
const LEN_MAX: usize = 200;

#[derive(Clone, Debug)]
enum Op {
    /// These messages to one of the groups, by what they are about and their lengths.
    Tell(usize, Vec<(u64, usize)>),
    /// A message of its own.
    Own(usize),
    Room(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let shots = vec((0..4u64, 0..LEN_MAX), 1..6);
    prop_oneof![
        6 => (0..2usize, shots).prop_map(|(group, shots)| Op::Tell(group, shots)),
        2 => (0..LEN_MAX).prop_map(Op::Own),
        4 => (0..900usize).prop_map(Op::Room),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::DropNewest, Policy::DropOldest, Policy::Conflate])
}

/// A message that says whose it is, its number, and where it ends.
fn message(whose: u8, number: u32, len: usize) -> Bytes {
    let mut bytes = vec![whose, u8::try_from(len).expect("a short one")];
    bytes.extend(number.to_be_bytes());
    bytes.resize(6 + len, whose);
    bytes.into()
}

/// The connection of a member, and its groups.
struct Member {
    conn: Connection,
    limits: Limits,
    hubs: Hubs,
    /// How many messages each group was told, and how many of its own there were.
    told: [u32; 3],
    room: usize,
    wire: Vec<u8>,
    lagged: u64,
}

const OWN: u8 = 2;

/// Groups whose reactor ends in the end, or they would hold their seats and these the groups.
struct Hubs(Vec<Arc<Hub>>);

impl Drop for Hubs {
    fn drop(&mut self) {
        self.0.iter().for_each(|hub| hub.roll.all().iter().for_each(Seat::give_up));
    }
}

impl Member {
    fn new(policies: [Policy; 2]) -> Self {
        let Rig { mut conn, limits, mail, .. } = Rig::open();
        let mut hubs = Hubs(Vec::new());
        for (fan, policy) in (0..).zip(policies) {
            let hub = Arc::new(Hub::new(policy, QUEUE_MAX, 1));
            let seat: Arc<Seat> =
                hub.claim(&(Arc::clone(&mail) as Arc<dyn Post>)).expect("there is room");
            conn.join(fan, 0, seat);
            hubs.0.push(hub);
        }
        let (told, wire) = ([0; 3], Vec::new());
        Member { conn, limits, hubs, told, room: 0, wire, lagged: 0 }
    }

    fn number(&mut self, whose: usize) -> u32 {
        self.told[whose] += 1;
        self.told[whose] - 1
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room);
        self.wire.extend_from_slice(&bytes[..taken]);
        self.room -= taken;
        taken
    }

    /// As the reactor tells a member.
    fn tell(&mut self, group: usize, shots: &[(u64, usize)]) {
        let whose = u8::try_from(group).expect("one of two");
        let shots: Vec<Shot> = shots
            .iter()
            .map(|&(key, len)| Shot { bytes: message(whose, self.number(group), len), key })
            .collect();
        let piece: Vec<u8> = shots.iter().flat_map(|shot| shot.bytes.to_vec()).collect();
        let taken = if self.conn.writes_through() { self.take(&piece) } else { 0 };
        let mut begun = shots.len() as u64;
        if taken < piece.len() {
            begun = self.conn.handle_told(u32::from(whose), &shots, taken).begun;
        }
        self.hubs.0[group].delivered.fetch_add(begun, Relaxed);
        self.run();
    }

    /// A job that says something.
    fn own(&mut self, len: usize) {
        let mut hand = Hand::blank();
        let rules = rules(&self.limits);
        let taken = self.conn.take_session(id(), &mut hand, rules);
        let (session, errand) = taken.expect("the session is at rest");
        self.lagged += errand.inbox.map_or(0, |inbox| inbox.lagged);
        let number = self.number(usize::from(OWN));
        hand.outbox.put(message(OWN, number, len));
        self.conn.handle_done(Some(session), &mut hand, Time::ZERO, super::rules(&self.limits));
        if self.conn.writes_through() {
            let taken = self.take(&hand.outbox.to_vec());
            hand.outbox.advance(taken);
        }
        self.conn.handle_output(&mut hand, super::rules(&self.limits));
        self.run();
    }

    fn run(&mut self) {
        while self.conn.next() == Next::Write {
            let outbox = self.conn.outbox_mut().expect("it asked to write");
            let bytes = outbox.to_vec();
            assert!(!bytes.is_empty(), "nothing to write");
            let taken = self.take(&bytes);
            let rules = super::rules(&self.limits);
            if taken == 0 {
                self.conn.handle_write_blocked(Time::ZERO, rules);
            } else {
                self.conn.outbox_mut().expect("it is still there").advance(taken);
                self.conn.handle_written(taken, Time::ZERO, rules);
            }
        }
    }

    fn check(&self) {
        let own: usize = self.told[2] as usize * (LEN_MAX + 6);
        let fed = FEED_BYTES + 2 * (LEN_MAX + 6);
        assert!(self.conn.held_bytes() <= 2 * QUEUE_MAX + fed + own);
        let waits = self.conn.pending_bytes() > 0;
        assert!(!waits || self.conn.outbox.is_some(), "what waits waits behind something");
    }

    /// The numbers that came, of each group and of its own.
    fn received(&self) -> [Vec<u32>; 3] {
        let mut received = [const { Vec::new() }; 3];
        let mut rest = &self.wire[..];
        while let [whose, len, number @ ..] = rest {
            let number = u32::from_be_bytes(number[..4].try_into().expect("four bytes"));
            let len = usize::from(*len);
            assert_eq!(rest[..6 + len], message(*whose, number, len), "whole, and as it was sent");
            received[usize::from(*whose)].push(number);
            rest = &rest[6 + len..];
        }
        received
    }
}

proptest! {
    #[test]
    fn what_a_member_is_told_comes_whole_in_order_once_or_is_counted_as_lost(
        policies in [policy(), policy()],
        ops in vec(op(), 0..120),
    ) {
        let mut member = Member::new(policies);
        for op in ops {
            match op {
                Op::Tell(group, shots) => member.tell(group, &shots),
                Op::Own(len) => member.own(len),
                Op::Room(room) => {
                    member.room += room;
                    member.conn.handle_writable();
                    member.run();
                }
            }
            member.check();
        }
        member.room = usize::MAX;
        member.conn.handle_writable();
        member.run();
        member.own(0);
        prop_assert_eq!(member.conn.held_bytes(), 0);
        let received = member.received();
        prop_assert_eq!(received[2].len(), member.told[2] as usize);
        let mut lost = 0;
        for (group, hub) in member.hubs.0.iter().enumerate() {
            prop_assert!(received[group].is_sorted_by(|one, next| one < next), "in order, once");
            let here = hub.lost.load(Relaxed);
            prop_assert_eq!(received[group].len() as u64, hub.delivered.load(Relaxed));
            prop_assert_eq!(received[group].len() as u64 + here, u64::from(member.told[group]));
            lost += here;
        }
        prop_assert!(received[2].is_sorted_by(|one, next| one < next));
        prop_assert_eq!(member.lagged, lost, "each loss is told once");
    }
}

/// A member whose peer takes nothing.
fn stalled(policy: Policy) -> Member {
    let mut member = Member::new([policy, Policy::DropOldest]);
    member.tell(0, &[(0, 10)]);
    member
}

#[test]
fn who_must_not_be_behind_is_reset_once_too_much_waits() {
    let mut member = stalled(Policy::Kick);
    let fits = QUEUE_MAX / (10 + 6 + SHOT_OVERHEAD_BYTES);
    (0..fits).for_each(|_| member.tell(0, &[(0, 10)]));
    assert!(!member.conn.flags.dead);
    member.tell(0, &[(0, 10)]);
    assert_eq!(member.conn.next(), Next::Reap);
    let hub = &member.hubs.0[0];
    assert_eq!((hub.kicked.load(Relaxed), hub.lost.load(Relaxed)), (1, 0));
    // The first one is in the outbox; the rest, with the one that was too much, is given up.
    assert_eq!(hub.abandoned.load(Relaxed), fits as u64 + 1);
    assert!(matches!(member.conn.into_end().1.cause(), Cause::Lagged));
}

#[test]
fn what_waits_is_dropped_when_it_leaves_or_finishes() {
    let mut member = stalled(Policy::DropOldest);
    member.tell(0, &[(0, 10), (0, 20)]);
    member.tell(1, &[(0, 30)]);
    assert!(member.conn.is_member(0) && member.conn.takes_broadcasts());
    assert_eq!(member.conn.leave(0), Some(0));
    assert_eq!((member.conn.leave(0), member.conn.is_member(0)), (None, false));
    assert_eq!(member.hubs.0[0].abandoned.load(Relaxed), 2);
    member.conn.close(Cause::Closed, Time::ZERO, rules(&member.limits));
    assert!(!member.conn.takes_broadcasts());
    assert_eq!(member.hubs.0[1].abandoned.load(Relaxed), 1);
    assert_eq!(member.conn.pending_bytes(), 0);
    assert_eq!(member.conn.any_group(), Some(1), "the reactor takes it off its list");
}
