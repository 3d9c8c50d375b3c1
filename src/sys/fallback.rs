//! What a platform gets that we know nothing about: sockets, and `Unsupported` for the rest.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use mio::Interest;
use socket2::Socket;

use super::Awoken;
use super::accept::AcceptFault;
use super::listen::Keepalive;

/// No codes are known, so that every fault is one of the connection alone.
pub(super) const ACCEPT_FAULTS: &[(i32, AcceptFault)] = &[];

/// mio's weakest contract.
pub(super) const SHORT_READ_DRAINS: bool = false;

pub(super) fn input_interest() -> Interest {
    Interest::READABLE
}

pub(super) const SEND_FLAGS: i32 = 0;

pub(super) const ACCEPTED_INHERIT: bool = false;

/// Whether sockets that share a port share its connections too.
pub(crate) const REUSE_PORT_BALANCES: bool = false;

pub(super) fn set_reuse_address(_: &Socket) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_reuse_port(_: &Socket) -> io::Result<()> {
    unsupported()
}

/// A second line of defence only: its lack is no error.
pub(super) fn set_user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_keepalive(socket: &Socket, _: &Keepalive) -> io::Result<()> {
    socket.set_keepalive(true)
}

pub(super) fn set_no_sigpipe(_: &Socket) -> io::Result<()> {
    Ok(())
}

pub(super) fn tcp_queue(_: &Socket) -> io::Result<(u32, u32)> {
    unsupported()
}

/// Unknown.
pub(crate) fn descriptor_limit() -> Option<u64> {
    None
}

/// Unknown.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    None
}

/// Unknown.
pub(crate) fn memory_total() -> Option<u64> {
    None
}

/// Nothing here: it cannot be made.
#[derive(Debug)]
pub(crate) struct Termination(Infallible);

impl Termination {
    /// Says that there is no such thing here.
    ///
    /// # Errors
    /// Always `Unsupported`.
    pub(crate) fn install() -> io::Result<Self> {
        unsupported()
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub(crate) fn wait(&self) -> io::Result<Awoken> {
        match self.0 {}
    }

    /// Cannot be called.
    pub(crate) fn interrupter(&self) -> Interrupter {
        match self.0 {}
    }
}

/// Nothing here: it cannot be made.
#[derive(Clone, Debug)]
pub(crate) struct Interrupter(Infallible);

impl Interrupter {
    /// Cannot be called.
    pub(crate) fn interrupt(&self) {
        match self.0 {}
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    #[test]
    fn what_is_lacking_says_so() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let errors = [
            set_reuse_port(&socket).unwrap_err(),
            tcp_queue(&socket).unwrap_err(),
            Termination::install().unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::Unsupported));
        assert_eq!((descriptor_limit(), raise_descriptor_limit()), (None, None));
        assert_eq!(memory_total(), None);
        set_keepalive(&socket, &Keepalive::default()).unwrap();
        assert!(socket.keepalive().unwrap());
    }
}
