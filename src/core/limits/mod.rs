//! What one server may hold, and who decides it.

mod admission;
mod alarm;
mod clients;
mod gauge;
mod memory;
mod waiters;

#[cfg(any(test, feature = "sim"))]
pub(crate) use self::admission::Held;
pub(crate) use self::admission::{Admission, Full, Permit, Tokens, Via};
pub use self::alarm::{Alarm, AlarmKind};
pub(crate) use self::alarm::{Alarms, Told};
pub(crate) use self::clients::{Clients, Prefixes};
pub use self::memory::Shortage;
pub(crate) use self::memory::{Grade, Meter, crowding};
pub(crate) use self::waiters::Waiters;
pub(crate) use crate::words::bucket::Bucket;
