//! Room 4, platform: every system call beyond mio's and every `unsafe` of the crate.
//!
//! [`Kernel`] is what the engine asks of the system; [`MioKernel`] is its only real implementation.
//! Below it stands one written list of items that each platform supplies. What a platform lacks
//! answers `ErrorKind::Unsupported`. No decision is taken here.

mod kernel;

pub(crate) use kernel::{Event, Kernel};
