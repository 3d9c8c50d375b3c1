//! One connection under arbitrary sequences of what may happen to it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| switchboard_fuzz::conn(data));

/// Without a fuzzer: runs the files that are named.
#[cfg(not(fuzzing))]
fn main() {
    switchboard_fuzz::replay(switchboard_fuzz::conn, std::env::args_os().skip(1));
}
