//! What a set-up call answers when it fails: what was tried, on which address, and why.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The error of a callback or a codec: anything that can be printed and sent between threads.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What a callback answers: `Err` closes the connection and becomes part of its close reason.
pub type Outcome = Result<(), BoxError>;

/// Why a server could not be set up or could not go on.
///
/// Only set-up and control calls answer with it. What happens to one connection is told by its
/// [`CloseReason`](crate::CloseReason).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside of its range.
    Config {
        /// The setting, as it is named in the builder or in [`Limits`](crate::Limits).
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The system refused something.
    Io {
        /// What was being done, and to which address.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn config(
        field: &'static str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Error::Config { field, value: value.to_string(), allowed: allowed.into() }
    }

    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Error::Io { doing: doing.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config { field, value, allowed } => {
                write!(f, "`{field}` is {value}, but must be {allowed}")
            }
            Error::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Config { .. } => None,
            Error::Io { source, .. } => Some(source),
        }
    }
}

/// Why a free job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// As many jobs wait as may: `jobs_max`.
    Full,
    /// The server has ended, or is about to.
    Stopping,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpawnError::Full => "as many jobs wait as may",
            SpawnError::Stopping => "the server comes to its end",
        })
    }
}

impl StdError for SpawnError {}
