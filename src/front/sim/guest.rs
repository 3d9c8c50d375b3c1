//! `Simulation`: a protocol of the user's in simulated worlds, and the clients that talk to it.

use std::env;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::net::{Net, Received};
use super::plan::{Ending, Plan};
use super::random::Random;
use super::world::{self, World};
use super::{Failure, Summary};
use crate::core::codec::Codec;
use crate::core::handler::Handler;
use crate::core::session::{Factory, Maker};
use crate::words::clock::Time;
use crate::words::config::{Limits, Listening};
use crate::words::sync::lock;

/// A protocol in simulated worlds: its codec and its handlers, the very ones of the real server,
/// on the real engine; time, threads, the network and the system are made up, and a seed says
/// everything that happens.
///
/// In every world the network cuts what is sent wherever it likes, delays it and tells of it late,
/// twice or for nothing; the system stops threads, runs out of descriptors and cannot watch a
/// socket; handlers take their time and lose their reactors; some clients finish, reset or lose
/// their power in the middle of a word. Those that do nothing of the kind have to be able to end
/// their [`Conversation`], unless the server itself ends first. A panic of a handler is a failure.
///
/// What protocols must not do in a simulation: ask for the time, for chance or for other threads
/// but through the [`Context`](crate::Context); else a seed is not the same world twice.
///
/// ```
/// use switchboard::codec::Lines;
/// use switchboard::sim::{Script, Simulation};
/// use switchboard::{Context, Handler, Outcome};
/// use bytes::BytesMut;
///
/// /// Adds up what it is told, until it is asked for the sum.
/// #[derive(Default)]
/// struct Adder(u64);
///
/// impl Handler for Adder {
///     fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
///         if &line[..] == b"sum" {
///             cx.send(self.0.to_string())?;
///         } else {
///             self.0 += std::str::from_utf8(&line)?.trim().parse::<u64>()?;
///         }
///         Ok(())
///     }
/// }
///
/// // In a test of yours: 100 worlds. If one fails, a command is printed that shows it again.
/// Simulation::new(Lines::new(), |_peer| Adder::default())
///     .clients(3, |_number| Script::new().send("20\n22\nsum\n").expect("42\n"))
///     .check(100);
/// ```
pub struct Simulation {
    factory: Arc<dyn Factory>,
    limits: Limits,
    clients: usize,
    converse: Box<Converse>,
}

/// Makes what the client with a number says.
type Converse = dyn Fn(usize) -> Box<dyn Conversation> + Send + Sync;

/// What one client says and expects to hear.
///
/// Where bytes are cut on their way, nobody knows: not even that two that were said together are
/// heard together. For what is fixed from the beginning there is [`Script`].
pub trait Conversation: Send {
    /// Appends to `out` what it has to say now. Called once the client has connected, and again
    /// after everything that was heard.
    fn speak(&mut self, out: &mut Vec<u8>);

    /// Takes what was heard.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Whether everything was said and heard. Then the client finishes, and hears no more.
    fn is_over(&self) -> bool;
}

/// A [`Conversation`] that is fixed from the beginning: what is said and heard, in turns.
///
/// ```
/// use switchboard::sim::{Conversation, Script};
///
/// let mut script = Script::new().send("ping\n").expect("pong\n");
/// let mut said = Vec::new();
/// script.speak(&mut said);
/// assert_eq!(said, b"ping\n");
/// assert!(script.hear(b"po").is_ok() && !script.is_over());
/// assert!(script.hear(b"ng\n").is_ok() && script.is_over());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// In turns: what is said, and what is heard then.
    turns: Vec<Turn>,
    at: usize,
    /// How much of the present turn was heard.
    heard: usize,
}

#[derive(Clone, Debug)]
enum Turn {
    Say(Vec<u8>),
    Hear(Vec<u8>),
}

impl Script {
    /// Nothing is said and nothing heard.
    #[must_use]
    pub fn new() -> Self {
        Script::default()
    }

    /// These bytes are said next, once all that stands before was heard.
    #[must_use]
    pub fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.turns.push(Turn::Say(bytes.as_ref().to_vec()));
        self
    }

    /// Exactly these bytes are heard next.
    #[must_use]
    pub fn expect(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.turns.push(Turn::Hear(bytes.as_ref().to_vec()));
        self
    }
}

