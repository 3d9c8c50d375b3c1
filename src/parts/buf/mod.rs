//! Bytes on their way: what waits to be written, and the buffers that are read into.

pub(crate) mod outbox;
pub(crate) mod pool;
