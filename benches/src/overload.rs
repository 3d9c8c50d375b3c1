//! More than a server can handle: 64 connections on an open schedule, handlers that use CPU, and
//! what becomes of the messages; with shedding, without it, and on tokio.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hdrhistogram::Histogram;
use switchboard::control::Report;
use switchboard::{Context, Handler, LengthPrefixed, Outcome, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::clock::{self, SECOND};
use crate::sys::{self, Epoll};
use crate::work::{BURN, Work};

/// Connections of every run.
pub const CONNECTIONS: usize = 64;
/// Messages under way per connection while the peak is measured.
const DEPTH: usize = 4;
/// When the message was due.
const REQUEST: u32 = 8;
/// What became of it, when it was due, how long it waited for its handler.
const REPLY: u32 = 1 + 8 + 8;
/// With their lengths before them.
const REQUEST_BYTES: usize = 4 + REQUEST as usize;
const REPLY_BYTES: usize = 4 + REPLY as usize;
/// How long after the end answers are still waited for.
const DRAIN: u64 = 2 * SECOND;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// This crate, one reactor; what waits longer than so is answered with "busy".
    Switchboard(Option<Duration>),
    /// A current-thread runtime, a task per connection.
    Tokio,
}

/// How messages are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Each connection keeps some messages under way: this finds the peak.
    Closed,
    /// So many messages a second leave on schedule.
    Open(f64),
}

/// What one run has seen; messages count from the end of the warm-up on.
#[derive(Debug)]
pub struct Seen {
    /// Messages whose handler did its work, per second.
    pub handled_per_s: f64,
    /// Messages that were answered with "busy", per second.
    pub shed_per_s: f64,
    /// Messages that nobody had answered 2 s after the end.
    pub unanswered: u64,
    /// From when a message was due until it was handled and the answer was back.
    pub handled: Histogram<u64>,
    /// The same until "busy" was back.
    pub shed: Histogram<u64>,
    /// How long the handled ones had waited, as the server says.
    pub queue_wait: Histogram<u64>,
    /// The fewest and the most messages handled for one connection.
    pub fairness: (u64, u64),
    /// The part of the server's CPU that its handlers used for what was handled, which does not
    /// depend on what else runs on the machine; 0 if it is not known.
    pub useful: f64,
}

/// Runs one load against one peer, in this process: `burn` of CPU per message, `seconds` that
/// count after half a second that does not.
///
/// # Errors
/// When a socket, a thread or a server cannot be had.
pub fn run(peer: Peer, load: Load, burn: Duration, seconds: f64) -> io::Result<Seen> {
    let work = Work { enabled: true, burn, ..Work::default() };
    match peer {
        Peer::Switchboard(wait_max) => {
            let cpu = Arc::<Cpu>::default();
            let server = serve(work, wait_max, Arc::clone(&cpu)).map_err(io::Error::other)?;
            let mut seen = Client::connect(server.local_addr())?.follow(load, seconds)?;
            let _report: Report = server.stop();
            seen.useful = cpu.useful(burn);
            Ok(seen)
        }
        Peer::Tokio => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let addr = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            let (stop, stopped) = oneshot::channel::<()>();
            let server = std::thread::spawn(move || serve_tokio(listener, work, stopped));
            let seen = Client::connect(addr)?.follow(load, seconds);
            drop(stop);
            server.join().map_err(|_| io::Error::other("the server panicked"))??;
            seen
        }
    }
}

fn reply(status: u8, due: u64, waited: Duration) -> BytesMut {
    let mut reply = BytesMut::with_capacity(REPLY_BYTES - 4);
    reply.put_u8(status);
    reply.put_u64(due);
    reply.put_u64(clock::nanoseconds(waited));
    reply
}

/// What CPU the thread of the handlers had used at the first and at the last call of one. Only that
/// thread writes, and it is read when the server has stopped: Relaxed.
#[derive(Debug, Default)]
struct Cpu {
    first: AtomicU64,
    last: AtomicU64,
    handled: AtomicU64,
}

