//! The fuzz targets without a fuzzer: on their seeds, and on inputs that are made up the same way
//! every time, so that they cannot rot.

use std::fs;
use std::path::Path;

/// Runs `target` on every file of its folder of seeds; there must be some.
fn run_seeds(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a folder of seeds") {
        let data = fs::read(entry.expect("an entry").path()).expect("a seed");
        target(&data);
        count += 1;
    }
    assert!(count > 0, "no seeds of {name}");
}

/// Runs `target` on `count` inputs of up to `len_max` bytes, many of them small numbers.
fn run_made_up(target: fn(&[u8]), count: usize, len_max: usize) {
    let mut state = 1_u64;
    let mut next = |below: usize| {
        // Knuth's multiplier; the upper bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for _ in 0..count {
        let len = next(len_max + 1);
        let byte = |_| if next(2) == 0 { next(256) } else { next(4) };
        let data: Vec<u8> =
            (0..len).map(byte).map(|byte| u8::try_from(byte).expect("below 256")).collect();
        target(&data);
    }
}

#[test]
fn length_prefixes_hold_on_the_seeds() {
    run_seeds("length_prefixed", switchboard_fuzz::length_prefixed);
}

#[test]
fn length_prefixes_hold_on_made_up_bytes() {
    run_made_up(switchboard_fuzz::length_prefixed, 20_000, 600);
}

#[test]
fn codecs_hold_on_the_seeds() {
    run_seeds("delimited", switchboard_fuzz::delimited);
    run_seeds("fixed", switchboard_fuzz::fixed);
    run_seeds("lines", switchboard_fuzz::lines);
    run_seeds("raw", switchboard_fuzz::raw);
    run_seeds("varint", switchboard_fuzz::varint);
}

#[test]
fn codecs_hold_on_made_up_bytes() {
    for target in [
        switchboard_fuzz::delimited,
        switchboard_fuzz::fixed,
        switchboard_fuzz::lines,
        switchboard_fuzz::raw,
        switchboard_fuzz::varint,
    ] {
        run_made_up(target, 5_000, 120);
    }
}

#[test]
fn connections_hold_on_the_seeds() {
    run_seeds("conn", switchboard_fuzz::conn);
}

#[test]
fn connections_hold_on_made_up_bytes() {
    run_made_up(switchboard_fuzz::conn, 20_000, 400);
}

#[test]
fn worlds_hold_on_the_seeds() {
    run_seeds("world", switchboard_fuzz::world);
}

#[test]
fn worlds_hold_on_made_up_bytes() {
    run_made_up(switchboard_fuzz::world, 200, 400);
}
