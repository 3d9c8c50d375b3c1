//! The floor: hand-written mio loops that write each message to each connection, one call each.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;
use mio::net::{TcpListener as MioListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::{GREETING, obey};
use crate::peer::BACKLOG;

/// Serves until the asker leaves.
///
/// # Errors
/// When the server cannot start.
pub fn serve(threads: usize, control: &TcpListener) -> Result<(), Box<dyn Error>> {
    let mut addr = None;
    let mut loops = Vec::new();
    for _ in 0..threads {
        let listener = listen(addr)?;
        addr = Some(listener.local_addr()?);
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, messages) = channel();
        thread::spawn(move || Loop { poll, listener, conns: Vec::new(), messages }.run());
        loops.push((sender, waker));
    }
    let addr = addr.ok_or("at least one thread")?;
    println!("listening on {addr},{}", control.local_addr()?);
    obey(control, |message| {
        for (sender, waker) in &loops {
            let sender: &Sender<Bytes> = sender;
            // A loop that has ended shows as messages that do not come.
            drop((sender.send(message.clone()), waker.wake()));
        }
    })?;
    Ok(())
}

/// All loops listen on the port that the first one was given.
fn listen(addr: Option<std::net::SocketAddr>) -> io::Result<MioListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&addr.unwrap_or(any).into())?;
    socket.listen(BACKLOG)?;
    Ok(MioListener::from_std(socket.into()))
}

struct Loop {
    poll: Poll,
    listener: MioListener,
    conns: Vec<TcpStream>,
    messages: Receiver<Bytes>,
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        self.poll.registry().register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => self.pass_on()?,
                    // Subscribers say nothing; one that leaves is noticed at the next write.
                    _ => {}
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let token = Token(self.conns.len());
                    self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    stream.write_all(GREETING)?;
                    self.conns.push(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The window of the one who asks is far below what a socket takes: none is ever full.
    fn pass_on(&mut self) -> io::Result<()> {
        while let Ok(message) = self.messages.try_recv() {
            for stream in &mut self.conns {
                if stream.write(&message)? != message.len() {
                    return Err(io::Error::other("a socket is full"));
                }
            }
        }
        Ok(())
    }
}

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
