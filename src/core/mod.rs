//! Room 3, core: every decision about one connection, without sockets, threads or clocks.

pub(crate) mod codec;
pub(crate) mod conn;
pub(crate) mod context;
mod context_bytes;
mod framed;
pub(crate) mod dial;
pub(crate) mod group;
pub(crate) mod handle;
pub(crate) mod handler;
pub(crate) mod job;
pub(crate) mod keepalive;
pub(crate) mod lane;
pub(crate) mod limits;
pub(crate) mod marks;
pub(crate) mod offload;
pub(crate) mod overload;
pub(crate) mod session;
pub(crate) mod shaping;
pub(crate) mod timers;
mod visit;
