//! Connections that stay for the whole run: closed loops (ping-pong, pipeline, bulk) and the
//! open loop that sends on schedule.

use std::io;
use std::iter;
use std::os::fd::OwnedFd;

use serde_json::Value;

use crate::clock::{self, SECOND};
use crate::conn::Conn;
use crate::dial::Dialer;
use crate::measure;
use crate::payload::Tag;
use crate::plan::{Mode, Plan, Slow};
use crate::swarm::Swarm;
use crate::sys;
use crate::tally::{Pace, Tally, Window};

/// Each connection keeps `depth` messages under way.
///
/// # Errors
/// When a connection cannot be opened or the server's process cannot be read.
pub fn closed(plan: &Plan, depth: u64) -> io::Result<Value> {
    let before = measure::memory(plan)?;
    let shares = dial(plan, None)?;
    let window = measure::window(plan);
    let jobs = shares
        .into_iter()
        .map(|conns| move || keep_under_way(swarm(plan, Pace::Closed, window, conns)?, depth))
        .collect();
    measure::run(plan, before, window, jobs)
}

/// `rate` messages a second leave at fixed times over all connections.
///
/// # Errors
/// When a connection cannot be opened or the server's process cannot be read.
pub fn open(plan: &Plan, rate: f64, slow: Option<Slow>) -> io::Result<Value> {
    let before = measure::memory(plan)?;
    let shares = dial(plan, slow)?;
    let start = clock::now();
    let window = measure::window(plan);
    let interval = 1e9 * f64::from(plan.threads) / rate;
    let jobs = iter::zip(0_u32.., shares)
        .map(|(thread, conns)| {
            let slow_count = conns.iter().filter(|conn| is_slow(conn, slow)).count();
            // The threads' schedules interleave.
            let offset = interval * f64::from(thread) / f64::from(plan.threads);
            let schedule = Schedule {
                start: start as f64 + offset,
                interval,
                slow_share: if slow_count > 0 { slow.map_or(0.0, |slow| slow.share) } else { 0.0 },
                slow_count,
                conn_count: conns.len(),
                sent: 0,
            };
            move || follow(swarm(plan, Pace::Scheduled, window, conns)?, schedule, window)
        })
        .collect();
    measure::run(plan, before, window, jobs)
}

/// When the next message is due, and on which connection. The slow ones come first in the swarm.
#[derive(Debug, Clone)]
struct Schedule {
    start: f64,
    interval: f64,
    slow_share: f64,
    slow_count: usize,
    conn_count: usize,
    sent: u32,
}

impl Schedule {
    /// The intended time of the next message. The order of the connections never depends on how
    /// the server behaves.
    fn due(&self) -> u64 {
        // Nanoseconds since the start of the process: far below 2^53, so that f64 is exact.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        let due = (self.start + self.interval * f64::from(self.sent)) as u64;
        due
    }

    /// The connection of the next message. Slow messages are spread evenly over the others, and
    /// each kind takes its connections in turn.
    fn take(&mut self) -> usize {
        let slow_before = (f64::from(self.sent) * self.slow_share).floor();
        self.sent += 1;
        let slow_after = (f64::from(self.sent) * self.slow_share).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let slow_before = slow_before as usize;
        let ordinary_count = self.conn_count - self.slow_count;
        if slow_after > slow_before as f64 || ordinary_count == 0 {
            slow_before % self.slow_count
        } else {
            self.slow_count + (self.sent as usize - 1 - slow_before) % ordinary_count
        }
    }
}

fn keep_under_way(mut swarm: Swarm, depth: u64) -> io::Result<Tally> {
    let start = clock::now();
    let until = swarm.window().until;
    for index in swarm.indices() {
        (0..depth).for_each(|_| swarm.send(index, start));
    }
    let mut now = start;
    while now < until && swarm.open_count() > 0 {
        swarm.turn(until - now)?;
        now = clock::now();
    }
    Ok(swarm.into_tally(now))
}

fn follow(mut swarm: Swarm, mut schedule: Schedule, window: Window) -> io::Result<Tally> {
    sys::sharpen_timers();
    let give_up = window.until + DRAIN;
    loop {
        let now = clock::now();
        let mut due = schedule.due();
        while due <= now && due < window.until {
            swarm.send(schedule.take(), due);
            due = schedule.due();
        }
        let over = due >= window.until;
        if now >= give_up || (over && now >= window.until && swarm.awaited_count() == 0) {
            return Ok(swarm.into_tally(now));
        }
        let wake_up = if !over {
            due
        } else if now < window.until {
            window.until
        } else {
            give_up
        };
        swarm.turn(wake_up.saturating_sub(now))?;
    }
}

/// Opens all connections and deals them out to the threads, the slow ones first.
fn dial(plan: &Plan, slow: Option<Slow>) -> io::Result<Vec<Vec<Conn>>> {
    let mut dialer = Dialer::new(plan.addr, plan.sources)?;
    let slow_count = slow.map_or(0, |slow| slow.connections);
    let mut shares: Vec<_> = (0..plan.threads).map(|_| Vec::new()).collect();
    for number in 0..plan.connections {
        let work = slow.filter(|_| number < slow_count).map_or(plan.work, |slow| slow.byte);
        let socket: OwnedFd = dialer.dial()?;
        let share = number % plan.threads;
        shares[share as usize].push(Conn::new(socket, Tag { connection: number, work }));
    }
    Ok(shares)
}

fn swarm(plan: &Plan, pace: Pace, window: Window, conns: Vec<Conn>) -> io::Result<Swarm> {
    let slow = match plan.mode {
        Mode::Open { slow, .. } => slow.map(|slow| slow.byte),
        Mode::Closed { .. } | Mode::Churn | Mode::Idle { .. } => None,
    };
    let mut swarm = Swarm::new(plan.size, pace, window, slow)?;
    for conn in conns {
        swarm.adopt(conn)?;
    }
    Ok(swarm)
}

fn is_slow(conn: &Conn, slow: Option<Slow>) -> bool {
    slow.is_some_and(|slow| slow.byte == conn.work())
}

/// How long after the window answers are still waited for.
const DRAIN: u64 = 2 * SECOND;

#[cfg(test)]
mod tests {
    use super::Schedule;

    fn schedule(slow_share: f64, slow_count: usize) -> Schedule {
        let (start, interval) = (1_000.0, 50_000.0);
        Schedule { start, interval, slow_share, slow_count, conn_count: 400, sent: 0 }
    }

    #[test]
    fn messages_are_due_at_fixed_times() {
        let mut schedule = schedule(0.0, 0);
        let due: Vec<_> = (0..3)
            .map(|_| {
                let due = schedule.due();
                schedule.take();
                due
            })
            .collect();
        assert_eq!(due, [1_000, 51_000, 101_000]);
    }

    #[test]
    fn each_kind_takes_its_own_connections_in_turn_and_the_share_is_exact() {
        let mut schedule = schedule(0.01, 16);
        let mut counts = [0_u32; 400];
        for _ in 0..400_000 {
            counts[schedule.take()] += 1;
        }
        assert!(counts[..16].iter().all(|count| *count == 250), "{:?}", &counts[..16]);
        let ordinary = &counts[16..];
        assert_eq!(ordinary.iter().sum::<u32>(), 396_000);
        assert!(ordinary.iter().all(|count| (1_031..=1_032).contains(count)));
    }
}
