//! Runs the threads of a load over one window and reads the server's accounts at its edges.

use std::io;
use std::thread;

use serde_json::{Value, json};

use crate::clock::{self, SECOND};
use crate::plan::Plan;
use crate::process::{Memory, Spent, Usage};
use crate::tally::{Tally, Window};

/// Memory of the server before the first connection, if there is a process to look at.
///
/// # Errors
/// When the process cannot be read.
pub fn memory(plan: &Plan) -> io::Result<Option<Memory>> {
    plan.pid.map(Memory::of).transpose()
}

/// The window of a run that starts now.
#[must_use]
pub fn window(plan: &Plan) -> Window {
    let from = clock::now() + clock::from_seconds(plan.warmup);
    Window { from, until: from + clock::from_seconds(plan.seconds) }
}

/// Runs `jobs`, each on a thread of its own, and reports what they saw and what it cost the
/// server. A job must end soon after the window does.
///
/// # Errors
/// When a job fails or the server's process cannot be read.
pub fn run<J>(
    plan: &Plan,
    before: Option<Memory>,
    window: Window,
    jobs: Vec<J>,
) -> io::Result<Value>
where
    J: FnOnce() -> io::Result<Tally> + Send,
{
    let usage = || plan.pid.map(Usage::of).transpose();
    let (tally, spent, loaded) = thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        clock::sleep_until(window.from);
        let first = usage()?;
        clock::sleep_until(window.until);
        let last = usage()?;
        let loaded = memory(plan)?;
        let mut tally = Tally::new();
        for thread in threads {
            let part = thread.join().map_err(|_| io::Error::other("a load thread panicked"))??;
            tally.merge(&part);
        }
        let spent = last.zip(first).map(|(last, first)| last.since(&first));
        Ok::<_, io::Error>((tally, spent, loaded))
    })?;
    // All sockets are closed by now; the server needs a moment to notice.
    clock::sleep_until(clock::now() + SECOND / 5);
    let after = memory(plan)?;
    let mut report = tally.to_json(window);
    report["mode"] = json!(plan.name);
    report["connections"] = json!(plan.connections);
    report["size"] = json!(plan.size);
    report["seconds"] = json!(window.seconds());
    report["server"] = match (spent, before, loaded, after) {
        (Some(spent), Some(before), Some(loaded), Some(after)) => {
            server(spent, window, tally.completed, [before, loaded, after])
        }
        _ => Value::Null,
    };
    Ok(report)
}

fn server(spent: Spent, window: Window, messages: u64, memory: [Memory; 3]) -> Value {
    let [before, loaded, after] = memory;
    // Nothing completed: no cost per message either, rather than an infinite one.
    let per_message = |nanoseconds: f64| match messages {
        0 => Value::Null,
        count => json!(nanoseconds / 1e3 / count as f64),
    };
    json!({
        "user_us_per_message": per_message(spent.user),
        "system_us_per_message": per_message(spent.system),
        "cpu_us_per_message": per_message(spent.user + spent.system),
        "cpus": (spent.user + spent.system) / 1e9 / window.seconds(),
        "voluntary_switches": spent.voluntary_switches,
        "rss_before_kib": before.resident,
        "rss_loaded_kib": loaded.resident,
        "rss_after_kib": after.resident,
        "rss_peak_kib": loaded.peak.max(after.peak),
    })
}
