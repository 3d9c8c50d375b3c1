//! A server under mixed load and faults for as long as you like: nobody undisturbed notices, and
//! in the end everything is given back.
//!
//! `SOAK_SECONDS=600 cargo test --release --test soak -- --nocapture`; a few seconds by default.
//! `SOAK_SEED` makes the dice fall otherwise.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod clients;
#[cfg(test)]
#[path = "../common/mod.rs"]
mod common;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod errands;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod server;

use std::thread;
use std::time::Duration;

use clients::{Done, Places};
use common::{now, pause, wait_until};
use dice::Dice;
use proxy::Proxy;
use server::{Server, WORKERS_MAX};

/// Clients of each kind at a time.
const POLITE: u64 = 6;
const RUDE: u64 = 3;
const FAR: u64 = 4;
/// What each of them does even on the slowest machine.
const ROUNDS_MIN: u64 = 20;
/// What the allocator may keep more than after the first part: for other sizes in other threads.
const KEPT_MAX_BYTES: usize = 4 << 20;
/// Buffers that the pools of the two reactors keep.
const RETAINED_MAX: u64 = 2 * 64;

/// Lets all kinds of clients loose for a time, and waits until the last one is done.
fn load(places: Places, time: Duration, dice: &mut Dice) -> Done {
    let until = now() + time;
    let client = |number: u64, mut dice: Dice| {
        thread::spawn(move || {
            let (mut done, mut rounds) = (Done::default(), 0);
            while now() < until || rounds < ROUNDS_MIN {
                rounds += 1;
                match number {
                    0..POLITE => places.be_polite(&mut dice, &mut done),
                    _ if number < POLITE + RUDE => places.be_rude(&mut dice, &mut done),
                    _ => places.be_far(&mut dice, &mut done),
                }
            }
            done
        })
    };
    let clients: Vec<_> =
        (0..POLITE + RUDE + FAR).map(|number| client(number, Dice::new(dice.next()))).collect();
    clients.into_iter().fold(Done::default(), |all, client| {
        let done = client.join().expect("no client finds a fault");
        Done {
            whole: all.whole + done.whole,
            bad: all.bad + done.bad,
            cut: all.cut + done.cut,
            panics: all.panics + done.panics,
            rude: all.rude + done.rude,
        }
    })
}

/// Waits until nothing is left of any connection.
fn settle(server: &mut Server) -> std::collections::HashMap<String, u64> {
    let mut figures = server.snapshot();
    wait_until("every connection has ended", || {
        figures = server.snapshot();
        let left = [
            "connections",
            "admitted",
            "leased",
            "held",
            "timers",
            "connecting",
            "jobs_waiting",
            "output",
            "partial",
            "mailed",
            "members",
        ];
        figures["opened"] == figures["closed"] && left.iter().all(|name| figures[*name] == 0)
    });
    figures
}

#[test]
fn mixed_load_with_faults_disturbs_nobody_else_and_leaves_nothing() {
    if server::was_the_server() {
        return;
    }
    let setting = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let seconds: u64 = setting("SOAK_SECONDS").unwrap_or(4);
    let seed = setting("SOAK_SEED").unwrap_or(1);
    println!("SOAK_SEED={seed} for {seconds} s");
    let mut dice = Dice::new(seed);
    let mut server =
        Server::start("mixed_load_with_faults_disturbs_nobody_else_and_leaves_nothing");
    let fresh = server.usage();
    let proxy = Proxy::start(server.echo, Dice::new(dice.next()));
    let places = Places::of(&server, proxy.addr());

    // A server that has seen everything once is what the rest is compared with.
    let time = Duration::from_secs(seconds);
    let first = load(places, time / 4, &mut dice);
    settle(&mut server);
    let before = server.usage();
    let second = load(places, time - time / 4, &mut dice);
    proxy.stop();
    let figures = settle(&mut server);
    let after = server.usage();

    // At rest it sleeps: a few turns to answer this, and no others.
    let turns = server.snapshot()["turns"];
    pause(Duration::from_secs(1));
    let turns = server.snapshot()["turns"] - turns;
    assert!(turns <= 10, "{turns} turns while nothing happens");

    println!("{first:?}\n{second:?}\n{figures:?}\n{fresh:?}\n{before:?}\n{after:?}");
    assert_eq!(figures["panics"], first.panics + second.panics);
    assert_eq!(after.descriptors, fresh.descriptors, "descriptors");
    assert!(after.threads <= fresh.threads + WORKERS_MAX, "{} threads", after.threads);
    let kept = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(kept <= KEPT_MAX_BYTES, "{kept} bytes more than before");
    for used in ["jobs_finished", "broadcasts", "dialed"] {
        assert!(figures[used] > 0, "there was no {used}");
    }
    assert!(figures["retained"] <= RETAINED_MAX, "{} buffers are kept", figures["retained"]);
    assert!(second.whole > 0 && second.bad > second.cut && second.cut > 0, "{second:?}");
    let report = server.stop();
    assert_eq!((report["opened"], report["stuck"]), (report["closed"], 0));
}
