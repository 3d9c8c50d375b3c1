//! What one server may hold, and who decides it.

mod admission;
mod rate;

pub(crate) use self::admission::{Admission, Permit};
pub(crate) use self::rate::Bucket;
