//! Opens connections to a loopback server from many source addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// Dials one server; each next connection comes from the next source address. One address has
/// some 28,000 ports, and a closed connection keeps its port for a minute (TIME_WAIT).
#[derive(Debug)]
pub struct Dialer {
    target: SocketAddr,
    source_count: u8,
    next: u8,
}

impl Dialer {
    /// A dialer that alternates between `source_count` addresses from 127.0.0.2 on.
    ///
    /// # Errors
    /// `InvalidInput` if the target is not an IPv4 loopback address: a load generator that can
    /// be pointed at a stranger is a weapon.
    pub fn new(target: SocketAddr, source_count: u8) -> io::Result<Self> {
        let loopback = matches!(target.ip(), std::net::IpAddr::V4(ip) if ip.is_loopback());
        if !loopback || source_count == 0 || source_count > SOURCES_MAX {
            let message = "only IPv4 loopback targets and 1 to 250 sources are allowed";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self { target, source_count, next: 0 })
    }

    /// Opens one connection.
    ///
    /// `connect` blocks: over loopback the handshake is done by the time it has gone once around
    /// the stack, which is one call where the non-blocking way takes three. A full accept queue
    /// is met with a deadline. All later calls on the socket are non-blocking.
    ///
    /// # Errors
    /// What the socket calls report; a queue that stays full is `WouldBlock` or `TimedOut`.
    pub fn dial(&mut self) -> io::Result<OwnedFd> {
        let source = Ipv4Addr::new(127, 0, 0, 2 + self.next);
        self.next = (self.next + 1) % self.source_count;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        sys::set_bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(source, 0)).into())?;
        socket.connect(&self.target.into())?;
        Ok(socket.into())
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const SOURCES_MAX: u8 = 250;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::Dialer;

    #[test]
    fn only_loopback_is_dialled() {
        for target in ["192.0.2.1:80", "0.0.0.0:80", "[::1]:80"] {
            let target: SocketAddr = target.parse().expect("an address");
            assert!(Dialer::new(target, 1).is_err(), "{target}");
        }
        assert!(Dialer::new("127.0.0.1:80".parse().expect("an address"), 0).is_err());
        assert!(Dialer::new("127.9.9.9:80".parse().expect("an address"), 250).is_ok());
    }

    #[test]
    fn sources_take_turns() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let target = listener.local_addr().expect("its address");
        let mut dialer = Dialer::new(target, 3).expect("a loopback target");
        let dialled: Vec<_> = (0..6).map(|_| dialer.dial().expect("a connection")).collect();
        let sources: HashSet<_> =
            dialled.iter().map(|_| listener.accept().expect("the other end").1.ip()).collect();
        assert_eq!(sources.len(), 3);
    }
}
