//! Listening sockets, and the options that the connections accepted from them have.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::backend;
use crate::words::config::Limits;

/// How a listening socket is made.
#[derive(Clone, Debug)]
pub(crate) struct ListenOptions {
    /// How many connections may wait to be accepted; the system may allow fewer (somaxconn).
    pub(crate) backlog: u32,
    /// Whether other sockets may listen on the same port (`Unsupported` where there is no such
    /// thing). Only where [`REUSE_PORT_BALANCES`](super::REUSE_PORT_BALANCES) do they share fairly.
    pub(crate) reuse_port: bool,
    /// Whether an IPv6 listener leaves IPv4 alone; if not, IPv4 peers appear as `::ffff:a.b.c.d`.
    pub(crate) only_v6: bool,
    /// What every accepted connection gets.
    pub(crate) accepted: StreamOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        let accepted = StreamOptions::default();
        ListenOptions { backlog: 4096, reuse_port: false, only_v6: true, accepted }
    }
}

/// The options of a connected socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamOptions {
    /// Whether small writes leave at once (TCP_NODELAY).
    pub(crate) nodelay: bool,
    /// When the system asks a silent peer whether it is still there; `None`: never.
    pub(crate) keepalive: Option<Keepalive>,
    /// How long written bytes may stay unacknowledged (TCP_USER_TIMEOUT; nothing but Linux has it,
    /// elsewhere it is ignored).
    pub(crate) user_timeout: Option<Duration>,
    /// The size of the kernel's receive buffer (SO_RCVBUF); `None` leaves it to the system.
    pub(crate) recv_buffer_bytes: Option<usize>,
    /// The size of the kernel's send buffer (SO_SNDBUF); `None` leaves it to the system.
    pub(crate) send_buffer_bytes: Option<usize>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout: Some(Duration::from_secs(30)),
            recv_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

impl StreamOptions {
    /// The defaults, save what a server has set: after how much silence the system asks a peer, how
    /// much it holds of its bytes, and that it does not itself give up one that takes nothing for
    /// less time than a write stall may last.
    pub(crate) fn of_server(limits: &Limits) -> Self {
        let write_stall = limits.timeouts.write_stall;
        let keepalive = limits.host_check.map(|idle| Keepalive { idle, ..Keepalive::default() });
        let options = StreamOptions::default();
        let longer = |stall: Duration| options.user_timeout.map(|least| least.max(stall * 3 / 2));
        StreamOptions {
            keepalive,
            user_timeout: write_stall.and_then(longer),
            recv_buffer_bytes: limits.recv_buffer_bytes,
            send_buffer_bytes: limits.send_buffer_bytes,
            ..options
        }
    }

    /// Sets the options on `socket`, or on a listener that hands them down.
    ///
    /// # Errors
    /// What the system says to the first one that it refuses.
    pub(crate) fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(keepalive) = self.keepalive {
            backend::set_keepalive(socket, &keepalive)?;
        }
        if let Some(timeout) = self.user_timeout {
            backend::set_user_timeout(socket, timeout)?;
        }
        if let Some(bytes) = self.recv_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }
}

/// When a silent peer is asked whether it is still there (to the second).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    /// Silence before the first question.
    pub(crate) idle: Duration,
    /// Time between questions.
    pub(crate) interval: Duration,
    /// How many unanswered questions end the connection.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows before 10 1703 refuses to take it"))]
    pub(crate) count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3 }
    }
}

/// A listening socket that knows what its accepted connections are to be like.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) socket: TcpListener,
    accepted: StreamOptions,
}

impl Listener {
    /// Opens a socket and listens on `addr`.
    ///
    /// # Errors
    /// What the system says, and `Unsupported` for `reuse_port` where there is no such option.
    pub(crate) fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(options.only_v6)?;
        }
        backend::set_reuse_address(&socket)?;
        if options.reuse_port {
            backend::set_reuse_port(&socket)?;
        }
        // Before listen(): the window scale of a connection is settled by its SYN, from SO_RCVBUF.
        options.accepted.apply(&socket)?;
        socket.bind(&addr.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Self::from_std(socket.into(), &options.accepted)
    }

    /// Takes over a socket that listens already, as another process may hand it down.
    ///
    /// # Errors
    /// What the system says to making it non-blocking.
    pub(crate) fn from_std(
        socket: std::net::TcpListener,
        accepted: &StreamOptions,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Listener { socket: TcpListener::from_std(socket), accepted: *accepted })
    }

    #[cfg(test)]
    fn into_std(self) -> std::net::TcpListener {
        self.socket.into()
    }

    /// The address it listens on: with the port that the system chose for port 0.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes one waiting connection, with its options set.
    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = loop {
            match self.socket.accept() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.tune(&SockRef::from(&stream));
        Ok((stream, peer))
    }

    /// Sets what the system does not hand down from the listener; nothing on Linux.
    ///
    /// Errors are dropped: a peer that has reset meanwhile makes this fail (macOS says EINVAL) and
    /// its end will be found by the first read; and a sound connection that lacks an option serves.
    fn tune(&self, stream: &Socket) {
        if backend::ACCEPTED_INHERIT {
            return;
        }
        drop(self.accepted.apply(stream).and_then(|()| backend::set_no_sigpipe(stream)));
    }
}

