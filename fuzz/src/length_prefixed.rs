//! `length_prefixed`: the codec against a model that sees all bytes at once.

use bytes::{Bytes, BytesMut};
use switchboard::codec::{Counted, FrameError, Outbox};
use switchboard::{Codec, LengthPrefixed, sim};

/// The bytes that say what the codec is like; the others are its input.
const HEAD_LEN: usize = 8;

/// A codec, and what it should do.
struct Shape {
    codec: LengthPrefixed,
    width: usize,
    little_endian: bool,
    /// Bytes before the length.
    offset: usize,
    /// What the length counts beside the payload.
    counted: u64,
    frame_max: usize,
}

/// A frame, and the bytes behind it.
type Cut<'a> = (Vec<u8>, &'a [u8]);

/// Decodes the input, however it is cut, and sends it as messages there and back.
///
/// # Panics
/// If the codec does anything but what the model does, or takes memory for what has not arrived.
pub fn length_prefixed(data: &[u8]) {
    let Some((head, input)) = data.split_first_chunk::<HEAD_LEN>() else { return };
    let [shape, max_low, max_high, cuts @ ..] = head;
    let frame_max = u16::from_le_bytes([*max_low, *max_high]);
    let shape = Shape::new(*shape, usize::from(frame_max));
    decodes_like_the_model(&shape, cuts, input);
    returns_what_was_sent(&shape, cuts, input);
}

impl Shape {
    fn new(choice: u8, frame_max: usize) -> Self {
        let common = [1, 2, 4, 8][usize::from(choice & 3)];
        let rare = [3, 5, 6, 7][usize::from(choice & 3)];
        let (width, counts) = match choice >> 4 & 3 {
            0 => (common, Counted::Payload),
            1 => (common, Counted::LengthAndPayload),
            2 => (common, Counted::Everything),
            _ => (rare, Counted::Payload),
        };
        let offset = usize::from(choice >> 6);
        let codec = LengthPrefixed::with_width(width).expect("1 to 8").offset(offset);
        let codec = codec.counts(counts);
        let little_endian = choice & 4 != 0;
        let codec = if little_endian { codec.little_endian() } else { codec };
        let counted = match choice >> 4 & 3 {
            1 => width,
            2 => offset + width,
            _ => 0,
        } as u64;
        let has_default = choice & 8 != 0;
        let codec = if has_default { codec } else { codec.frame_max(frame_max) };
        let frame_max = if has_default { LengthPrefixed::FRAME_MAX_DEFAULT } else { frame_max };
        Shape { codec, width, little_endian, offset, counted, frame_max }
    }

    /// The frame in front of `input`, by the definition; `Err`: none is allowed.
    fn first<'a>(&self, input: &'a [u8]) -> Result<Option<Cut<'a>>, ()> {
        let Some((front, rest)) = input.split_at_checked(self.offset) else { return Ok(None) };
        let Some((prefix, rest)) = rest.split_at_checked(self.width) else { return Ok(None) };
        let mut wide = [0; 8];
        wide[..self.width].copy_from_slice(prefix);
        if !self.little_endian {
            wide[..self.width].reverse();
        }
        let payload = u64::from_le_bytes(wide).checked_sub(self.counted).ok_or(())?;
        if payload > self.frame_max as u64 {
            return Err(());
        }
        let cut = usize::try_from(payload).ok().and_then(|len| rest.split_at_checked(len));
        Ok(cut.map(|(payload, behind)| ([front, payload].concat(), behind)))
    }

    fn wire(&self, message: &[u8]) -> Vec<u8> {
        let (front, payload) = message.split_at(self.offset);
        let length = payload.len() as u64 + self.counted;
        let mut prefix = length.to_le_bytes()[..self.width].to_vec();
        if !self.little_endian {
            prefix.reverse();
        }
        [front, &prefix, payload].concat()
    }

    fn may_send(&self, length: usize) -> bool {
        let Some(payload) = length.checked_sub(self.offset) else { return false };
        let announced = payload as u64 + self.counted;
        let expressible = self.width == 8 || announced >> (8 * self.width) == 0;
        payload <= self.frame_max && expressible
    }
}

