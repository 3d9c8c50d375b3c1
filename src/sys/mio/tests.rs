//! The real kernel over loopback: what it tells, what it reads and writes, how streams end.

use std::io::{Read, Write};
use std::net::TcpStream as Client;
use std::thread;

use super::*;
use crate::sys::{ListenOptions, StreamOptions};

/// A kernel, a listener it watches under [`LISTENER`], and what it has told so far.
struct Bench {
    kernel: MioKernel,
    listener: Listener,
    events: Vec<Event>,
}

const LISTENER: usize = 7;
const STREAM: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

impl Bench {
    fn new() -> Self {
        Self::with(&ListenOptions::default())
    }

    fn with(options: &ListenOptions) -> Self {
        let mut kernel = MioKernel::new(Clock::start(), 16).unwrap();
        let addr = "127.0.0.1:0".parse().unwrap();
        let mut listener = Listener::listen(addr, options).unwrap();
        kernel.watch_listener(&mut listener, LISTENER).unwrap();
        Bench { kernel, listener, events: Vec::new() }
    }

    /// A client and its accepted stream, watched under [`STREAM`].
    fn pair(&mut self) -> (Client, TcpStream) {
        let client = Client::connect(self.listener.local_addr().unwrap()).unwrap();
        let (mut stream, peer) = self.accept();
        assert_eq!(peer, client.local_addr().unwrap());
        self.kernel.watch(&mut stream, STREAM).unwrap();
        (client, stream)
    }

    fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.kernel.accept(&mut self.listener) {
                Ok(accepted) => return accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            self.until(|event| event.token == LISTENER && event.readable);
        }
    }

    /// Polls until an event has come that is `wanted`, and takes it.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = self.kernel.now() + PATIENCE;
        loop {
            if let Some(found) = self.events.iter().position(&wanted) {
                return self.events.remove(found);
            }
            let left = deadline.since(self.kernel.now());
            assert!(!left.is_zero(), "no such event among {:?}", self.events);
            self.kernel.poll(Some(left), &mut self.events).unwrap();
        }
    }

    /// Reads until `count` bytes are there, as an engine does: until `WouldBlock`, then polls.
    fn read_all(&mut self, stream: &mut TcpStream, count: usize) -> BytesMut {
        let mut all = BytesMut::new();
        while all.len() < count {
            all.reserve(1024);
            match self.kernel.read(stream, &mut all) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                    self.until(|event| event.token == STREAM && event.readable);
                }
            }
        }
        all
    }

    /// The first answer of `read` that is not `WouldBlock`.
    fn read(&mut self, stream: &mut TcpStream, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.kernel.read(stream, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.until(|event| event.token == STREAM && event.readable);
                }
                done => return done,
            }
        }
    }
}

#[test]
fn a_read_appends_and_takes_no_more_than_there_is_room_for() {
    let mut bench = Bench::new();
    let (mut client, mut stream) = bench.pair();
    client.write_all(b"abcdef").unwrap();
    let mut buffer = BytesMut::with_capacity(4);
    buffer.extend_from_slice(b"<");
    let room = buffer.capacity() - 1;
    let count = bench.read(&mut stream, &mut buffer).unwrap();
    assert!((1..=room).contains(&count));
    assert_eq!(&buffer[..], &b"<abcdef"[..=count]);
    buffer.reserve(16);
    while buffer.len() < 7 {
        bench.read(&mut stream, &mut buffer).unwrap();
    }
    assert_eq!(&buffer[..], b"<abcdef");
    let empty = bench.kernel.read(&mut stream, &mut buffer).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(&buffer[..], b"<abcdef");
}

