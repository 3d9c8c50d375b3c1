//! What gateway and devices say to each other: one verb and one number to a frame.

use std::fmt;

use bytes::Bytes;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A device introduces itself and names its fleet.
    Hello(u64),
    /// A device reports.
    Report(u64),
    /// A device reports something that the gateway has to store before it replies.
    Archive(u64),
    /// The gateway has this report.
    Reply(u64),
    /// The gateway has a command for this device.
    One(u64),
    /// The gateway has a command for the whole fleet.
    All(u64),
    /// The device has carried out its own command.
    OneDone(u64),
    /// The device has carried out the command to its fleet.
    AllDone(u64),
}

impl Word {
    /// Reads a frame. The error closes the connection: `?` in a handler does that.
    pub(crate) fn parse(frame: &[u8]) -> Result<Word, String> {
        let text = std::str::from_utf8(frame).map_err(|error| error.to_string())?;
        let unknown = || format!("unknown frame: {}", text.escape_debug());
        let (verb, number) = text.split_once(' ').ok_or_else(unknown)?;
        let number = number.parse().map_err(|_| unknown())?;
        Ok(match verb {
            "hello" => Word::Hello(number),
            "report" => Word::Report(number),
            "archive" => Word::Archive(number),
            "reply" => Word::Reply(number),
            "one" => Word::One(number),
            "all" => Word::All(number),
            "one-done" => Word::OneDone(number),
            "all-done" => Word::AllDone(number),
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Hello(fleet) => write!(f, "hello {fleet}"),
            Word::Report(number) => write!(f, "report {number}"),
            Word::Archive(number) => write!(f, "archive {number}"),
            Word::Reply(number) => write!(f, "reply {number}"),
            Word::One(number) => write!(f, "one {number}"),
            Word::All(number) => write!(f, "all {number}"),
            Word::OneDone(number) => write!(f, "one-done {number}"),
            Word::AllDone(number) => write!(f, "all-done {number}"),
        }
    }
}

/// So that `cx.send(Word::Reply(7))` works.
impl From<Word> for Bytes {
    fn from(word: Word) -> Self {
        Bytes::from(word.to_string())
    }
}
