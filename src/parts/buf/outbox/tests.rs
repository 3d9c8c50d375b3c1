//! An outbox against a plain vector of bytes, and what it keeps of memory.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn content(outbox: &Outbox) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 4096];
    let filled = outbox.slices(&mut slices);
    assert!(filled < slices.len(), "the test's own limit");
    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
}

/// What of `held_bytes` is shared, counted part by part.
fn shared(outbox: &Outbox) -> usize {
    let shared = |part: &Part| match part {
        Part::Shared(bytes) => bytes.len(),
        Part::Copied(_) => 0,
    };
    outbox.parts.iter().map(shared).sum()
}

/// What `retained_bytes` claims, counted part by part.
fn counted(outbox: &Outbox) -> usize {
    let copied = |part: &Part| match part {
        Part::Shared(_) => 0,
        Part::Copied(segment) => segment.capacity(),
    };
    outbox.parts.capacity() * size_of::<Part>()
        + outbox.spare.capacity()
        + outbox.parts.iter().map(copied).sum::<usize>()
}

fn is_shared(outbox: &Outbox, index: usize) -> bool {
    matches!(outbox.parts[index], Part::Shared(_))
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize),
    PutSlice(usize),
    Append(Vec<usize>, usize),
    Advance(usize),
    Truncate(usize),
    Compact,
    Clear,
    Reset(usize),
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        5 => 0..100usize,
        3 => 400..700usize,
        2 => 4000..4200usize,
        2 => 16_300..16_500usize,
        1 => 16_000..40_000usize,
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => sizes().prop_map(Op::Put),
        8 => sizes().prop_map(Op::PutSlice),
        4 => (vec(sizes(), 0..6), sizes()).prop_map(|(puts, gone)| Op::Append(puts, gone)),
        12 => sizes().prop_map(Op::Advance),
        4 => sizes().prop_map(Op::Truncate),
        3 => Just(Op::Compact),
        1 => Just(Op::Clear),
        1 => (0..40_000usize).prop_map(Op::Reset),
    ]
}

fn pins_a_buffer_for_little(outbox: &Outbox) -> bool {
    outbox.parts.iter().any(|part| match part {
        Part::Shared(bytes) => bytes.len() <= LEFTOVER_MAX_BYTES,
        Part::Copied(_) => false,
    })
}

/// `len` bytes that no other call of the same test gives.
fn fresh(len: usize, next: &mut u32) -> Vec<u8> {
    *next += 1;
    (0u32..).zip(0..len).map(|(i, _)| (i.wrapping_mul(31) ^ *next).to_le_bytes()[0]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 }))]
    #[test]
    fn behaves_as_a_vec_of_bytes(ops in vec(ops(), 1..60)) {
        let (mut outbox, mut model, mut next) = (Outbox::new(), Vec::new(), 0);
        for op in ops {
            match op {
                Op::Put(len) => {
                    let bytes = fresh(len, &mut next);
                    model.extend_from_slice(&bytes);
                    outbox.put(Bytes::from(bytes));
                }
                Op::PutSlice(len) => {
                    let bytes = fresh(len, &mut next);
                    model.extend_from_slice(&bytes);
                    outbox.put_slice(&bytes);
                }
                Op::Append(puts, gone) => {
                    let (mut other, mut all) = (Outbox::new(), Vec::new());
                    for len in puts {
                        let bytes = fresh(len, &mut next);
                        all.extend_from_slice(&bytes);
                        other.put_slice(&bytes[..len / 2]);
                        other.put(Bytes::copy_from_slice(&bytes[len / 2..]));
                    }
                    let gone = gone.min(all.len());
                    other.advance(gone);
                    if gone % 2 == 1 {
                        other.compact();
                    }
                    model.extend_from_slice(&all[gone..]);
                    outbox.append(&mut other);
                    prop_assert!(other.is_empty() && content(&other).is_empty());
                    prop_assert_eq!(other.retained_bytes(), counted(&other));
                    other.put_slice(b"again");
                    other.put(Bytes::from_static(&[9; 600]));
                    other.compact();
                    prop_assert!(!pins_a_buffer_for_little(&other));
                    prop_assert_eq!(content(&other), [&b"again"[..], &[9; 600]].concat());
                }
                Op::Advance(len) => {
                    let len = len.min(model.len());
                    model.drain(..len);
                    outbox.advance(len);
                }
                Op::Truncate(gone) => {
                    let len = model.len().saturating_sub(gone);
                    model.truncate(len);
                    outbox.truncate(len);
                }
                Op::Compact => {
                    outbox.compact();
                    prop_assert!(!pins_a_buffer_for_little(&outbox));
                }
                Op::Clear => {
                    model.clear();
                    outbox.clear();
                }
                Op::Reset(keep_max_bytes) => {
                    model.clear();
                    outbox.reset(keep_max_bytes);
                    prop_assert!(outbox.retained_bytes() <= keep_max_bytes);
                }
            }
            prop_assert_eq!(&content(&outbox), &model);
            prop_assert_eq!(&outbox.to_vec(), &model);
            prop_assert_eq!(outbox.len_bytes(), model.len());
            prop_assert_eq!(outbox.is_empty(), model.is_empty());
            prop_assert_eq!(outbox.retained_bytes(), counted(&outbox));
            prop_assert_eq!(outbox.held_bytes(), counted(&outbox) + shared(&outbox));
        }
        prop_assert_eq!(outbox.into_bytes(), model);
    }
}

