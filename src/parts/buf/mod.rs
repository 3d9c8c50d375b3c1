//! Bytes on their way: what waits to be written, and the buffers that are read into.

mod outbox;
mod pool;

pub use outbox::Outbox;
pub(crate) use pool::BufferPool;
