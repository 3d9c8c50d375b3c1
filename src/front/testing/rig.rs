//! `Rig`: shows bytes to a codec as a connection would, and watches what it does with them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;

use super::violation::{Breach, Rule, shown_key};
use crate::core::codec::{Codec, Parts};
use crate::parts::buf::Outbox;
use crate::words::error::BoxError;

/// A codec, and how its frames are told apart.
pub(super) struct Rig<'a, C: Codec, K> {
    pub(super) codec: &'a C,
    pub(super) key: &'a dyn Fn(&C::Frame) -> K,
    /// If its frames have no boundaries: how they are one.
    pub(super) joined: Option<fn(&[K]) -> K>,
}

/// What a codec made of an input that has ended.
#[derive(Debug)]
pub(super) struct Fed<K> {
    pub(super) frames: Vec<K>,
    /// So many of them only when the end was told.
    pub(super) at_end: usize,
    /// Why it refused the input.
    pub(super) refused: Option<String>,
    /// Bytes that it did not take.
    pub(super) left: usize,
    /// Bytes that it was shown.
    pub(super) arrived: usize,
}

impl<C: Codec + Clone, K: PartialEq + fmt::Debug> Rig<'_, C, K> {
    /// Shows the pieces to a clone of the codec, one after the other, and then their end, until it
    /// refuses what it sees.
    pub(super) fn feed<'p>(
        &self,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Fed<K>, Breach> {
        let mut fed = Fed { frames: Vec::new(), at_end: 0, refused: None, left: 0, arrived: 0 };
        // What a panic leaves behind is looked at no more.
        guarded(|| {
            let mut codec = self.codec.clone();
            let mut input = BytesMut::new();
            for piece in pieces {
                input.extend_from_slice(piece);
                fed.arrived += piece.len();
                self.take_frames(&mut codec, &mut input, &mut fed, C::decode)?;
                if fed.refused.is_some() {
                    break;
                }
            }
            if fed.refused.is_none() {
                let (before, len) = (fed.frames.len(), input.len());
                self.take_frames(&mut codec, &mut input, &mut fed, C::decode_eof)?;
                fed.at_end = fed.frames.len() - before;
                if input.len() < len && fed.at_end == 0 && fed.refused.is_none() {
                    let what = format!("at the end {} bytes vanished", len - input.len());
                    return Err(Breach::new(Rule::Truncation, what));
                }
            }
            fed.left = input.len();
            if let (Some(joined), false) = (self.joined, fed.frames.is_empty()) {
                fed.frames = vec![joined(&fed.frames)];
            }
            Ok(fed)
        })
    }

    /// Takes frames until there are no more, which is at the latest when no byte is left.
    fn take_frames(
        &self,
        codec: &mut C,
        input: &mut BytesMut,
        fed: &mut Fed<K>,
        decode: Decode<C>,
    ) -> Result<(), Breach> {
        loop {
            let (len, capacity) = (input.len(), input.capacity());
            let decoded = decode(codec, input);
            if input.capacity() > capacity.max(2 * len + RESERVE_MAX) {
                let what = format!(
                    "with {len} bytes to look at, it made room for {} bytes",
                    input.capacity()
                );
                return Err(Breach::new(Rule::Memory, what));
            }
            if input.len() > len {
                let what = format!("{len} bytes became {}", input.len());
                return Err(Breach::new(Rule::Progress, what));
            }
            match decoded.map_err(Into::into) {
                Ok(Some(frame)) => {
                    let key = (self.key)(&frame);
                    if input.len() == len {
                        let what = format!("frame {} took none of {len} bytes", shown_key(&key));
                        return Err(Breach::new(Rule::Progress, what));
                    }
                    fed.frames.push(key);
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let error: BoxError = error;
                    fed.refused = Some(error.to_string());
                    return Ok(());
                }
            }
        }
    }
}

type Decode<C> =
    fn(&mut C, &mut BytesMut) -> Result<Option<<C as Codec>::Frame>, <C as Codec>::Error>;

/// The bytes of a message, or why the codec refused it.
pub(super) type Encoded = Result<Vec<u8>, String>;

pub(super) fn encode<C: Codec>(codec: &mut C, message: C::Message) -> Result<Encoded, Breach> {
    guarded(|| {
        let mut outbox = Outbox::new();
        let encoded = codec.encode(message, &mut outbox);
        told(encoded, &outbox)
    })
}

/// `None` if the codec takes whole messages only.
pub(super) fn encode_parts<C: Codec>(
    codec: &mut C,
    parts: Parts<'_>,
) -> Result<Option<Encoded>, Breach> {
    guarded(|| {
        let mut outbox = Outbox::new();
        match codec.encode_parts(parts, &mut outbox) {
            Some(encoded) => told(encoded, &outbox).map(Some),
            None => leaves_nothing(&outbox).map(|()| None),
        }
    })
}

fn told<E: Into<BoxError>>(encoded: Result<(), E>, outbox: &Outbox) -> Result<Encoded, Breach> {
    match encoded {
        Ok(()) => Ok(Ok(outbox.to_vec())),
        Err(error) => leaves_nothing(outbox).map(|()| Err(error.into().to_string())),
    }
}

fn leaves_nothing(outbox: &Outbox) -> Result<(), Breach> {
    if outbox.is_empty() {
        return Ok(());
    }
    let what = format!("{} bytes of it are in the output", outbox.len_bytes());
    Err(Breach::new(Rule::Refusal, what))
}

/// Makes a panic a breach of its own rule.
fn guarded<T>(run: impl FnOnce() -> Result<T, Breach>) -> Result<T, Breach> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(Breach::new(Rule::Panic, text.unwrap_or("a panic without a message")))
    })
}

/// What a codec may make room for beyond twice of what it sees.
const RESERVE_MAX: usize = 1024;
