//! `judge`: what must be true of every connection once it is over, and whether an end was fair.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::Life;
use super::circle::judge_member;
use super::client::{Client, End};
use super::net::{Facts, Net, ServerEnd};
use super::plan::Plan;
use crate::words::config::Idle;
use crate::words::reason::{Cause, CloseReason};

/// What is wrong with the story of one client; `None` if nothing is. `misses`: messages that did
/// not come to it, by circle.
pub(super) fn judge(
    plan: &Plan,
    net: &Net,
    life: &Life,
    client: &Client,
    misses: &mut BTreeMap<usize, u64>,
) -> Result<(), String> {
    let Some(id) = client.socket else {
        return claim(client.end == Some(End::Refused), "it never connected");
    };
    let socket = &net.sockets[id];
    let facts = &socket.facts;
    claim(client.end.is_some(), "the client has not come to an end")?;
    claim(socket.end != ServerEnd::Held, "the server still holds it")?;
    if net.is_unconnected(id) {
        return claim(life.made == 0, "a handler for a connection that was never made");
    }
    let accepted = facts.closed_at.is_some();
    if !accepted {
        return claim(life.made == 0, "a handler for a connection that nobody accepted");
    }
    if life.made == 0 && !net.stopping && (facts.turned_away || facts.reset_by_server) {
        // A client that is told nothing is reset.
        let told = client.end != Some(End::Eof) || client.was_told();
        claim(told, "a client that was turned away saw an end without a word")?;
        return claim(plan.turns_away().contains(&true), "a client was turned away");
    }
    let has_life = life.made == 1 || net.stopping;
    claim(has_life, &format!("{} handlers were made", life.made))?;
    if life.opened == 0 {
        // The maker itself panicked, or there never was time for it.
        let fair = life.panicked || net.stopping;
        return claim(fair && life.closed == 0, "a connection that was never opened");
    }
    let calls = (life.opened, life.closed, life.dropped);
    let expected = (1 + life.switched, 1, 1 + life.switched);
    claim(
        calls == expected,
        &format!("(opened, closed, dropped) are {calls:?}, not {expected:?}"),
    )?;
    let Some(reason) = &life.reason else { return Err(String::from("closed without a reason")) };
    let told = format!("{reason}, {life:?}, {facts:?}");
    if matches!(reason.cause(), Cause::Evicted) {
        // Raw bytes are whole wherever they end.
        let whole = plan.raw || client.is_whole(facts.read_bytes);
        let idle = whole && reason.unsent_bytes() == 0;
        claim(idle, &format!("it made room in the middle of something: {told}"))?;
    }
    claim(is_fair(plan, net, life, facts, reason), &format!("an unfair end: {told}"))?;
    let timed = matches!(reason.cause(), Cause::FrameTimeout | Cause::FirstFrameTimeout);
    let whole = client.frames_within(facts.read_bytes);
    claim(!timed || whole == life.frames as usize, &format!("{whole} frames were whole: {told}"))?;
    // With handlers that take their time, all threads may be in one.
    let late = facts.overlooked > plan.write_stall() / 2
        && plan.faults.stall.is_off()
        && !plan.holds_output();
    claim(!late, &format!("room was there for {:?}: {told}", facts.overlooked))?;
    judge_delivery(net, life, client, facts, reason).map_err(|what| format!("{what}: {told}"))?;
    let polite = is_polite(net, client, facts, reason);
    judge_member(life, client, polite, misses).map_err(|what| format!("{what}: {told}"))
}

/// Whether what happened gives that reason.
fn is_fair(plan: &Plan, net: &Net, life: &Life, facts: &Facts, reason: &CloseReason) -> bool {
    match reason.cause() {
        Cause::PeerFinished => facts.client_finished && life.eof,
        Cause::PeerReset => facts.client_reset && facts.error_told,
        Cause::Truncated => facts.client_finished && facts.eof_told,
        // Who closes after it was told of a drain has drained; another thread may be faster.
        Cause::Closed => {
            (life.close_asked || life.finish_asked) && (!life.drain_told || life.close_posted)
        }
        Cause::Drained => life.drain_told,
        Cause::Aborted => life.abort_asked,
        Cause::HandlerFailed(_) => life.failed,
        Cause::HandlerPanicked => life.panicked,
        Cause::WriteStalled => is_fair_stall(plan, facts),
        Cause::FirstFrameTimeout => {
            is_fair_wait(plan, life, facts, plan.limits.timeouts.first_frame) && life.frames == 0
        }
        Cause::FrameTimeout => is_fair_wait(plan, life, facts, plan.limits.timeouts.frame),
        Cause::IdleTimeout => is_fair_silence(plan, facts),
        Cause::Evicted => plan.evicts(),
        Cause::Refused => false,
        Cause::Overflow => life.overflowed || life.pushes > 0,
        Cause::Lagged => life.lagged_out,
        Cause::ServerStopped => net.stopping,
        Cause::Io(..) => facts.watch_failed || facts.error_told,
        Cause::OutOfMemory => net.memory_short,
        Cause::CodecFailed(_) => false,
    }
}

