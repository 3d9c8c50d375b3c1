//! What the fuzzers run, as plain functions: a broken promise is a panic.

mod codecs;
mod length_prefixed;

use std::ffi::OsString;
use std::fs;

pub use codecs::{delimited, fixed, lines, raw, varint};
pub use length_prefixed::length_prefixed;

/// One simulated world: the first eight bytes are its seed, the others decide single choices.
///
/// # Panics
/// If the server breaks one of its promises there.
pub fn world(data: &[u8]) {
    if let Err(failure) = switchboard::sim::run_bytes(data) {
        panic!("{failure}");
    }
}

/// One life of a connection without any server; see `switchboard::sim::run_connection`.
///
/// # Panics
/// If the connection breaks one of its rules.
pub fn conn(data: &[u8]) {
    switchboard::sim::run_connection(data);
}

/// Runs `target` on the content of each of the files: a finding again, without any fuzzer.
///
/// # Panics
/// If a file cannot be read, or `target` panics.
pub fn replay(target: fn(&[u8]), files: impl Iterator<Item = OsString>) {
    for path in files {
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        target(&data);
    }
}
