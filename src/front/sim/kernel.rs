//! `SimKernel`: the kernel's contract kept to the letter and no further, with faults.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;

use super::net::{self, Net, ServerEnd, Watch};
use super::plan::FAREWELL;
use super::rates::Way;
use super::trace::{Note, Outcome, Verb};
use crate::parts::mailbox::Wake;
use crate::sys::{AcceptFault, Event, Kernel, accept_codes};
use crate::words::clock::Time;
use crate::words::sync::lock;

/// The poll of one reactor. `DRAINS`: short reads prove that a stream is empty.
#[derive(Debug)]
pub(super) struct SimKernel<const DRAINS: bool> {
    net: Arc<Mutex<Net>>,
    poll: usize,
}

/// The server's end of a connection.
#[derive(Debug)]
pub(super) struct SimStream {
    net: Arc<Mutex<Net>>,
    id: usize,
    closed: bool,
}

/// A listening socket of the server.
#[derive(Debug)]
pub(super) struct SimListener {
    net: Arc<Mutex<Net>>,
    id: usize,
}

/// Ends the poll of one reactor.
#[derive(Debug)]
pub(super) struct SimWake {
    pub(super) net: Arc<Mutex<Net>>,
    pub(super) poll: usize,
}

/// The address of the client with this socket.
pub(super) fn addr_of(id: usize) -> SocketAddr {
    let (near, far) = ([0, 1, 2][id % 3], [0, 1][id / 3 % 2]);
    let ip = match id % 4 {
        0 => IpAddr::from([0xfd00, 0, 0, far, 0, 0, 0, near]),
        1 => IpAddr::V6(Ipv4Addr::from([10, 0, 0, 1]).to_ipv6_mapped()),
        _ => IpAddr::from([10, 0, 0, u8::try_from(near).unwrap_or(0)]),
    };
    SocketAddr::new(ip, u16::try_from(id).unwrap_or(u16::MAX))
}

/// The socket behind an address.
pub(super) fn id_of(addr: SocketAddr) -> usize {
    usize::from(addr.port())
}

impl SimListener {
    /// A listening socket for listener `number`.
    pub(super) fn new(net: &Arc<Mutex<Net>>, number: usize) -> Self {
        let mut inner = lock(net);
        let id = inner.listeners.len();
        let waiting = std::collections::VecDeque::new();
        inner.listeners.push(net::Listener { number, waiting, open: true, watch: None });
        SimListener { net: Arc::clone(net), id }
    }
}

impl<const DRAINS: bool> SimKernel<DRAINS> {
    pub(super) fn new(net: Arc<Mutex<Net>>, poll: usize) -> Self {
        SimKernel { net, poll }
    }

    /// A socket may be used by the poll that accepted or watches it, and while it is held.
    fn check(&self, net: &mut Net, id: usize, what: &str) {
        let socket = &net.sockets[id];
        let elsewhere = socket.watch.is_some_and(|watch| watch.poll != self.poll);
        if socket.end != ServerEnd::Held || elsewhere {
            net.fail(format!("{what} on socket {id}, which is {:?}", net.sockets[id].end));
        }
    }

    fn part(&self, id: usize, net: &mut Net, verb: Verb) {
        net.held.retain(|&held| held != id);
        net.sockets[id].end = ServerEnd::Closed;
        net.sockets[id].facts.closed_at = Some(net.now);
        if let Some(watch) = net.sockets[id].watch.take() {
            if net.strikes(|faults| faults.stale) {
                net.polls[watch.poll].stale.push(watch.token);
            }
        }
        net.note(Note::Server(id, verb));
    }
}

impl<const DRAINS: bool> Kernel for SimKernel<DRAINS> {
    type Stream = SimStream;
    type Listener = SimListener;

    const SHORT_READ_DRAINS: bool = DRAINS;
    const STEPPED: bool = true;

    fn now(&self) -> Time {
        lock(&self.net).now
    }

    fn poll(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut net = lock(&self.net);
        if net.strikes(|faults| faults.broken) && net.random.one_in(4) {
            // The server is to end loudly.
            net.stopping = true;
            return Err(ErrorKind::Other.into());
        }
        net.take_events(self.poll, events);
        Ok(())
    }