/// Sets the options of a connection that we have opened ourselves: the defaults. Errors are dropped
/// for the reasons that `Listener::tune` has.
pub(super) fn tune_connected(stream: &Socket) {
    let tuned = StreamOptions::default().apply(stream);
    drop(tuned.and_then(|()| backend::set_no_sigpipe(stream)));
}

/// How many connections wait to be accepted, and how many may.
///
/// # Errors
/// `Unsupported` where the system does not tell.
pub(crate) fn tcp_queue(listener: &Listener) -> io::Result<(u32, u32)> {
    backend::tcp_queue(&SockRef::from(&listener.socket))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;
    use crate::sys::{AcceptFault, classify_accept};
    #[cfg(target_os = "linux")]
    use crate::words::clock::Clock;

    #[cfg(target_os = "linux")]
    const PATIENCE: Duration = Duration::from_secs(10);

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// How many connections `listener` had in its queue.
    fn accept_all(listener: &Listener) -> usize {
        let mut count = 0;
        loop {
            match listener.accept() {
                Ok(_) => count += 1,
                Err(error) => {
                    assert_eq!(classify_accept(&error), AcceptFault::Again, "{error}");
                    return count;
                }
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn listeners_on_one_port_share_its_connections() {
        const { assert!(crate::sys::REUSE_PORT_BALANCES) };
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = Listener::listen(loopback(), &options).unwrap();
        let addr = first.local_addr().unwrap();
        let second = Listener::listen(addr, &options).unwrap();
        // Over loopback a connection is in its queue when connect() returns. That one of two
        // listeners gets none of 64 has a chance of 2^-63.
        let clients: Vec<_> = (0..64).map(|_| Client::connect(addr).unwrap()).collect();
        let counts = (accept_all(&first), accept_all(&second));
        assert!(counts.0 > 0 && counts.1 > 0, "{counts:?}");
        assert_eq!(counts.0 + counts.1, clients.len());
    }

    #[test]
    fn the_system_is_no_less_patient_than_the_settings() {
        let patience = |stall| {
            let mut limits = Limits::for_descriptors(None);
            limits.timeouts.write_stall = stall;
            StreamOptions::of_server(&limits).user_timeout
        };
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!((patience(seconds(10)), patience(seconds(100))), (seconds(30), seconds(150)));
        assert_eq!(patience(None), None);
    }

    #[test]
    fn a_port_is_not_shared_unasked() {
        let options = ListenOptions::default();
        let first = Listener::listen(loopback(), &options).unwrap();
        let error = Listener::listen(first.local_addr().unwrap(), &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[cfg(windows)]
    #[test]
    fn sharing_a_port_is_unsupported() {
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let error = Listener::listen(loopback(), &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        const { assert!(!crate::sys::REUSE_PORT_BALANCES) };
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_queue_is_counted() {
        let options = ListenOptions { backlog: 100, ..ListenOptions::default() };
        let listener = Listener::listen(loopback(), &options).unwrap();
        if std::env::var_os("SWITCHBOARD_UNDER_QEMU").is_some() {
            let error = tcp_queue(&listener).unwrap_err();
            return assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        assert_eq!(tcp_queue(&listener).unwrap(), (0, 100));
        let addr = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| Client::connect(addr).unwrap()).collect();
        // A client is connected a moment before it stands in the queue.
        let clock = Clock::start();
        let until = clock.now() + PATIENCE;
        while tcp_queue(&listener).unwrap() != (3, 100) {
            assert!(clock.now() < until, "{:?}", tcp_queue(&listener));
            std::thread::yield_now();
        }
        assert_eq!(accept_all(&listener), 3);
        assert_eq!(tcp_queue(&listener).unwrap(), (0, 100));
    }

    #[cfg(not(target_os = "linux"))]
    #[test]
    fn the_queue_is_not_told() {
        let listener = Listener::listen(loopback(), &ListenOptions::default()).unwrap();
        let error = tcp_queue(&listener).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ipv6_alone_or_with_ipv4() {
        let any: SocketAddr = "[::]:0".parse().unwrap();
        let alone = match Listener::listen(any, &ListenOptions::default()) {
            Ok(listener) => listener,
            // A machine may have no IPv6 at all.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return,
            Err(error) => panic!("{error}"),
        };
        let addr = |listener: &Listener| {
            SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()))
        };
        assert!(Client::connect(addr(&alone)).is_err());
        let options = ListenOptions { only_v6: false, ..ListenOptions::default() };
        let both = Listener::listen(any, &options).unwrap();
        let client = Client::connect(addr(&both)).unwrap();
        let (_, peer) = both.accept().unwrap();
        assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
        assert!(peer.is_ipv6());
    }

    #[test]
    fn a_listener_can_be_handed_on() {
        let first = Listener::listen(loopback(), &ListenOptions::default()).unwrap();
        let addr = first.local_addr().unwrap();
        let _client = Client::connect(addr).unwrap();
        let second = Listener::from_std(first.into_std(), &StreamOptions::default()).unwrap();
        assert_eq!(second.local_addr().unwrap(), addr);
        assert_eq!(accept_all(&second), 1);
    }
}
