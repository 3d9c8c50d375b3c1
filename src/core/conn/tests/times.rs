//! Time in the life of a connection: every deadline to the nanosecond, what puts it off, and which
//! one comes first.

use super::*;
use crate::core::timers::Timers;
use crate::words::config::Idle;
use crate::words::config::Timeouts;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// An open connection; `change` says how long it may take over what.
fn open(change: impl FnOnce(&mut Timeouts)) -> Rig {
    let mut rig = Rig::open();
    let times = &mut rig.limits.timeouts;
    (times.first_frame, times.frame, times.frame_rate_min) = (None, None, 0);
    (times.idle, times.write_stall, times.linger) = (Idle::Never, None, None);
    change(times);
    rig
}

impl Rig {
    pub(super) fn deadline(&self) -> Time {
        self.conn.deadline(rules(&self.limits))
    }

    /// What the reactor does when the wheel names the connection; true if something is new.
    pub(super) fn expire(&mut self, now: Time) -> bool {
        self.now = now;
        if self.conn.seems_late(now, rules(&self.limits)) {
            self.conn.look_again();
            self.run();
        }
        if self.out.is_some() {
            return true;
        }
        let news = self.conn.handle_timeout(now, rules(&self.limits)) != Lapse::Nothing;
        self.check();
        self.run();
        news
    }

    /// Nothing happens a nanosecond before `after` has passed, and something once it has.
    #[track_caller]
    fn expect_at(&mut self, after: Duration) {
        let at = self.now + after;
        assert_eq!(self.deadline(), at);
        assert!(!self.expire(Time::from_nanos(at.as_nanos() - 1)), "a nanosecond early");
        assert!(self.out.is_none() && !self.conn.flags.dead);
        assert!(self.expire(at), "its time has come");
    }

    /// The same for a write stall, half way through which the system is asked for room.
    #[track_caller]
    fn expect_stall(&mut self, after: Duration) {
        assert_eq!(self.deadline(), self.now + after / 2);
        self.rest(after / 2);
        self.expect_at(after / 2);
    }

    /// Time passes in which nothing is due.
    #[track_caller]
    fn rest(&mut self, time: Duration) {
        let news = self.expire(self.now + time);
        assert!(!news && !self.conn.flags.dead, "something was due within {time:?}");
    }

    /// A job ends in which so many frames were handled, and `left` bytes of input are left.
    fn handled(&mut self, frames: u32, left: usize) {
        self.finish_job(|out| {
            out.hand.frames_count = frames as usize;
            let used = out.input.len().saturating_sub(left);
            drop(out.input.split_to(used));
        });
    }

    /// Input of `count` bytes comes and is handled so.
    fn speak(&mut self, count: usize, frames: u32, left: usize) {
        self.receive(count);
        self.run();
        self.handled(frames, left);
    }

    pub(super) fn label(&self) -> &'static str {
        self.conn.cause().map_or("", |cause| cause.label())
    }

    fn set_timer(&mut self, key: u64, after: Duration) {
        self.job();
        let at = self.now + after;
        self.finish_job(|out| {
            out.input.clear();
            out.hand.timers.get_or_insert_with(Box::<Timers>::default).set(key, at, 64);
        });
    }
}

#[test]
fn the_first_frame_counts_from_the_opening_and_no_byte_puts_it_off() {
    let mut rig = open(|times| times.first_frame = Some(SECOND));
    rig.rest(900 * MS);
    rig.speak(3, 0, 3);
    rig.expect_at(100 * MS);
    assert_eq!((rig.label(), rig.conn.farewell()), ("first_frame_timeout", Farewell::Reset));
}

#[test]
fn after_the_first_frame_each_counts_from_its_own_first_byte() {
    let mut rig = open(|times| (times.first_frame, times.frame) = (Some(SECOND), Some(SECOND)));
    rig.speak(5, 1, 0);
    assert_eq!(rig.deadline(), Time::NEVER, "between frames nothing is owed");
    rig.rest(100 * SECOND);
    rig.speak(3, 0, 3);
    rig.rest(600 * MS);
    rig.speak(1, 0, 4);
    rig.expect_at(400 * MS);
    assert_eq!((rig.label(), rig.conn.farewell()), ("frame_timeout", Farewell::Reset));
}