#[test]
fn the_first_bytes_can_be_had_by_themselves() {
    let mut outbox = Outbox::new();
    outbox.put_slice(b"abc");
    outbox.put(Bytes::from(vec![b'd'; 600]));
    outbox.put_slice(b"ef");
    outbox.advance(1);
    let all = content(&outbox);
    for most in [1, 2, 3, 601, 602, 603, 604, 605] {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbox.slices_within(&mut slices, most);
        let first: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(first, all[..most.min(all.len())]);
        assert!(slices[..filled].iter().all(|slice| !slice.is_empty()));
    }
}

#[test]
fn many_small_messages_leave_in_one_slice() {
    let mut outbox = Outbox::new();
    for _ in 0..100 {
        outbox.put_slice(&[7; 16]);
        outbox.put(Bytes::from_static(&[8; 64]));
    }
    assert_eq!(outbox.parts.len(), 1);
    assert_eq!(outbox.len_bytes(), 8000);
}

#[test]
fn large_messages_and_a_lonely_small_one_are_shared() {
    let small = Bytes::from(vec![1; 10]);
    let large = Bytes::from(vec![2; COPY_MAX_BYTES + 1]);
    let mut outbox = Outbox::new();
    outbox.put(small.clone());
    outbox.put(small.clone());
    outbox.put(large.clone());
    assert!(is_shared(&outbox, 0) && !is_shared(&outbox, 1) && is_shared(&outbox, 2));
    let mut slices = [IoSlice::new(&[]); 3];
    assert_eq!(outbox.slices(&mut slices), 3);
    assert_eq!(slices[0].as_ptr(), small.as_ptr());
    assert_eq!(slices[2].as_ptr(), large.as_ptr());
}

#[test]
fn a_small_leftover_lets_its_buffer_go() {
    let buffer = Bytes::from(vec![3; 128 << 10]);
    let mut outbox = Outbox::new();
    outbox.put(buffer.clone());
    outbox.advance(1);
    outbox.compact();
    assert!(is_shared(&outbox, 0), "a large leftover stays where it is");
    outbox.advance((128 << 10) - 1 - LEFTOVER_MAX_BYTES);
    outbox.compact();
    assert!(buffer.is_unique());
    assert_eq!(content(&outbox), &buffer[(128 << 10) - LEFTOVER_MAX_BYTES..]);
    outbox.put(buffer.slice(..COPY_MAX_BYTES + 1));
    outbox.compact();
    assert!(buffer.is_unique(), "what came after the last look is looked at");
}

#[test]
fn the_steady_state_keeps_its_memory_and_takes_no_more() {
    let large = Bytes::from(vec![5; 2000]);
    let mut outbox = Outbox::new();
    let mut after_first = None;
    for _ in 0..1000 {
        outbox.put_slice(b"head");
        outbox.put(large.clone());
        outbox.put_slice(&[6; 3000]);
        outbox.advance(4);
        outbox.advance(5000);
        let kept = (outbox.retained_bytes(), outbox.spare.as_ptr(), outbox.parts.capacity());
        assert_eq!(*after_first.get_or_insert(kept), kept);
    }
}

#[test]
fn memory_of_written_bytes_is_released() {
    let mut outbox = Outbox::new();
    for _ in 0..64 {
        outbox.put_slice(&[1; SEGMENT_MAX_BYTES]);
        outbox.put(Bytes::from_static(&[2; 600]));
    }
    let full = outbox.retained_bytes();
    assert!(full >= 64 * SEGMENT_MAX_BYTES);
    outbox.advance(32 * (SEGMENT_MAX_BYTES + 600));
    // One written segment stays as the spare.
    assert_eq!(outbox.retained_bytes(), full - 31 * SEGMENT_MAX_BYTES);
    outbox.clear();
    assert_eq!(outbox.retained_bytes(), SEGMENT_MAX_BYTES);
    outbox.reset(0);
    assert_eq!(outbox.retained_bytes(), 0);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn it_stays_small() {
    assert!(size_of::<Outbox>() <= 88);
    assert!(size_of::<Part>() <= 32);
}
