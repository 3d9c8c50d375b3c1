//! A chat room: lines of text, one group, and members that may be too slow for it.
//!
//! With `--addr 127.0.0.1:7020` it serves: `nc 127.0.0.1 7020`, say your name, then talk; `/who`
//! tells who is there, `/quit` ends it. Without, it shows by itself what two people would see, one
//! of whom does not read for a while.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

mod common;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use switchboard::codec::Lines;
use switchboard::group::{Group, SlowPolicy};
use switchboard::{CloseReason, Context, Handler, Outcome};

/// The room: who is told everything, and their names.
#[derive(Clone)]
struct Room {
    everybody: Group,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Room {
    fn new() -> Self {
        // Who lags behind misses the oldest of what waits, and is told how much that was.
        let everybody = Group::builder(Lines::new())
            .policy(SlowPolicy::DropOldest)
            .queue_max_bytes(64 << 10)
            .build();
        Room { everybody, names: Arc::default() }
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection.
struct Guest {
    room: Room,
    /// `None` until it has said its name.
    name: Option<String>,
}

impl Guest {
    fn enter(&mut self, cx: &mut Context, name: &str) -> Outcome {
        if name.is_empty() || !self.room.names().insert(name.to_owned()) {
            return Ok(cx.send("* please choose another name")?);
        }
        self.name = Some(name.to_owned());
        cx.join(&self.room.everybody);
        Ok(self.room.everybody.broadcast(format!("* {name} is here"))?)
    }
}

impl Handler for Guest {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        Ok(cx.send("* your name?")?)
    }

    fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
        // Not UTF-8? `?` closes the connection, and the reason says why.
        let line = std::str::from_utf8(&line)?.trim();
        let Some(name) = &self.name else { return self.enter(cx, line) };
        match line {
            "/who" => {
                let names = self.room.names().iter().cloned().collect::<Vec<_>>();
                cx.send(format!("* here: {}", names.join(", ")))?;
            }
            "/quit" => cx.close(),
            _ => self.room.everybody.broadcast(format!("{name}: {line}"))?,
        }
        Ok(())
    }

    fn on_lagged(&mut self, cx: &mut Context, lost: u64) -> Outcome {
        Ok(cx.send(format!("* you were too slow: {lost} messages are missing"))?)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        let Some(name) = self.name.take() else { return };
        self.room.names().remove(&name);
        println!("[{name} left: {reason}]");
        if let Err(error) = self.room.everybody.broadcast(format!("* {name} left")) {
            println!("[nobody was told: {error}]");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = common::options("127.0.0.1:0")?;
    let room = Room::new();
    let guest = move |_peer| Guest { room: room.clone(), name: None };
    let builder = options.builder().listen(options.addr(), Lines::new(), guest);
    if options.asked.is_some() {
        let report = builder.on_start(|addrs| println!("listening on {}", addrs[0])).run()?;
        println!("{report}");
        return Ok(());
    }
    let server = builder.start()?;
    demonstrate(server.local_addr())?;
    println!("{}", server.drain(Duration::from_secs(5), Duration::ZERO));
    Ok(())
}

/// Two people in a room, one of whom does not read for a while.
fn demonstrate(addr: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut ada = Person::new("ada", addr)?;
    ada.hear("ada is here")?;
    let mut bob = Person::new("bob", addr)?;
    bob.hear("bob is here")?;
    ada.hear("bob is here")?;
    ada.say("hello, bob")?;
    bob.hear("hello, bob")?;
    bob.say("/who")?;
    bob.hear("here:")?;

    println!("ada tells a long story, and bob does not listen:");
    let mut teller = ada.stream.try_clone()?;
    let story = thread::spawn(move || -> std::io::Result<()> {
        let line = "and then ".repeat(1_000) + "\n";
        (0..SENTENCES).try_for_each(|_| teller.write_all(line.as_bytes()))?;
        teller.write_all(b"the end\n")
    });
    ada.hear("the end")?;
    story.join().map_err(|_| "the story has panicked")??;
    bob.hear("too slow")?;

    bob.leave()?;
    ada.hear("bob left")?;
    ada.leave()
}

/// More than the systems of both ends and the room's queue together take for one connection.
const SENTENCES: usize = 3_000;

/// Somebody with a keyboard and a screen.
struct Person {
    name: &'static str,
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Person {
    fn new(name: &'static str, addr: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let lines = BufReader::new(stream.try_clone()?);
        let mut person = Person { name, stream, lines };
        person.hear("your name?")?;
        person.say(name)?;
        Ok(person)
    }

    fn say(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        Ok(self.stream.write_all(format!("{line}\n").as_bytes())?)
    }

    fn leave(mut self) -> Result<(), Box<dyn Error>> {
        self.say("/quit")?;
        Ok(self.lines.read_to_end(&mut Vec::new()).map(drop)?)
    }

    /// Reads until a line says this, and shows that line.
    fn hear(&mut self, what: &str) -> Result<(), Box<dyn Error>> {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(format!("{} did not hear `{what}`", self.name).into());
            }
        }
        println!("  {} reads  {}", self.name, line.trim_end());
        Ok(())
    }
}
