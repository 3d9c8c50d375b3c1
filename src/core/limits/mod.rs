//! What one server may hold, and who decides it.

mod admission;

pub(crate) use self::admission::{Admission, Permit};
pub(crate) use crate::words::bucket::Bucket;
