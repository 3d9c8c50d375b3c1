//! Clients: well-behaved ones, many at once, and ones that leave in bad ways.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::process::{PATIENCE, now, pass};

/// A client that waits no longer than patience lasts.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Several of them.
pub(crate) fn connect_many(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(addr).expect("the server listens")).collect()
}

/// A client that has room for few bytes, and takes them in small segments.
pub(crate) fn connect_small(addr: SocketAddr, recv_buffer_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(recv_buffer_bytes).expect("an option");
    socket.set_tcp_mss(536).expect("an option");
    socket.connect(&addr.into()).expect("the server listens");
    let stream = TcpStream::from(socket);
    prepare(&stream).expect("options");
    stream
}

/// Clients that all knock before any of them is answered.
pub(crate) fn connect_at_once(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let knocked = (0..count).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("an option");
        // In progress, as a rule; any other error shows in the first write.
        let _in_progress = socket.connect(&addr.into()).is_err();
        socket
    });
    let knocked: Vec<_> = knocked.collect();
    let streams = knocked.into_iter().map(|socket| {
        socket.set_nonblocking(false).expect("an option");
        let stream = TcpStream::from(socket);
        prepare(&stream).expect("options");
        stream
    });
    streams.collect()
}

/// Whether these bytes come back. Sends and reads at the same time if they are many.
pub(crate) fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    if bytes.len() <= 16 << 10 {
        return stream.write_all(bytes).is_ok() && answered(stream, bytes);
    }
    let mut writer = stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        let sent = scope.spawn(move || writer.write_all(bytes).is_ok());
        let answered = answered(stream, bytes);
        sent.join().expect("it does not panic") && answered
    })
}

/// Whether exactly these bytes are what comes next.
pub(crate) fn answered(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).is_ok() && answer == bytes
}

/// How many of the clients are served: all send first, then all are read.
pub(crate) fn served(clients: &mut [TcpStream]) -> usize {
    let tag = |index: usize| format!("client {index:06}").into_bytes();
    let asked = clients.iter_mut().enumerate().map(|(i, c)| c.write_all(&tag(i)).is_ok());
    let asked: Vec<_> = asked.collect();
    let clients = clients.iter_mut().enumerate().zip(asked);
    let answers = clients.map(|((index, client), asked)| asked && answered(client, &tag(index)));
    answers.filter(|&answer| answer).count()
}

/// Sends an order and waits for its answer.
pub(crate) fn order(addr: SocketAddr, word: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect(addr)?;
    stream.write_all(word.as_bytes())?;
    let mut answer = vec![0; 16 << 10];
    let count = stream.read(&mut answer)?;
    answer.truncate(count);
    Ok(answer)
}

/// Leaves with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream);
}

/// Says that it has no more to say.
pub(crate) fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("it is connected");
}

/// Everything until the end of the stream, or the error that ends it.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// Whether the peer ends the connection, in whatever way.
pub(crate) fn ends(stream: &mut TcpStream) -> bool {
    match read_to_end(stream) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Writes from all clients, reading nothing, until each has sent `max_bytes` or for a while none
/// of them can send any more. How much each has sent.
pub(crate) fn push(clients: &mut [TcpStream], max_bytes: usize) -> Vec<usize> {
    let chunk = vec![b'p'; 64 << 10];
    let mut sent = vec![0; clients.len()];
    clients.iter().for_each(|client| client.set_nonblocking(true).expect("an option"));
    let mut last_progress = now();
    while last_progress.elapsed() < Duration::from_millis(500) {
        let mut moved = false;
        for (client, sent) in clients.iter_mut().zip(&mut sent) {
            let room = (max_bytes - *sent).min(chunk.len());
            if room > 0 {
                if let Ok(count) = client.write(&chunk[..room]) {
                    *sent += count;
                    moved |= count > 0;
                }
            }
        }
        if moved {
            last_progress = now();
        } else if sent.iter().all(|&sent| sent == max_bytes) {
            break;
        } else {
            pass(Duration::from_millis(5));
        }
    }
    clients.iter().for_each(|client| client.set_nonblocking(false).expect("an option"));
    sent
}

/// Bytes that tell where they belong.
pub(crate) fn tagged(tag: usize, count: usize) -> Vec<u8> {
    let mix = |at: usize| at.wrapping_mul(31) ^ (at >> 8) ^ tag.wrapping_mul(131);
    (0..count).map(|at| mix(at).to_le_bytes()[0]).collect()
}