impl Cpu {
    fn note(&self, handled: u64) {
        let now = sys::thread_cpu();
        self.last.store(now, Ordering::Relaxed);
        if self.first.load(Ordering::Relaxed) == 0 {
            self.first.store(now, Ordering::Relaxed);
        } else {
            self.handled.fetch_add(handled, Ordering::Relaxed);
        }
    }

    /// The part of it that went into handling.
    fn useful(&self, burn: Duration) -> f64 {
        let used = self.last.load(Ordering::Relaxed) - self.first.load(Ordering::Relaxed);
        let handled = self.handled.load(Ordering::Relaxed);
        handled as f64 * clock::nanoseconds(burn) as f64 / used as f64
    }
}

/// Burns, and sheds what has waited for too long.
struct Burner(Work, Arc<Cpu>);

impl Handler for Burner {
    fn on_frame(&mut self, cx: &mut Context<'_>, mut frame: BytesMut) -> Outcome {
        let waited = cx.queue_wait();
        self.0.perform(&[BURN]);
        self.1.note(1);
        Ok(cx.send(reply(1, frame.get_u64(), waited))?)
    }

    fn on_shed(&mut self, cx: &mut Context<'_>, mut frame: BytesMut) -> Outcome {
        self.1.note(0);
        Ok(cx.send(reply(0, frame.get_u64(), Duration::ZERO))?)
    }
}

fn serve(
    work: Work,
    wait_max: Option<Duration>,
    cpu: Arc<Cpu>,
) -> Result<Server, switchboard::Error> {
    Server::builder()
        .reactors(1)
        .workers(0)
        .limits(|limits| limits.queue_wait_max = wait_max)
        .listen("127.0.0.1:0", LengthPrefixed::u32(), move |_| Burner(work, Arc::clone(&cpu)))
        .start()
}

fn serve_tokio(
    listener: std::net::TcpListener,
    work: Work,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                if stream.set_nodelay(true).is_ok() {
                    tokio::spawn(echo(stream, work));
                }
            }
        };
        tokio::spawn(accept);
        // The other end is dropped when the run is over.
        let _over = stopped.await.is_err();
        Ok(())
    })
}

/// One connection of the tokio server; its end is nobody's concern.
async fn echo(mut stream: tokio::net::TcpStream, work: Work) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(64 << 10);
    let mut output = BytesMut::new();
    while stream.read_buf(&mut input).await? > 0 {
        while input.len() >= REQUEST_BYTES {
            let mut frame: Bytes = input.split_to(REQUEST_BYTES).freeze();
            frame.advance(4);
            work.perform(&[BURN]);
            let reply = reply(1, frame.get_u64(), Duration::ZERO);
            output.put_u32(REPLY);
            output.put(reply);
        }
        stream.write_all_buf(&mut output).await?;
    }
    Ok(())
}

/// One connection of the client.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    /// What the socket did not take yet.
    output: BytesMut,
    input: BytesMut,
    handled_count: u64,
}

impl Line {
    fn send(&mut self, due: u64) {
        self.output.put_u32(REQUEST);
        self.output.put_u64(due);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            match sys::send(&self.stream, &self.output) {
                Ok(count) => self.output.advance(count),
                // No room, or the end: what is not sent is not answered, which is counted.
                Err(_) => return,
            }
        }
    }
}

/// The client: all connections on one thread.
#[derive(Debug)]
struct Client {
    lines: Vec<Line>,
    epoll: Epoll,
    awaited: u64,
}