fn decodes_like_the_model(shape: &Shape, cuts: &[u8], input: &[u8]) {
    let (frames, end, left) = decode_pieces(shape.codec, pieces(cuts, input));
    let mut rest = input;
    let mut count = 0;
    let expected_end = loop {
        match shape.first(rest) {
            Ok(Some((frame, behind))) => {
                assert_eq!(frames.get(count).map(|frame| &frame[..]), Some(&frame[..]));
                (count, rest) = (count + 1, behind);
            }
            Ok(None) => break false,
            Err(()) => break true,
        }
    };
    assert_eq!(frames.len(), count, "frames that were never sent");
    assert_eq!(end.is_some(), expected_end, "a length beyond the maximum: {end:?}");
    // After a refusal there may be bytes that were never shown to the codec.
    assert!(rest.starts_with(&left), "bytes were lost, or are not in order");
    assert!(expected_end || left.len() == rest.len(), "bytes of an incomplete frame were lost");
}

fn returns_what_was_sent(shape: &Shape, cuts: &[u8], input: &[u8]) {
    let mut codec = shape.codec;
    let mut outbox = Outbox::new();
    let mut wire = Vec::new();
    let mut sent = Vec::new();
    for message in pieces(cuts, input) {
        let before = outbox.len_bytes();
        match codec.encode(Bytes::copy_from_slice(message), &mut outbox) {
            Ok(()) => {
                assert!(shape.may_send(message.len()), "{} bytes were sent", message.len());
                wire.extend(shape.wire(message));
                sent.push(message);
            }
            Err(refused) => {
                assert!(!shape.may_send(message.len()), "{refused}");
                assert_eq!(outbox.len_bytes(), before, "a part of a refused message was sent");
            }
        }
        assert_eq!(outbox.len_bytes(), wire.len());
    }
    assert_eq!(sim::written(outbox), wire);
    let (frames, end, left) = decode_pieces(shape.codec, pieces(&cuts[1..], &wire));
    assert_eq!(frames, sent, "what arrives is not what was sent");
    assert_eq!((end, left.len()), (None, 0));
}

/// Shows the pieces to the codec one after the other, until it refuses what it sees: all frames,
/// the refusal, and what it left.
fn decode_pieces<'a>(
    mut codec: LengthPrefixed,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<BytesMut>, Option<FrameError>, BytesMut) {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Err(refused) =
            take_frames(&mut codec, &mut input, &mut frames, LengthPrefixed::decode)
        {
            return (frames, Some(refused), input);
        }
    }
    let whole = frames.len();
    let at_end = take_frames(&mut codec, &mut input, &mut frames, LengthPrefixed::decode_eof);
    assert_eq!((at_end, frames.len()), (Ok(()), whole), "the end completes no frame");
    (frames, None, input)
}

type Decode = fn(&mut LengthPrefixed, &mut BytesMut) -> Result<Option<BytesMut>, FrameError>;

fn take_frames(
    codec: &mut LengthPrefixed,
    input: &mut BytesMut,
    frames: &mut Vec<BytesMut>,
    decode: Decode,
) -> Result<(), FrameError> {
    loop {
        let (arrived, held) = (input.len(), input.capacity());
        let decoded = decode(codec, input);
        // Whoever reads grows it as bytes arrive; the codec never does, whatever a length says.
        let frame_held =
            decoded.as_ref().map_or(0, |frame| frame.as_ref().map_or(0, BytesMut::capacity));
        assert!(frame_held <= arrived, "a frame of {frame_held} bytes out of {arrived}");
        assert!(input.capacity() + frame_held <= held, "the codec has reserved memory");
        match decoded? {
            Some(frame) => frames.push(frame),
            None => return Ok(()),
        }
    }
}

/// Cuts `data` as `cuts` will have it, in turn: pieces of 0 to 127 bytes, or of up to 32 KiB; never
/// only empty ones.
fn pieces<'a>(cuts: &'a [u8], data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = data;
    let mut cuts = cuts.iter().cycle().enumerate();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (turn, cut) = cuts.next()?;
        let size = usize::from(cut & 127) << if cut & 128 == 0 { 0 } else { 8 };
        let (now, later) = rest.split_at(size.max(usize::from(turn % 4 == 3)).min(rest.len()));
        rest = later;
        Some(now)
    })
}