    fn watch_listener(&mut self, listener: &mut SimListener, token: usize) -> io::Result<()> {
        lock(&self.net).listeners[listener.id].watch = Some(Watch::new(self.poll, token));
        Ok(())
    }

    fn unwatch_listener(&mut self, listener: &mut SimListener) -> io::Result<()> {
        lock(&self.net).listeners[listener.id].watch = None;
        Ok(())
    }

    fn accept(&mut self, listener: &mut SimListener) -> io::Result<(SimStream, SocketAddr)> {
        let mut net = lock(&self.net);
        if net.strikes(|faults| faults.exhausted) {
            net.exhausted_until = net.delay();
        }
        let mut failure = (net.exhausted_until > net.now).then_some(AcceptFault::Exhausted);
        let waiting = net.listeners[listener.id].waiting.front().copied();
        if failure.is_none() && waiting.is_some() && net.strikes(|faults| faults.accept_lost) {
            failure = Some(AcceptFault::Next);
        }
        if net.strikes(|faults| faults.broken) {
            // The server is to end loudly.
            failure = Some(AcceptFault::Fatal);
            net.stopping = true;
        }
        let codes: Vec<i32> = failure.into_iter().flat_map(accept_codes).collect();
        if !codes.is_empty() {
            let code = codes[net.random.below(codes.len())];
            net.note(Note::AcceptFailed(listener.id, code));
            if failure == Some(AcceptFault::Next) && net.random.one_in(2) {
                net.listeners[listener.id].waiting.pop_front();
                waiting.into_iter().for_each(|id| net.reset_client(id));
            }
            return Err(io::Error::from_raw_os_error(code));
        }
        let Some(id) = net.listeners[listener.id].waiting.pop_front() else {
            if let Some(watch) = &mut net.listeners[listener.id].watch {
                watch.rearm();
            }
            return Err(ErrorKind::WouldBlock.into());
        };
        net.hold(id);
        net.check_pace(listener.id);
        let (first, now) = (net.listeners[listener.id].number == 0, net.now);
        net.ledger.open(id, first, now);
        net.note(Note::Accepted(listener.id, id));
        let stream = SimStream { net: Arc::clone(&self.net), id, closed: false };
        Ok((stream, addr_of(id)))
    }

    fn waiting(&self, _: &Self::Listener) -> Option<(u32, u32)> {
        None
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<SimStream> {
        let mut net = lock(&self.net);
        let exhausted = net.strikes(|faults| faults.exhausted);
        let begun = if exhausted { None } else { net.connect_out(id_of(addr)) };
        let codes: Vec<i32> = accept_codes(AcceptFault::Exhausted).collect();
        let code = codes[net.random.below(codes.len())];
        let failure = || match exhausted {
            true => io::Error::from_raw_os_error(code),
            false => ErrorKind::NetworkUnreachable.into(),
        };
        let id = begun.ok_or_else(failure)?;
        Ok(SimStream { net: Arc::clone(&self.net), id, closed: false })
    }

    fn watch_connecting(&mut self, stream: &mut SimStream, token: usize) -> io::Result<()> {
        self.watch(stream, token)?;
        if let Some(watch) = &mut lock(&self.net).sockets[stream.id].watch {
            (watch.readable, watch.writable) = (false, true);
        }
        Ok(())
    }

    fn connected(&mut self, stream: &mut SimStream) -> io::Result<bool> {
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "connected");
        match net.routes[id].answered {
            None => {
                net.sockets[id].watch.iter_mut().for_each(Watch::rearm);
                Ok(false)
            }
            Some(false) => Err(ErrorKind::ConnectionRefused.into()),
            Some(true) if net.sockets[id].reset_up => Err(ErrorKind::ConnectionReset.into()),
            Some(true) => {
                net.routes[id].connected = true;
                net.note(Note::Server(id, Verb::Connect));
                Ok(true)
            }
        }
    }

