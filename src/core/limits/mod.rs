//! What one server may hold, and who decides it.

mod admission;
mod memory;
mod rate;

pub(crate) use self::admission::{Admission, Permit};
pub(crate) use self::memory::{Grade, Meter, crowding};
pub(crate) use self::rate::Bucket;
