//! The command line of the load generator, parsed once and checked against bounds.

use std::net::SocketAddr;
use std::str::FromStr;

use lexopt::prelude::*;

use crate::payload;

/// How messages are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Each connection keeps so many messages under way.
    Closed {
        /// Messages under way per connection.
        depth: u64,
    },
    /// Messages leave on schedule, whether or not earlier ones are back.
    Open {
        /// Messages per second over all connections.
        rate: f64,
        /// The part of them that asks for slow work, and travels on connections of its own.
        slow: Option<Slow>,
    },
    /// Connect, one echo, close, and again; `connections` at a time.
    Churn,
    /// Connections that say one thing each and then nothing.
    Idle {
        /// Rest before the watch, in seconds.
        quiet: f64,
        /// Length of the watch, in seconds.
        watch: f64,
    },
}

/// The slow part of an open loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// Which part of all messages, from 0 to 1.
    pub share: f64,
    /// How many of the connections carry them, and nothing else.
    pub connections: u32,
    /// First byte of these messages.
    pub byte: u8,
}

/// One run of the load generator.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the mode as given, for the report.
    pub name: String,
    /// How messages are paced.
    pub mode: Mode,
    /// The server, on loopback.
    pub addr: SocketAddr,
    /// The server's process, to be read in `/proc`.
    pub pid: Option<u32>,
    /// Threads of the load generator.
    pub threads: u32,
    /// Connections over all threads.
    pub connections: u32,
    /// Length of every message.
    pub size: usize,
    /// Seconds that count.
    pub seconds: f64,
    /// Seconds before that.
    pub warmup: f64,
    /// First byte of ordinary messages.
    pub work: u8,
    /// Number of source addresses.
    pub sources: u8,
}

impl Plan {
    /// Parses `MODE --addr ADDR [options]`.
    ///
    /// # Errors
    /// What is wrong, in words for the person at the command line.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let Some(Value(name)) = parser.next()? else {
            return Err(USAGE.into());
        };
        let mut plan = Self::preset(&name.string()?)?;
        let mut addr = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Long("addr") => addr = Some(parser.value()?.parse()?),
                Long("pid") => plan.pid = Some(parser.value()?.parse()?),
                Long("threads") => plan.threads = bounded(&mut parser, 1, 64)?,
                Long("connections") => plan.connections = bounded(&mut parser, 1, CONNECTIONS_MAX)?,
                Long("size") => plan.size = bounded(&mut parser, 1, payload::MESSAGE_MAX)?,
                Long("seconds") => plan.seconds = bounded(&mut parser, 0.05, 60.0)?,
                Long("warmup") => plan.warmup = bounded(&mut parser, 0.0, 10.0)?,
                Long("work-byte") => plan.work = parser.value()?.parse()?,
                Long("sources") => plan.sources = bounded(&mut parser, 1, 250)?,
                Long(option) => {
                    let option = option.to_owned();
                    plan.mode.set(&option, &mut parser)?;
                }
                Short(_) | Value(_) => return Err(argument.unexpected()),
            }
        }
        plan.addr = addr.ok_or("--addr is missing")?;
        plan.check()?;
        Ok(plan)
    }

    /// The defaults of each mode.
    fn preset(name: &str) -> Result<Self, lexopt::Error> {
        let (mode, connections, size) = match name {
            "pingpong" => (Mode::Closed { depth: 1 }, 64, 64),
            "pipeline" => (Mode::Closed { depth: 32 }, 64, 64),
            "bulk" => (Mode::Closed { depth: 1 }, 8, 64 * 1024),
            "churn" => (Mode::Churn, 32, 64),
            "open" => (Mode::Open { rate: 20_000.0, slow: None }, 400, 64),
            "idle" => (Mode::Idle { quiet: 2.0, watch: 3.0 }, 15_000, 64),
            _ => return Err(USAGE.into()),
        };
        Ok(Self {
            name: name.to_owned(),
            mode,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: None,
            threads: 1,
            connections,
            size,
            seconds: 3.0,
            warmup: 0.5,
            work: payload::PLAIN,
            // The dead connections of a churn run keep their ports: it needs many more of them.
            sources: if mode == Mode::Churn { 64 } else { 16 },
        })
    }

    fn check(&self) -> Result<(), lexopt::Error> {
        if self.threads > self.connections {
            return Err("more threads than connections".into());
        }
        match self.mode {
            Mode::Open { slow: Some(slow), .. }
                if slow.connections == 0 || slow.connections >= self.connections =>
            {
                Err("--slow-connections must be at least 1 and leave others over".into())
            }
            Mode::Idle { .. } if self.pid.is_none() => Err("idle needs --pid".into()),
            Mode::Idle { .. } if self.threads > 1 => Err("idle runs on one thread".into()),
            Mode::Closed { .. } | Mode::Open { .. } | Mode::Churn | Mode::Idle { .. } => Ok(()),
        }
    }
}

