//! One test for each rule of `core/conn/close.rs`, and for what other threads see of it.

use super::*;
use crate::core::handle::TrySendError;
use crate::words::reason::{Blame, ClosePhase};
use bytes::Buf;

const SECOND: Duration = Duration::from_secs(1);

fn label(reason: &CloseReason) -> &'static str {
    reason.cause().label()
}

#[test]
fn the_peer_finishes_and_so_do_we() {
    let mut rig = Rig::open();
    rig.job();
    rig.send("abc");
    rig.receive_fin();
    rig.run();
    assert!(rig.out.as_ref().is_some_and(|out| out.errand.eof));
    rig.finish_job(|out| out.hand.finish());
    let reason = rig.end();
    assert_eq!((label(&reason), reason.phase()), ("peer_finished", ClosePhase::Closing));
}

#[test]
fn we_finish_and_the_peer_goes_on() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| {
        out.input.clear();
        out.hand.outbox.put_slice(b"bye");
        out.hand.finish();
    });
    assert!(rig.peer.got_fin && rig.peer.got == b"bye");
    rig.job();
    let hand = &rig.out.as_ref().expect("out").hand;
    assert!(hand.reads() && !hand.is_open(), "frames are shown, output is refused");
    rig.send("");
    rig.receive_fin();
    rig.run();
    rig.finish_job(|out| out.hand.finish());
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn a_write_stall_after_both_have_finished_is_a_write_stall() {
    let mut rig = Rig::open();
    rig.peer.room = 1;
    rig.job();
    rig.send("abc");
    rig.receive_fin();
    rig.run();
    rig.finish_job(|out| out.hand.finish());
    rig.pass(10 * SECOND);
    assert_eq!(rig.conn.farewell(), Farewell::Reset);
    let reason = rig.end();
    assert_eq!((label(&reason), reason.unsent_bytes()), ("write_stalled", 2));
}

#[test]
fn a_byte_of_progress_puts_the_write_stall_off() {
    let mut rig = Rig::open();
    rig.peer.room = 1;
    rig.job();
    rig.send("abcdef");
    rig.pass(9 * SECOND);
    rig.make_room(1);
    rig.run();
    rig.pass(9 * SECOND);
    rig.job();
    rig.send("more output is no progress");
    assert!(!rig.conn.flags.dead);
    rig.pass(SECOND);
    assert_eq!(label(&rig.end()), "write_stalled");
}

#[test]
fn a_close_flushes_then_finishes_then_lingers() {
    let mut rig = Rig::open();
    rig.peer.room = 1;
    rig.job();
    rig.finish_job(|out| {
        out.hand.outbox.put_slice(b"abc");
        out.hand.close(Cause::Closed);
    });
    rig.receive(5000);
    rig.run();
    assert!(!rig.conn.flags.dead, "what comes while we flush does not count");
    rig.make_room(10);
    rig.run();
    assert!(rig.peer.got_fin && rig.peer.got == b"abc");
    rig.receive(1000);
    rig.run();
    rig.pass(SECOND);
    assert!(!rig.conn.flags.dead, "it lingers");
    rig.receive_fin();
    rig.run();
    assert_eq!(rig.conn.farewell(), Farewell::Close);
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn a_linger_is_bounded_in_time() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| out.hand.close(Cause::Closed));
    rig.pass(2 * SECOND);
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn a_linger_is_bounded_in_bytes() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| out.hand.close(Cause::Closed));
    rig.receive(1001);
    rig.run();
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn a_close_after_fin_lingers_too_and_a_second_one_not_longer() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| out.hand.finish());
    assert!(rig.peer.got_fin);
    rig.conn.handle_close(rig.now, super::rules(&rig.limits));
    rig.pass(SECOND);
    rig.conn.handle_close(rig.now, super::rules(&rig.limits));
    rig.pass(SECOND);
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn an_error_while_lingering_does_not_change_the_cause() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| out.hand.close(Cause::CodecFailed(Arc::new(std::fmt::Error))));
    rig.peer.broken = true;
    rig.receive(1);
    rig.run();
    assert_eq!(label(&rig.end()), "codec_failed");
}

