//! The rules of a [`Check`], one by one.

use std::fmt;

use bytes::Bytes;

use super::check::Check;
use super::inputs::{Chance, cuts, pieces};
use super::rig::{Encoded, Fed, Rig, encode, encode_parts};
use super::violation::{Breach, Rule, Violation, shown, shown_key};
use crate::core::codec::{Codec, Parts};

impl<C, K> Check<C, K>
where
    C: Codec + Clone,
    C::Message: Clone,
    K: PartialEq + fmt::Debug,
{
    /// All messages behind one another, as one codec encodes them and another decodes them.
    /// Answers their bytes.
    pub(super) fn check_stream(&self) -> Result<Vec<u8>, Violation> {
        let mut codec = self.codec.clone();
        let mut wire = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            wire.extend(self.encoded(&mut codec, message, &self.name(index))?);
        }
        self.check_wire(&wire, &self.messages, "all messages")?;
        Ok(wire)
    }

    /// Each message alone, and in parts.
    pub(super) fn check_each(&self) -> Result<(), Violation> {
        for (index, message) in self.messages.iter().enumerate() {
            let name = self.name(index);
            let wire = self.encoded(&mut self.codec.clone(), message, &name)?;
            self.check_wire(&wire, std::slice::from_ref(message), &name)?;
            self.check_parts(&wire, message).map_err(|breach| {
                breach.on(format!("{name}, {}", shown_key(&(self.message_key)(message))))
            })?;
        }
        Ok(())
    }

    /// What has the largest size, and what is larger.
    pub(super) fn check_cap(&self) -> Result<(), Violation> {
        let (Some((max, wider)), Some(made_of)) = (&self.cap, &self.made_of) else {
            return Ok(());
        };
        let (rig, max) = (self.rig(), *max);
        let make = |len: usize| made_of(vec![b'x'; len]);
        let on = |len: usize| format!("b\"x\", {len} times, where {max} are allowed");
        let encode = |codec: &C, len| -> Result<Encoded, Violation> {
            encode(&mut codec.clone(), make(len)).map_err(|breach| breach.on(on(len)))
        };
        let broken = |what: String, len| Err(Breach::new(Rule::Cap, what).on(on(len)));

        let largest = match encode(&self.codec, max)? {
            Ok(wire) => wire,
            Err(error) => return broken(format!("it was not encoded: {error}"), max),
        };
        let expected = self.keys(&[make(max)]);
        rig.feed([&largest[..]])
            .and_then(|fed| is_all(Rule::Cap, &expected, &fed))
            .map_err(|breach| breach.on(on(max)))?;
        if encode(&self.codec, max + 1)?.is_ok() {
            return broken("it was encoded".into(), max + 1);
        }
        let overhead = largest.len().saturating_sub(max);
        for len in [max + 1, max.saturating_mul(2).saturating_add(1024)] {
            let wire = match encode(wider, len)? {
                Ok(wire) => wire,
                Err(error) => return broken(format!("the wider codec refused it: {error}"), len),
            };
            // At once; and slowly, which shows how much of it is waited for.
            for step in [wire.len().max(1), 1 + wire.len() / DRIPS_MAX] {
                let fed = rig.feed(wire.chunks(step)).map_err(|breach| breach.on(on(len)))?;
                if fed.refused.is_none() || !fed.frames.is_empty() {
                    let what = format!("it was not refused, {step} bytes at a time");
                    return broken(what, len);
                }
                if fed.arrived > max + overhead + step + OVERHEAD_MAX {
                    let what = format!("{} bytes had come before it was refused", fed.arrived);
                    return broken(what, len);
                }
            }
        }
        Ok(())
    }

    /// Bytes that nobody would send.
    pub(super) fn check_garbage(&self, wire: &[u8]) -> Result<(), Violation> {
        let mut chance = Chance::new(self.seed);
        for _ in 0..GARBAGE_COUNT {
            let sizes = chance.sizes();
            self.check_input(&chance.garbage(wire), &sizes)?;
            self.check_input(&chance.mutated(wire), &sizes)?;
        }
        Ok(())
    }

    /// Any input gives the same frames and the same end, however it comes.
    pub(super) fn check_input(&self, input: &[u8], sizes: &[u8]) -> Result<(), Violation> {
        let rig = self.rig();
        let whole = rig.feed([input]).and_then(|whole| {
            self.is_no_new_frame(&whole)?;
            Ok(whole)
        });
        let whole = whole.map_err(|breach| breach.on(format!("{}, at once", shown(input))))?;
        let in_pieces = format!("in pieces of {sizes:?}");
        for (how, fed) in [
            ("byte by byte", rig.feed(input.chunks(1))),
            (&in_pieces[..], rig.feed(pieces(sizes, input))),
        ] {
            fed.and_then(|fed| is_same_end(&whole, &fed))
                .map_err(|breach| breach.on(format!("{}, {how}", shown(input))))?;
        }
        Ok(())
    }

    /// Messages that are made of `input`: refused, or returned.
    pub(super) fn check_messages_of(&self, input: &[u8], sizes: &[u8]) -> Result<(), Violation> {
        let Some(made_of) = &self.made_of else { return Ok(()) };
        let mut codec = self.codec.clone();
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for piece in pieces(sizes, input).take(MESSAGES_MAX) {
            let message = made_of(piece.to_vec());
            let encoded = encode(&mut codec, message.clone()).and_then(|encoded| {
                if let Ok(bytes) = &encoded {
                    self.check_parts(bytes, &message)?;
                }
                Ok(encoded)
            });
            let on = |breach: Breach| breach.on(format!("message {}", shown(piece)));
            if let Ok(bytes) = encoded.map_err(on)? {
                wire.extend(bytes);
                sent.push(message);
            }
        }
        let fed = self.rig().feed(pieces(sizes, &wire));
        fed.and_then(|fed| is_all(Rule::Identity, &self.keys(&sent), &fed))
            .map_err(|breach| breach.on(format!("{}, in pieces of {sizes:?}", shown(&wire))))
    }

    fn rig(&self) -> Rig<'_, C, K> {
        Rig { codec: &self.codec, key: &*self.frame_key, joined: self.joined }
    }

    fn name(&self, index: usize) -> String {
        format!("message {} of {}", index + 1, self.messages.len())
    }

    fn keys(&self, messages: &[C::Message]) -> Vec<K> {
        let keys: Vec<K> = messages.iter().map(&self.message_key).collect();
        let Some(joined) = self.joined else { return keys };
        // Of nothing no frame is made.
        let all = joined(&keys);
        if all == joined(&[]) { Vec::new() } else { vec![all] }
    }

    fn encoded(
        &self,
        codec: &mut C,
        message: &C::Message,
        name: &str,
    ) -> Result<Vec<u8>, Violation> {
        let encoded = encode(codec, message.clone()).and_then(|encoded| {
            encoded.map_err(|error| Breach::new(Rule::Encode, format!("it was refused: {error}")))
        });
        encoded.map_err(|breach| {
            breach.on(format!("{name}, {}", shown_key(&(self.message_key)(message))))
        })
    }

    /// An encoding gives the messages that it is of, however it comes, and nothing else if it ends
    /// too early.
    fn check_wire(
        &self,
        wire: &[u8],
        messages: &[C::Message],
        name: &str,
    ) -> Result<(), Violation> {
        let (rig, expected) = (self.rig(), self.keys(messages));
        let come = |rule, fed: Result<Fed<K>, Breach>, how: &str| {
            fed.and_then(|fed| is_all(rule, &expected, &fed))
                .map_err(|breach| breach.on(format!("{name}, {}, {how}", shown(wire))))
        };
        come(Rule::Identity, rig.feed([wire]), "in one piece")?;
        come(Rule::Split, rig.feed(wire.chunks(1)), "byte by byte")?;
        for cut in cuts(wire.len()) {
            let (now, later) = wire.split_at(cut);
            let begun = rig.feed([now]).and_then(|fed| self.is_no_new_frame(&fed));
            begun.map_err(|breach| {
                breach.on(format!("{name}, {}, ending behind byte {cut}", shown(wire)))
            })?;
            come(Rule::Split, rig.feed([now, later]), &format!("cut behind byte {cut}"))?;
        }
        Ok(())
    }

    /// The end of input makes no frame, or one if it may. That those before are in order is for
    /// the rule of splits: the rest could come.
    fn is_no_new_frame(&self, fed: &Fed<K>) -> Result<(), Breach> {
        if fed.at_end <= usize::from(self.ends_with_input) {
            return Ok(());
        }
        let last = fed.frames.last().map(shown_key).unwrap_or_default();
        let what = format!("{} frames were made of an early end, the last {last}", fed.at_end);
        Err(Breach::new(Rule::Truncation, what))
    }

    /// The message in parts is encoded to `wire`, too.
    fn check_parts(&self, wire: &[u8], message: &C::Message) -> Result<(), Breach> {
        let Some(whole) = self.parts_of.map(|parts_of| parts_of(message)) else { return Ok(()) };
        let len = whole.len();
        for (first, second) in [(0, 0), (len, len), (1, 2), (0, len / 2)] {
            let (first, second) = (first.min(len), second.min(len));
            let rest = [whole.slice(first..second), Bytes::new(), whole.slice(second..)];
            let parts = Parts::new(&whole[..first], &rest);
            let found = match encode_parts(&mut self.codec.clone(), parts)? {
                None => continue,
                Some(Ok(bytes)) if bytes == wire => continue,
                Some(Ok(bytes)) => format!("{}, not {}", shown(&bytes), shown(wire)),
                Some(Err(error)) => format!("refused: {error}"),
            };
            let what = format!("cut behind bytes {first} and {second} it was {found}");
            return Err(Breach::new(Rule::Parts, what));
        }
        Ok(())
    }
}

