//! Groups on benches: members are told, in order, each in a call of its own bench.

use bytes::{Bytes, BytesMut};

use super::super::Bench;
use crate::core::codec::Lines;
use crate::core::context::Context;
use crate::core::group::{Group, SlowPolicy};
use crate::core::handler::Handler;
use crate::words::error::Outcome;

/// Tells the room what it hears; `/leave` leaves it, `/quit` closes.
struct Guest(Group);

impl Handler for Guest {
    fn on_open(&mut self, cx: &mut Context<'_>) -> Outcome {
        cx.join(&self.0);
        Ok(cx.send("welcome")?)
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, line: BytesMut) -> Outcome {
        match &line[..] {
            b"/leave" => cx.leave(&self.0),
            b"/join" => cx.join(&self.0),
            b"/quit" => cx.close(),
            _ => self.0.broadcast(line.freeze())?,
        }
        Ok(())
    }

    fn on_lagged(&mut self, cx: &mut Context<'_>, lost: u64) -> Outcome {
        Ok(cx.send(format!("{lost} lost"))?)
    }
}

fn guest(room: &Group) -> Bench {
    let room = room.clone();
    Bench::new(Lines::new(), move |_| Guest(room))
}

#[test]
fn two_benches_are_members_of_one_group() {
    let room = Group::new(Lines::new());
    let (mut ann, mut bob) = (guest(&room), guest(&room));
    assert_eq!(room.len(), 2);
    ann.receive(b"one\ntwo\n");
    assert_eq!(ann.take_sent(), b"welcome\none\ntwo\n");
    assert_eq!(bob.take_sent(), b"welcome\n", "its turn has not come");
    bob.turn();
    assert_eq!(bob.take_sent(), b"one\ntwo\n");
    assert_eq!((room.stats().delivered, room.stats().backlog_bytes), (4, 0));

    bob.receive(b"/join\n/leave\nthree\n");
    ann.turn();
    assert_eq!((bob.take_sent(), ann.take_sent()), (vec![], b"three\n".to_vec()));
    bob.receive(b"/join\nfour\n");
    assert_eq!(bob.take_sent(), b"four\n", "it is back");
}

#[test]
fn who_ends_or_is_dropped_leaves() {
    let room = Group::new(Lines::new());
    let (mut ann, bob, mut late) = (guest(&room), guest(&room), guest(&room));
    let handle = late.handle();
    ann.receive(b"/quit\n");
    room.broadcast("gone").expect("there is room");
    ann.finish();
    assert_eq!((ann.take_sent(), room.len()), (b"welcome\n".to_vec(), 2));
    drop(bob);
    assert_eq!(room.len(), 1);
    late.reset();
    handle.join(&room);
    room.broadcast("nobody hears it").expect("there is room");
    assert_eq!((room.len(), room.stats().backlog_bytes), (0, 0));
    late.turn();
    drop(late);
    assert!(room.is_empty());
    let next = guest(&room);
    room.broadcast("still on its way").expect("there is room");
    drop(next);
    assert_eq!((room.len(), room.stats().backlog_bytes), (0, 0));
}

#[test]
fn a_member_that_is_behind_loses_what_the_policy_says_and_is_told() {
    let room = Group::builder(Lines::new())
        .policy(SlowPolicy::conflate(|line: &Bytes| u64::from(line[0])))
        .build();
    let mut bench = guest(&room);
    bench.block_output();
    bench.receive(b"first\n");
    for line in ["a1", "b1", "a2", "a3"] {
        room.broadcast(line).expect("there is room");
    }
    bench.turn();
    bench.unblock_output();
    let heard = bench.sent_frames(Lines::new());
    let expected = ["welcome", "first", "b1", "a3"];
    assert!(expected.iter().all(|line| heard.iter().any(|heard| heard == line)), "{heard:?}");
    assert!(heard.iter().all(|line| line != "a1" && line != "a2"), "{heard:?}");
    assert!(heard.iter().any(|line| line == "2 lost"), "{heard:?}");
    assert_eq!(room.stats().lost, 2);
}
