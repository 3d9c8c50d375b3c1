//! What becomes of a server that is offered more than it can handle: goodput and waiting at 0.5 to
//! 3 times the peak, with shedding, without, and on tokio. A table on stdout.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use lexopt::prelude::*;
use switchboard_bench::overload::{Load, Peer, Seen, run};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut seconds, mut burn_us, mut wait_ms, mut rounds) = (3.0_f64, 100, 20, 1_u32);
    let mut tokio = true;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("burn-us") => burn_us = parser.value()?.parse()?,
            Long("wait-max-ms") => wait_ms = parser.value()?.parse()?,
            Long("rounds") => rounds = parser.value()?.parse()?,
            Long("no-tokio") => tokio = false,
            Short(_) | Long(_) | Value(_) => {
                return Err("usage: overload [--seconds S] [--rounds N] [--burn-us US] \
                    [--wait-max-ms MS] [--no-tokio]"
                    .into());
            }
        }
    }
    if !(0.1..=60.0).contains(&seconds) || !(1..=10_000).contains(&burn_us) || wait_ms == 0 {
        return Err("out of bounds: 0.1 to 60 s, 1 to 10,000 µs, at least 1 ms".into());
    }
    let (burn, wait_max) = (Duration::from_micros(burn_us), Duration::from_millis(wait_ms));
    let mut peers = vec![
        ("shedding", Peer::Switchboard(Some(wait_max))),
        ("as it comes", Peer::Switchboard(None)),
    ];
    if tokio {
        peers.push(("tokio", Peer::Tokio));
    }
    for round in 1..=rounds {
        for &(name, peer) in &peers {
            // Its own peak, without shedding: beside it, so that both see the same machine.
            let unbounded = if peer == Peer::Tokio { peer } else { Peer::Switchboard(None) };
            let closed = run(unbounded, Load::Closed, burn, seconds)?;
            let (peak, useful) = (closed.handled_per_s, 100.0 * closed.useful);
            let found = format!("peak {peak:.0} messages/s, {useful:.1} % of its CPU useful");
            say(&format!("\nround {round}, {name}: {found}\n\n{}", head()))?;
            for factor in [0.5, 1.0, 2.0, 3.0] {
                let seen = run(peer, Load::Open(factor * peak), burn, seconds)?;
                say(&row(factor, peak, &seen))?;
            }
        }
    }
    Ok(())
}

const COLUMNS: &[&str] = &[
    "offered",
    "goodput",
    "handled/s",
    "shed/s",
    "wait p50",
    "wait p99",
    "end to end p50",
    "end to end p99",
    "busy p99",
    "unanswered",
    "per connection",
    "useful CPU",
];

fn head() -> String {
    format!("| {} |\n|{}", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len()))
}

fn row(factor: f64, peak: f64, seen: &Seen) -> String {
    let ms = |histogram: &Histogram<u64>, quantile: f64| {
        if histogram.is_empty() {
            return String::from("-");
        }
        format!("{:.1} ms", histogram.value_at_quantile(quantile) as f64 / 1e6)
    };
    let cells = [
        format!("{factor:.1}"),
        format!("{:.0} %", 100.0 * seen.handled_per_s / peak),
        format!("{:.0}", seen.handled_per_s),
        format!("{:.0}", seen.shed_per_s),
        ms(&seen.queue_wait, 0.5),
        ms(&seen.queue_wait, 0.99),
        ms(&seen.handled, 0.5),
        ms(&seen.handled, 0.99),
        ms(&seen.shed, 0.99),
        seen.unanswered.to_string(),
        format!("{} to {}", seen.fairness.0, seen.fairness.1),
        format!("{:.1} %", 100.0 * seen.useful),
    ];
    format!("| {} |", cells.join(" | "))
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
