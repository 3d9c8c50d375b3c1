//! Many connections that say one thing each, after which one in a hundred goes on and the others
//! say nothing: what they cost in memory, and whether the server sleeps when all are silent.

use std::io;

use serde_json::{Value, json};

use crate::clock::{self, SECOND};
use crate::conn::Conn;
use crate::dial::Dialer;
use crate::payload::{PLAIN, Tag};
use crate::plan::Plan;
use crate::process::{Memory, Usage, kernel_memory};
use crate::swarm::Swarm;
use crate::tally::{self, Pace, Window};

/// Opens `plan.connections`, lets one in a hundred send for a while, rests for `quiet` seconds,
/// watches the server for `watch` seconds, lets the active ones send again, and closes them all.
///
/// # Errors
/// When connections cannot be opened, answers do not come in time, or the process cannot be read.
pub fn run(plan: &Plan, pid: u32, quiet: f64, watch: f64) -> io::Result<Value> {
    let begun = clock::now();
    let start = Memory::of(pid)?;
    let kernel_start = kernel_memory()?;
    let window = Window { from: u64::MAX, until: u64::MAX };
    let mut swarm = Swarm::new(plan.size, Pace::Scheduled, window, None)?;
    connect(&mut swarm, plan)?;
    let all_open = clock::now();
    swarm.count_from(all_open);
    stir(&mut swarm, ROUNDS)?;
    clock::sleep_until(clock::now() + clock::from_seconds(quiet));
    let connected = Memory::of(pid)?;
    let kernel_connected = kernel_memory()?;
    let before = Usage::of(pid)?;
    clock::sleep_until(clock::now() + clock::from_seconds(watch));
    let spent = Usage::of(pid)?.since(&before);
    // A server that closes idle connections on its own is noticed here: its FINs count as errors.
    swarm.turn(0)?;
    let alive = swarm.open_count();
    stir(&mut swarm, ROUNDS)?;
    swarm.count_from(u64::MAX);
    let closing = clock::now();
    disconnect(&mut swarm)?;
    let all_closed = clock::now();
    // The last sockets are closed by now; freeing may come after closing.
    clock::sleep_until(clock::now() + SECOND / 2);
    let closed = Memory::of(pid)?;
    let tally = swarm.into_tally(clock::now());
    let per_connection =
        |now: u64, then: u64| (now as f64 - then as f64) * 1024.0 / f64::from(plan.connections);
    Ok(json!({
        "mode": plan.name,
        "connections": plan.connections,
        "alive": alive,
        "rss_start_kib": start.resident,
        "rss_connected_kib": connected.resident,
        "rss_closed_kib": closed.resident,
        "rss_peak_kib": closed.peak,
        "rss_bytes_per_connection": per_connection(connected.resident, start.resident),
        "pss_bytes_per_connection": per_connection(connected.proportional, start.proportional),
        "anon_bytes_per_connection": per_connection(connected.anonymous, start.anonymous),
        "kernel_bytes_per_connection": per_connection(kernel_connected, kernel_start),
        "rss_kept_kib": closed.resident as f64 - start.resident as f64,
        "connect_seconds": seconds(begun, all_open),
        "close_seconds": seconds(closing, all_closed),
        "seconds": seconds(begun, clock::now()),
        "watch_seconds": watch,
        "voluntary_switches": spent.voluntary_switches,
        "cpu_us": (spent.user + spent.system) / 1e3,
        "active": plan.connections.div_ceil(ACTIVE_ONE_IN),
        "active_echoes": tally.latency.len(),
        "active_latency_us": tally::summary(&tally.latency),
        "errors": tally.errors,
        "mismatches": tally.mismatches,
    }))
}

fn seconds(from: u64, until: u64) -> f64 {
    until.saturating_sub(from) as f64 / SECOND as f64
}

/// Opens the connections in batches, each of which has its echoes before the next one begins, so
/// that the accept queue never overflows.
fn connect(swarm: &mut Swarm, plan: &Plan) -> io::Result<()> {
    let mut dialer = Dialer::new(plan.addr, plan.sources)?;
    for number in 0..plan.connections {
        let tag = Tag { connection: number, work: PLAIN };
        let index = swarm.adopt(Conn::new(dialer.dial()?, tag))?;
        swarm.send(index, clock::now());
        if (number + 1) % BATCH == 0 || number + 1 == plan.connections {
            turn_until(swarm, |swarm| swarm.awaited_count() == 0)?;
        }
    }
    Ok(())
}

/// One connection in a hundred, spread over all, sends `rounds` messages, each after the echo of
/// the one before; the others are silent.
fn stir(swarm: &mut Swarm, rounds: u32) -> io::Result<()> {
    for _ in 0..rounds {
        let active: Vec<_> = swarm.indices().step_by(ACTIVE_ONE_IN as usize).collect();
        for batch in active.chunks(BATCH as usize) {
            batch.iter().for_each(|index| swarm.send(*index, clock::now()));
            turn_until(swarm, |swarm| swarm.awaited_count() == 0)?;
        }
    }
    Ok(())
}

/// Closes in batches as well: the FINs of all at once make slow machines send them again and again,
/// until their systems give up.
fn disconnect(swarm: &mut Swarm) -> io::Result<()> {
    let end = swarm.indices().end;
    for from in (0..end).step_by(BATCH as usize) {
        let until = end.min(from + BATCH as usize);
        swarm.finish(from..until);
        turn_until(swarm, |swarm| swarm.open_count() <= end - until)?;
    }
    Ok(())
}

/// Turns until it is done; gives up when nothing has come forward for as long as patience lasts.
fn turn_until(swarm: &mut Swarm, done: impl Fn(&Swarm) -> bool) -> io::Result<()> {
    let left = |swarm: &Swarm| swarm.open_count() + swarm.awaited_count();
    let (mut least, mut deadline) = (left(swarm), clock::now() + PATIENCE);
    while !done(swarm) {
        let now = clock::now();
        if left(swarm) < least {
            (least, deadline) = (left(swarm), now + PATIENCE);
        }
        if now >= deadline {
            let message = format!(
                "given up with {} connections open and {} echoes awaited",
                swarm.open_count(),
                swarm.awaited_count(),
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        swarm.turn(deadline - now)?;
    }
    Ok(())
}

const BATCH: u32 = 256;
/// Of so many connections one is active.
const ACTIVE_ONE_IN: u32 = 100;
/// What each of them sends before the watch, and again after it.
const ROUNDS: u32 = 5;
/// How long it may take until the next echo has come or the next connection is closed.
const PATIENCE: u64 = 20 * SECOND;