    fn watch(&mut self, stream: &mut SimStream, token: usize) -> io::Result<()> {
        let mut net = lock(&self.net);
        self.check(&mut net, stream.id, "watch");
        let same = |watch: Watch| watch.token == token && watch.poll == self.poll;
        if net.held.iter().any(|&id| net.sockets[id].watch.is_some_and(same)) {
            net.fail(format!("two sockets under token {token:#x}"));
        }
        if net.strikes(|faults| faults.watch) {
            net.sockets[stream.id].facts.watch_failed = true;
            net.note(Note::Server(stream.id, Verb::WatchFailed));
            return Err(ErrorKind::OutOfMemory.into());
        }
        if net.sockets[stream.id].watch.replace(Watch::new(self.poll, token)).is_some() {
            net.fail(format!("socket {} is watched twice", stream.id));
        }
        net.note(Note::Server(stream.id, Verb::Watch));
        Ok(())
    }

    fn rewatch(&mut self, stream: &mut SimStream, token: usize, room: bool) -> io::Result<()> {
        let mut net = lock(&self.net);
        self.check(&mut net, stream.id, "rewatch");
        if net.strikes(|faults| faults.watch) {
            net.sockets[stream.id].facts.watch_failed = true;
            net.note(Note::Server(stream.id, Verb::WatchFailed));
            return Err(ErrorKind::OutOfMemory.into());
        }
        net.note(Note::Server(stream.id, Verb::Rewatch));
        let known = net.routes.get(stream.id).is_some_and(|route| route.connected);
        match &mut net.sockets[stream.id].watch {
            // What was being connected is a connection from now on.
            Some(watch) if !watch.readable && known => {
                *watch = Watch { writable: room, ..Watch::new(self.poll, token) };
            }
            Some(watch) if watch.token == token => {
                watch.writable = room;
                watch.withheld_until = Time::ZERO;
                watch.pending = true;
                watch.rearm();
            }
            Some(_) | None => net.fail(format!("socket {} is not watched so", stream.id)),
        }
        Ok(())
    }