/// The timer was not early, and the server did not merely miss that there was room.
fn is_fair_stall(plan: &Plan, facts: &Facts) -> bool {
    let Some(closed) = facts.closed_at else { return false };
    let waited = closed.since(facts.last_progress);
    let missed = facts.room_since.map(|since| closed.since(since));
    // With handlers that take their time, all threads may be in one.
    let attentive = plan.faults.stall.is_off();
    let overlooked = missed.is_some_and(|missed| attentive && missed > plan.write_stall() / 2);
    waited >= plan.write_stall() && !overlooked
}

/// A frame was awaited for as long as it may take, and input that had come was looked at.
fn is_fair_wait(plan: &Plan, life: &Life, facts: &Facts, allowed: Option<Duration>) -> bool {
    let (Some(accepted), Some(closed)) = (facts.accepted_at, facts.closed_at) else { return false };
    let begun = accepted.max(life.handled_at);
    // While handlers take their time, or the system does, nobody may read.
    let slack = if plan.faults.are_instant() { UNREAD_MAX } else { plan.faults.stall_max * 8 };
    let unread = facts.unread_since.map(|since| closed.since(since));
    let unheard = unread.is_some_and(|unread| unread > slack.max(UNREAD_MAX));
    allowed.is_some_and(|allowed| closed.since(begun) >= allowed) && !unheard
}

/// The client was silent for that long.
fn is_fair_silence(plan: &Plan, facts: &Facts) -> bool {
    let Idle::After(idle) = plan.limits.timeouts.idle else { return false };
    let last = facts.closed_at.map_or(Duration::ZERO, |at| at.since(facts.heard_at));
    // The turn in which it was heard may have begun earlier, by eight calls of handlers.
    let instant = plan.faults.are_instant();
    let turn = if instant { Duration::from_millis(1) } else { plan.faults.stall_max * 16 };
    facts.silence.max(last) + turn >= idle
}

/// How long input may wait unread when a connection ends for want of it: the rest of a turn.
const UNREAD_MAX: Duration = Duration::from_millis(10);

/// What was promised was delivered.
fn judge_delivery(
    net: &Net,
    life: &Life,
    client: &Client,
    facts: &Facts,
    reason: &CloseReason,
) -> Result<(), String> {
    claim(client.replies <= life.replies, "more replies came than were sent")?;
    if !is_polite(net, client, facts, reason) {
        return Ok(());
    }
    claim(reason.unsent_bytes() == 0, "unsent bytes of a connection that ended well")?;
    let (came, sent) = (client.replies, life.replies);
    claim(came == sent, &format!("{came} replies came of {sent} that were sent"))?;
    claim(client.end == Some(End::Eof), "a reset instead of an end")?;
    claim(life.notices.are_told(), "a notice that never came")?;
    if matches!(reason.cause(), Cause::PeerFinished) {
        let (frames, sent) = (life.frames as usize, client.frames_sent());
        return claim(frames == sent, &format!("{frames} frames were handled of {sent}"));
    }
    Ok(())
}

/// Whether a connection ended well, with a peer that listened to the end.
fn is_polite(net: &Net, client: &Client, facts: &Facts, reason: &CloseReason) -> bool {
    let graceful = matches!(
        reason.cause(),
        Cause::PeerFinished
            | Cause::Truncated
            | Cause::Closed
            | Cause::Drained
            | Cause::HandlerFailed(_)
    );
    let disturbed = net.stopping
        || facts.client_reset
        || facts.reset_by_server
        || facts.watch_failed
        || facts.lingered_out;
    graceful && !disturbed && !client.is_rude()
}

fn claim(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
