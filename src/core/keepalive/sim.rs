//! Populations of peers against timeouts, in virtual time: what each timeout costs and saves.
//!
//! The table of `docs/keepalive.md` is made here and compared with the file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::time::Duration;

use self::Kind::{Chatty, Dead, OneShot, Periodic};
use super::*;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// What the page is made from.
const SEED: u64 = 1;
/// Peers come over this time.
const ARRIVALS: u64 = 4 * 60 * MINUTE;

/// SplitMix64, see `front/sim/random.rs`: the one source of chance.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

/// How a peer behaves. All of them vanish in the end without a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message a second, give or take a fifth, for ten minutes.
    Chatty,
    /// Every five minutes, give or take a fifth, three messages within 100 ms; for two hours.
    Periodic,
    /// One message.
    OneShot,
    /// Three to eight messages, 0.2 s to 5 s apart.
    Dead,
}

/// When the peer speaks, from its arrival at `from` on.
fn messages(kind: Kind, from: u64, random: &mut Random) -> Vec<u64> {
    let mut at = from;
    let mut times = vec![at];
    match kind {
        Kind::OneShot => {}
        Kind::Chatty => {
            while at < from + 10 * MINUTE {
                at += random.range(SECOND * 8 / 10, SECOND * 12 / 10);
                times.push(at);
            }
        }
        Kind::Dead => {
            for _ in 0..random.range(2, 7) {
                at += random.range(SECOND / 5, 5 * SECOND);
                times.push(at);
            }
        }
        Kind::Periodic => {
            while at < from + 120 * MINUTE {
                times.extend([at + SECOND / 20, at + SECOND / 10]);
                at += random.range(4 * MINUTE, 6 * MINUTE);
                times.push(at);
            }
        }
    }
    times
}

/// Who comes, and in which order of time.
struct Population {
    name: &'static str,
    what: &'static str,
    /// How many of each kind.
    mix: &'static [(Kind, u64)],
}

const POPULATIONS: &[Population] = &[
    Population {
        name: "chatty",
        what: "100 peers that say something every second, ±20 %, for ten minutes.",
        mix: &[(Chatty, 100)],
    },
    Population {
        name: "periodic",
        what: "400 devices that send three messages within 100 ms every five minutes, ±20 %,\n\
               for two hours.",
        mix: &[(Periodic, 400)],
    },
    Population {
        name: "one-shot",
        what: "1,000 peers that send one message.",
        mix: &[(OneShot, 1_000)],
    },
    Population {
        name: "dead",
        what: "1,000 peers that send three to eight messages, 0.2 s to 5 s apart.",
        mix: &[(Dead, 1_000)],
    },
    Population {
        name: "mixed",
        what: "1,000 of them: 300 chatty, 100 periodic, 300 one-shot, 300 dead. Periodic ones\n\
               stay for long: few of those who come are periodic, most of those who are there are.",
        mix: &[(Chatty, 300), (Periodic, 100), (OneShot, 300), (Dead, 300)],
    },
    Population {
        name: "equal",
        what: "400 of them, 100 of each kind.",
        mix: &[(Chatty, 100), (Periodic, 100), (OneShot, 100), (Dead, 100)],
    },
];

#[derive(Clone, Copy)]
enum Policy {
    /// One that people set.
    Fixed(u64),
    /// The shortest that cuts none of these devices: one has to know them.
    Tuned(u64),
    Adaptive(Pressure),
}

const FIXED: [Policy; 5] = [
    Policy::Fixed(MINUTE),
    Policy::Fixed(2 * MINUTE),
    Policy::Fixed(5 * MINUTE),
    Policy::Fixed(10 * MINUTE),
    Policy::Fixed(15 * MINUTE),
];

impl Policy {
    fn all() -> impl Iterator<Item = Policy> {
        let tuned = std::iter::once(Policy::Tuned(6 * MINUTE));
        FIXED.into_iter().chain(tuned).chain(Pressure::ALL.map(Policy::Adaptive))
    }

    fn name(self) -> String {
        match self {
            Policy::Fixed(after) => format!("fixed, {} min", after / MINUTE),
            Policy::Tuned(after) => format!("fixed, {} min, tuned", after / MINUTE),
            Policy::Adaptive(Pressure::Calm) => "adaptive, calm".into(),
            Policy::Adaptive(level) => format!("adaptive, pressure {}", level.level()),
        }
    }
}

