//! `Net`: the simulated network and the system's side of it: queues, windows, arrivals, readiness.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::crowd::Doorman;
use super::plan::{Arming, Faults, Plan};
use super::random::{Odds, Random};
use super::rates::Ledger;
use super::route::Route;
use super::series::Series;
use super::trace::{Note, Trace, Verb};
pub(super) use super::wire::{Pipe, Watch};
use crate::sys::Event;
use crate::words::clock::Time;

/// Everything outside of the server. One lock guards it all; one thread takes it.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) ledger: Ledger,
    /// The first rule that was broken.
    pub(super) failure: Option<String>,
    pub(super) arming: Arming,
    pub(super) short_read_drains: bool,
    /// The first of them are those that the server may connect to.
    pub(super) sockets: Vec<Socket>,
    /// What lies behind the first of the sockets.
    pub(super) routes: Vec<Route>,
    /// Addresses behind which there are several of them.
    pub(super) series: Vec<Series>,
    pub(super) listeners: Vec<Listener>,
    pub(super) polls: Vec<Poll>,
    /// The system has no descriptors until then.
    pub(super) exhausted_until: Time,
    /// Sockets that the server holds.
    pub(super) held: Vec<usize>,
    pub(super) doorman: Doorman,
    pub(super) linger: Duration,
    pub(super) linger_bytes: usize,
    /// The server was told to stop: it owes nobody anything.
    pub(super) stopping: bool,
    /// Memory was once so short that connections are ended for it.
    pub(super) memory_short: bool,
    /// The longest that anything is stopped while things go wrong.
    pub(super) longest: Duration,
    window: usize,
    latency: Duration,
}

/// What one reactor's poll knows beside the sockets.
#[derive(Clone, Debug, Default)]
pub(super) struct Poll {
    pub(super) woken: bool,
    /// Events of sources that are gone.
    pub(super) stale: Vec<usize>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    /// Which of the server's listeners it belongs to.
    pub(super) number: usize,
    pub(super) waiting: VecDeque<usize>,
    pub(super) open: bool,
    pub(super) watch: Option<Watch>,
}

/// A connection, both ends of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) end: ServerEnd,
    /// The client has closed, and answers what still comes with a reset.
    client_gone: bool,
    /// The server is to see an error.
    pub(super) reset_up: bool,
    /// The client is to see an error.
    pub(super) reset_down: bool,
    /// The client's machine has lost its power: nothing comes and goes any more, and at that time
    /// the server's system gives it up.
    pub(super) dead_until: Option<Time>,
    pub(super) watch: Option<Watch>,
    pub(super) facts: Facts,
}

/// Whose the server's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerEnd {
    /// The system's: nobody has accepted it.
    Waiting,
    /// The server's.
    Held,
    /// Nobody's any more.
    Closed,
}

/// What happened to a socket, for the judge.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) eof_told: bool,
    pub(super) error_told: bool,
    pub(super) watch_failed: bool,
    pub(super) client_reset: bool,
    pub(super) client_finished: bool,
    pub(super) read_bytes: usize,
    pub(super) written_bytes: usize,
    pub(super) last_progress: Time,
    pub(super) blocked_at: Option<Time>,
    /// There has been room for output since then, though the server was told there was none.
    pub(super) room_since: Option<Time>,
    /// The longest that room was there before the server wrote into it.
    pub(super) overlooked: Duration,
    pub(super) accepted_at: Option<Time>,
    /// When something last came from the client, and the longest time between two such moments.
    pub(super) heard_at: Time,
    pub(super) silence: Duration,
    /// Input waits since then.
    pub(super) unread_since: Option<Time>,
    pub(super) shutdown_at: Option<Time>,
    pub(super) closed_at: Option<Time>,
    pub(super) reset_by_server: bool,
    /// The server has said farewell to a client that it did not let in.
    pub(super) turned_away: bool,
    /// The server closed when it had lingered long enough, though the client had not finished.
    pub(super) lingered_out: bool,
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(Vec<u8>),
    Nothing,
    Eof,
    Reset,
}