#[test]
fn a_reset_after_our_fin_is_the_peers_doing() {
    let mut rig = Rig::open();
    rig.job();
    rig.finish_job(|out| out.hand.finish());
    rig.peer.broken = true;
    rig.receive(1);
    rig.run();
    assert_eq!(rig.end().blame(), Blame::Peer);
}

#[test]
fn an_abort_ends_at_once_and_counts_what_is_lost() {
    let mut rig = Rig::open();
    rig.peer.room = 1;
    rig.job();
    rig.finish_job(|out| {
        out.hand.outbox.put_slice(b"abc");
        out.hand.abort(Cause::Aborted);
    });
    assert_eq!(rig.conn.farewell(), Farewell::Reset);
    let reason = rig.end();
    assert_eq!((label(&reason), reason.unsent_bytes()), ("aborted", 3));
}

#[test]
fn a_death_while_the_session_is_out_waits_for_it_and_counts_its_output() {
    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    rig.send("");
    rig.job();
    rig.conn.die(Cause::ServerStopped);
    assert!(!handle.is_open(), "the gate is shut although the session has it");
    assert!(rig.conn.is_out() && rig.conn.next() == Next::Reap);
    rig.send("late");
    let reason = rig.end();
    assert_eq!((label(&reason), reason.unsent_bytes()), ("server_stopped", 4));
}

#[test]
fn a_handle_that_the_last_job_made_finds_the_gate_shut() {
    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    rig.finish_job(|out| out.hand.abort(Cause::Aborted));
    assert!(!handle.is_open());
    assert!(matches!(handle.try_send("x"), Err(TrySendError::Gone(_))));

    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    rig.conn.abort(Cause::Aborted);
    rig.send("");
    assert!(!handle.is_open());
}

#[test]
fn a_side_that_has_finished_takes_no_messages_but_can_be_closed() {
    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    rig.finish_job(|out| out.hand.finish());
    assert!(matches!(handle.try_send("x"), Err(TrySendError::Gone(_))));
    assert!(handle.is_open());
    handle.close();
    rig.read_mail();
    rig.pass(2 * SECOND);
    assert_eq!(label(&rig.end()), "closed");
}

#[test]
fn messages_sent_before_a_close_leave_before_it() {
    for session_is_out in [true, false] {
        let mut rig = Rig::open();
        rig.job();
        let handle = rig.make_handle();
        rig.send("");
        if session_is_out {
            rig.job();
        }
        assert!(handle.try_send("a").is_ok() && handle.try_send("b").is_ok());
        handle.close();
        rig.read_mail();
        if session_is_out {
            rig.send("0");
        }
        let out = rig.out.as_ref().expect("the messages are to be encoded");
        let closes = out.errand.inbox.as_ref().is_some_and(|inbox| inbox.closes);
        assert!(out.input.is_empty() && closes, "no frame is shown any more");
        rig.finish_job(|_| {});
        let expected: &[u8] = if session_is_out { b"0ab" } else { b"ab" };
        assert_eq!(rig.peer.got, expected);
        assert!(rig.peer.got_fin);
        rig.receive_fin();
        rig.run();
        assert_eq!(handle.queued_bytes(), 0);
        assert_eq!(label(&rig.end()), "closed");
    }
}

#[test]
fn a_handlers_close_comes_before_messages_of_other_threads() {
    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    assert!(handle.try_send("late").is_ok());
    rig.read_mail();
    rig.finish_job(|out| {
        out.hand.outbox.put_slice(b"goodbye");
        out.hand.close(Cause::Closed);
    });
    assert_eq!((&rig.peer.got[..], handle.queued_bytes()), (&b"goodbye"[..], 0));
}

#[test]
fn a_handlers_finish_comes_before_messages_of_a_thread_that_closed_meanwhile() {
    let mut rig = Rig::open();
    rig.job();
    let handle = rig.make_handle();
    assert!(handle.try_send("late").is_ok());
    handle.close();
    rig.read_mail();
    rig.finish_job(|out| {
        out.hand.outbox.put_slice(b"goodbye");
        out.hand.finish();
    });
    assert_eq!((&rig.peer.got[..], handle.queued_bytes()), (&b"goodbye"[..], 0));
    assert!(rig.peer.got_fin);
}

