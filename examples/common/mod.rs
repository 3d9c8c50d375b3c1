//! The command line that the examples share.

use std::net::SocketAddr;

use lexopt::prelude::*;
use switchboard::{Builder, Server};

/// What every example can be told.
pub(crate) struct Options {
    /// The address that was asked for.
    pub(crate) asked: Option<SocketAddr>,
    default: SocketAddr,
    pub(crate) reactors: Option<usize>,
    pub(crate) workers: Option<usize>,
}

/// Reads `--addr A --reactors N --workers N`.
pub(crate) fn options(default_addr: &str) -> Result<Options, lexopt::Error> {
    let default = default_addr.parse().expect("the examples' addresses are addresses");
    let mut options = Options { asked: None, default, reactors: None, workers: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("addr") => options.asked = Some(parser.value()?.parse()?),
            Long("reactors") => options.reactors = Some(parser.value()?.parse()?),
            Long("workers") => options.workers = Some(parser.value()?.parse()?),
            Short('h') | Long("help") => {
                println!("[--addr {default_addr}] [--reactors N] [--workers N]");
                std::process::exit(0);
            }
            Short(_) | Long(_) | Value(_) => return Err(arg.unexpected()),
        }
    }
    Ok(options)
}

impl Options {
    /// Where to listen.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.asked.unwrap_or(self.default)
    }

    /// A builder with the threads that were asked for.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Server::builder();
        if let Some(reactors) = self.reactors {
            builder = builder.reactors(reactors);
        }
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        builder
    }
}