/// What became of a population under a policy; times in seconds, over all descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Connections cut though the peer spoke again; it came back then with a new one.
    false_cuts: u64,
    /// Held after the last message of a peer.
    held_for_nobody: u64,
    /// Held in all.
    held: u64,
}

/// A peer, and the connection it has at present.
struct Peer {
    messages: Vec<u64>,
    next: usize,
    connection: Option<Connection>,
}

struct Connection {
    keepalive: KeepAlive,
    opened: u64,
    last: u64,
    timer: u64,
}

/// A listener under one policy. Each connection has one timer, as in the engine: it is set when the
/// connection opens and when that says so, and moved on if it fires too early.
struct World {
    policy: Policy,
    idle: Adaptive,
    prior: Prior,
    peers: Vec<Peer>,
    /// The time, the peer, and what happens.
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Message,
    Timer,
}

impl World {
    fn new(population: &Population, policy: Policy, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut peers = Vec::new();
        for &(kind, count) in population.mix {
            for _ in 0..count {
                let from = random.range(0, ARRIVALS);
                let messages = messages(kind, from, &mut random);
                peers.push(Peer { messages, next: 0, connection: None });
            }
        }
        let first =
            (0..).zip(&peers).map(|(n, peer)| Reverse((peer.messages[0], n, Event::Message)));
        World {
            policy,
            idle: Adaptive::default(),
            prior: Prior::new(),
            events: first.collect(),
            peers,
            outcome: Outcome::default(),
        }
    }

    fn timeout(&self, keepalive: &KeepAlive) -> u64 {
        match self.policy {
            Policy::Fixed(after) | Policy::Tuned(after) => after,
            Policy::Adaptive(level) => {
                let timeout = keepalive.timeout(&self.idle, level, &self.prior);
                u64::try_from(timeout.as_nanos()).expect("minutes")
            }
        }
    }

    fn handle_message(&mut self, now: u64, number: usize) {
        let peer = &mut self.peers[number];
        peer.next += 1;
        if let Some(&next) = peer.messages.get(peer.next) {
            self.events.push(Reverse((next, number, Event::Message)));
        }
        let mut rearm = Rearm::Yes;
        let mut connection = match peer.connection.take() {
            Some(connection) => connection,
            None => Connection { keepalive: self.prior.open(), opened: now, last: now, timer: now },
        };
        if connection.opened < now {
            let gap = Duration::from_nanos(now - connection.last);
            rearm = connection.keepalive.note_gap(gap, &mut self.prior);
        }
        connection.last = now;
        if rearm == Rearm::Yes {
            connection.timer = now + self.timeout(&connection.keepalive);
            self.events.push(Reverse((connection.timer, number, Event::Timer)));
        }
        self.peers[number].connection = Some(connection);
    }

    fn handle_timer(&mut self, now: u64, number: usize) {
        // A timer that was set anew since is not meant.
        let open = self.peers[number].connection.take_if(|open| open.timer == now);
        let Some(mut open) = open else { return };
        let due = open.last + self.timeout(&open.keepalive);
        if due > now {
            open.timer = due;
            self.events.push(Reverse((due, number, Event::Timer)));
            self.peers[number].connection = Some(open);
            return;
        }
        self.prior.note_cut(&open.keepalive, Duration::from_nanos(now - open.last), &self.idle);
        self.outcome.held += now - open.opened;
        if self.peers[number].next < self.peers[number].messages.len() {
            self.outcome.false_cuts += 1;
        } else {
            self.outcome.held_for_nobody += now - open.last;
        }
    }
}

/// Runs one population under one policy to its end.
fn run(population: &Population, policy: Policy, seed: u64) -> Outcome {
    let mut world = World::new(population, policy, seed);
    while let Some(Reverse((now, number, event))) = world.events.pop() {
        match event {
            Event::Message => world.handle_message(now, number),
            Event::Timer => world.handle_timer(now, number),
        }
    }
    let outcome = world.outcome;
    Outcome {
        held: outcome.held / SECOND,
        held_for_nobody: outcome.held_for_nobody / SECOND,
        ..outcome
    }
}

/// The name, and what became of it, for every policy.
fn outcomes(population: &Population, seed: u64) -> Vec<(Policy, Outcome)> {
    Policy::all().map(|policy| (policy, run(population, policy, seed))).collect()
}

fn population(name: &str) -> &'static Population {
    POPULATIONS.iter().find(|population| population.name == name).expect("a known name")
}

