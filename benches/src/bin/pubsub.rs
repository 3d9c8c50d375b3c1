//! One publishes, many subscribe: the peers take turns, each run in a process of its own.
//!
//! `pubsub [--subscribers 10000] [--stalled 0] [--window 1] [--rounds 5] [--seconds 3]
//! [--threads 2] [--peers ours,tokio,raw]`

use std::error::Error;
use std::net::TcpListener;

use lexopt::prelude::*;
use switchboard_bench::compare::server::Server;
use switchboard_bench::process::{Memory, Usage};
use switchboard_bench::pubsub::crowd::{Crowd, Load};
use switchboard_bench::pubsub::{ours, raw, tokio_peer};
use switchboard_bench::stats::Spread;
use switchboard_bench::sys;

struct Options {
    serve: Option<String>,
    threads: usize,
    rounds: usize,
    peers: Vec<String>,
    load: Load,
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let load = Load { subscribers: 10_000, stalled: 0, window: 1, warmup: 0.5, seconds: 3.0 };
    let peers = ["ours", "tokio", "raw"].map(str::to_owned).to_vec();
    let mut options = Options { serve: None, threads: 2, rounds: 5, peers, load };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("serve") => options.serve = Some(parser.value()?.string()?),
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("seconds") => options.load.seconds = parser.value()?.parse()?,
            Long("warmup") => options.load.warmup = parser.value()?.parse()?,
            Long("window") => options.load.window = parser.value()?.parse()?,
            Long("subscribers") => options.load.subscribers = parser.value()?.parse()?,
            Long("stalled") => options.load.stalled = parser.value()?.parse()?,
            Long("peers") => {
                options.peers = parser.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    let Load { subscribers, window, seconds, .. } = options.load;
    let sane = subscribers > 0 && window > 0 && (0.05..=60.0).contains(&seconds);
    if !sane || options.threads == 0 || !(1..=100).contains(&options.rounds) {
        return Err("at least one of everything, 0.05 to 60 seconds, at most 100 rounds".into());
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(lexopt::Parser::from_env())?;
    sys::raise_file_limit()?;
    if let Some(peer) = &options.serve {
        let control = TcpListener::bind("127.0.0.1:0")?;
        return match peer.as_str() {
            "ours" => ours::serve(options.threads, &control),
            "tokio" => tokio_peer::serve(options.threads, &control),
            "raw" => raw::serve(options.threads, &control),
            other => Err(format!("no peer {other}: ours, tokio or raw").into()),
        };
    }
    let mut runs = vec![Vec::new(); options.peers.len()];
    for round in 0..options.rounds {
        for step in 0..options.peers.len() {
            let at = (step + round) % options.peers.len();
            runs[at].push(run(&options, &options.peers[at])?);
        }
    }
    tell(&options.peers, &runs, "deliveries/s", |run| run.per_second);
    // What others do on the machine at the same time does not count here.
    tell(&options.peers, &runs, "deliveries per CPU second of the server", |run| run.per_cpu);
    Ok(())
}

/// What one run of one peer came to.
#[derive(Clone, Copy)]
struct Run {
    per_second: f64,
    per_cpu: f64,
}

/// The medians of one figure, and how ours compares with each other's in the same round.
fn tell(peers: &[String], runs: &[Vec<Run>], unit: &str, figure: impl Fn(&Run) -> f64) {
    let figures: Vec<Vec<f64>> =
        runs.iter().map(|runs| runs.iter().map(&figure).collect()).collect();
    let ours = peers.iter().position(|peer| peer == "ours");
    for (peer, here) in peers.iter().zip(&figures) {
        if let Some(Spread { median, min, max }) = Spread::of(here) {
            println!("{peer:>6}: {median:>9.0} {unit} ({min:.0} to {max:.0})");
        }
        let Some(ours) = ours.filter(|_| peer != "ours") else { continue };
        let ratios: Vec<f64> = figures[ours].iter().zip(here).map(|(a, b)| a / b).collect();
        if let Some(Spread { median, min, max }) = Spread::of(&ratios) {
            println!("        ours / {peer}: {median:.3} ({min:.3} to {max:.3}), round by round");
        }
    }
}

fn run(options: &Options, peer: &str) -> Result<Run, Box<dyn Error>> {
    let arguments = ["--serve", peer, "--threads", &options.threads.to_string()];
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let server = Server::start(&std::env::current_exe()?, &arguments)?;
    let (subscribe, control) = server.addr().split_once(',').ok_or("two addresses")?;
    let mut crowd = Crowd::connect(&options.load, subscribe.parse()?, control.parse()?)?;
    let (mut memory, mut usage) = (Vec::new(), Vec::new());
    let heard = crowd.run(&options.load, || {
        memory.push(Memory::of(server.pid()));
        usage.extend(Usage::of(server.pid()));
    })?;
    let [before, after] = &usage[..] else { return Err("the server's times are not told".into()) };
    let spent = after.since(before);
    let per_cpu = heard.per_second * heard.seconds * 1e9 / (spent.user + spent.system);
    let resident: Vec<String> = memory
        .iter()
        .map(|memory| memory.as_ref().map_or("?".into(), |m| m.resident.to_string()))
        .collect();
    let (rate, published, resident) = (heard.per_second, heard.published, resident.join(" -> "));
    println!("{peer:>6}: {rate:>9.0} deliveries/s, {per_cpu:.0} per CPU second");
    println!("        {published} published, resident {resident} KiB");
    Ok(Run { per_second: heard.per_second, per_cpu })
}
