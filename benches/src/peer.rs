//! The command line that all peers share, and the line they print when they are ready.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::work::Work;

/// How a peer is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub addr: SocketAddr,
    /// Event loops, or whatever the peer has in their place.
    pub threads: usize,
    /// Threads beside them, where the peer knows such.
    pub workers: usize,
    /// Which way of doing it, where the peer knows several.
    pub variant: Option<String>,
    /// Bytes of a read buffer.
    pub buffer_bytes: Option<usize>,
    /// What the work byte does.
    pub work: Work,
}

impl Options {
    /// Parses `--addr A --threads N [--workers W] [--variant V] [--buffer BYTES]
    /// [--work --sleep-ms MS --burn-us US]`.
    ///
    /// # Errors
    /// What is wrong, in words for the person at the command line.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            threads: 2,
            workers: 1,
            variant: None,
            buffer_bytes: None,
            work: Work::default(),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("addr") => options.addr = parser.value()?.parse()?,
                Long("threads" | "reactors") => options.threads = parser.value()?.parse()?,
                Long("workers") => options.workers = parser.value()?.parse()?,
                Long("variant") => options.variant = Some(parser.value()?.string()?),
                Long("buffer") => options.buffer_bytes = Some(parser.value()?.parse()?),
                Long("work") => options.work.enabled = true,
                Long("sleep-ms") => {
                    options.work.sleep = Duration::from_millis(parser.value()?.parse()?);
                }
                Long("burn-us") => {
                    options.work.burn = Duration::from_micros(parser.value()?.parse()?);
                }
                Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
            }
        }
        if options.threads == 0 || options.buffer_bytes == Some(0) {
            return Err("--threads and --buffer must be at least 1".into());
        }
        Ok(options)
    }
}

/// Tells whoever started us that connections are welcome.
///
/// # Errors
/// When stdout is closed.
pub fn announce(addr: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {addr}")?;
    out.flush()
}

/// The accept queue of every peer: a storm of connects must not be answered by SYN retries.
pub const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        let parser = lexopt::Parser::from_args(line.split_whitespace());
        Options::parse(parser).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_understood() {
        let options = parse("--addr 127.0.0.1:9 --threads 3 --variant lazy --work --burn-us 100")
            .expect("options");
        assert_eq!((options.addr.port(), options.threads), (9, 3));
        assert_eq!(options.variant.as_deref(), Some("lazy"));
        assert!(options.work.enabled);
        assert_eq!(options.work.burn, Duration::from_micros(100));
        assert_eq!(options.work.sleep, Duration::from_millis(50));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["--threads 0", "--buffer 0", "--bogus", "extra", "--addr here"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