impl Facts {
    /// Something has come from the client.
    fn hear(&mut self, now: Time) {
        if self.accepted_at.is_some() {
            self.silence = self.silence.max(now.since(self.heard_at));
            self.heard_at = now;
        }
        self.unread_since.get_or_insert(now);
    }
}

impl Net {
    pub(super) fn new(plan: &Plan, random: Random) -> Self {
        Net {
            now: plan.epoch,
            random,
            faults: plan.faults.clone(),
            trace: Trace::default(),
            ledger: Ledger::new(plan),
            failure: None,
            arming: plan.arming,
            short_read_drains: plan.short_read_drains,
            sockets: plan.routes.iter().map(|_| Socket::new(plan.epoch)).collect(),
            routes: plan.routes.clone(),
            series: plan.series().collect(),
            listeners: Vec::new(),
            polls: vec![Poll::default(); plan.sched.reactors],
            exhausted_until: Time::ZERO,
            held: Vec::new(),
            doorman: Doorman::new(plan),
            linger: plan.limits.timeouts.linger.unwrap_or(Duration::MAX),
            linger_bytes: plan.limits.linger_bytes,
            stopping: false,
            memory_short: false,
            longest: plan.faults.stall_max,
            window: plan.window,
            latency: plan.latency,
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        self.trace.note(self.now, note);
    }

    /// A rule was broken.
    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Whether a fault strikes now.
    pub(super) fn strikes(&mut self, which: impl Fn(&Faults) -> Odds) -> bool {
        self.random.chance(which(&self.faults))
    }

    /// A moment from now, within the network's latency.
    fn later(&mut self) -> Time {
        let latency = u64::try_from(self.latency.as_nanos()).unwrap_or(u64::MAX);
        self.now + Duration::from_nanos(self.random.range(0, latency))
    }

    // What clients do.

    /// Connects to one of the sockets of listener `number`; `None` if it is closed.
    pub(super) fn connect(&mut self, number: usize) -> Option<usize> {
        let open = |listener: &Listener| listener.open && listener.number == number;
        let doors: Vec<usize> =
            (0..self.listeners.len()).filter(|&at| open(&self.listeners[at])).collect();
        let id = self.sockets.len();
        if doors.is_empty() {
            self.note(Note::Client(id, Verb::Refused, 0));
            return None;
        }
        let door = doors[self.random.below(doors.len())];
        self.sockets.push(Socket::new(self.now));
        let listener = &mut self.listeners[door];
        listener.waiting.push_back(id);
        if let Some(watch) = &mut listener.watch {
            watch.pending = true;
        }
        self.note(Note::Client(id, Verb::Connect, door));
        Some(id)
    }

    /// How much a client may send now.
    pub(super) fn send_room(&self, id: usize) -> usize {
        let Socket { up, reset_down, .. } = &self.sockets[id];
        if *reset_down || up.fin_sent { 0 } else { self.window.saturating_sub(up.len()) }
    }

    /// A client sends, no more than there is room for; the last byte is urgent or not.
    pub(super) fn send(&mut self, id: usize, bytes: &[u8], urgent: bool) {
        let at = self.later();
        let up = &mut self.sockets[id].up;
        up.put(bytes, at);
        if urgent && up.mark.is_none() {
            up.mark = Some(up.len() - 1);
        }
        self.note(Note::Client(id, Verb::Send, bytes.len()));
    }

    /// Whether [`Net::receive`] would have something to say.
    pub(super) fn has_news(&self, id: usize) -> bool {
        let Socket { down, reset_down, .. } = &self.sockets[id];
        *reset_down || !down.queue.is_empty() || down.fin_arrived
    }

    /// A client reads.
    pub(super) fn receive(&mut self, id: usize, max: usize) -> Received {
        let now = self.now;
        let socket = &mut self.sockets[id];
        if socket.down.queue.is_empty() {
            return match (socket.reset_down, socket.down.fin_arrived) {
                (true, _) => Received::Reset,
                (false, true) => Received::Eof,
                (false, false) => Received::Nothing,
            };
        }
        let count = max.min(socket.down.queue.len());
        let bytes: Vec<u8> = socket.down.queue.drain(..count).collect();
        if socket.facts.blocked_at.is_some() {
            socket.facts.room_since.get_or_insert(now);
        }
        if let Some(watch) = socket.watch.as_mut().filter(|watch| watch.writable) {
            watch.pending = true;
        }
        self.note(Note::Client(id, Verb::Receive, count));
        Received::Bytes(bytes)
    }

    /// A client sends FIN.
    pub(super) fn finish(&mut self, id: usize) {
        let at = self.later();
        let socket = &mut self.sockets[id];
        socket.facts.client_finished = true;
        socket.up.finish(at);
        self.note(Note::Client(id, Verb::Finish, 0));
    }

    /// A client closes: with a reset if it has not read everything.
    pub(super) fn close(&mut self, id: usize) {
        if !self.sockets[id].down.queue.is_empty() {
            return self.reset(id);
        }
        self.sockets[id].client_gone = true;
        self.note(Note::Client(id, Verb::Close, 0));
        self.finish(id);
    }

    /// A client resets.
    pub(super) fn reset(&mut self, id: usize) {
        self.note(Note::Client(id, Verb::Reset, 0));
        self.sockets[id].client_gone = true;
        self.sockets[id].facts.client_reset = true;
        self.reset_server(id);
    }

    /// A client's machine loses its power. After a while keep-alive tells the server's system.
    pub(super) fn lose_power(&mut self, id: usize) {
        self.note(Note::Client(id, Verb::LosePower, 0));
        let after = Duration::from_micros(self.random.range(100_000, 3_000_000));
        let socket = &mut self.sockets[id];
        socket.client_gone = true;
        socket.dead_until = Some(self.now + after);
    }

    fn reset_server(&mut self, id: usize) {
        let keeps_input = self.random.one_in(2);
        let socket = &mut self.sockets[id];
        socket.reset_up = true;
        socket.up.wire.clear();
        if !keeps_input {
            socket.up.queue.clear();
        }
        socket.down.wire.clear();
        socket.down.queue.clear();
        if let Some(watch) = &mut socket.watch {
            watch.pending = true;
        }
    }

    /// The client learns of a reset; what it has not received is lost in part.
    pub(super) fn reset_client(&mut self, id: usize) {
        let kept = self.random.size(0, self.sockets[id].down.queue.len());
        let socket = &mut self.sockets[id];
        socket.down.wire.clear();
        socket.down.queue.truncate(kept);
        socket.reset_down = true;
    }

    /// Sockets of the server with input that has come and is not read, though nothing of its output
    /// waits for the client.
    pub(super) fn forgotten_input(&self) -> impl Iterator<Item = usize> {
        let forgotten = |id: &usize| {
            let Socket { up, down, watch, .. } = &self.sockets[*id];
            let watched = watch.is_some_and(|watch| watch.readable);
            watched && !up.queue.is_empty() && down.len() == 0
        };
        self.held.iter().copied().filter(forgotten)
    }

    // What the wire does.

    /// When something of this socket arrives next.
    pub(super) fn arrives_at(&self, id: usize) -> Option<Time> {
        if let Some(route) = self.routes.get(id).filter(|route| route.answered.is_none()) {
            return route.answer_at.filter(|&at| at != Time::NEVER && !route.over);
        }
        let Socket { up, down, dead_until, end, reset_up, .. } = &self.sockets[id];
        if dead_until.is_some() {
            return dead_until.filter(|_| *end != ServerEnd::Closed && !reset_up);
        }
        up.arrives_at().into_iter().chain(down.arrives_at()).min()
    }

    /// Lets something arrive.
    pub(super) fn deliver(&mut self, id: usize) {
        let now = self.now;
        if self.routes.get(id).is_some_and(|route| route.answered.is_none()) {
            self.answer(id);
        } else if self.sockets[id].dead_until.is_some() {
            self.reset_server(id);
        } else if self.sockets[id].up.arrives_at().is_some_and(|at| at <= now) {
            self.deliver_up(id);
        } else if self.sockets[id].down.arrives_at().is_some_and(|at| at <= now) {
            self.deliver_down(id);
        }
    }

    fn deliver_up(&mut self, id: usize) {
        let now = self.now;
        let (count, next) = self.portion(self.sockets[id].up.wire.len());
        let socket = &mut self.sockets[id];
        let closed = socket.end == ServerEnd::Closed;
        socket.up.arrive(count, next);
        socket.facts.hear(now);
        if closed && count > 0 {
            socket.up.queue.clear();
            self.reset_client(id);
        } else if let Some(watch) = &mut socket.watch {
            watch.pending = true;
        }
        self.note(Note::ArrivedUp(id, count));
    }

    fn deliver_down(&mut self, id: usize) {
        let (count, next) = self.portion(self.sockets[id].down.wire.len());
        let socket = &mut self.sockets[id];
        socket.down.arrive(count, next);
        if socket.client_gone && count > 0 {
            socket.facts.client_reset = true;
            self.reset_server(id);
        }
        self.note(Note::ArrivedDown(id, count));
    }

    /// How much of so many bytes arrives together, and when the next may.
    fn portion(&mut self, len: usize) -> (usize, Time) {
        let whole = len == 0 || self.random.one_in(2);
        let count = if whole { len } else { self.random.size(1, len) };
        (count, self.later())
    }

    // What polls see.

    /// Whether the poll would return now.
    pub(super) fn poll_ready(&self, poll: usize) -> bool {
        let Poll { woken, stale } = &self.polls[poll];
        *woken
            || !stale.is_empty()
            || self.told(poll).any(|(watch, _)| watch.withheld_until <= self.now)
    }

    /// When the next withheld event is told after all.
    pub(super) fn told_at(&self, poll: usize) -> Option<Time> {
        self.told(poll).map(|(watch, _)| watch.withheld_until).min()
    }

    /// All events that there are for a poll, withheld ones included.
    fn told(&self, poll: usize) -> impl Iterator<Item = (&Watch, Event)> {
        let listeners = self.listeners.iter().filter_map(move |listener| {
            let watch = listener.watch.as_ref().filter(|watch| watch.poll == poll)?;
            Some((watch, self.event(watch, listener.level())?))
        });
        let sockets = self.held.iter().filter_map(move |&id| {
            let watch = self.sockets[id].watch.as_ref().filter(|watch| watch.poll == poll)?;
            Some((watch, self.event(watch, self.level(id))?))
        });
        listeners.chain(sockets)
    }

    /// What the state of a socket amounts to, whoever watches for what.
    pub(super) fn level(&self, id: usize) -> Event {
        let Socket { up, down, reset_up, .. } = &self.sockets[id];
        match self.routes.get(id).map(|route| route.answered) {
            Some(None) => return Event::default(),
            Some(Some(false)) => {
                let (readable, writable, drain, hangup) = (true, true, true, true);
                return Event { token: 0, readable, writable, drain, hangup };
            }
            Some(Some(true)) | None => {}
        }
        Event {
            token: 0,
            readable: !up.queue.is_empty() || up.fin_arrived || *reset_up,
            writable: down.len() < self.window || *reset_up,
            hangup: *reset_up || (up.fin_arrived && down.fin_sent),
            drain: up.fin_arrived || *reset_up || up.mark.is_some_and(|at| at < up.queue.len()),
        }
    }

    /// The event that `watch` is told of a source in this state.
    fn event(&self, watch: &Watch, level: Event) -> Option<Event> {
        let (input, room) = match self.arming {
            Arming::Edge => (watch.pending, watch.pending && watch.writable),
            Arming::Told => (watch.armed_in, watch.armed_out && watch.writable),
        };
        let failed = level.readable && level.writable && level.drain;
        let readable = level.readable && input && (watch.readable || failed);
        let writable = level.writable && room;
        let (drain, hangup) = (level.drain, level.hangup);
        let event = Event { token: watch.token, readable, writable, drain, hangup };
        (readable || writable).then_some(event)
    }

    /// Takes the events of a poll, in any order, but for those that are withheld.
    pub(super) fn take_events(&mut self, poll: usize, events: &mut Vec<Event>) {
        self.polls[poll].woken = false;
        let begin = events.len();
        if self.strikes(|faults| faults.empty) {
            return;
        }
        for at in 0..self.listeners.len() {
            let Some(mut watch) = self.listeners[at].watch.filter(|w| w.poll == poll) else {
                continue;
            };
            let event = self.event(&watch, self.listeners[at].level());
            self.tell(&mut watch, event, events);
            self.listeners[at].watch = Some(watch);
        }
        for at in 0..self.held.len() {
            let id = self.held[at];
            let Some(mut watch) = self.sockets[id].watch.filter(|w| w.poll == poll) else {
                continue;
            };
            let mut event = self.event(&watch, self.level(id));
            if event.is_none() && self.strikes(|faults| faults.spurious) {
                let (readable, writable) = (self.random.one_in(2), self.random.one_in(2));
                let drain = self.random.one_in(2);
                let token = watch.token;
                let hangup = self.random.one_in(4);
                events.push(Event { token, readable, writable, drain, hangup });
                event = None;
            }
            let told = events.len();
            self.tell(&mut watch, event, events);
            if let Some(&Event { readable, writable, drain, .. }) = events.get(told) {
                self.note(Note::Event { socket: id, readable, writable, drain });
            }
            self.sockets[id].watch = Some(watch);
        }
        let stale = std::mem::take(&mut self.polls[poll].stale);
        let told =
            |token| Event { token, readable: true, writable: true, drain: false, hangup: true };
        events.extend(stale.into_iter().map(told));
        for at in begin..events.len() {
            let other = self.random.size(begin, events.len() - 1);
            events.swap(at, other);
        }
        self.note(Note::Polled(poll, events.len() - begin));
    }

    fn tell(&mut self, watch: &mut Watch, event: Option<Event>, events: &mut Vec<Event>) {
        let Some(event) = event else {
            // The system looks again when it is asked: what is no longer so is not told.
            watch.pending = false;
            return;
        };
        if watch.withheld_until > self.now {
            return;
        }
        // Not twice in a row: what is withheld comes after a while.
        let withheld = watch.withheld_until != Time::ZERO;
        if !withheld && self.strikes(|faults| faults.withhold) {
            let most = if watch.writable { self.faults.delay } else { self.faults.hold };
            let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
            watch.withheld_until = self.now + Duration::from_nanos(self.random.range(0, most));
            return;
        }
        watch.withheld_until = Time::ZERO;
        watch.pending = false;
        match self.arming {
            Arming::Edge => {}
            Arming::Told => {
                watch.armed_in &= !event.readable;
                watch.armed_out &= !event.writable;
            }
        }
        events.push(event);
    }

    /// The end of a delay that the faults allow.
    pub(super) fn delay(&mut self) -> Time {
        let most = u64::try_from(self.faults.delay.as_nanos()).unwrap_or(u64::MAX);
        self.now + Duration::from_nanos(self.random.range(0, most))
    }

    /// A moment until `end`, if that is not over.
    pub(super) fn until(&mut self, end: Time) -> Time {
        let most = u64::try_from(end.since(self.now).as_nanos()).unwrap_or(u64::MAX);
        self.now + Duration::from_nanos(self.random.range(0, most))
    }

    /// How much the server may write to a socket now.
    pub(super) fn room(&self, id: usize) -> usize {
        self.window.saturating_sub(self.sockets[id].down.len())
    }

    /// The server writes.
    pub(super) fn put_down(&mut self, id: usize, bytes: &[u8]) {
        let at = self.later();
        self.sockets[id].down.put(bytes, at);
    }

    /// The server sends FIN.
    pub(super) fn finish_down(&mut self, id: usize) {
        let at = self.later();
        self.sockets[id].down.finish(at);
    }
}

impl Listener {
    pub(super) fn level(&self) -> Event {
        Event { readable: !self.waiting.is_empty(), ..Event::default() }
    }
}

impl Socket {
    /// The error that a socket of the server has.
    pub(super) fn failure(&self) -> io::Error {
        let timed_out = self.dead_until.is_some();
        let kind = if timed_out { ErrorKind::TimedOut } else { ErrorKind::ConnectionReset };
        kind.into()
    }

    fn new(now: Time) -> Self {
        Socket {
            up: Pipe::default(),
            down: Pipe::default(),
            end: ServerEnd::Waiting,
            client_gone: false,
            reset_up: false,
            reset_down: false,
            dead_until: None,
            watch: None,
            facts: Facts { last_progress: now, ..Facts::default() },
        }
    }
}
