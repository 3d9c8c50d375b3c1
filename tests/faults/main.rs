//! Attacks a server that runs in a process of its own, from outside: exhausted descriptors, storms,
//! resets, peers that stall, stopped processes, and errors injected into its system calls.
//!
//! Everything is local and bounded; a server ends with the test that started it, even if the test
//! is killed, because it reads its standard input. What needs strace says so and is left out where
//! there is none.
#![cfg(target_os = "linux")]

// The tools.
#[cfg(test)]
mod child;
#[cfg(test)]
mod client;
#[cfg(test)]
mod process;
#[cfg(test)]
mod server;

// The attacks.
#[cfg(test)]
mod accepting;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod garbage;
#[cfg(test)]
mod handlers;
#[cfg(test)]
mod injected;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod outgoing;
#[cfg(test)]
mod pauses;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod silent;
#[cfg(test)]
mod stalled;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod table;
#[cfg(test)]
mod vanished;