#[test]
fn a_frame_that_ends_gives_the_next_one_all_of_its_time() {
    let mut rig = open(|times| times.frame = Some(SECOND));
    rig.speak(3, 1, 2);
    rig.rest(900 * MS);
    // The end of one and the beginning of the next.
    rig.speak(3, 1, 1);
    rig.expect_at(SECOND);
}

#[test]
fn bytes_of_a_large_frame_earn_it_time() {
    let mut rig = open(|times| (times.frame, times.frame_rate_min) = (Some(SECOND), 10));
    rig.speak(5, 1, 1);
    assert_eq!(rig.deadline(), rig.now + SECOND + 100 * MS);
    rig.speak(19, 0, 20);
    rig.expect_at(3 * SECOND);
    assert_eq!(rig.label(), "frame_timeout");
}

#[test]
fn silence_is_put_off_by_bytes_and_frames_and_closes_in_order() {
    let mut rig = open(|times| times.idle = Idle::After(SECOND));
    rig.rest(900 * MS);
    // The read counts, and the end of the call.
    rig.receive(5);
    rig.run();
    rig.now = rig.now + 700 * MS;
    rig.handled(1, 0);
    rig.rest(900 * MS);
    rig.receive(5);
    rig.run();
    rig.handled(0, 5);
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "idle_timeout");
    assert!(!rig.conn.flags.dead && rig.peer.got_fin, "a close, not a reset");
    assert_eq!(rig.deadline(), Time::NEVER, "it has no linger time");
}

#[test]
fn output_puts_silence_off_if_the_settings_say_so_or_the_peer_has_finished() {
    for (counts, finished, puts_off) in
        [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
    {
        let mut rig = open(|times| {
            (times.idle, times.idle_counts_sent) = (Idle::After(SECOND), counts);
        });
        rig.speak(5, 1, 0);
        if finished {
            rig.receive_fin();
            rig.run();
            rig.handled(0, 0);
        }
        let spoken = rig.now;
        rig.peer.room = 1;
        rig.timer_job(b"ab");
        rig.rest(500 * MS);
        rig.make_room(1);
        rig.run();
        assert_eq!(rig.peer.got, b"ab");
        let since = if puts_off { rig.now } else { spoken };
        assert_eq!(rig.deadline(), since + SECOND, "{counts} {finished}");
    }
}

impl Rig {
    /// A timer is due, and a job is out for it.
    fn ring(&mut self) {
        let timers = self.conn.rare.get_or_insert_default().timers.get_or_insert_default();
        timers.set(1, self.now, 1);
        assert!(self.expire(self.now) && self.out.is_some(), "the timer is due");
    }

    /// A job that is not for input says something: a timer's.
    fn timer_job(&mut self, text: &[u8]) {
        self.ring();
        self.finish_job(|out| {
            out.hand.timers = None;
            out.hand.outbox.put_slice(text);
        });
    }
}

#[test]
fn a_slow_opening_costs_the_peer_no_time() {
    let mut rig = Rig::opening();
    let times = &mut rig.limits.timeouts;
    (times.first_frame, times.idle) = (Some(SECOND), Idle::After(2 * SECOND));
    rig.now = rig.now + 100 * SECOND;
    rig.finish_job(|_| {});
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "first_frame_timeout");
}

#[test]
fn a_slow_call_that_is_not_for_a_frame_is_no_silence_and_no_grace_for_a_frame() {
    let mut rig = open(|times| times.idle = Idle::After(SECOND));
    rig.speak(5, 1, 1);
    rig.ring();
    rig.now = rig.now + 100 * SECOND;
    rig.finish_job(|out| out.hand.timers = None);
    assert_eq!(rig.deadline(), rig.now + SECOND);
    rig.limits.timeouts.frame = Some(99 * SECOND);
    assert!(rig.expire(rig.now));
    assert_eq!(rig.label(), "frame_timeout");
}

