//! `Violation`: which rule a codec broke, on which input, and how.

use std::error::Error as StdError;
use std::fmt;

/// What a codec has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// It never panics, whatever the bytes are.
    Panic,
    /// It encodes the messages that it was given to encode.
    Encode,
    /// It decodes its own encoding to the very messages, and leaves nothing over.
    Identity,
    /// What it decodes does not depend on how the bytes come.
    Split,
    /// A frame takes at least one byte, and no byte is put back.
    Progress,
    /// It reserves no memory for what has not arrived.
    Memory,
    /// It takes what has the largest size and refuses what is larger, in both directions, and
    /// before more of it is taken in.
    Cap,
    /// From input that ends too early it makes no frame that was never sent, nor does it take the
    /// rest in silence.
    Truncation,
    /// A message that it refuses leaves nothing in the output.
    Refusal,
    /// A message in parts is encoded as the same message in one piece.
    Parts,
}

impl Rule {
    /// Its name, in lower case.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rule::Panic => "panic",
            Rule::Encode => "encode",
            Rule::Identity => "identity",
            Rule::Split => "split",
            Rule::Progress => "progress",
            Rule::Memory => "memory",
            Rule::Cap => "cap",
            Rule::Truncation => "truncation",
            Rule::Refusal => "refusal",
            Rule::Parts => "parts",
        }
    }

    fn promise(self) -> &'static str {
        match self {
            Rule::Panic => "a codec does not panic",
            Rule::Encode => "the messages of a check can be encoded",
            Rule::Identity => "what was encoded is decoded to the same, and nothing is left over",
            Rule::Split => "frames do not depend on how the bytes come",
            Rule::Progress => "a frame takes at least one byte",
            Rule::Memory => "nothing is reserved for what has not arrived",
            Rule::Cap => "the largest size is taken, and nothing larger",
            Rule::Truncation => "input that ends too early makes no new frame, and is told",
            Rule::Refusal => "a refused message leaves nothing in the output",
            Rule::Parts => "a message in parts is encoded as it is in one piece",
        }
    }
}

/// A rule that a codec broke. Its text says which one, on which input, and what was expected.
#[derive(Clone, Debug)]
pub struct Violation {
    rule: Rule,
    what: String,
    input: String,
}

impl Violation {
    /// The rule.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, what, input } = self;
        write!(f, "the codec breaks rule `{}`: {}\n  ", rule.label(), rule.promise())?;
        write!(f, "found: {what}\n  input: {input}")
    }
}

impl StdError for Violation {}

/// A violation whose input is still to be told.
#[derive(Debug)]
pub(super) struct Breach {
    pub(super) rule: Rule,
    pub(super) what: String,
}

impl Breach {
    pub(super) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Breach { rule, what: what.into() }
    }

    /// Says on which input it was.
    pub(super) fn on(self, input: impl Into<String>) -> Violation {
        Violation { rule: self.rule, what: self.what, input: input.into() }
    }
}

/// Bytes for a human to read: the first ones, and how many they are.
pub(super) fn shown(bytes: &[u8]) -> String {
    let first = &bytes[..bytes.len().min(SHOWN_MAX)];
    let more = if first.len() < bytes.len() { "…" } else { "" };
    format!("b\"{}\"{more} ({} bytes)", first.escape_ascii(), bytes.len())
}

/// A frame for a human to read.
pub(super) fn shown_key(key: &impl fmt::Debug) -> String {
    let text = format!("{key:?}");
    match text.char_indices().nth(4 * SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How many bytes of an input are shown.
const SHOWN_MAX: usize = 64;