impl Mode {
    /// Options that only one mode has.
    fn set(&mut self, option: &str, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
        match (self, option) {
            (Self::Closed { depth }, "depth") => *depth = bounded(parser, 1, 1_024)?,
            (Self::Open { rate, .. }, "rate") => *rate = bounded(parser, 1.0, 1e6)?,
            (Self::Open { slow, .. }, "slow-share") => {
                slow.get_or_insert_default().share = bounded(parser, 0.0, 1.0)?;
            }
            (Self::Open { slow, .. }, "slow-connections") => {
                slow.get_or_insert_default().connections = bounded(parser, 1, CONNECTIONS_MAX)?;
            }
            (Self::Open { slow, .. }, "slow-byte") => {
                slow.get_or_insert_default().byte = parser.value()?.parse()?;
            }
            (Self::Idle { quiet, .. }, "quiet") => *quiet = bounded(parser, 0.0, 60.0)?,
            (Self::Idle { watch, .. }, "watch") => *watch = bounded(parser, 0.05, 60.0)?,
            _ => return Err(format!("--{option} is unknown, or not for this mode").into()),
        }
        Ok(())
    }
}

impl Default for Slow {
    fn default() -> Self {
        Self { share: 0.01, connections: 16, byte: 0xFF }
    }
}

fn bounded<T>(parser: &mut lexopt::Parser, min: T, max: T) -> Result<T, lexopt::Error>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + PartialOrd + ToString,
{
    let value: T = parser.value()?.parse()?;
    if value >= min && value <= max {
        Ok(value)
    } else {
        let (min, max) = (min.to_string(), max.to_string());
        Err(format!("{} is not between {min} and {max}", value.to_string()).into())
    }
}

/// Far more than one machine lets a process have, unless it was told to.
const CONNECTIONS_MAX: u32 = 1_000_000;

const USAGE: &str = "usage: load pingpong|pipeline|bulk|churn|open|idle --addr 127.0.0.1:PORT \
    [--pid PID] [--connections N] [--size BYTES] [--seconds S] [--warmup S] [--threads N] \
    [--work-byte B] [--sources N] [--depth N] [--rate R] \
    [--slow-share F --slow-connections N --slow-byte B] [--quiet S --watch S]";

#[cfg(test)]
mod tests {
    use super::{Mode, Plan, Slow};

    fn parse(line: &str) -> Result<Plan, String> {
        let parser = lexopt::Parser::from_args(line.split_whitespace());
        Plan::parse(parser).map_err(|error| error.to_string())
    }

    #[test]
    fn each_mode_has_its_defaults_and_options() {
        let plan = parse("pipeline --addr 127.0.0.1:7 --depth 8").expect("a plan");
        assert_eq!((plan.mode, plan.connections, plan.size), (Mode::Closed { depth: 8 }, 64, 64));
        let plan = parse("bulk --addr 127.0.0.1:7 --seconds 0.5 --pid 9").expect("a plan");
        assert_eq!((plan.size, plan.seconds, plan.pid), (65_536, 0.5, Some(9)));
        let plan = parse("open --addr 127.0.0.1:7 --rate 5 --slow-byte 254").expect("a plan");
        let slow = Some(Slow { share: 0.01, connections: 16, byte: 254 });
        assert_eq!(plan.mode, Mode::Open { rate: 5.0, slow });
    }

    #[test]
    fn what_is_out_of_bounds_or_of_place_is_refused() {
        for line in [
            "",
            "flood --addr 127.0.0.1:7",
            "pingpong",
            "pingpong --addr nowhere",
            "pingpong --addr 127.0.0.1:7 --rate 5",
            "pingpong --addr 127.0.0.1:7 --seconds 600",
            "pingpong --addr 127.0.0.1:7 --connections 0",
            "pingpong --addr 127.0.0.1:7 --connections 1000001",
            "pingpong --addr 127.0.0.1:7 --connections 1 --threads 2",
            "open --addr 127.0.0.1:7 --slow-share NaN",
            "open --addr 127.0.0.1:7 --connections 16 --slow-share 0.1",
            "idle --addr 127.0.0.1:7",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
