//! The ready-made codecs pass, and codecs with planted mistakes fail by the rule that names them.

use bytes::{Buf, Bytes, BytesMut};

use super::*;
use crate::core::codec::{
    Counted, Delimited, Fixed, FrameError, LengthPrefixed, Lines, Parts, Raw, Varint,
};
use crate::words::error::BoxError;

fn messages() -> Vec<Bytes> {
    let long: Vec<u8> = (0..2000_u32).map(|at| at.to_le_bytes()[0] % 7 + b'a').collect();
    let texts = ["text", "\0\u{1}\u{7f}", "", "a", "ab\rab", "\u{80}\u{7FF}"].map(Bytes::from);
    texts.into_iter().chain([long.into()]).collect()
}

#[test]
fn raw_and_fixed_keep_to_the_rules() {
    Check::new(Raw::new()).messages(messages()).unframed().run();
    for len in [1, 2, 9] {
        let messages = (0..5).map(|byte| Bytes::from(vec![byte; len]));
        check_codec(Fixed::new(len).expect("it has bytes"), messages);
    }
}

#[test]
fn lines_keep_to_the_rules() {
    Check::new(Lines::new()).messages(messages()).ends_with_input().run();
    for max in [0, 1, 80] {
        let fitting = messages().into_iter().filter(|message| message.len() <= max);
        Check::new(Lines::new().frame_max(max))
            .messages(fitting)
            .ends_with_input()
            .frame_max(max, Lines::new())
            .run();
    }
}

#[test]
fn delimited_keeps_to_the_rules() {
    for mark in ["\0\0", "\r\n\r\n", "\n", "abaababa", "aaac"] {
        let codec = Delimited::new(mark).expect("it has bytes");
        Check::new(codec.clone().frame_max(6000)).messages(messages()).run();
        for max in [0, 1, 5, 80] {
            let fitting = messages().into_iter().filter(|message| message.len() <= max);
            Check::new(codec.clone().frame_max(max))
                .messages(fitting)
                .frame_max(max, codec.clone())
                .run();
        }
    }
}

#[test]
fn length_prefixed_keeps_to_the_rules() {
    for width in [1, 3, 4, 8] {
        for (offset, counted) in [
            (0, Counted::Payload),
            (0, Counted::Everything),
            (1, Counted::LengthAndPayload),
            (2, Counted::Everything),
        ] {
            let codec = LengthPrefixed::with_width(width).expect("it is allowed");
            let codec = codec.offset(offset).counts(counted);
            let codec = if width % 2 == 0 { codec } else { codec.little_endian() };
            let fitting =
                |message: &Bytes| message.len() >= offset && (width > 1 || message.len() < 200);
            let check = Check::new(codec.frame_max(6000));
            check.messages(messages().into_iter().filter(fitting)).run();
            // What the kit calls the largest message has the bytes before the length, too.
            let max = 80 - offset;
            let fitting = |message: &Bytes| fitting(message) && message.len() <= max;
            let check = Check::new(codec.frame_max(max))
                .messages(messages().into_iter().filter(fitting))
                .seed(7);
            if width == 1 { check } else { check.frame_max(80, codec) }.run();
        }
    }
}

#[test]
fn varint_keeps_to_the_rules() {
    check_codec(Varint::new(), messages());
    for max in [0, 1, 127, 128, 300] {
        let fitting = messages().into_iter().filter(|message| message.len() <= max);
        let codec = Varint::new().frame_max(max);
        Check::new(codec).messages(fitting).frame_max(max, Varint::new()).run();
    }
}