/// What a population has under the best of the usual fixed timeouts that cuts nobody falsely.
fn best_usual(outcomes: &[(Policy, Outcome)]) -> u64 {
    let harmless = outcomes.iter().filter(|(_, outcome)| outcome.false_cuts == 0);
    let usual = harmless.filter(|(policy, _)| matches!(policy, Policy::Fixed(_)));
    usual.map(|(_, outcome)| outcome.held_for_nobody).min().expect("15 min cut nobody")
}

#[test]
fn nobody_is_cut_falsely_below_the_top_level() {
    for population in POPULATIONS {
        for (level, seed) in Pressure::ALL[..3].iter().zip(SEED..) {
            let outcome = run(population, Policy::Adaptive(*level), seed);
            assert_eq!(outcome.false_cuts, 0, "{} at {level:?}, seed {seed}", population.name);
        }
    }
}

#[test]
fn on_a_mixed_fleet_half_of_what_the_best_usual_timeout_wastes_is_saved() {
    let outcomes = outcomes(population("mixed"), SEED);
    let best = best_usual(&outcomes);
    for (policy, outcome) in &outcomes {
        match policy {
            Policy::Adaptive(_) => assert!(outcome.held_for_nobody * 2 <= best, "{outcome:?}"),
            // Even knowing in advance what the fleet does would not have done as well.
            Policy::Tuned(_) => assert!(outcome.held_for_nobody * 2 > best, "{outcome:?}"),
            Policy::Fixed(_) => {}
        }
    }
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let again = || run(population("mixed"), Policy::Adaptive(Pressure::Raised), SEED);
    assert_eq!(again(), again());
}

/// The page; its figures are whole numbers that follow from the seed, the same everywhere.
fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for population in POPULATIONS {
        let _ = write!(page, "\n## {}\n\n{}\n\n{HEAD}", population.name, population.what);
        for (policy, outcome) in outcomes(population, SEED) {
            let Outcome { false_cuts, held_for_nobody, held } = outcome;
            let name = policy.name();
            let _ = writeln!(page, "| {name} | {false_cuts} | {held_for_nobody} | {held} |");
        }
    }
    page
}

#[test]
fn the_page_shows_what_is_measured() {
    let page = page();
    if std::env::var_os("SWITCHBOARD_UPDATE_DOCS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/keepalive.md");
        std::fs::write(path, page).expect("the page is written");
        return;
    }
    // By lines: a checkout may have changed how they end.
    let kept = include_str!("../../../docs/keepalive.md");
    assert!(
        kept.lines().eq(page.lines()),
        "docs/keepalive.md is not what is measured now; if that is meant, run\n    \
         SWITCHBOARD_UPDATE_DOCS=1 cargo test --lib the_page_shows_what_is_measured\n{page}",
    );
}

const HEAD: &str = "\
| timeout | false cuts | held for nobody, s | held in all, s |
|---|---:|---:|---:|
";

const INTRODUCTION: &str = "\
# What a timeout costs

A peer that vanishes without a word, because its host lost power or its network, leaves a
connection that nobody will ever use again. A short idle timeout gives its descriptor back soon, and
cuts devices that are silent for long between two messages. A long one keeps those, and the dead as
well. `config::Idle::Adaptive` learns from each connection how long its peer is used to be silent.

This page is made by the tests in `src/core/keepalive/sim.rs`, in virtual time and from a fixed
seed. Peers arrive over four hours, behave as said below, and vanish without a word. A *false cut*
is a connection that was cut though its peer spoke again; the peer then came back with a new one.
*Held for nobody* is the time that descriptors were held after the last message of their peers.
Pressure is how short the server is of room, from 0 (calm) to 3 (nearly out, where nothing but `min`
is granted). The adaptive timeout has its defaults: `min` 60 s, `factor` 3, `max` 15 min. *Tuned* is
the shortest fixed time that cuts none of these very devices: what one would set who knew them all.

What it shows:

- Below the top level of pressure the adaptive timeout cuts nobody falsely, in any population.
- In the mixed fleet it wastes less than half of what the best of the usual fixed timeouts does that
  cuts nobody falsely either, and less than the tuned one.
- How much it saves depends on the mix. With as many of each kind to come (*equal*), it saves a
  third when calm, and the tuned one would do a little better; under pressure it saves more.
- Chatty and dead peers it gives up after `min`. For a periodic device it waits longer than the
  others do, since `factor` forgives messages that did not come. A peer that has said one thing only
  cannot be told from a device that will speak again later: it is given as long as others on its
  listener have needed, and no less.
- A listener that has one kind of peer only is served as well or better by a fixed timeout that fits
  that kind.
";
