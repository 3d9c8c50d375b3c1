//! Who competes: each peer's binary and the arguments that make it do what a row needs.

use std::path::{Path, PathBuf};

use crate::work::{BURN, SLEEP};

/// A server to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Hand-written epoll loops: the reference.
    Raw,
    /// tokio, a task and a buffer per connection.
    Tokio,
    /// tokio, slow work moved to `spawn_blocking` by hand.
    TokioBlocking,
    /// tokio, a buffer only while there is something to read.
    TokioLazy,
    /// This crate as it comes.
    Switchboard,
    /// This crate, every job handed to the workers.
    SwitchboardHandOff,
    /// This crate, handlers on the reactor.
    SwitchboardInline,
}

/// What a row needs of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Event loops, or runtime threads.
    pub threads: usize,
    /// Event loops of this crate, when they are fewer because workers stand beside them.
    pub reactors: usize,
    /// Workers of this crate.
    pub workers: usize,
    /// Handlers heed the work byte, and a burn takes so many microseconds.
    pub burn_us: Option<u32>,
    /// Read buffer of peers that own one per connection, where 4 KiB would be unfair.
    pub buffer_bytes: Option<usize>,
}

impl Peer {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::Tokio,
        Self::TokioBlocking,
        Self::TokioLazy,
        Self::Switchboard,
        Self::SwitchboardHandOff,
        Self::SwitchboardInline,
    ];

    /// The peer of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// Its name in options and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tokio => "tokio",
            Self::TokioBlocking => "tokio-blocking",
            Self::TokioLazy => "tokio-lazy",
            Self::Switchboard => "switchboard",
            Self::SwitchboardHandOff => "switchboard-hand-off",
            Self::SwitchboardInline => "switchboard-inline",
        }
    }

    /// Its binary below the folder of release builds. Pure echo is measured with the crate's own
    /// example, which is what users read first.
    #[must_use]
    pub fn binary(self, needs: Needs, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Raw => "peer-raw",
            Self::Tokio | Self::TokioBlocking | Self::TokioLazy => "peer-tokio",
            Self::Switchboard if needs.burn_us.is_none() => "examples/echo",
            Self::Switchboard | Self::SwitchboardHandOff | Self::SwitchboardInline => {
                "peer-switchboard"
            }
        })
    }

    /// Its arguments.
    #[must_use]
    pub fn arguments(self, needs: Needs) -> Vec<String> {
        let mut line = String::from("--addr 127.0.0.1:0");
        let buffer = needs.buffer_bytes.map(|bytes| format!(" --buffer {bytes}"));
        line += &match self {
            Self::Raw => format!(" --threads {}", needs.threads),
            Self::Tokio | Self::TokioBlocking | Self::TokioLazy => {
                format!(" --threads {}{}", needs.threads, buffer.unwrap_or_default())
            }
            Self::Switchboard | Self::SwitchboardHandOff | Self::SwitchboardInline => {
                format!(" --reactors {} --workers {}", needs.reactors, needs.workers)
            }
        };
        line += match self {
            Self::Raw => "",
            Self::Switchboard if needs.burn_us.is_none() => "",
            Self::Tokio => " --variant plain",
            Self::TokioBlocking => " --variant blocking",
            Self::TokioLazy => " --variant lazy",
            Self::Switchboard => " --variant take-over",
            Self::SwitchboardHandOff => " --variant hand-off",
            Self::SwitchboardInline => " --variant inline",
        };
        if let Some(burn_us) = needs.burn_us {
            line += &format!(" --work --sleep-ms {SLEEP_MS} --burn-us {burn_us}");
        }
        line.split(' ').map(str::to_owned).collect()
    }
}

/// How long a handler sleeps, in every row that has sleeping handlers.
pub const SLEEP_MS: u32 = 50;
/// The work byte for sleeping, as an argument of the load generator.
pub const SLEEP_BYTE: u8 = SLEEP;
/// The work byte for burning, as an argument of the load generator.
pub const BURN_BYTE: u8 = BURN;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Needs, Peer};

    const ECHO: Needs =
        Needs { threads: 2, reactors: 1, workers: 3, burn_us: None, buffer_bytes: Some(9) };

    #[test]
    fn names_lead_back_to_their_peers() {
        for peer in Peer::ALL {
            assert_eq!(Peer::named(peer.name()), Some(peer));
        }
        assert_eq!(Peer::named("nobody"), None);
    }

    #[test]
    fn pure_echo_runs_the_example_and_work_runs_the_peer() {
        let folder = Path::new("release");
        assert_eq!(Peer::Switchboard.binary(ECHO, folder), folder.join("examples/echo"));
        let line = Peer::Switchboard.arguments(ECHO).join(" ");
        assert_eq!(line, "--addr 127.0.0.1:0 --reactors 1 --workers 3");
        let work = Needs { burn_us: Some(100), ..ECHO };
        assert_eq!(Peer::Switchboard.binary(work, folder), folder.join("peer-switchboard"));
        let line = Peer::Switchboard.arguments(work).join(" ");
        assert!(line.ends_with("--variant take-over --work --sleep-ms 50 --burn-us 100"), "{line}");
    }

    #[test]
    fn a_buffer_is_for_those_who_own_one_per_connection() {
        assert!(Peer::Tokio.arguments(ECHO).contains(&"--buffer".to_owned()));
        assert!(!Peer::Raw.arguments(ECHO).contains(&"--buffer".to_owned()));
    }
}