#[test]
fn a_call_that_is_not_for_a_frame_is_no_sign_of_the_peer() {
    let mut rig = open(|times| times.idle = Idle::After(SECOND));
    rig.speak(5, 1, 0);
    let spoken = rig.now;
    rig.rest(900 * MS);
    rig.timer_job(b"");
    assert_eq!(rig.deadline(), spoken + SECOND);
}

#[test]
fn a_stall_counts_from_the_last_byte_of_progress_and_resets() {
    let mut rig = open(|times| times.write_stall = Some(SECOND));
    rig.peer.room = 0;
    rig.job();
    rig.send("abc");
    rig.rest(900 * MS);
    rig.make_room(1);
    rig.run();
    rig.expect_stall(SECOND);
    assert_eq!((rig.label(), rig.conn.farewell()), ("write_stalled", Farewell::Reset));
}

#[test]
fn before_a_stall_counts_the_system_is_asked_for_room_once_more() {
    let mut rig = open(|times| times.write_stall = Some(SECOND));
    rig.peer.room = 0;
    rig.job();
    rig.send("abc");
    rig.rest(500 * MS);
    // It does not tell of so little room.
    rig.peer.room = 1;
    rig.rest(500 * MS);
    assert_eq!(rig.peer.got, b"a");
    rig.expect_stall(SECOND);
}

#[test]
fn room_that_was_there_at_once_puts_a_stall_off_by_half_of_it() {
    let mut rig = open(|times| times.write_stall = Some(SECOND));
    rig.peer.room = 0;
    rig.job();
    rig.send("abc");
    rig.peer.room = 1;
    rig.rest(500 * MS);
    assert_eq!(rig.peer.got, b"a");
    rig.expect_stall(SECOND);
    assert_eq!(rig.label(), "write_stalled");
}

#[test]
fn the_linger_counts_from_our_end() {
    let mut rig = open(|times| times.linger = Some(SECOND));
    rig.rest(900 * MS);
    rig.job();
    rig.finish_job(|out| out.hand.close(Cause::Closed));
    rig.rest(500 * MS);
    // What still comes does not put it off.
    rig.receive(5);
    rig.run();
    rig.expect_at(500 * MS);
    assert_eq!((rig.label(), rig.conn.farewell()), ("closed", Farewell::Close));
}

#[test]
fn a_timer_of_the_protocol_makes_one_job_at_its_time() {
    let mut rig = open(|_| {});
    rig.set_timer(7, SECOND);
    rig.expect_at(SECOND);
    rig.finish_job(|out| {
        assert_eq!(out.hand.pop_timer(), Some(7));
        assert_eq!(out.hand.pop_timer(), None);
    });
    assert_eq!(rig.deadline(), Time::NEVER);
    rig.rest(100 * SECOND);
}

#[test]
fn a_timer_that_is_due_while_the_session_is_out_waits_for_it() {
    let mut rig = open(|_| {});
    rig.set_timer(7, SECOND);
    rig.job();
    assert_eq!(rig.deadline(), Time::NEVER);
    rig.now = rig.now + 2 * SECOND;
    assert_eq!(rig.conn.handle_timeout(rig.now, rules(&rig.limits)), Lapse::Nothing);
    rig.handled(1, 0);
    assert!(rig.deadline() <= rig.now && rig.expire(rig.now));
}

#[test]
fn a_close_takes_all_that_is_awaited_with_it() {
    let mut rig = open(|times| {
        (times.idle, times.frame) = (Idle::After(SECOND), Some(SECOND));
        times.linger = Some(9 * SECOND);
    });
    rig.set_timer(7, SECOND);
    rig.receive(5);
    rig.run();
    rig.finish_job(|out| {
        out.hand.frames_count = 1;
        out.hand.close(Cause::Closed);
    });
    rig.expect_at(9 * SECOND);
    assert_eq!(rig.label(), "closed");
    // And nothing after the end.
    assert_eq!(rig.deadline(), Time::NEVER);
    assert!(!rig.expire(rig.now + 100 * SECOND));
    assert_eq!(rig.end().cause().label(), "closed");
}

