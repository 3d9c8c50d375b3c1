//! The other codecs, each against a model that sees all bytes at once.

use bytes::{Bytes, BytesMut};
use switchboard::codec::{Delimited, Fixed, FrameError, Lines, Varint};
use switchboard::testing::Check;
use switchboard::{Codec, Raw};

/// Frames, and whether the input was refused behind them.
type Decoded = (Vec<Vec<u8>>, bool);

/// No codec: all bytes arrive, however they come. Their first four say how that is.
///
/// # Panics
/// If a rule of the kit is broken.
pub fn raw(data: &[u8]) {
    Check::new(Raw::new()).unframed().fuzz(data);
}

/// Lines of at most as many bytes as the first two bytes say.
///
/// # Panics
/// If a rule of the kit is broken, or the codec does anything but what the model does.
pub fn lines(data: &[u8]) {
    let Some((max, rest)) = maximum(data) else { return };
    let codec = Lines::new().frame_max(max);
    Check::new(codec.clone()).ends_with_input().fuzz(rest);
    assert_eq!(decoded(codec, rest), model_of_lines(max, rest));
}

fn model_of_lines(max: usize, mut rest: &[u8]) -> Decoded {
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        if line.len() > max {
            return (lines, true);
        }
        lines.push(line.to_vec());
        rest = &rest[end + 1..];
    }
    if rest.len() > max {
        return (lines, true);
    }
    if !rest.is_empty() {
        lines.push(rest.to_vec());
    }
    (lines, false)
}

/// Frames of at most as many bytes as the first two bytes say, behind which comes the mark, its
/// length first, of one to eight bytes.
///
/// # Panics
/// If a rule of the kit is broken, or the codec does anything but what the model does.
pub fn delimited(data: &[u8]) {
    let Some((max, [len, rest @ ..])) = maximum(data) else { return };
    let mark_len = (usize::from(*len) % 9).max(1);
    let Some((mark, rest)) = rest.split_at_checked(mark_len) else { return };
    let codec = Delimited::new(mark).expect("it has bytes").frame_max(max);
    Check::new(codec.clone()).fuzz(rest);
    assert_eq!(decoded(codec, rest), model_of_delimited(max, mark, rest));
}

fn model_of_delimited(max: usize, mark: &[u8], mut rest: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    while let Some(end) = rest.windows(mark.len()).position(|window| window == mark) {
        if end > max {
            return (frames, true);
        }
        frames.push(rest[..end].to_vec());
        rest = &rest[end + mark.len()..];
    }
    let begun = (0..mark.len()).rev().find(|&len| rest.ends_with(&mark[..len])).unwrap_or(0);
    (frames, rest.len() - begun > max)
}

/// Frames of as many bytes as the first byte says.
///
/// # Panics
/// If a rule of the kit is broken, or the codec does anything but what the model does.
pub fn fixed(data: &[u8]) {
    let [len, rest @ ..] = data else { return };
    let len = usize::from(*len).max(1);
    let codec = Fixed::new(len).expect("it has bytes");
    Check::new(codec).fuzz(rest);
    let frames = rest.chunks_exact(len).map(<[u8]>::to_vec).collect();
    assert_eq!(decoded(codec, rest), (frames, false));
}

/// Frames behind their length in LEB128, of at most as many bytes as the first two bytes say.
///
/// # Panics
/// If a rule of the kit is broken, or the codec does anything but what the model does.
pub fn varint(data: &[u8]) {
    let Some((max, rest)) = maximum(data) else { return };
    let codec = Varint::new().frame_max(max);
    Check::new(codec).fuzz(rest);
    assert_eq!(decoded(codec, rest), model_of_varint(max, rest));
}

fn model_of_varint(max: usize, mut rest: &[u8]) -> Decoded {
    let mut frames = Vec::new();
    loop {
        // Of up to 16 bits there are at most three times seven.
        let width_max = [128, 128 * 128].iter().filter(|&&beyond| max >= beyond).count() + 1;
        let prefix = rest.iter().position(|byte| byte & 0x80 == 0);
        let width = match prefix {
            Some(last) if last < width_max => last + 1,
            Some(_) => return (frames, true),
            None => return (frames, rest.len() >= width_max),
        };
        let bits = |length, byte: &u8| length << 7 | usize::from(byte & 0x7F);
        let length = rest[..width].iter().rev().fold(0, bits);
        if (width > 1 && rest[width - 1] == 0) || length > max {
            return (frames, true);
        }
        let Some(frame) = rest.get(width..width + length) else { return (frames, false) };
        frames.push(frame.to_vec());
        rest = &rest[width + length..];
    }
}

fn maximum(data: &[u8]) -> Option<(usize, &[u8])> {
    let (max, rest) = data.split_first_chunk()?;
    Some((usize::from(u16::from_le_bytes(*max)), rest))
}

/// All frames of `input` and of its end.
fn decoded<C>(mut codec: C, input: &[u8]) -> Decoded
where
    C: Codec<Frame = BytesMut, Message = Bytes, Error = FrameError>,
{
    let mut input = BytesMut::from(input);
    let mut frames = Vec::new();
    for decode in [C::decode, C::decode_eof] {
        loop {
            match decode(&mut codec, &mut input) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}
