//! Input and output that wait for their turn, and the clocks that stand still meanwhile.

use super::*;
use crate::core::shaping::{Reshape, Shape};
use crate::words::config::{Idle, Listening, Rate, Shaper};

const SECOND: Duration = Duration::from_secs(1);
/// What one second is worth, which is also a quantum.
const WORTH: usize = 512;

/// A connection that reads and writes 512 bytes per second, and has used up the first of them.
fn shaped() -> Rig {
    let mut rig = Rig::open();
    let timeouts = &mut rig.limits.timeouts;
    (timeouts.first_frame, timeouts.frame) = (Some(3 * SECOND), Some(3 * SECOND));
    (timeouts.idle, timeouts.write_stall) = (Idle::After(10 * SECOND), Some(2 * SECOND));
    let mut listening = Listening::of(&rig.limits);
    listening.read_rate = Some(Rate::per_second(WORTH as u64));
    listening.send_rate = listening.read_rate;
    rig.conn.set_shape(Shape::of(None, &listening, Time::ZERO));
    let conn = &mut rig.conn;
    assert_eq!(conn.ask_to_read(4_096, rig.now), Leave::Go(WORTH));
    assert_eq!(conn.ask_to_send(4_096, rig.now), Leave::Go(WORTH));
    assert!(!conn.note_read(WORTH) && !conn.note_written(WORTH));
    rig
}

fn after(rig: &mut Rig, time: Duration) {
    rig.now = rig.now + time;
}

#[test]
fn who_is_not_shaped_has_no_shape() {
    let rig = Rig::open();
    assert!(Shape::of(None, &Listening::of(&rig.limits), Time::ZERO).is_none());
    assert!(!rig.conn.is_shaped());
}

#[test]
fn input_that_waits_for_its_turn_is_not_read_and_the_wheel_is_told_when() {
    let mut rig = shaped();
    rig.conn.handle_readable(false, rig.now);
    assert_eq!(rig.conn.next(), Next::Read);
    assert_eq!(rig.conn.ask_to_read(4_096, rig.now), Leave::Wait);
    assert!(rig.conn.wants_arming() && rig.conn.holds_input());
    assert_eq!(rig.conn.next(), Next::Rest);
    assert_eq!(rig.conn.deadline(rules(&rig.limits)), rig.now + SECOND);
    // A reset is noticed all the same.
    rig.conn.handle_hangup();
    assert_eq!(rig.conn.next(), Next::Probe);
    rig.conn.handle_sound();
    after(&mut rig, SECOND - Duration::from_nanos(1));
    assert!(!rig.conn.wake_held(rig.now));
    after(&mut rig, Duration::from_nanos(1));
    assert!(rig.conn.wake_held(rig.now));
    assert_eq!(rig.conn.next(), Next::Read);
    assert_eq!(rig.conn.ask_to_read(4_096, rig.now), Leave::Go(WORTH));
    assert!(rig.conn.note_read(WORTH), "it had to wait");
}

#[test]
fn time_in_which_input_waits_counts_neither_for_a_frame_nor_for_silence() {
    let mut rig = shaped();
    let mut held = 0;
    // Two seconds of its own, of which a frame may take three.
    after(&mut rig, 2 * SECOND);
    for _ in 0..100 {
        rig.conn.handle_readable(false, rig.now);
        assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Go(WORTH));
        rig.conn.note_read(WORTH);
        assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Wait);
        assert!(!rig.conn.seems_late(rig.now, rules(&rig.limits)));
        after(&mut rig, SECOND);
        held += 1;
        assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::Nothing);
        assert!(rig.conn.wake_held(rig.now));
        assert!(!rig.conn.seems_late(rig.now, rules(&rig.limits)), "after {held} s");
    }
    rig.conn.handle_read_blocked();
    // Its own third second is over.
    after(&mut rig, SECOND);
    assert!(rig.conn.seems_late(rig.now, rules(&rig.limits)));
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::News);
    assert_eq!(rig.conn.cause().map(|cause| cause.label()), Some("first_frame_timeout"));
}

/// Before somebody counts as late, he is looked at. That the look has to wait is no news of him.
#[test]
fn a_look_that_has_to_wait_puts_nothing_off() {
    let mut rig = shaped();
    after(&mut rig, 3 * SECOND);
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Go(WORTH));
    rig.conn.note_read(WORTH);
    assert!(rig.conn.seems_late(rig.now, rules(&rig.limits)));
    rig.conn.look_again();
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Wait);
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::Nothing);
    after(&mut rig, SECOND);
    assert!(rig.conn.wake_held(rig.now));
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Go(WORTH));
    rig.conn.note_read(0);
    rig.conn.handle_read_blocked();
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::News);
}

