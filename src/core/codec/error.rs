//! Why the ready-made codecs refuse input, a message or a setting.

use std::error::Error as StdError;
use std::fmt;

/// Why a ready-made codec refused its input or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// More bytes than the codec allows, or than its length can express.
    TooLarge(FrameTooLarge),
    /// A length that counts its own header, and is less than that alone.
    #[non_exhaustive]
    LengthBelowHeader {
        /// The length that was announced.
        length: u64,
        /// What every length counts.
        header: u64,
    },
    /// A length of variable width that is not in its shortest form.
    Overlong,
    /// A message that could not be told apart from two, or from another one: it holds the end
    /// mark, or ends in a way that makes one together with its own.
    HoldsEndMark,
    /// A message of another length than this codec's messages have.
    #[non_exhaustive]
    WrongLength {
        /// The length of the message, in bytes.
        length: usize,
        /// What it would have to be: exactly, or at least where a header has to be in it.
        expected: usize,
    },
}

impl FrameError {
    pub(super) fn too_large(length: u64, max: usize) -> Self {
        FrameError::TooLarge(FrameTooLarge { length, max: max as u64 })
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge(error) => error.fmt(f),
            FrameError::LengthBelowHeader { length, header } => {
                write!(f, "a length of {length} bytes, which has to count {header} of its header")
            }
            FrameError::Overlong => f.write_str("a length that is not in its shortest form"),
            FrameError::HoldsEndMark => f.write_str("the message holds the end mark"),
            FrameError::WrongLength { length, expected } => {
                write!(f, "a message of {length} bytes where {expected} are needed")
            }
        }
    }
}

impl StdError for FrameError {}

/// A frame or message is larger than the codec allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLarge {
    length: u64,
    max: u64,
}

impl FrameTooLarge {
    /// How large it is, in bytes; where that is not announced, as much as was seen of it.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How large it may be, in bytes.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame of {} bytes, but at most {} are allowed", self.length, self.max)
    }
}

impl StdError for FrameTooLarge {}

/// Why there is no such codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A length of this many bytes; 1 to 8 are allowed.
    Width(usize),
    /// An end mark without bytes.
    EmptyEndMark,
    /// Frames without bytes and without anything between them.
    ZeroLength,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Width(width) => {
                write!(f, "a length has a width of 1 to 8 bytes, not of {width}")
            }
            ConfigError::EmptyEndMark => f.write_str("an end mark has at least one byte"),
            ConfigError::ZeroLength => f.write_str("a frame of fixed length has at least one byte"),
        }
    }
}

impl StdError for ConfigError {}