/// `fed` is what was expected, and there is no rest.
fn is_all<K: PartialEq + fmt::Debug>(
    rule: Rule,
    expected: &[K],
    fed: &Fed<K>,
) -> Result<(), Breach> {
    if let (Some(error), true) = (&fed.refused, expected.starts_with(&fed.frames)) {
        let count = fed.frames.len();
        let what = format!("it was refused after {count} frames of {}: {error}", expected.len());
        return Err(Breach::new(rule, what));
    }
    is_same(rule, expected, &fed.frames)?;
    if fed.left > 0 {
        return Err(Breach::new(rule, format!("{} bytes were not taken", fed.left)));
    }
    Ok(())
}

fn is_same_end<K: PartialEq + fmt::Debug>(whole: &Fed<K>, fed: &Fed<K>) -> Result<(), Breach> {
    is_same(Rule::Split, &whole.frames, &fed.frames)?;
    let what = match (&whole.refused, &fed.refused) {
        (Some(_), Some(_)) | (None, None) => return Ok(()),
        (Some(error), None) => format!("it is refused at once, but not so: {error}"),
        (None, Some(error)) => format!("it is refused so, but not at once: {error}"),
    };
    Err(Breach::new(Rule::Split, what))
}

fn is_same<K: PartialEq + fmt::Debug>(
    rule: Rule,
    expected: &[K],
    found: &[K],
) -> Result<(), Breach> {
    if expected == found {
        return Ok(());
    }
    let common = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    let at = |frames: &[K]| frames.get(common).map_or("none".into(), shown_key);
    let what = format!(
        "frame {} is {}, expected: {} ({} frames, expected: {})",
        common + 1,
        at(found),
        at(expected),
        found.len(),
        expected.len()
    );
    Err(Breach::new(rule, what))
}

/// So many inputs of each kind are made up.
const GARBAGE_COUNT: usize = 300;
/// So many messages are made of one input of a fuzzer, at most.
const MESSAGES_MAX: usize = 64;
/// In so many pieces comes what is too large, about.
const DRIPS_MAX: usize = 4096;
/// So many bytes may come beyond a frame of the largest size before it is refused.
const OVERHEAD_MAX: usize = 16;