    fn read(&mut self, stream: &mut SimStream, into: &mut BytesMut) -> io::Result<usize> {
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "read");
        let room = into.capacity() - into.len();
        if room == 0 {
            net.fail(format!("a read of nothing from socket {id}"));
        }
        let short = !DRAINS && net.strikes(|faults| faults.short_read);
        let short = if short { Some(net.random.next()) } else { None };
        let socket = &mut net.sockets[id];
        if socket.up.queue.is_empty() {
            let answer = if socket.reset_up && !socket.facts.error_told {
                socket.facts.error_told = true;
                Err(socket.failure())
            } else if socket.up.fin_arrived || socket.reset_up {
                socket.facts.eof_told = true;
                Ok(0)
            } else {
                socket.watch.iter_mut().for_each(Watch::rearm);
                Err(io::Error::from(ErrorKind::WouldBlock))
            };
            net.note(Note::Read(id, outcome(&answer)));
            return answer;
        }
        let mut count = room.min(socket.up.queue.len());
        match socket.up.mark {
            Some(0) => socket.up.mark = None,
            Some(at) => count = count.min(at),
            None => {}
        }
        if let Some(chance) = short {
            count = 1 + usize::try_from(chance % count as u64).unwrap_or(0);
        }
        if let Some(at) = &mut socket.up.mark {
            *at -= count;
        }
        socket.up.queue.drain(..count).for_each(|byte| into.extend_from_slice(&[byte]));
        socket.facts.read_bytes += count;
        if socket.up.queue.is_empty() {
            socket.facts.unread_since = None;
        }
        passed(&mut net, id, Way::Read, count);
        net.note(Note::Read(id, Outcome::Bytes(count)));
        Ok(count)
    }

    fn write(&mut self, stream: &mut SimStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "write");
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        if wanted == 0 || net.sockets[id].down.fin_sent {
            net.fail(format!("a write of {wanted} bytes to socket {id}, maybe after FIN"));
        }
        let room = net.room(id);
        let answer = if net.sockets[id].reset_up {
            let told = std::mem::replace(&mut net.sockets[id].facts.error_told, true);
            Err(if told { ErrorKind::BrokenPipe.into() } else { net.sockets[id].failure() })
        } else if room == 0 {
            let now = net.now;
            let socket = &mut net.sockets[id];
            socket.watch.iter_mut().for_each(Watch::rearm);
            socket.facts.blocked_at.get_or_insert(now);
            socket.facts.room_since = None;
            Err(io::Error::from(ErrorKind::WouldBlock))
        } else {
            let mut count = wanted.min(room);
            if net.strikes(|faults| faults.short_write) {
                count = net.random.size(1, count);
            }
            let bytes: Vec<u8> =
                parts.iter().flat_map(|part| part.iter().copied()).take(count).collect();
            if !net.sockets[id].down.fin_sent && bytes.first() == FAREWELL.first() {
                net.sockets[id].facts.turned_away = true;
            }
            net.put_down(id, &bytes);
            passed(&mut net, id, Way::Send, count);
            let now = net.now;
            let facts = &mut net.sockets[id].facts;
            facts.last_progress = now;
            facts.written_bytes += count;
            facts.blocked_at = None;
            if let Some(since) = facts.room_since.take() {
                facts.overlooked = facts.overlooked.max(now.since(since));
            }
            Ok(count)
        };
        net.note(Note::Wrote(id, outcome(&answer)));
        answer
    }

    fn shutdown_write(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "shutdown");
        net.note(Note::Server(id, Verb::Finish));
        if net.sockets[id].reset_up {
            net.sockets[id].facts.error_told = true;
            return Err(ErrorKind::NotConnected.into());
        }
        net.sockets[id].facts.shutdown_at = Some(net.now);
        net.finish_down(id);
        Ok(())
    }

    fn take_error(&mut self, stream: &mut SimStream) -> io::Result<()> {
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "take_error");
        let broken = net.sockets[id].reset_up && !net.sockets[id].facts.error_told;
        net.note(Note::Server(id, Verb::Probe));
        if broken {
            net.sockets[id].facts.error_told = true;
            return Err(net.sockets[id].failure());
        }
        Ok(())
    }

    fn close(&mut self, mut stream: SimStream) {
        stream.closed = true;
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "close");
        let facts = &net.sockets[id].facts;
        let waited = facts.shutdown_at.map(|at| net.now.since(at));
        let over = facts.eof_told || facts.error_told || facts.watch_failed || net.stopping;
        let dispensable = facts.turned_away || net.doorman.evicts;
        let lingered = waited.is_some_and(|waited| waited >= net.linger);
        let discarded = facts.read_bytes > net.linger_bytes;
        let unconnected = net.is_unconnected(id);
        if !over && !lingered && !discarded && !unconnected && !dispensable {
            net.fail(format!(
                "socket {id} was closed before its client or time had come to an end"
            ));
        }
        net.sockets[id].facts.lingered_out = !over;
        self.part(id, &mut net, Verb::Close);
        if unconnected {
            net.routes[id].over = true;
        }
        let unread = !net.sockets[id].up.queue.is_empty();
        net.sockets[id].up.queue.clear();
        if unread {
            net.reset_client(id);
        } else {
            net.finish_down(id);
        }
    }

    fn reset(&mut self, mut stream: SimStream) {
        stream.closed = true;
        let (mut net, id) = (lock(&self.net), stream.id);
        self.check(&mut net, id, "reset");
        net.sockets[id].facts.reset_by_server = true;
        self.part(id, &mut net, Verb::Reset);
        net.sockets[id].up.queue.clear();
        net.reset_client(id);
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if !self.closed {
            lock(&self.net).fail(format!("socket {} was dropped and never closed", self.id));
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut net = lock(&self.net);
        let listener = &mut net.listeners[self.id];
        listener.open = false;
        listener.watch = None;
        let left = std::mem::take(&mut listener.waiting);
        if !left.is_empty() && !net.stopping {
            net.fail(format!("listener {} closed while {left:?} waited", self.id));
        }
        left.into_iter().for_each(|id| net.reset_client(id));
    }
}

impl Wake for SimWake {
    fn wake(&self) {
        lock(&self.net).polls[self.poll].woken = true;
    }
}

/// The server has read or written so much.
fn passed(net: &mut Net, id: usize, way: Way, count: usize) {
    let now = net.now;
    // A farewell to one who is turned away waits for nothing.
    if net.sockets[id].facts.turned_away {
        return;
    }
    if let Err(what) = net.ledger.pass(id, way, count, now) {
        net.fail(what);
    }
}

fn outcome(answer: &io::Result<usize>) -> Outcome {
    match answer {
        Ok(count) => Outcome::Bytes(*count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Outcome::WouldBlock,
        Err(_) => Outcome::Error,
    }
}