#[test]
fn fresh_input_raises_an_event_after_would_block_and_where_promised_after_a_short_read() {
    let mut bench = Bench::new();
    let (mut client, mut stream) = bench.pair();
    for round in 0..3 {
        client.write_all(b"ping").unwrap();
        let event = bench.until(|event| event.token == STREAM && event.readable);
        assert!(!event.drain, "round {round}: plain input, {event:?}");
        let mut buffer = BytesMut::with_capacity(64);
        assert_eq!(bench.kernel.read(&mut stream, &mut buffer).unwrap(), 4);
        if !MioKernel::SHORT_READ_DRAINS {
            let empty = bench.kernel.read(&mut stream, &mut buffer).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn urgent_input_is_no_reason_to_stop_at_a_short_read() {
    let mut bench = Bench::new();
    let (client, mut stream) = bench.pair();
    let socket = SockRef::from(&client);
    socket.set_tcp_nodelay(true).unwrap();
    socket.send(b"abc").unwrap();
    socket.send_out_of_band(b"!").unwrap();
    socket.send(b"def").unwrap();
    if MioKernel::SHORT_READ_DRAINS {
        bench.until(|event| event.token == STREAM && event.readable && event.drain);
    }
    assert_eq!(&bench.read_all(&mut stream, 6)[..], b"abcdef");
}

#[test]
fn the_end_of_input_is_an_event_and_then_zero() {
    let mut bench = Bench::new();
    let (mut client, mut stream) = bench.pair();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(&bench.read_all(&mut stream, usize::MAX)[..], b"last words");
    let mut buffer = BytesMut::with_capacity(1);
    assert_eq!(bench.kernel.read(&mut stream, &mut buffer).unwrap(), 0);

    // The other half still works, and ends by our FIN.
    let parts = [IoSlice::new(b"an"), IoSlice::new(b""), IoSlice::new(b"swer")];
    assert_eq!(bench.kernel.write(&mut stream, &parts).unwrap(), 6);
    bench.kernel.shutdown_write(&mut stream).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    bench.kernel.close(stream);
}

#[cfg(unix)]
#[test]
fn a_fin_tells_that_short_reads_prove_nothing() {
    let mut bench = Bench::new();
    let (client, stream) = bench.pair();
    client.shutdown(Shutdown::Write).unwrap();
    let event = bench.until(|event| event.token == STREAM);
    assert!(event.readable && event.drain, "{event:?}");
    bench.kernel.close(stream);
}

#[test]
fn writes_stop_at_would_block_and_go_on_when_there_is_room() {
    let mut bench = Bench::new();
    let (mut client, mut stream) = bench.pair();
    let chunk = vec![b'x'; 1 << 16];
    let parts = [IoSlice::new(&chunk[..1000]), IoSlice::new(&chunk[1000..])];

    // Nobody reads yet, so this ends for certain; no system buffers as much as a GiB.
    let mut sent = 0;
    let full = loop {
        match bench.kernel.write(&mut stream, &parts) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 1 << 30);
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "{full}");
    bench.kernel.rewatch(&mut stream, STREAM, true).unwrap();

    let reader = thread::spawn(move || io::copy(&mut client, &mut io::sink()).unwrap());
    let total = sent + (8 << 20);
    while sent < total {
        match bench.kernel.write(&mut stream, &parts) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                bench.until(|event| event.token == STREAM && event.writable);
            }
        }
    }
    bench.kernel.rewatch(&mut stream, STREAM, false).unwrap();
    bench.kernel.close(stream);
    let seen = usize::try_from(reader.join().unwrap()).unwrap();
    assert_eq!(seen, sent, "close() loses nothing that was written");
}

#[test]
fn more_parts_than_one_call_takes_are_a_short_write() {
    let mut bench = Bench::new();
    let (mut client, mut stream) = bench.pair();
    let parts = vec![IoSlice::new(b"y"); 5000];
    let count = bench.kernel.write(&mut stream, &parts).unwrap();
    assert_eq!(count, PARTS_MAX);
    bench.kernel.close(stream);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), PARTS_MAX);
}

/// Whether a read says that the peer has reset the connection. Wine shuts a socket down before it
/// closes it, so that the end of input comes first there, and the reset after it.
fn tells_of_reset(read: io::Result<usize>) -> bool {
    match read {
        Ok(count) => cfg!(windows) && count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_reset_reaches_the_peer_as_an_error() {
    let mut bench = Bench::new();
    let (mut client, stream) = bench.pair();
    bench.kernel.reset(stream);
    assert!(tells_of_reset(client.read(&mut [0])));
}

#[test]
fn a_reset_by_the_peer_is_an_event_and_an_error_and_no_signal() {
    let mut bench = Bench::new();
    let (client, mut stream) = bench.pair();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let mut buffer = BytesMut::with_capacity(16);
    assert!(tells_of_reset(bench.read(&mut stream, &mut buffer)));
    // Whatever the selector has forgotten by now, these neither panic nor raise SIGPIPE.
    let deadline = bench.kernel.now() + PATIENCE;
    let error = loop {
        match bench.kernel.write(&mut stream, &[IoSlice::new(b"z")]) {
            Ok(_) => assert!(cfg!(windows) && bench.kernel.now() < deadline, "not yet reset"),
            Err(error) => break error,
        }
        bench.kernel.poll(Some(Duration::from_millis(1)), &mut bench.events).unwrap();
    };
    let broken = [
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
    ];
    assert!(broken.contains(&error.kind()), "{error:?}");
    bench.kernel.rewatch(&mut stream, STREAM, true).unwrap();
    bench.kernel.close(stream);
}

#[test]
fn a_stream_that_the_selector_forgot_is_gone_and_not_waited_for() {
    let not_found = gone_if_forgotten(io::ErrorKind::NotFound.into());
    assert_eq!(not_found.kind(), io::ErrorKind::ConnectionReset);
    let would_block = gone_if_forgotten(io::ErrorKind::WouldBlock.into());
    assert_eq!(would_block.kind(), io::ErrorKind::WouldBlock);
    assert!(if_still_watched(Err(io::ErrorKind::NotFound.into())).is_ok());
    assert!(if_still_watched(Err(io::ErrorKind::InvalidInput.into())).is_err());
}

#[test]
fn closed_numbers_can_be_watched_again() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        let (client, stream) = bench.pair();
        drop(client);
        bench.until(|event| event.token == STREAM && event.readable);
        bench.kernel.close(stream);
        bench.events.clear();
    }
}