#[cfg(feature = "tokio-util")]
#[test]
fn codecs_for_tokio_keep_to_the_rules_that_they_can() {
    use crate::core::codec::TokioUtil;
    use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let lines = |max| TokioUtil::<_, String>::new(LinesCodec::new_with_max_length(max));
    let texts = ["one", "", "three and more", "four"].map(str::to_owned);
    let check = Check::comparing(lines(200), String::clone, String::clone);
    let check = check.messages(texts).made_of(text).ends_with_input();
    check.run();
    check.fuzz(b"\x01\x02\x03\x04one, two");
    // It takes messages that arrive as two, or as another one.
    let violation = check.try_fuzz(b"\x7F\x7F\x7F\x7Fone\ntwo").expect_err("two lines");
    assert_eq!(violation.rule(), Rule::Identity);
    let delimited = |max| {
        let codec = LengthDelimitedCodec::builder().max_frame_length(max).new_codec();
        TokioUtil::<_, Bytes>::new(codec)
    };
    let fitting = messages().into_iter().filter(|message| message.len() <= 200);
    Check::new(delimited(200)).messages(fitting).frame_max(200, delimited(2000)).run();
    // It trusts a length: the kit sees that.
    let violation =
        try_check_codec(delimited(1 << 20), messages()).expect_err("it reserves 2,000 bytes");
    assert_eq!(violation.rule(), Rule::Memory);
}

/// The mistakes that are planted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    ForgetsWhatIsIncomplete,
    ExpectsTheRestByteByByte,
    TakesOneMore,
    WaitsForTheTooLarge,
    TakesNoByteForAnEmptyFrame,
    ReservesWhatIsAnnounced,
    TrustsALength,
    MakesAFrameOfTheRest,
    DropsTheRest,
    WritesBeforeItRefuses,
    ForgetsThePrefixOfParts,
    TrimsItsFrames,
    RefusesTheEmpty,
    PutsBytesBack,
}

/// Frames behind two bytes of length, with a mistake.
#[derive(Clone, Debug)]
struct Mistaken {
    mistake: Mistake,
    max: usize,
    /// How much of the frame had come when it was last looked at.
    looked: usize,
}

impl Mistaken {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn takes(&self, length: usize) -> bool {
        length <= self.max + usize::from(self.makes(Mistake::TakesOneMore))
    }
}