impl Client {
    fn connect(addr: SocketAddr) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut lines = Vec::with_capacity(CONNECTIONS);
        for token in 0..CONNECTIONS as u64 {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, token, sys::READ_EDGE | sys::WRITE)?;
            let (output, input) = (BytesMut::new(), BytesMut::with_capacity(64 << 10));
            lines.push(Line { stream, output, input, handled_count: 0 });
        }
        Ok(Client { lines, epoll, awaited: 0 })
    }

    fn follow(mut self, load: Load, seconds: f64) -> io::Result<Seen> {
        sys::sharpen_timers();
        let start = clock::now();
        let from = start + SECOND / 2;
        let until = from + clock::from_seconds(seconds);
        let mut seen = Seen::new();
        if load == Load::Closed {
            for line in &mut self.lines {
                (0..DEPTH).for_each(|_| line.send(start));
            }
        }
        let mut sent = 0_u64;
        let mut events = vec![sys::no_event(); CONNECTIONS];
        loop {
            let now = clock::now();
            let mut next = until;
            if let Load::Open(rate) = load {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "time")]
                let due = |sent: u64| start + (sent as f64 * 1e9 / rate) as u64;
                while due(sent) <= now && due(sent) < until {
                    self.lines[scattered(sent)].send(due(sent));
                    self.awaited += u64::from(due(sent) >= from);
                    sent += 1;
                }
                next = due(sent).min(until);
            }
            let over = now >= until;
            if now >= until + DRAIN || (over && (self.awaited == 0 || load == Load::Closed)) {
                break;
            }
            let wake_up = if over { until + DRAIN } else { next };
            let count = self.epoll.wait_for(&mut events, wake_up.saturating_sub(now))?;
            let tokens: HashSet<u64> = events[..count].iter().map(|event| event.u64).collect();
            for token in tokens {
                let index = usize::try_from(token).map_err(io::Error::other)?;
                self.receive(index, load, (from, until), &mut seen)?;
            }
        }
        let counts = self.lines.iter().map(|line| line.handled_count);
        seen.fairness = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        seen.unanswered = self.awaited;
        seen.handled_per_s /= seconds;
        seen.shed_per_s /= seconds;
        Ok(seen)
    }

    fn receive(
        &mut self,
        index: usize,
        load: Load,
        (from, until): (u64, u64),
        seen: &mut Seen,
    ) -> io::Result<()> {
        let line = &mut self.lines[index];
        line.flush();
        let mut buffer = [0; 16 << 10];
        loop {
            match sys::receive(&line.stream, &mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => line.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let now = clock::now();
        while line.input.len() >= REPLY_BYTES {
            let mut reply = line.input.split_to(REPLY_BYTES);
            reply.advance(4);
            let (handled, due, waited) = (reply.get_u8() == 1, reply.get_u64(), reply.get_u64());
            if load == Load::Closed {
                line.send(now);
            } else if due >= from {
                self.awaited -= 1;
            }
            // Goodput is what comes back in the window; latencies are of what was due in it.
            let in_window = (from..until).contains(&now);
            let due_in_window = (from..until).contains(&due);
            if handled {
                seen.handled_per_s += f64::from(u8::from(in_window));
                line.handled_count += u64::from(in_window);
            } else {
                seen.shed_per_s += f64::from(u8::from(in_window));
            }
            if due_in_window && handled {
                seen.handled.saturating_record(now.saturating_sub(due));
                seen.queue_wait.saturating_record(waited);
            } else if due_in_window {
                seen.shed.saturating_record(now.saturating_sub(due));
            }
        }
        Ok(())
    }
}

impl Seen {
    fn new() -> Self {
        // From 1 µs to 60 s with three digits.
        let histogram =
            || Histogram::new_with_bounds(1_000, 60 * SECOND, 3).expect("constant bounds in order");
        Seen {
            handled_per_s: 0.0,
            shed_per_s: 0.0,
            unanswered: 0,
            handled: histogram(),
            shed: histogram(),
            queue_wait: histogram(),
            fairness: (0, 0),
            useful: 0.0,
        }
    }
}

/// The connection of a message: each round all of them, in an order of its own.
fn scattered(number: u64) -> usize {
    let (round, place) = (number / CONNECTIONS as u64, number % CONNECTIONS as u64);
    // Odd, hence a permutation of 64 places.
    let step = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 | 1;
    let at = place.wrapping_mul(step).wrapping_add(round) % CONNECTIONS as u64;
    usize::try_from(at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CONNECTIONS, scattered};

    #[test]
    fn each_round_takes_every_connection_once() {
        for round in 0..100 {
            let first = round * CONNECTIONS as u64;
            let taken: HashSet<_> = (first..first + CONNECTIONS as u64).map(scattered).collect();
            assert_eq!(taken.len(), CONNECTIONS);
        }
    }
}
