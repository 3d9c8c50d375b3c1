//! `ConnectError`: why there is no connection: what was asked for, and what each address answered.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::words::error::Error;

/// Why no connection was made: what was asked for, why it ended, and what became of each address
/// that was tried.
#[derive(Debug)]
pub struct ConnectError {
    target: String,
    cause: ConnectCause,
    attempts: Vec<Attempt>,
}

/// What ended a request to connect.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectCause {
    /// An option is outside of its range.
    #[non_exhaustive]
    Options {
        /// The option.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The name could not be looked up.
    Resolve(io::Error),
    /// Too much waits for the pool, so that the name was not looked up: `jobs_max`.
    Busy,
    /// The name has no address.
    NoAddress,
    /// Every address was tried, and each has failed.
    Failed,
    /// The time was up before one of the addresses had answered.
    TimedOut,
    /// `connections_max` is reached.
    Full,
    /// The server drains, stops or has ended.
    Stopping,
}

/// One address that was tried, and its answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The address.
    pub addr: SocketAddr,
    /// Why there is no connection to it; `ErrorKind::TimedOut` if it did not answer in time.
    pub error: io::Error,
}

impl Attempt {
    pub(crate) fn new(addr: SocketAddr, error: io::Error) -> Self {
        Attempt { addr, error }
    }
}

impl ConnectError {
    pub(crate) fn new(target: String, cause: ConnectCause, attempts: Vec<Attempt>) -> Self {
        ConnectError { target, cause, attempts }
    }

    /// What was asked for, as it was written.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What ended it.
    #[must_use]
    pub fn cause(&self) -> &ConnectCause {
        &self.cause
    }

    /// The addresses that were tried without success, in the order of their answers.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Whether it is of no use to try again: the server comes to an end, or was asked wrongly.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.cause, ConnectCause::Stopping | ConnectCause::Options { .. })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to {}: {}", self.target, self.cause)?;
        for (index, attempt) in self.attempts.iter().enumerate() {
            let sign = if index == 0 { ':' } else { ';' };
            write!(f, "{sign} {}: {}", attempt.addr, attempt.error)?;
        }
        Ok(())
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.cause {
            ConnectCause::Resolve(error) => Some(error),
            ConnectCause::Options { .. }
            | ConnectCause::Busy
            | ConnectCause::NoAddress
            | ConnectCause::Failed
            | ConnectCause::TimedOut
            | ConnectCause::Full
            | ConnectCause::Stopping => {
                self.attempts.last().map(|attempt| &attempt.error as &(dyn StdError + 'static))
            }
        }
    }
}

impl fmt::Display for ConnectCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectCause::Options { field, value, allowed } => {
                write!(f, "`{field}` is {value}, but must be {allowed}")
            }
            ConnectCause::Resolve(error) => write!(f, "looking up the name: {error}"),
            ConnectCause::Busy => f.write_str("too many jobs wait to look up the name"),
            ConnectCause::NoAddress => f.write_str("it has no address"),
            ConnectCause::Failed => f.write_str("no address could be reached"),
            ConnectCause::TimedOut => f.write_str("no answer in time"),
            ConnectCause::Full => f.write_str("the server holds as many connections as it may"),
            ConnectCause::Stopping => f.write_str("the server comes to its end"),
        }
    }
}

/// A setting out of range, as the cause of a request that was never made.
pub(crate) fn rejected(error: Error) -> ConnectCause {
    match error {
        Error::Config { field, value, allowed } => ConnectCause::Options { field, value, allowed },
        Error::Io { source, .. } => ConnectCause::Resolve(source),
    }
}
