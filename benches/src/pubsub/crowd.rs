//! The subscribers, all on one thread, and the one who asks for messages.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use super::{GREETING, MESSAGE_BYTES};
use crate::clock::{self, SECOND};
use crate::dial::Dialer;
use crate::sys::{self, Epoll, READ_EDGE};

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Subscribers that listen.
    pub subscribers: usize,
    /// Subscribers beside them that read nothing.
    pub stalled: usize,
    /// Messages that are on their way at most, each to everybody.
    pub window: u64,
    /// Seconds before and during the count.
    pub warmup: f64,
    /// ... during it.
    pub seconds: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Messages that reached one subscriber each, per second.
    pub per_second: f64,
    /// How long was counted.
    pub seconds: f64,
    /// Messages that were published in all.
    pub published: u64,
}

/// Everybody who listens.
#[derive(Debug)]
pub struct Crowd {
    epoll: Epoll,
    sockets: Vec<OwnedFd>,
    /// Bytes that each got.
    got: Vec<u64>,
    sum: u64,
    asker: TcpStream,
    /// Kept open, never read.
    stalled: Vec<OwnedFd>,
    buffer: Vec<u8>,
}

impl Crowd {
    /// Connects everybody, and waits until all are greeted.
    ///
    /// # Errors
    /// What a socket reports.
    pub fn connect(load: &Load, subscribe: SocketAddr, control: SocketAddr) -> io::Result<Crowd> {
        let mut dialer = Dialer::new(subscribe, 8)?;
        let mut crowd = Crowd {
            epoll: Epoll::new()?,
            sockets: Vec::new(),
            got: vec![0; load.subscribers],
            sum: 0,
            asker: TcpStream::connect(control)?,
            stalled: Vec::new(),
            buffer: vec![0; 64 << 10],
        };
        crowd.asker.set_nodelay(true)?;
        for number in 0..load.subscribers {
            let socket = dialer.dial()?;
            crowd.epoll.add(&socket, number as u64, READ_EDGE)?;
            crowd.sockets.push(socket);
        }
        for _ in 0..load.stalled {
            crowd.stalled.push(dialer.dial()?);
        }
        let greetings = (load.subscribers * GREETING.len()) as u64;
        let deadline = clock::now() + 30 * SECOND;
        while crowd.sum < greetings {
            crowd.listen(deadline)?;
        }
        Ok(crowd)
    }

    /// Asks for messages and counts them. `watch` is called at the beginning of the count and at
    /// its end.
    ///
    /// # Errors
    /// What a socket reports; messages that do not come, or not to everybody.
    pub fn run(&mut self, load: &Load, mut watch: impl FnMut()) -> io::Result<Heard> {
        let each = (load.subscribers * MESSAGE_BYTES) as u64;
        let base = self.sum;
        let begin = clock::now() + clock::from_seconds(load.warmup);
        let end = begin + clock::from_seconds(load.seconds);
        let (mut asked, mut counted) = (0_u64, None);
        loop {
            let now = clock::now();
            if counted.is_none() && now >= begin {
                watch();
                counted = Some((clock::now(), self.sum));
            }
            if now >= end {
                break;
            }
            let room = load.window - (asked - (self.sum - base) / each).min(load.window);
            if room > 0 {
                self.asker.write_all(&vec![b'?'; usize::try_from(room).unwrap_or(1)])?;
                asked += room;
            }
            self.listen(end + 30 * SECOND)?;
        }
        let (since, before) = counted.ok_or_else(|| io::Error::other("no time to count"))?;
        let seconds = (clock::now() - since) as f64 / SECOND as f64;
        let heard = (self.sum - before) / MESSAGE_BYTES as u64;
        watch();
        // Nothing may be lost: what is still on its way comes to everybody.
        while self.sum - base < asked * each {
            self.listen(end + 30 * SECOND)?;
        }
        let all = GREETING.len() as u64 + asked * MESSAGE_BYTES as u64;
        if self.got.iter().any(|&got| got != all) {
            return Err(io::Error::other("some got more and some got less"));
        }
        Ok(Heard { per_second: heard as f64 / seconds, seconds, published: asked })
    }

    /// Takes what is there, or waits for something.
    fn listen(&mut self, deadline: u64) -> io::Result<()> {
        let mut events = [sys::no_event(); 512];
        let count = self.epoll.wait_for(&mut events, SECOND)?;
        if clock::now() > deadline {
            return Err(io::Error::other("messages do not come"));
        }
        for event in &events[..count] {
            let number = usize::try_from(event.u64).map_err(io::Error::other)?;
            match sys::receive(&self.sockets[number], &mut self.buffer) {
                Ok(0) => return Err(io::Error::other("a subscriber was left alone")),
                Ok(count) => {
                    self.got[number] += count as u64;
                    self.sum += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