#[test]
fn of_several_that_are_due_output_comes_first_then_the_peer_then_timers() {
    let all = || {
        let mut rig = open(|times| {
            (times.idle, times.frame) = (Idle::After(SECOND), Some(2 * SECOND));
            times.write_stall = Some(3 * SECOND);
        });
        rig.set_timer(7, SECOND);
        rig.speak(5, 1, 1);
        rig
    };
    let mut rig = all();
    rig.peer.room = 0;
    rig.speak(1, 1, 1);
    rig.job();
    rig.send("abc");
    assert!(rig.expire(rig.now + 10 * SECOND));
    assert_eq!(rig.label(), "write_stalled");
    // Of what the peer owes, what was due first.
    let mut rig = all();
    assert!(rig.expire(rig.now + 10 * SECOND));
    assert_eq!(rig.label(), "idle_timeout");
    rig = all();
    rig.limits.timeouts.frame = Some(SECOND - MS);
    assert!(rig.expire(rig.now + 10 * SECOND));
    assert_eq!(rig.label(), "frame_timeout");
    // Silence and a frame at the same time: silence, which closes in order.
    rig = all();
    rig.limits.timeouts.frame = Some(SECOND);
    assert!(rig.expire(rig.now + SECOND));
    assert_eq!(rig.label(), "idle_timeout");
}

#[test]
fn who_is_paused_choked_or_out_owes_nothing_and_then_all_of_the_time() {
    let owing = || {
        let mut rig = open(|times| {
            (times.idle, times.frame) = (Idle::After(2 * SECOND), Some(SECOND));
        });
        rig.speak(5, 1, 1);
        rig.rest(900 * MS);
        rig
    };
    let mut rig = owing();
    rig.receive(1);
    rig.run();
    rig.finish_job(|out| {
        (out.hand.paused, out.hand.unserved) = (true, true);
    });
    assert_eq!(rig.deadline(), Time::NEVER);
    rig.rest(100 * SECOND);
    rig.ring();
    rig.finish_job(|out| {
        out.hand.timers = None;
        (out.hand.paused, out.hand.unserved) = (false, false);
    });
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "frame_timeout");

    let mut rig = owing();
    rig.peer.room = 1;
    rig.receive(1);
    rig.run();
    rig.finish_job(|out| out.hand.outbox.put_slice(&[0; HIGH + 1]));
    assert!(rig.conn.flags.choked);
    assert_eq!(rig.deadline(), Time::NEVER);
    rig.rest(100 * SECOND);
    rig.make_room(usize::MAX);
    rig.run();
    rig.finish_job(|_| {});
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "frame_timeout");

    let mut rig = owing();
    rig.receive(1);
    rig.run();
    assert_eq!(rig.deadline(), Time::NEVER);
    rig.now = rig.now + 100 * SECOND;
    rig.handled(1, 1);
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "frame_timeout");
}

#[test]
fn input_that_is_there_is_looked_at_before_a_peer_counts_as_late() {
    let mut rig = open(|times| times.idle = Idle::After(SECOND));
    rig.speak(5, 1, 0);
    // It came while the process was stopped: no event has told of it.
    rig.peer.incoming = 5;
    assert!(rig.expire(rig.now + 10 * SECOND));
    assert!(rig.out.is_some(), "it is served");
    rig.handled(1, 0);
    rig.expect_at(SECOND);
    assert_eq!(rig.label(), "idle_timeout");
}

#[test]
fn a_reset_is_found_out_while_nobody_reads() {
    for choke in [false, true] {
        let mut rig = open(|_| {});
        rig.peer.room = 1;
        rig.job();
        rig.finish_job(|out| {
            out.hand.paused = !choke;
            out.hand.outbox.put_slice(&[0; HIGH + 1][..if choke { HIGH + 1 } else { 0 }]);
        });
        rig.peer.broken = true;
        rig.conn.handle_readable(true, rig.now);
        rig.conn.handle_hangup();
        rig.run();
        assert_eq!(rig.label(), "peer_reset", "choked: {choke}");
    }
}
