//! The board: what happens in numbers, as one line every second and as a summary at the end.

use std::io::{IsTerminal, Write, stdout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use switchboard::client::ConnectError;
use switchboard::control::{ReactorSnapshot, Report, Snapshot};

/// What stands above the lines.
pub(crate) const HEADER: &str =
    "devices  reports/s      p50      p99  isolated  commands  lost  memory/device";

/// What takes longer counts as this, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Counted by the gateway and by the devices, whichever are in this process. Plain statistics:
/// nobody draws a conclusion from the order of two counters.
#[derive(Default)]
pub(crate) struct Board {
    /// Reports that the gateway has answered.
    answered: AtomicU64,
    /// Commands that their device has confirmed; that a device which stayed never did; that one
    /// did not which left.
    confirmed: AtomicU64,
    lost: AtomicU64,
    abandoned: AtomicU64,
    /// Commands that could not even be queued.
    refused: AtomicU64,
    /// Devices that could not connect.
    failed: AtomicU64,
    times: Mutex<Times>,
}

/// From report to reply, in nanoseconds, as the devices see it.
struct Times {
    /// Of the quick devices, since the last line.
    recent: Histogram<u64>,
    /// Of the quick devices and of the slow ones, since the start.
    quick: Histogram<u64>,
    slow: Histogram<u64>,
    /// Replies that the last line knew of, and its moment.
    shown: u64,
    shown_at: Instant,
}

impl Default for Times {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
        Times { recent: empty(), quick: empty(), slow: empty(), shown: 0, shown_at: Instant::now() }
    }
}

impl Board {
    pub(crate) fn count_report(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    /// A command was confirmed, and those `skipped` before it never will be.
    pub(crate) fn confirm(&self, skipped: u64) {
        self.confirmed.fetch_add(1, Relaxed);
        self.lost.fetch_add(skipped, Relaxed);
    }

    /// A device's connection has ended, with so many commands unconfirmed.
    pub(crate) fn count_end(&self, owed: u64, has_left: bool) {
        let counter = if has_left { &self.abandoned } else { &self.lost };
        counter.fetch_add(owed, Relaxed);
    }

    pub(crate) fn note_refused(&self, is_refused: bool) {
        self.refused.fetch_add(u64::from(is_refused), Relaxed);
    }

    pub(crate) fn note_failure(&self, error: &ConnectError) {
        if self.failed.fetch_add(1, Relaxed) == 0 {
            eprintln!("a device could not connect: {error}");
        }
    }

    /// A report has got its reply.
    pub(crate) fn record(&self, time: Duration, is_slow: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let times = &mut *self.times();
        if is_slow {
            times.slow.saturating_record(nanos);
        } else {
            times.quick.saturating_record(nanos);
            times.recent.saturating_record(nanos);
        }
    }

    /// Shows the line: in its place on a terminal, else below the one before.
    pub(crate) fn show(&self, server: &Snapshot) {
        let line = self.line(server);
        if stdout().is_terminal() {
            print!("\r{line}");
            // A terminal that is gone is no reason to stop serving.
            stdout().flush().unwrap_or_default();
        } else {
            println!("{line}");
        }
    }

    fn line(&self, server: &Snapshot) -> String {
        let (rate, typical, tail) = self.times().since_last_line(self.answered.load(Relaxed));
        // The engine's records, and what it holds for connections: incomplete frames and output.
        let held = |reactor: &ReactorSnapshot| reactor.table_bytes + reactor.held_bytes;
        let held = server.reactors.iter().map(held).sum::<usize>();
        let memory = held.checked_div(server.connections());
        // Handlers whose thread lost its reactor, and those that were kept from one to begin with.
        let isolated = server.take_overs + server.offloads;
        let devices = thousands(server.connections() as u64);
        let (rate, isolated) = (thousands(rate), thousands(isolated));
        let confirmed = thousands(self.confirmed.load(Relaxed));
        let lost = thousands(self.lost.load(Relaxed));
        let memory = memory.map_or(String::from("–"), |bytes| format!("{bytes} B"));
        format!(
            "{devices:>7}  {rate:>9}  {typical:>7}  {tail:>7}  {isolated:>8}  {confirmed:>8}  \
             {lost:>4}  {memory:>13}"
        )
    }

    /// Says how it went.
    pub(crate) fn sum_up(&self, report: &Report) {
        let times = self.times();
        println!("{}", if stdout().is_terminal() { "\n" } else { "" });
        println!("reports   {} answered", thousands(times.replies(self.answered.load(Relaxed))));
        for (name, times) in [("quick", &times.quick), ("slow", &times.slow)] {
            if !times.is_empty() {
                let [p50, p99] = [50.0, 99.0].map(|at| pretty(times.value_at_percentile(at)));
                let max = pretty(times.max());
                println!(
                    "  {name:<7} {} at the devices: p50 {p50}, p99 {p99}, max {max}",
                    thousands(times.len())
                );
            }
        }
        let [confirmed, left] =
            [&self.confirmed, &self.abandoned].map(|counter| counter.load(Relaxed));
        let [refused, lost] = [&self.refused, &self.lost].map(|counter| counter.load(Relaxed));
        // Devices alone know nothing of this.
        if confirmed + left + refused + lost > 0 {
            println!(
                "commands  {} confirmed, {left} to devices that left, {refused} refused, \
                 lost = {lost}",
                thousands(confirmed)
            );
        }
        if report.asked > 0 {
            // At once, or by the session itself, when it had heard out its device.
            let drained = thousands(report.closed_by("drained") + report.closed_by("closed"));
            let asked = thousands(report.asked);
            println!("drained   {drained} of {asked} devices");
        }
        println!("in all    {report}");
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    /// Reports with a reply, of which the gateway knows `answered`, if it is in this process.
    fn replies(&self, answered: u64) -> u64 {
        answered.max(self.quick.len() + self.slow.len())
    }

    /// Replies per second, and p50 and p99 of the quick ones.
    fn since_last_line(&mut self, answered: u64) -> (u64, String, String) {
        let (replies, now) = (self.replies(answered), Instant::now());
        let millis = now.duration_since(self.shown_at).as_millis().max(1);
        let rate = u128::from(replies - self.shown) * 1_000 / millis;
        (self.shown, self.shown_at) = (replies, now);
        let at = |percentile| match self.recent.is_empty() {
            true => String::from("–"),
            false => pretty(self.recent.value_at_percentile(percentile)),
        };
        let (typical, tail) = (at(50.0), at(99.0));
        self.recent.reset();
        (u64::try_from(rate).unwrap_or(u64::MAX), typical, tail)
    }
}

/// A time of so many nanoseconds.
fn pretty(nanos: u64) -> String {
    let micros = nanos / 1_000;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

/// A number with commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
