//! The command line that the examples share.

use std::net::SocketAddr;
use std::time::Duration;

use lexopt::prelude::*;
use switchboard::config::Idle;
use switchboard::{Builder, Server};

/// What every example can be told.
pub(crate) struct Options {
    /// The address that was asked for.
    pub(crate) asked: Option<SocketAddr>,
    default: SocketAddr,
    pub(crate) reactors: Option<usize>,
    pub(crate) workers: Option<usize>,
    /// The longest silence that anybody is granted.
    pub(crate) silence_max: Option<Duration>,
    /// After how much of it the system asks the host.
    pub(crate) host_check: Option<Duration>,
}

/// Reads `--addr A --reactors N --workers N --silence-max S --host-check S`.
pub(crate) fn options(default_addr: &str) -> Result<Options, lexopt::Error> {
    let default = default_addr.parse().expect("the examples' addresses are addresses");
    let mut options = Options::none(default);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("addr") => options.asked = Some(parser.value()?.parse()?),
            Long("reactors") => options.reactors = Some(parser.value()?.parse()?),
            Long("workers") => options.workers = Some(parser.value()?.parse()?),
            Long("silence-max") => {
                options.silence_max = Some(Duration::from_secs(parser.value()?.parse()?));
            }
            Long("host-check") => {
                options.host_check = Some(Duration::from_secs(parser.value()?.parse()?));
            }
            Short('h') | Long("help") => {
                println!("[--addr {default_addr}] [--reactors N] [--workers N]");
                println!("[--silence-max SECONDS] [--host-check SECONDS]");
                std::process::exit(0);
            }
            Short(_) | Long(_) | Value(_) => return Err(arg.unexpected()),
        }
    }
    Ok(options)
}

impl Options {
    fn none(default: SocketAddr) -> Self {
        let (asked, reactors, workers) = (None, None, None);
        Self { asked, default, reactors, workers, silence_max: None, host_check: None }
    }

    /// Where to listen.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.asked.unwrap_or(self.default)
    }

    /// A builder with the threads and the patience that were asked for.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Server::builder();
        if let Some(reactors) = self.reactors {
            builder = builder.reactors(reactors);
        }
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        if let Some(max) = self.silence_max {
            builder = builder.limits(|limits| {
                let Idle::Adaptive { min, factor, .. } = Idle::default() else { return };
                limits.timeouts.idle = Idle::Adaptive { min: min.min(max), factor, max };
            });
        }
        if let Some(silence) = self.host_check {
            builder = builder.limits(|limits| limits.host_check = Some(silence));
        }
        builder
    }
}
