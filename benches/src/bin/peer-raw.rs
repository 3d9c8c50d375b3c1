//! The reference "raw": a hand-written epoll echo server, one edge-triggered loop per thread, each
//! with its own listener (`SO_REUSEPORT`) and one read buffer. An idle connection costs it a slot.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use switchboard_bench::peer::{self, BACKLOG, Options};
use switchboard_bench::sys::{self, Epoll, Event};
use switchboard_bench::work::Work;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(lexopt::Parser::from_env())?;
    sys::raise_file_limit()?;
    // The first listener may choose the port; the others share it.
    let first = listen(options.addr)?;
    let addr = first.local_addr()?.as_socket().ok_or("not an internet address")?;
    let mut listeners = vec![first];
    for _ in 1..options.threads {
        listeners.push(listen(addr)?);
    }
    let mut loops = Vec::new();
    for listener in listeners {
        let bytes = options.buffer_bytes.unwrap_or(BUFFER_BYTES);
        let mut echo = Echo::new(listener, options.work, bytes)?;
        loops.push(thread::spawn(move || echo.run()));
    }
    peer::announce(addr)?;
    for thread in loops {
        thread.join().map_err(|_| "a loop panicked")??;
    }
    Ok(())
}

fn listen(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// One loop. The token of a connection is its descriptor: an event for it cannot be stale, since
/// each appears once per wait and is closed only while its own event is treated.
#[derive(Debug)]
struct Echo {
    epoll: Epoll,
    listener: Socket,
    conns: Vec<Option<Conn>>,
    buffer: Vec<u8>,
    work: Work,
}

#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    /// What the socket did not take; while there is any, nothing is read.
    unsent: Option<Box<Unsent>>,
}

#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

/// What is to become of a connection after its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Closes,
}

impl Echo {
    fn new(listener: Socket, work: Work, buffer_bytes: usize) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&listener, LISTENER, sys::READ_EDGE)?;
        Ok(Self { epoll, listener, conns: Vec::new(), buffer: vec![0; buffer_bytes], work })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![sys::no_event(); EVENTS_MAX];
        loop {
            let count = self.epoll.wait(&mut events)?;
            for &event in &events[..count] {
                let Event { events: flags, u64: token } = event;
                if token == LISTENER {
                    self.accept_all();
                } else if let Ok(index) = usize::try_from(token) {
                    self.handle(index, flags);
                }
            }
        }
    }

    fn accept_all(&mut self) {
        loop {
            match sys::accept(&self.listener) {
                // A connection that cannot be set up is dropped, and with it closed.
                Ok(socket) => drop(self.adopt(socket)),
                Err(error) => match error.raw_os_error() {
                    // This one is gone; the next may be well.
                    Some(libc::ECONNABORTED | libc::EPROTO | libc::EINTR) => {}
                    // Empty, or out of descriptors or memory: the next arrival tries again.
                    _ => return,
                },
            }
        }
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<()> {
        sys::set_nodelay(&socket)?;
        let index = usize::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
        self.epoll.add(&socket, index as u64, READ)?;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Some(Conn { socket, unsent: None });
        Ok(())
    }

    fn handle(&mut self, index: usize, flags: u32) {
        let Some(conn) = self.conns[index].as_mut() else {
            return;
        };
        let result = if conn.unsent.is_some() {
            resume(&self.epoll, conn, index, flags, &mut self.buffer, &self.work)
        } else {
            echo(&self.epoll, conn, index, flags, &mut self.buffer, &self.work)
        };
        // Closing the last descriptor takes it out of the epoll set; no call is needed for that.
        if !matches!(result, Ok(Fate::Stays)) {
            self.conns[index] = None;
        }
    }
}

/// Reads and writes back until the socket is empty, full, or has had its share.
fn echo(
    epoll: &Epoll,
    conn: &mut Conn,
    index: usize,
    flags: u32,
    buffer: &mut [u8],
    work: &Work,
) -> io::Result<Fate> {
    for _ in 0..READS_MAX {
        let count = match sys::receive(&conn.socket, buffer) {
            Ok(0) => return Ok(Fate::Closes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fate::Stays),
            Err(error) => return Err(error),
        };
        let chunk = &buffer[..count];
        work.perform(chunk);
        let sent = send_some(&conn.socket, chunk)?;
        if sent < count {
            conn.unsent = Some(Box::new(Unsent { bytes: chunk[sent..].to_vec(), sent: 0 }));
            epoll.modify(&conn.socket, index as u64, READ | sys::WRITE)?;
            return Ok(Fate::Stays);
        }
        // epoll(7): a short read means that the input is exhausted; the next arrival is an edge.
        // It does not where a FIN or the urgent mark stands behind the bytes.
        if count < buffer.len() && flags & sys::ENDING == 0 {
            return Ok(Fate::Stays);
        }
    }
    // One fast client must not starve the rest: modifying re-arms the edge for what is left.
    epoll.modify(&conn.socket, index as u64, READ)?;
    Ok(Fate::Stays)
}

/// Sends what was left over; when all is gone, goes on reading.
fn resume(
    epoll: &Epoll,
    conn: &mut Conn,
    index: usize,
    flags: u32,
    buffer: &mut [u8],
    work: &Work,
) -> io::Result<Fate> {
    if let Some(unsent) = conn.unsent.as_mut() {
        unsent.sent += send_some(&conn.socket, &unsent.bytes[unsent.sent..])?;
        if unsent.sent < unsent.bytes.len() {
            return Ok(Fate::Stays);
        }
    }
    conn.unsent = None;
    epoll.modify(&conn.socket, index as u64, READ)?;
    // Edges that came meanwhile were not acted on, among them perhaps a FIN: read to the end.
    echo(epoll, conn, index, flags | sys::ENDING, buffer, work)
}

/// Bytes the socket took; 0 when it is full.
fn send_some(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    match sys::send(socket.as_fd(), bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

const READ: u32 = sys::READ_EDGE | sys::URGENT;
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1_024;
const BUFFER_BYTES: usize = 64 * 1024;
/// Chunks of one connection per event: half a megabyte.
const READS_MAX: usize = 8;
