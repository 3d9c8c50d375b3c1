//! The simulation itself: many seeds, one seed again, and that equal seeds are equal worlds.

use std::env;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Script, Simulation, Summary, run, run_bytes};
use crate::core::codec::{Lines, Raw};
use crate::core::context::Context;
use crate::core::handler::handler_fn;
use crate::words::clock::Clock;
use crate::words::error::Error;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

/// `SIM_SEEDS` says how many, `SIM_FIRST` from which one on.
#[test]
fn the_server_keeps_its_promises_under_every_seed() {
    let (first, count) = (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(400));
    let clock = Clock::start();
    let mut sum = Summary::default();
    for seed in first..first + count {
        match run(seed) {
            Ok(summary) => add(&mut sum, summary),
            Err(failure) => panic!("{failure}"),
        }
    }
    let elapsed = clock.now().as_nanos() as f64 / 1e9;
    println!("{count} seeds in {elapsed:.1} s, {:.0} seeds/s: {sum:?}", count as f64 / elapsed);
    if count >= 400 {
        // It would prove little if these never happened.
        let dials = [sum.dialed, sum.dial_failures];
        let rare =
            [sum.take_overs, sum.steals, sum.offloads, sum.panics, dials[0], dials[1], sum.delays];
        let short = [sum.throttles, sum.memory_pauses, sum.evictions];
        assert!(short.iter().all(|&count| count > 0), "memory was never short: {sum:?}");
        let told = [sum.broadcasts, sum.lost, sum.reconnects, sum.checkouts];
        let mut seen = rare.iter().chain(&told);
        assert!(seen.all(|&count| count > 0), "nothing to be seen of some: {sum:?}");
    }
}

#[test]
fn replay() {
    let Some(seed) = number("SIM_SEED") else { return };
    match run(seed) {
        Ok(summary) => println!("seed {seed}: {summary:?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn equal_seeds_are_equal_worlds() {
    for seed in 0..20 {
        let (one, other) = (run(seed), run(seed));
        let digests = [one, other].map(|run| run.map(|summary| summary.digest).ok());
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

#[test]
fn the_bytes_of_a_seed_are_its_world_and_further_bytes_change_it() {
    let digest = |run: Result<Summary, _>| run.map(|summary| summary.digest).ok();
    for seed in 0..20_u64 {
        let mut bytes = seed.to_le_bytes().to_vec();
        let named = digest(run_bytes(&bytes));
        assert_eq!(named, digest(run(seed)), "seed {seed}");
        bytes.extend([7; 32]);
        assert_ne!(named, digest(run_bytes(&bytes)), "seed {seed}");
    }
}

fn add(sum: &mut Summary, run: Summary) {
    sum.steps += run.steps;
    sum.connections += run.connections;
    sum.jobs += run.jobs;
    sum.received_bytes += run.received_bytes;
    sum.take_overs += run.take_overs;
    sum.steals += run.steals;
    sum.offloads += run.offloads;
    sum.panics += run.panics;
    sum.dialed += run.dialed;
    sum.dial_failures += run.dial_failures;
    sum.delays += run.delays;
    sum.throttles += run.throttles;
    sum.memory_pauses += run.memory_pauses;
    sum.evictions += run.evictions;
    sum.broadcasts += run.broadcasts;
    sum.lost += run.lost;
    sum.reconnects += run.reconnects;
    sum.checkouts += run.checkouts;
    sum.elapsed = sum.elapsed.saturating_add(run.elapsed).min(Duration::MAX);
}

/// Says "one" and "two" on two lines, and wants them back.
fn two_lines() -> Script {
    Script::new().send("one\ntwo\n").expect("one\ntwo\n")
}

#[test]
fn an_own_protocol_keeps_its_word_in_every_world() {
    let echo = |_peer| handler_fn(|cx, line: BytesMut| cx.send(line));
    Simulation::new(Lines::new(), echo).clients(4, |_| two_lines()).check(200);
}

#[test]
fn what_is_wrong_with_an_own_protocol_is_found_and_says_how_to_see_it_again() {
    // It works as long as both lines come together.
    let merging = |_peer| {
        handler_fn(|cx, bytes: BytesMut| {
            cx.send(if &bytes[..] == b"one\ntwo\n" { bytes.freeze() } else { Bytes::new() })
        })
    };
    let simulation = Simulation::new(Raw::new(), merging).clients(2, |_| two_lines());
    let failure =
        (0..1000).find_map(|seed| simulation.run(seed).err().map(|failure| (seed, failure)));
    let (seed, failure) = failure.expect("it is found");
    let again = simulation.run(seed).expect_err("the seed says everything");
    assert_eq!(failure.to_string(), again.to_string());
    let command = failure.to_string();
    let command = command.lines().last().expect("the last line is the command");
    let name = "front::sim::tests::what_is_wrong_with_an_own_protocol";
    assert!(command.contains(&format!("SIM_SEED={seed} cargo test")), "{command}");
    assert!(command.contains(name), "{command}");

    let panics = |_peer| {
        handler_fn(|_: &mut Context<'_>, _: BytesMut| -> Result<(), Error> { panic!("planned") })
    };
    let simulation = Simulation::new(Raw::new(), panics).clients(1, |_| two_lines());
    let failure = (0..100).find_map(|seed| simulation.run(seed).err()).expect("it is found");
    assert!(failure.what().starts_with("handlers have panicked"), "{failure}");
}
