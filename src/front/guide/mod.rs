//! The guide: chapters in `docs/guide`, whose programs are compiled and run as tests.

pub mod backpressure;
pub mod blocking;
pub mod closing;
pub mod first_server;
pub mod framing;
pub mod limits;
pub mod outbound;
pub mod platforms;
pub mod porting;
pub mod promises;
pub mod pushing;
pub mod testing;
pub mod timeouts;

#[cfg(test)]
mod table;