impl Conversation for Script {
    fn speak(&mut self, out: &mut Vec<u8>) {
        while let Some(Turn::Say(bytes)) = self.turns.get(self.at) {
            out.extend_from_slice(bytes);
            self.at += 1;
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        for (at, &byte) in bytes.iter().enumerate() {
            let expected = match self.turns.get(self.at) {
                Some(Turn::Hear(expected)) => expected.get(self.heard),
                Some(Turn::Say(_)) | None => None,
            };
            if expected != Some(&byte) {
                let (rest, turn) = (bytes[at..].escape_ascii(), self.at);
                return Err(format!("turn {turn}: \"{rest}\" after {} bytes", self.heard));
            }
            self.heard += 1;
            if matches!(&self.turns[self.at], Turn::Hear(all) if all.len() == self.heard) {
                (self.at, self.heard) = (self.at + 1, 0);
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.at == self.turns.len()
    }
}

impl Simulation {
    /// A server with this codec and these handlers, as
    /// [`Builder::listen`](crate::Builder::listen) takes them; without clients.
    #[must_use]
    pub fn new<C, H>(
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
    ) -> Simulation
    where
        C: Codec + Clone + Sync,
        H: Handler<C::Frame, C::Message>,
    {
        Simulation {
            factory: Arc::new(Maker { codec, handler }),
            limits: Limits::for_descriptors(None),
            clients: 0,
            converse: Box::new(|_| Box::new(Script::new())),
        }
    }

    /// What connections may use. Default: that of every server.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// So many clients in each world, at most; `converse` says what the one with a number, from 0
    /// on, has to say.
    #[must_use]
    pub fn clients<T: Conversation + 'static>(
        mut self,
        count: usize,
        converse: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Self {
        self.clients = count;
        self.converse = Box::new(move |number| Box::new(converse(number)));
        self
    }

    /// One world.
    ///
    /// # Errors
    /// [`Failure`] if a conversation went wrong, a handler panicked, or the server itself broke one
    /// of its promises.
    pub fn run(&self, seed: u64) -> Result<Summary, Failure> {
        if let Err(error) = self.limits.check() {
            return Err(Failure::of(error.to_string()));
        }
        let played = world::run(Random::new(seed), Some(self));
        played.map_err(|failure| Failure { replay: replay(seed), ..failure })
    }

    /// So many worlds, those of the seeds from 0 on. To be called by a test. The environment says
    /// otherwise, where it is set: `SIM_SEED` is the only one, `SIM_SEEDS` is how many,
    /// `SIM_FIRST` the first one.
    ///
    /// # Panics
    /// If one of them fails, with what happened there, and the command that shows it again.
    #[track_caller]
    pub fn check(&self, seeds: u64) {
        let (first, count) = match number("SIM_SEED") {
            Some(seed) => (seed, 1),
            None => (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(seeds)),
        };
        for seed in first..first.saturating_add(count) {
            if let Err(failure) = self.run(seed) {
                panic!("{failure}");
            }
        }
    }

    pub(super) fn factory(&self) -> Arc<dyn Factory> {
        Arc::clone(&self.factory)
    }

    /// The plan of a world without anything but this server.
    pub(super) fn adapt(&self, plan: Plan) -> Plan {
        let mut faults = plan.faults;
        let ours = [
            &mut faults.panic,
            &mut faults.fail,
            &mut faults.broken,
            &mut faults.handle,
            &mut faults.suspend,
            &mut faults.readmit,
        ];
        ours.into_iter().for_each(|odds| *odds = Default::default());
        Plan {
            faults,
            listening: vec![Listening::of(&self.limits)],
            limits: self.limits.clone(),
            group: Default::default(),
            clients: 0,
            routes: Vec::new(),
            dials: Vec::new(),
            keeps: Vec::new(),
            lends: Vec::new(),
            raw: false,
            circles: false,
            ..plan
        }
    }

    /// The clients of a world.
    pub(super) fn guests(&self, plan: &Plan, random: &mut Random) -> Vec<Guest> {
        let count = if self.clients == 0 { 0 } else { random.size(1, self.clients) };
        (0..count).map(|number| Guest::draw(plan, random.fork(), (self.converse)(number))).collect()
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("clients", &self.clients).finish_non_exhaustive()
    }
}

/// The command that shows a world again: Cargo tells a test whose it is, and the thread which one.
fn replay(seed: u64) -> String {
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}"));
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    let thread = thread::current();
    let test = thread.name().filter(|&name| name != "main");
    let test = test.map_or(String::new(), |name| format!(" {name} -- --exact"));
    format!("SIM_SEED={seed} cargo test{release}{}{test}", package.unwrap_or_default())
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

/// A client that has a conversation with the user's server.
pub(super) struct Guest {
    conversation: Box<dyn Conversation>,
    random: Random,
    pub(super) socket: Option<usize>,
    manners: Manners,
    output: Vec<u8>,
    sent: usize,
    act_at: Time,
    /// The most that is sent and read at once, and how long it waits between.
    portion: usize,
    pace: Duration,
    end: Option<&'static str>,
}

/// How a client ends, when so many bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    /// When the conversation is over.
    Stays,
    FinishesAt(usize),
    ResetsAt(usize),
    DiesAt(usize),
}

impl Guest {
    fn draw(plan: &Plan, mut random: Random, conversation: Box<dyn Conversation>) -> Guest {
        let at = random.magnitude(1, 4_000) - 1;
        let manners = match random.below(10) {
            0 => Manners::FinishesAt(at),
            1 => Manners::ResetsAt(at),
            2 => Manners::DiesAt(at),
            _ => Manners::Stays,
        };
        let storm = u64::try_from(plan.storm.as_nanos()).unwrap_or(u64::MAX);
        let act_at = plan.epoch + Duration::from_nanos(random.range(0, storm));
        let portion = random.magnitude(1, 4_000);
        let pace = Duration::from_micros(random.magnitude(1, 4_000) as u64);
        Guest {
            conversation,
            random,
            socket: None,
            manners,
            output: Vec::new(),
            sent: 0,
            act_at,
            portion,
            pace,
            end: None,
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.end.is_some()
    }

    /// When it can do something next; `None` if it waits for the server.
    pub(super) fn acts_at(&self, net: &Net) -> Option<Time> {
        if self.end.is_some() {
            return None;
        }
        let Some(id) = self.socket else { return Some(self.act_at) };
        let acts = net.has_news(id) || self.may_send(net, id) > 0 || self.leaves(net, id);
        acts.then_some(self.act_at)
    }

    /// Does one thing.
    pub(super) fn step(&mut self, net: &mut Net) {
        let most = u64::try_from(self.pace.as_nanos()).unwrap_or(u64::MAX);
        self.act_at = net.now + Duration::from_nanos(self.random.range(0, most));
        let Some(id) = self.socket else { return self.connect(net) };
        if self.leaves(net, id) {
            self.leave(net, id);
        } else if net.has_news(id) {
            self.read(net, id);
        } else {
            let count = self.random.size(1, self.may_send(net, id));
            let bytes: Vec<u8> = self.output.drain(..count).collect();
            net.send(id, &bytes, false);
            self.sent += count;
        }
    }

    fn connect(&mut self, net: &mut Net) {
        self.socket = net.connect(0);
        match self.socket {
            Some(_) => self.conversation.speak(&mut self.output),
            None => self.end = Some("nobody listened"),
        }
    }

    fn may_send(&self, net: &Net, id: usize) -> usize {
        let most = match self.manners {
            Manners::Stays => usize::MAX,
            Manners::FinishesAt(at) | Manners::ResetsAt(at) | Manners::DiesAt(at) => {
                at.saturating_sub(self.sent)
            }
        };
        self.output.len().min(most).min(self.portion).min(net.send_room(id))
    }

    fn leaves(&self, net: &Net, id: usize) -> bool {
        let socket = &net.sockets[id];
        if socket.facts.client_finished || socket.reset_down {
            return false;
        }
        let is_over = self.conversation.is_over() && self.output.is_empty();
        match self.manners {
            Manners::Stays => is_over,
            Manners::FinishesAt(at) | Manners::ResetsAt(at) | Manners::DiesAt(at) => {
                is_over || self.sent >= at
            }
        }
    }

    fn leave(&mut self, net: &mut Net, id: usize) {
        match self.manners {
            Manners::Stays | Manners::FinishesAt(_) => net.finish(id),
            Manners::ResetsAt(_) => {
                net.reset(id);
                self.end = Some("it has reset");
            }
            Manners::DiesAt(_) => {
                net.lose_power(id);
                self.end = Some("it has lost its power");
            }
        }
    }

    fn read(&mut self, net: &mut Net, id: usize) {
        let most = self.random.size(1, self.portion);
        match net.receive(id, most) {
            Received::Bytes(bytes) if net.sockets[id].facts.client_finished => drop(bytes),
            Received::Bytes(bytes) => {
                if let Err(what) = self.conversation.hear(&bytes) {
                    net.fail(format!("the client of socket {id} has heard what is wrong: {what}"));
                }
                self.conversation.speak(&mut self.output);
            }
            Received::Nothing => {}
            Received::Eof => {
                if !net.sockets[id].facts.client_finished {
                    net.finish(id);
                }
                self.end = Some("the server has finished");
            }
            Received::Reset => self.end = Some("it was reset"),
        }
    }

    /// Who stayed to the end has heard everything.
    fn judge(&self, number: usize, net: &Net) -> Result<(), String> {
        let facts = self.socket.map(|id| &net.sockets[id].facts);
        let lost = facts.is_none_or(|facts| facts.accepted_at.is_none() || facts.watch_failed);
        if lost || self.manners != Manners::Stays || self.conversation.is_over() {
            return Ok(());
        }
        let (socket, end) = (self.socket.unwrap_or_default(), self.end.unwrap_or("nothing ended"));
        Err(format!("the conversation of client {number}, socket {socket}, is not over: {end}"))
    }
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// The users' conversations are over, and none of their handlers has panicked.
    pub(super) fn check_guests(&self) -> Result<(), String> {
        if self.guests.is_empty() {
            return Ok(());
        }
        let (mut panics, mut ends) = (0, Vec::new());
        self.driver.look(|reactor| {
            let snapshot = reactor.snapshot();
            panics += snapshot.panics;
            ends.extend(snapshot.closed.iter().filter(|(_, count)| *count > 0).copied());
        });
        let told = |what| format!("{what}; connections ended so: {ends:?}");
        if panics > 0 {
            return Err(told(format!("handlers have panicked: {panics}")));
        }
        let net = lock(self.net);
        let mut guests =
            self.guests.iter().enumerate().filter(|_| self.plan.ending == Ending::Quiet);
        guests.try_for_each(|(number, guest)| guest.judge(number, &net)).map_err(told)
    }
}
