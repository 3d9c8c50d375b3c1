//! What calls on a connection answer when they cannot do what they were asked for.

use std::error::Error as StdError;
use std::fmt;

use crate::words::error::BoxError;

/// A connection has as many timers as it may have: `timers_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimersFull {
    /// The limit.
    pub max: usize,
}

impl fmt::Display for TimersFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} timers are set, as many as one connection may have", self.max)
    }
}

impl StdError for TimersFull {}

/// Why a handler's message was not queued.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The handler has already finished, closed or aborted its connection.
    Closing,
    /// The codec refused the message; the connection goes on.
    Refused(BoxError),
    /// More output would be queued than a connection may have; the message was dropped and the
    /// connection goes on.
    #[non_exhaustive]
    Full {
        /// The limit, in bytes: `send_max_bytes`.
        max_bytes: usize,
    },
    /// More output would be queued than a connection may have; the connection is being reset.
    #[non_exhaustive]
    Overflow {
        /// The limit, in bytes: `send_max_bytes`.
        max_bytes: usize,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closing => f.write_str("the connection is closing"),
            SendError::Refused(error) => write!(f, "the codec refused the message: {error}"),
            SendError::Overflow { max_bytes } | SendError::Full { max_bytes } => {
                write!(f, "more than {max_bytes} bytes of output would be queued")
            }
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            SendError::Refused(error) => Some(&**error),
            SendError::Closing | SendError::Overflow { .. } | SendError::Full { .. } => None,
        }
    }
}
