//! `testing`: a bench that tests handlers, and a kit that checks codecs, own ones and those that
//! come with the crate.
//!
//! The bench: `bench/`. The kit:
//! What the rules are: `violation.rs`; how they are checked: `rules.rs`; how bytes are shown to a
//! codec, and what is watched meanwhile: `rig.rs`.

mod bench;
mod inputs;
mod check;
mod rig;
mod rules;
mod violation;

#[cfg(test)]
mod tests;

pub use self::bench::Bench;
pub use self::check::Check;
pub use self::violation::{Rule, Violation};
use crate::core::codec::Codec;
use crate::parts::buf::Outbox;

/// Checks all rules of a codec for bytes on these messages, which it has to accept; see [`Check`]
/// for what else can be said of a codec.
///
/// # Panics
/// If the codec breaks a rule; the message is the [`Violation`].
pub fn check_codec<C>(codec: C, messages: impl IntoIterator<Item = C::Message>)
where
    C: Codec + Clone,
    C::Frame: AsRef<[u8]>,
    C::Message: AsRef<[u8]> + From<Vec<u8>> + Clone,
{
    Check::new(codec).messages(messages).run();
}

/// As [`check_codec`], but answers what is wrong.
///
/// # Errors
/// The first [`Violation`] that was found.
pub fn try_check_codec<C>(
    codec: C,
    messages: impl IntoIterator<Item = C::Message>,
) -> Result<(), Violation>
where
    C: Codec + Clone,
    C::Frame: AsRef<[u8]>,
    C::Message: AsRef<[u8]> + From<Vec<u8>> + Clone,
{
    Check::new(codec).messages(messages).try_run()
}

/// A fuzz target of a codec for bytes: shows `data` to it in one piece and in others, and sends it
/// there and back as messages, of which it may refuse any.
///
/// ```
/// use switchboard::codec::Varint;
/// use switchboard::testing::fuzz_codec;
///
/// fuzz_codec(Varint::new().frame_max(1000), b"\x01\x02\x03\x04\x05hello\x80\x80\x80");
/// ```
///
/// # Panics
/// If the codec breaks a rule; the message is the [`Violation`].
pub fn fuzz_codec<C>(codec: C, data: &[u8])
where
    C: Codec + Clone,
    C::Frame: AsRef<[u8]>,
    C::Message: AsRef<[u8]> + From<Vec<u8>> + Clone,
{
    Check::new(codec).fuzz(data);
}

/// The bytes of `outbox` as they would be written, for an own test of a codec.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "what was written is not written again")]
pub fn written(outbox: Outbox) -> Vec<u8> {
    outbox.to_vec()
}