impl Codec for Mistaken {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = BoxError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, BoxError> {
        let Some(&[high, low]) = input.get(..2) else { return Ok(None) };
        let length = usize::from(high) << 8 | usize::from(low);
        let is_whole = input.len() >= 2 + length;
        if !self.takes(length) && (is_whole || !self.makes(Mistake::WaitsForTheTooLarge)) {
            return Err("too large".into());
        }
        if length == 0 && self.makes(Mistake::TakesNoByteForAnEmptyFrame) {
            return Ok(Some(BytesMut::new()));
        }
        if self.makes(Mistake::ReservesWhatIsAnnounced) {
            input.reserve(length);
        }
        if !is_whole && !self.makes(Mistake::TrustsALength) {
            if self.makes(Mistake::ForgetsWhatIsIncomplete) {
                input.clear();
            }
            if self.makes(Mistake::PutsBytesBack) && length == 3 {
                input.extend_from_slice(b"x");
            }
            self.looked = input.len();
            return Ok(None);
        }
        let before = std::mem::take(&mut self.looked);
        if before > 0 && before + 1 < 2 + length && self.makes(Mistake::ExpectsTheRestByteByByte) {
            return Err("more than a byte has come".into());
        }
        input.advance(2);
        let mut frame = input.split_to(length);
        if self.makes(Mistake::TrimsItsFrames) && frame.ends_with(b" ") {
            frame.truncate(length - 1);
        }
        Ok(Some(frame))
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, BoxError> {
        let decoded = self.decode(input)?;
        if decoded.is_none() && !input.is_empty() {
            if self.makes(Mistake::MakesAFrameOfTheRest) {
                return Ok(Some(input.split()));
            }
            if self.makes(Mistake::DropsTheRest) {
                input.clear();
            }
        }
        Ok(decoded)
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), BoxError> {
        let prefix = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
        let refuses_it = message.is_empty() && self.makes(Mistake::RefusesTheEmpty);
        if refuses_it || !self.takes(message.len()) {
            if self.makes(Mistake::WritesBeforeItRefuses) {
                outbox.put_slice(&prefix);
            }
            return Err("refused".into());
        }
        outbox.put_slice(&prefix);
        outbox.put(message);
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), BoxError>> {
        let forgets = self.makes(Mistake::ForgetsThePrefixOfParts);
        forgets.then(|| {
            parts.put(outbox);
            Ok(())
        })
    }
}

#[test]
fn each_planted_mistake_breaks_the_rule_that_names_it() {
    let codec = |mistake, max| Mistaken { mistake, max, looked: 0 };
    let check = |mistake| {
        let fitting = ["", "abc", "with blank ", "0123456789"].map(Bytes::from);
        let long = Bytes::from(vec![b'l'; 4000]);
        Check::new(codec(mistake, 5000))
            .messages(fitting.into_iter().chain([long]))
            .frame_max(5000, codec(mistake, 20_000))
    };
    for (mistake, rule) in [
        (Mistake::ForgetsWhatIsIncomplete, Rule::Split),
        (Mistake::ExpectsTheRestByteByByte, Rule::Split),
        (Mistake::TakesOneMore, Rule::Cap),
        (Mistake::WaitsForTheTooLarge, Rule::Cap),
        (Mistake::TakesNoByteForAnEmptyFrame, Rule::Progress),
        (Mistake::ReservesWhatIsAnnounced, Rule::Memory),
        (Mistake::TrustsALength, Rule::Panic),
        (Mistake::MakesAFrameOfTheRest, Rule::Truncation),
        (Mistake::DropsTheRest, Rule::Truncation),
        (Mistake::WritesBeforeItRefuses, Rule::Refusal),
        (Mistake::ForgetsThePrefixOfParts, Rule::Parts),
        (Mistake::TrimsItsFrames, Rule::Identity),
        (Mistake::RefusesTheEmpty, Rule::Encode),
        (Mistake::PutsBytesBack, Rule::Progress),
    ] {
        let violation = check(mistake).try_run().expect_err("it is mistaken");
        assert_eq!(violation.rule(), rule, "{mistake:?}: {violation}");
        let text = violation.to_string();
        assert!(text.contains(&format!("rule `{}`", rule.label())), "{text}");
        assert!(text.contains("input: ") && text.len() < 1000, "{text}");
    }
}

#[test]
fn a_fuzzer_finds_mistakes_too_and_a_violation_says_what_was_expected() {
    let codec = Mistaken { mistake: Mistake::ForgetsWhatIsIncomplete, max: 100, looked: 0 };
    let violation = Check::new(codec).try_fuzz(b"\x01\x01\x01\x01\0\x03abc").expect_err("it is");
    assert_eq!(
        violation.to_string(),
        "the codec breaks rule `split`: frames do not depend on how the bytes come\n  \
         found: frame 1 is none, expected: b\"abc\" (0 frames, expected: 1)\n  \
         input: b\"\\x00\\x03abc\" (5 bytes), byte by byte"
    );
    let codec = Mistaken { mistake: Mistake::WritesBeforeItRefuses, max: 3, looked: 0 };
    let violation = Check::new(codec).try_fuzz(b"\x07\x07\x07\x07abcdefgh").expect_err("it is");
    assert_eq!(violation.rule(), Rule::Refusal);
    fuzz_codec(LengthPrefixed::u16(), b"");
}

#[test]
#[should_panic(expected = "rule `encode`")]
fn a_message_that_is_refused_is_no_message_to_check_with() {
    check_codec(Lines::new(), [Bytes::from_static(b"a\nb")]);
}

#[test]
fn what_is_refused_is_named() {
    let refused = FrameError::HoldsEndMark.to_string();
    let violation = try_check_codec(Lines::new(), [Bytes::from_static(b"a\nb")]);
    let text = violation.expect_err("it holds the end mark").to_string();
    assert!(text.contains(&refused) && text.contains("message 1 of 1, b\"a\\nb\""), "{text}");
}