#[test]
fn a_message_counts_at_the_gate_until_it_is_queued() {
    let mut rig = Rig::open();
    rig.peer.room = 0;
    rig.job();
    let handle = rig.make_handle();
    for _ in 0..3 {
        assert!(handle.try_send("abc").is_ok());
    }
    let waiting = handle.queued_bytes();
    assert!(waiting > 9);
    rig.read_mail();
    assert_eq!(handle.queued_bytes(), waiting, "the session is out: they wait");
    rig.send("");
    assert_eq!(handle.queued_bytes(), waiting);
    rig.finish_job(|_| {});
    assert_eq!(handle.queued_bytes(), 9);
    rig.job();
    rig.send("12345");
    assert_eq!(handle.queued_bytes(), 14, "what is added to a blocked queue counts");
}

#[test]
fn a_queue_that_grows_while_it_is_blocked_stops_the_reading() {
    let mut rig = Rig::open();
    rig.peer.room = 0;
    rig.job();
    rig.send("x");
    rig.receive(10_000);
    rig.run();
    let mut jobs = 0;
    while rig.out.is_some() {
        rig.send(&"y".repeat(HIGH / 4));
        jobs += 1;
    }
    assert_eq!(jobs, 4, "reading stops at the high mark");
    rig.make_room(usize::MAX);
    rig.run();
    assert!(rig.out.as_ref().is_some_and(|out| out.errand.is_drained()), "and goes on");
}

#[test]
fn output_beyond_the_high_mark_that_leaves_at_once_has_drained_too() {
    let mut rig = Rig::open();
    rig.job();
    rig.send(&"z".repeat(HIGH));
    assert!(rig.out.as_ref().is_some_and(|out| out.errand.is_drained()));
}

#[test]
fn nobody_is_told_of_room_that_has_finished() {
    let mut rig = Rig::open();
    rig.peer.room = 1;
    rig.job();
    rig.finish_job(|out| {
        out.hand.outbox.put_slice(&[0; HIGH]);
        out.hand.finish();
    });
    rig.make_room(HIGH);
    rig.run();
    assert!(rig.out.is_none() && rig.peer.got_fin);
}

#[test]
fn the_end_of_input_is_shown_although_the_queue_is_choked() {
    let mut rig = Rig::open();
    rig.peer.room = 0;
    rig.job();
    rig.receive_fin();
    rig.send(&"w".repeat(HIGH));
    assert!(rig.out.is_none(), "it is not even read");
    rig.make_room(HIGH);
    rig.run();
    rig.finish_job(|out| {
        assert!(out.errand.is_drained() && out.errand.eof);
        out.hand.finish();
    });
    assert_eq!(label(&rig.end()), "peer_finished");
}

#[test]
fn a_drain_is_asked_for_once_also_while_it_opens() {
    let mut rig = Rig::opening();
    rig.conn.handle_drain(rig.now);
    rig.run();
    rig.finish_job(|_| {});
    assert!(rig.out.as_ref().is_some_and(|out| out.errand.is_drain()));
    rig.finish_job(|out| out.hand.close(Cause::Closed));
    rig.conn.handle_drain(rig.now);
    rig.run();
    assert!(rig.out.is_none());
}

#[test]
fn a_drain_survives_a_finish() {
    let mut rig = Rig::open();
    rig.job();
    rig.conn.handle_drain(rig.now);
    rig.finish_job(|out| out.hand.finish());
    assert!(rig.out.as_ref().is_some_and(|out| out.errand.is_drain()));
}

#[test]
fn the_phase_tells_whether_it_ever_opened() {
    let failed = |cause| {
        let mut rig = Rig::opening();
        rig.finish_job(|out| out.hand.abort(cause));
        rig.end().phase()
    };
    assert_eq!(failed(Cause::HandlerPanicked), ClosePhase::Opening);
    assert_eq!(failed(Cause::Aborted), ClosePhase::Open);
    let mut rig = Rig::opening();
    rig.conn.die(Cause::PeerReset);
    rig.send("");
    assert_eq!(rig.end().phase(), ClosePhase::Opening);
}

#[test]
fn a_partial_frame_waits_for_its_rest() {
    let mut rig = Rig::open();
    rig.receive(7);
    rig.run();
    rig.finish_job(|out| out.input.advance(3));
    assert_eq!(rig.conn.held_bytes(), 4);
    rig.receive(2);
    rig.run();
    assert_eq!(rig.out.as_ref().expect("out").input.len(), 6);
}