fn queue(rig: &mut Rig, count: usize) {
    let mut hand = Hand::blank();
    hand.outbox.put_slice(&vec![b'x'; count]);
    rig.conn.handle_output(&mut hand, rules(&rig.limits));
}

#[test]
fn a_write_stall_counts_only_while_the_kernel_refuses() {
    let mut rig = shaped();
    queue(&mut rig, 4_096);
    after(&mut rig, SECOND);
    assert_eq!(rig.conn.ask_to_send(4_096, rig.now), Leave::Go(WORTH));
    rig.conn.note_written(0);
    rig.conn.handle_write_blocked(rig.now, rules(&rig.limits));
    let stall = 2 * SECOND;
    assert_eq!(rig.conn.output_by(), rig.now + stall);
    after(&mut rig, SECOND);
    rig.conn.handle_writable();
    for _ in 0..20 {
        assert_eq!(rig.conn.next(), Next::Write);
        assert_eq!(rig.conn.ask_to_send(4_096, rig.now), Leave::Go(WORTH));
        rig.conn.outbox_mut().expect("it is queued").advance(WORTH);
        rig.conn.note_written(WORTH);
        rig.conn.handle_written(WORTH, rig.now, rules(&rig.limits));
        assert_eq!(rig.conn.output_by(), rig.now + stall, "the kernel has not taken all of it");
        queue(&mut rig, WORTH);
        assert_eq!(rig.conn.ask_to_send(4_096, rig.now), Leave::Wait);
        assert!(rig.conn.holds_output() && !rig.conn.writes_through());
        assert_eq!((rig.conn.next(), rig.conn.output_by()), (Next::Rest, Time::NEVER));
        after(&mut rig, SECOND);
        assert!(!rig.conn.seems_late(rig.now, rules(&rig.limits)));
        assert!(rig.conn.wake_held(rig.now));
        assert_eq!(rig.conn.output_by(), rig.now + stall);
    }
}

#[test]
fn a_stalled_peer_is_found_though_each_look_has_to_wait() {
    let mut rig = shaped();
    queue(&mut rig, 4_096);
    after(&mut rig, SECOND);
    assert_eq!(rig.conn.ask_to_send(4_096, rig.now), Leave::Go(WORTH));
    rig.conn.note_written(0);
    rig.conn.handle_write_blocked(rig.now, rules(&rig.limits));
    after(&mut rig, 2 * SECOND);
    assert!(rig.conn.seems_late(rig.now, rules(&rig.limits)));
    rig.conn.look_again();
    // Somebody else of the group was faster.
    assert_eq!(rig.conn.ask_to_send(WORTH, rig.now), Leave::Go(WORTH));
    rig.conn.note_written(WORTH);
    assert_eq!(rig.conn.ask_to_send(WORTH, rig.now), Leave::Wait);
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::Nothing);
    after(&mut rig, SECOND);
    assert!(rig.conn.wake_held(rig.now));
    assert_eq!(rig.conn.ask_to_send(WORTH, rig.now), Leave::Go(WORTH));
    rig.conn.note_written(0);
    rig.conn.handle_write_blocked(rig.now, rules(&rig.limits));
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::News);
    assert_eq!(rig.conn.cause().map(|cause| cause.label()), Some("write_stalled"));
}

#[test]
fn a_job_may_change_what_waits() {
    let mut rig = shaped();
    queue(&mut rig, 4_096);
    rig.conn.handle_readable(false, rig.now);
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Wait);
    assert_eq!(rig.conn.ask_to_send(WORTH, rig.now), Leave::Wait);
    let faster = Some(Some(Rate::per_second(10 * WORTH as u64)));
    rig.conn.reshape(Reshape { read: faster, send: faster, joined: None }, rig.now);
    assert!(!rig.conn.holds_input() && !rig.conn.holds_output());
    after(&mut rig, SECOND / 10);
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Go(WORTH));
    rig.conn.note_read(WORTH);
    // A group beside it, of which somebody else has taken everything.
    let group = Shaper::of(Some(Rate::per_second(WORTH as u64)), None);
    let other = &mut Shape::new();
    other.change(Reshape { joined: Some(Some(group.clone())), ..Reshape::default() }, rig.now);
    assert_eq!(other.read.ask(WORTH, rig.now), Leave::Go(WORTH));
    other.read.spend(WORTH);
    let join = Reshape { joined: Some(Some(group)), ..Reshape::default() };
    rig.conn.reshape(join, rig.now);
    after(&mut rig, SECOND / 2);
    assert_eq!(rig.conn.ask_to_read(WORTH, rig.now), Leave::Wait);
    // Without any bound it costs nothing any more.
    let free = Reshape { read: Some(None), send: Some(None), joined: Some(None) };
    rig.conn.reshape(free, rig.now);
    assert!(!rig.conn.is_shaped() && rig.conn.next() == Next::Write);
}