#[test]
fn a_wake_up_ends_a_poll_and_is_sticky_and_unseen() {
    let mut bench = Bench::new();
    let waker = bench.kernel.waker();
    waker.wake();
    waker.wake();
    bench.kernel.poll(None, &mut bench.events).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| waker.wake());
        bench.kernel.poll(None, &mut bench.events).unwrap();
    });
    assert_eq!(bench.events, []);
    drop(bench);
    waker.wake();
}

#[test]
fn a_poll_lasts_no_longer_than_it_may() {
    let mut bench = Bench::new();
    let before = bench.kernel.now();
    let wait = Duration::from_millis(20);
    // It may return early for nothing, so only coming back at all can be asked of one call.
    while bench.kernel.now().since(before) < wait {
        bench.kernel.poll(Some(Duration::from_millis(5)), &mut bench.events).unwrap();
    }
    assert_eq!(bench.events, []);
}

#[test]
fn a_listener_is_deaf_while_it_is_not_watched() {
    let mut bench = Bench::new();
    let addr = bench.listener.local_addr().unwrap();
    bench.kernel.unwatch_listener(&mut bench.listener).unwrap();
    let _client = Client::connect(addr).unwrap();
    bench.kernel.poll(Some(Duration::ZERO), &mut bench.events).unwrap();
    assert_eq!(bench.events, []);
    bench.kernel.watch_listener(&mut bench.listener, LISTENER).unwrap();
    bench.until(|event| event.token == LISTENER && event.readable);
    bench.kernel.accept(&mut bench.listener).unwrap();
}

#[test]
fn accepted_streams_have_the_options() {
    let keepalive = crate::sys::listen::Keepalive {
        idle: Duration::from_secs(61),
        interval: Duration::from_secs(11),
        count: 4,
    };
    let accepted = StreamOptions {
        nodelay: true,
        keepalive: Some(keepalive),
        user_timeout: Some(Duration::from_secs(31)),
        recv_buffer_bytes: Some(20_000),
        send_buffer_bytes: Some(30_000),
    };
    let mut bench = Bench::with(&ListenOptions { accepted, ..ListenOptions::default() });
    let (_client, stream) = bench.pair();
    let socket = SockRef::from(&stream);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert!((20_000..=80_000).contains(&socket.recv_buffer_size().unwrap()));
    assert!((30_000..=120_000).contains(&socket.send_buffer_size().unwrap()));
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.count);
        assert_eq!(socket.tcp_user_timeout().unwrap(), accepted.user_timeout);
    }
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: a question about an open descriptor.
        let flags = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert!(socket.nonblocking().unwrap());
    }

    let off = StreamOptions { nodelay: false, keepalive: None, ..accepted };
    let mut bench = Bench::with(&ListenOptions { accepted: off, ..ListenOptions::default() });
    let (_client, stream) = bench.pair();
    let socket = SockRef::from(&stream);
    assert!(!socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
}

/// A socket that does not block, with a port of its own.
fn unconnected() -> (socket2::Socket, socket2::SockAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[test]
fn what_is_not_connected_yet_is_no_error() {
    let mut bench = Bench::new();
    let (socket, _) = unconnected();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into());
    assert!(!bench.kernel.connected(&mut stream).unwrap());
}

/// Only there does the system connect a socket to its own port.
#[cfg(target_os = "linux")]
#[test]
fn who_is_connected_to_itself_has_found_nobody() {
    let mut bench = Bench::new();
    let (socket, addr) = unconnected();
    socket.connect(&addr).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into());
    let error = bench.kernel.connected(&mut stream).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
