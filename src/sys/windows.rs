//! What Windows supplies; the calls that std lacks are declared by hand.

mod termination;

use std::io;
use std::time::Duration;

use mio::Interest;
use socket2::{Socket, TcpKeepalive};

pub(crate) use self::termination::Termination;
use super::accept::AcceptFault::{self, Again, Exhausted, Fatal, Next};
use super::listen::Keepalive;

/// The codes of accept(), by their values in winsock2.h. WSAECONNRESET: "an incoming connection was
/// indicated, but was subsequently terminated by the remote peer prior to accepting the call".
pub(super) const ACCEPT_FAULTS: &[(i32, AcceptFault)] = &[
    (10035, Again),     // WSAEWOULDBLOCK
    (10004, Next),      // WSAEINTR
    (10054, Next),      // WSAECONNRESET
    (10053, Next),      // WSAECONNABORTED
    (10050, Next),      // WSAENETDOWN
    (10051, Next),      // WSAENETUNREACH
    (10052, Next),      // WSAENETRESET
    (10060, Next),      // WSAETIMEDOUT
    (10064, Next),      // WSAEHOSTDOWN
    (10065, Next),      // WSAEHOSTUNREACH
    (10024, Exhausted), // WSAEMFILE
    (10055, Exhausted), // WSAENOBUFS
    (8, Exhausted),     // WSA_NOT_ENOUGH_MEMORY
    (10009, Fatal),     // WSAEBADF
    (10014, Fatal),     // WSAEFAULT
    (10022, Fatal),     // WSAEINVAL
    (10038, Fatal),     // WSAENOTSOCK
    (10045, Fatal),     // WSAEOPNOTSUPP: "is not a connection-oriented socket"
    (10093, Fatal),     // WSANOTINITIALISED
];

/// mio watches again only after `WouldBlock`.
pub(super) const SHORT_READ_DRAINS: bool = false;

pub(super) fn input_interest() -> Interest {
    Interest::READABLE
}

pub(super) const SEND_FLAGS: i32 = 0;

/// Documented to be so ("the newly created socket is the socket that will handle the actual
/// connection; it has the same properties as socket s"), but not for keep-alive's numbers.
pub(super) const ACCEPTED_INHERIT: bool = false;

/// Whether sockets that share a port share its connections too.
pub(crate) const REUSE_PORT_BALANCES: bool = false;

/// Not needed for TIME_WAIT here, and it would let others take the port over.
pub(super) fn set_reuse_address(_: &Socket) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_reuse_port(_: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn set_user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_keepalive(socket: &Socket, keepalive: &Keepalive) -> io::Result<()> {
    // The count is left to the system (10): before Windows 10 1703 setting it is an error.
    let params = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
    socket.set_tcp_keepalive(&params)
}

pub(super) fn set_no_sigpipe(_: &Socket) -> io::Result<()> {
    Ok(())
}

pub(super) fn tcp_queue(_: &Socket) -> io::Result<(u32, u32)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Handles are bounded by memory alone.
pub(crate) fn descriptor_limit() -> Option<u64> {
    None
}

/// Not asked for.
pub(crate) fn memory_total() -> Option<u64> {
    None
}

/// See [`descriptor_limit`].
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    None
}
