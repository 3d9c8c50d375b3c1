//! `Reactor`: one poll, the records of its connections and its turn; a plain value that whoever
//! holds it turns. All `&mut self`: no record has a lock or an atomic.
//!
//! ```text
//!  sleep ─▶ mail ─▶ dial ─▶ accept ─▶ run ─▶ expire ─▶ reap ─┐
//!    ▲               │         │        │                │    │   every phase is bounded
//!    │               └── Job ──┴── Job ─┴────── Job ─────┘    │   and can be left in the middle
//!    └────────────────────────────────────────────────────────┘
//! ```

mod accept;
mod admit;
mod apply;
mod away;
mod door;
mod drain;
mod dial;
mod fan;
mod mail;
mod pressure;
mod reap;
mod ring;
mod shaped;
mod stream;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

pub(crate) use self::accept::Newcomer;
use self::away::Away;
pub(crate) use self::door::Door;
use self::ring::Ring;

use self::drain::Farewells;
use self::stream::{Io, May};
use super::common::Common;
use super::counters::{Counters, ReactorSnapshot};
use super::desk::{Desk, Letter};
use super::sched::{Leased, Port, Step};
use crate::core::conn::{Connection, Lapse};
use crate::core::job::{Done, Job, Kind};
use crate::core::limits::{Permit, Via};
use crate::parts::table::Table;
use crate::sys::{Event, Kernel};
use crate::words::error::Error;
use crate::words::id::{ConnId, Token};
use crate::words::sync::{Arc, thread};

/// One reactor.
pub(crate) struct Reactor<K: Kernel> {
    phase: Phase,
    table: Table<Entry<K>>,
    io: Io<K>,
    desk: Arc<Desk<K>>,
    port: Port<Box<Job>>,
    /// How many of the ready connections are still to be served in this turn: those that were
    /// ready when it began.
    batch: usize,
    /// Jobs were read ahead, and some may still stand in the port's deque.
    ahead: bool,
    doors: Vec<Door<K>>,
    /// Connections that it is making, and calls that were asked of it.
    dials: dial::Dials<K>,
    /// Groups that have members here.
    fans: fan::Fans,
    accept: accept::Cursor,
    /// From which slot on a connection that makes room is looked for.
    evict_from: usize,
    ring: Ring,
    away: Away,
    /// Accepted by other reactors for this one.
    newcomers: VecDeque<Newcomer<K>>,
    /// Last calls of sessions that have not come back.
    farewells_out: usize,
    course: Course,
    /// Whom a drain still has to ask.
    farewells: Option<Farewells>,
    /// Its poll has failed: it closes everything and ends, without asking the kernel for news.
    broken: bool,
    // Scratch space, empty between phases.
    events: Vec<Event>,
    letters: Vec<Letter<K>>,
    due: Vec<ConnId>,
}

/// Where a turn stands; it is resumed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sleep,
    Poll(Option<Duration>),
    Mail,
    Dial,
    Accept,
    Run,
    Expire,
    Reap,
    Stopped,
}

/// What the operator wants of this reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Serve,
    Drain,
    Stop,
    /// Stop, and do not wait for sessions that are out.
    Abandon,
}

/// A connection with its socket.
#[derive(Debug)]
struct Entry<K: Kernel> {
    /// `None` once it is closed.
    stream: Option<K::Stream>,
    permit: Permit,
    watch: Watch,
    /// Through which listener it came, and whether it counts among those of its client.
    door: Via,
    conn: Connection,
}

impl<K: Kernel> Entry<K> {
    fn new(stream: K::Stream, permit: Permit, door: Via, conn: Connection) -> Self {
        Entry { stream: Some(stream), permit, watch: Watch::Nothing, door, conn }
    }
}

/// What 100,000 idle connections cost is this, 100,000 times, and nothing else of ours.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    size_of::<Entry<crate::sys::MioKernel>>()
        // Stream: 4 with epoll, 16 in debug builds, where mio adds the number of its selector.
        <= size_of::<Option<<crate::sys::MioKernel as Kernel>::Stream>>()
        + 32 // peer address
        + 16 // session
        + 5 * 8 // gate, partial frame, outbox, inbox, what is rare: most often none
        + 3 * 8 // since when the peer is silent, its input waits, its frame has begun
        + 16 // how long it is used to be silent
        + 4 // timer
        + 6 // lane
        + 2 // halves
        + 23 // flags
        + 2 // off-loaded jobs
        + 3 // door and watch; the permit takes nothing
        + 9 // padding
);

/// What the kernel watches a socket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Nothing yet: it was read at once after it was accepted.
    Nothing,
    Input,
    InputAndRoom,
}

/// Jobs that are read ahead for others to steal while the handlers are heavy.
const READ_AHEAD: usize = 32;

impl<K: Kernel> Reactor<K> {
    /// A reactor that watches its doors. `doors[i]` is that of listener `i`.
    pub(crate) fn new(
        mut kernel: K,
        common: Arc<Common<K>>,
        desk: Arc<Desk<K>>,
        port: Port<Box<Job>>,
        mut doors: Vec<Door<K>>,
    ) -> io::Result<Self> {
        for door in &mut doors {
            door.watch(&mut kernel)?;
            if !door.is_closed() {
                common.door_opened();
            }
        }
        let events = Vec::with_capacity(common.limits.events_per_turn);
        Ok(Reactor {
            phase: Phase::Sleep,
            table: Table::new(port.index()),
            io: Io::new(kernel, common, doors.len(), port.index()),
            desk,
            port,
            batch: 0,
            ahead: false,
            doors,
            dials: dial::Dials::default(),
            fans: fan::Fans::default(),
            accept: accept::Cursor::default(),
            evict_from: 0,
            ring: Ring::default(),
            away: Away::default(),
            newcomers: VecDeque::new(),
            farewells_out: 0,
            course: Course::Serve,
            farewells: None,
            broken: false,
            events,
            letters: Vec::new(),
            due: Vec::new(),
        })
    }

    /// What it has counted.
    pub(crate) fn counters(&self) -> &Counters {
        &self.io.counters
    }

    /// Begins a turn: says that it sleeps if it may, and for how long at most.
    fn fall_asleep(&mut self) -> Option<Duration> {
        self.io.counters.turns += 1;
        if self.broken {
            return Some(Duration::ZERO);
        }
        let patience = self.patience();
        if patience == Some(Duration::ZERO) || !self.desk.mailbox.fall_asleep() {
            return Some(Duration::ZERO);
        }
        self.port.fall_asleep();
        patience
    }

    /// How those came in that it holds a permit for, and from where.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn permits(&self) -> impl Iterator<Item = (Via, std::net::IpAddr)> {
        let inside = self.table.iter().map(|(_, entry)| (entry.door, entry.conn.peer_ip()));
        let newcomers = self.newcomers.iter().map(Newcomer::permit);
        let outbound = self.io.common.admission.outbound();
        let nobody = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let dials = std::iter::repeat_n((outbound, nobody), self.dials.permit_count());
        inside.chain(newcomers).chain(dials)
    }

    /// How many jobs of connections it knows to be on their way, and how many there are.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn jobs_out(&self) -> (usize, usize) {
        let out = self.table.iter().filter(|(_, entry)| entry.conn.is_out()).count();
        (self.away.count(), out + self.farewells_out)
    }

    /// The connections that are at rest and hear of their timers.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn hearing(&self) -> impl Iterator<Item = crate::words::id::ConnId> {
        let hearing = self.table.iter().filter(|(_, entry)| entry.conn.hears_timers());
        hearing.map(|(id, _)| id)
    }

    /// Waits for something to do: the only phase that may block.
    fn poll(&mut self, patience: Option<Duration>) {
        self.phase = Phase::Mail;
        if self.broken {
            // Sessions that are out come back by mail; handlers that never return are given up.
            return thread::yield_now();
        }
        let polled = self.io.kernel.poll(patience, &mut self.events);
        if patience != Some(Duration::ZERO) {
            self.port.wake_up();
            self.desk.mailbox.wake_up();
        }
        self.io.now = self.io.kernel.now();
        let polled = polled.and_then(|()| self.look_again());
        if let Err(error) = polled {
            // All reactors are told to stop, this one too.
            self.io.common.fail(Error::io("polling for events", error));
            self.broken = true;
        }
        self.note_events();
    }

    /// Before a timer fires after a poll that told nothing, the kernel is asked once more: the
    /// process may have been stopped meanwhile, and what arrived comes before what is late.
    fn look_again(&mut self) -> io::Result<()> {
        let next = self.io.wheel.next_deadline().into_iter().chain(self.dials.next_deadline());
        let late = next.min().is_some_and(|deadline| deadline <= self.io.now);
        if late && self.events.is_empty() {
            return self.io.kernel.poll(Some(Duration::ZERO), &mut self.events);
        }
        Ok(())
    }

    /// How long the poll may block.
    fn patience(&self) -> Option<Duration> {
        // Newcomers too: mail is also read after the accept phase, by a heavy reactor.
        let io = &self.io;
        let waits = !io.ready.is_empty() || !io.doomed.is_empty() || !self.newcomers.is_empty();
        if waits
            || self.fans.are_active()
            || self.dials.are_ready()
            || self.doors.iter().any(Door::wants)
        {
            return Some(Duration::ZERO);
        }
        let retry = self.doors.iter().filter_map(Door::retry_at).min();
        let farewell = self.farewells.as_ref().and_then(Farewells::next_at);
        let others = retry.into_iter().chain(farewell).chain(self.dials.next_deadline());
        let others = others.chain(self.ring.review_at()).chain(self.pressure_at());
        let others = others.chain(self.away.look_at());
        let deadline = self.io.wheel.next_deadline().into_iter().chain(others).min();
        deadline.map(|deadline| deadline.since(self.io.kernel.now()))
    }

    /// Writes what the poll told into the records; nothing is done about it yet.
    fn note_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match Token::unpack(event.token) {
                Some(Token::Listener(door)) => {
                    if let Some(door) = self.doors.get_mut(usize::from(door)) {
                        door.handle_ready();
                    }
                }
                Some(Token::Connection { .. }) => {
                    let Some((id, entry)) = self.table.get_by_token(event.token) else { continue };
                    if event.readable {
                        entry.conn.handle_readable(event.drain, self.io.now);
                    }
                    if event.writable {
                        entry.conn.handle_writable();
                    }
                    if event.hangup {
                        entry.conn.handle_hangup();
                    }
                    self.io.enqueue(id, entry);
                }
                Some(Token::Attempt(number)) => {
                    self.io.counters.stale += u64::from(!self.dials.handle_event(number, &event));
                }
                None => {}
            }
        }
        self.events = events;
    }

    /// Serves those that were ready when the phase began; hands out one job at a time.
    fn run_ready(&mut self) -> Option<Box<Job>> {
        if self.port.heavy() {
            self.read_ahead();
        }
        if self.ahead {
            let job = self.port.pop();
            self.ahead = job.is_some();
            if job.is_some() {
                return job;
            }
        }
        while self.batch > 0 {
            self.batch -= 1;
            let Some(id) = self.io.ready.pop_front() else { break };
            if let Some(job) = self.serve(id).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        self.batch = 0;
        self.begin_expiring();
        None
    }

    /// The turn of a connection from the ready list.
    fn serve(&mut self, id: ConnId) -> Option<Box<Job>> {
        let entry = self.table.get_mut(id)?;
        entry.conn.dequeue();
        self.io.advance(id, entry, May::Serve)
    }

    /// Heavy: puts jobs where idle threads can steal them, and takes in what these have done.
    fn read_ahead(&mut self) {
        if self.desk.mailbox.has_mail() {
            self.receive_mail();
        }
        let mut queued = self.port.queued();
        if queued > READ_AHEAD / 2 {
            return;
        }
        while queued < READ_AHEAD && self.batch > 0 {
            self.batch -= 1;
            let Some(id) = self.io.ready.pop_front() else { break };
            if let Some(job) = self.serve(id).and_then(|job| self.dispatch(job)) {
                self.away.leave(job.hand.id, self.io.now);
                self.port.push(job);
                self.ahead = true;
                queued += 1;
            }
        }
        if queued > 1 {
            self.port.call_helper();
        }
    }

    /// Decides who runs a job: `Some` gives it back for the holder to run.
    fn dispatch(&mut self, job: Box<Job>) -> Option<Box<Job>> {
        self.io.counters.jobs += 1;
        if !job.timed && !self.port.hands_off() {
            return Some(job);
        }
        let id = job.has_connection().then_some(job.hand.id);
        let kept = self.port.offload(job).err();
        if let (Some(id), None) = (id, &kept) {
            self.away.leave(id, self.io.now);
        }
        kept
    }

    /// Finds those whose deadline may have come.
    fn begin_expiring(&mut self) {
        debug_assert!(self.due.is_empty());
        self.io.wheel.expire(self.io.now, &mut self.due);
        self.due.reverse();
        self.phase = Phase::Expire;
    }

    /// Lets those deadlines fire that have come; hands out one job at a time.
    fn expire_timers(&mut self) -> Option<Box<Job>> {
        while let Some(id) = self.due.pop() {
            if let Some(job) = self.expire(id).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        self.phase = Phase::Reap;
        None
    }

    fn expire(&mut self, id: ConnId) -> Option<Box<Job>> {
        let entry = self.table.get_mut(id)?;
        *entry.conn.timer_mut() = None;
        let late = entry.conn.seems_late(self.io.now, self.io.rules(entry.door));
        if late {
            entry.conn.look_again();
        }
        if entry.conn.wake_held(self.io.now) || late {
            let job = self.io.advance(id, entry, May::Serve);
            if job.is_some() {
                return job;
            }
        }
        let lapse = entry.conn.handle_timeout(self.io.now, self.io.rules(entry.door));
        if lapse == Lapse::Silence {
            self.io.learn_silence(entry);
        }
        let may = if lapse == Lapse::Nothing { May::Queue } else { May::Serve };
        self.io.advance(id, entry, may)
    }

    /// Whether nothing is left that this reactor would have to wait for.
    fn is_over(&self) -> bool {
        if self.course == Course::Abandon {
            return self.dials.are_called();
        }
        // Through an open door of any reactor a connection may still come for this one.
        self.course != Course::Serve
            && self.table.is_empty()
            && (self.farewells_out == 0 || cfg!(switchboard_sim_mutant = "farewell_unheeded"))
            && self.newcomers.is_empty()
            && self.dials.are_over()
            && !self.io.common.has_open_doors()
            && !self.desk.mailbox.has_mail()
    }

    /// How many clients wait to be accepted, as far as is known.
    fn waiting(&self) -> u64 {
        let queues = self.doors.iter().filter_map(|door| door.waiting(&self.io.kernel));
        queues.map(|(waiting, _)| u64::from(waiting)).sum()
    }

    pub(crate) fn snapshot(&self) -> ReactorSnapshot {
        let pool = self.io.pool.stats();
        let counters = &self.io.counters;
        ReactorSnapshot {
            reactor: self.port.index(),
            connections: self.table.len(),
            connecting: self.dials.count() + self.desk.asked_count(),
            handlers_out: self.table.iter().filter(|(_, entry)| entry.conn.is_out()).count(),
            waiting: self.waiting(),
            opened: counters.opened,
            dialed: counters.dialed,
            dial_failures: counters.dial_failures,
            closed: counters.closed_by_label(),
            jobs: counters.jobs,
            turns: counters.turns,
            received_bytes: counters.received_bytes,
            sent_bytes: counters.sent_bytes,
            stale: counters.stale + self.table.stale_count(),
            panics: counters.panics,
            overtaken: counters.overtaken,
            slowed: counters.slowed,
            trusted_again: counters.trusted_again,
            refused: counters.refused,
            accept_errors: counters.accept_errors,
            shaped: self.table.iter().filter(|(_, entry)| entry.conn.is_shaped()).count(),
            reads_held: self.table.iter().filter(|(_, entry)| entry.conn.holds_input()).count(),
            sends_held: self.table.iter().filter(|(_, entry)| entry.conn.holds_output()).count(),
            read_delays: counters.reads_delayed.times,
            read_delayed_bytes: counters.reads_delayed.bytes,
            send_delays: counters.sends_delayed.times,
            send_delayed_bytes: counters.sends_delayed.bytes,
            limit_pauses: counters.limit_pauses,
            listener_pauses: counters.listener_pauses,
            rate_pauses: counters.rate_pauses,
            rejected_full: counters.rejected_full,
            rejected_rate: counters.rejected_rate,
            rejected_client: counters.rejected_client,
            descriptor_pauses: counters.descriptor_pauses,
            frames: counters.frames,
            shed: counters.shed,
            dropped: counters.dropped,
            broadcasts: counters.broadcasts,
            lagged: counters.lagged,
            misdirected: counters.misdirected,
            linger_resets: counters.linger_resets,
            asked: counters.asked,
            memory_pauses: counters.memory_pauses,
            memory: self.memory(),
            buffers_leased: pool.leased_count,
            buffers_retained: pool.retained_count,
            buffers_retained_bytes: pool.retained_bytes,
            buffer_hits: pool.hits,
            buffer_misses: pool.misses,
            held_bytes: self.table.iter().map(|(_, entry)| entry.conn.held_bytes()).sum(),
            table_bytes: self.table.retained_bytes(),
            timers: self.io.wheel.len(),
        }
    }
}

impl<K: Kernel> Leased for Reactor<K> {
    type Job = Box<Job>;
    type Done = Done;
    type Desk = Desk<K>;

    fn step(&mut self) -> Step<Box<Job>> {
        self.away.go_on();
        loop {
            let job = match self.phase {
                Phase::Sleep => {
                    let patience = self.fall_asleep();
                    self.phase = Phase::Poll(patience);
                    if K::STEPPED {
                        return Step::Pause(patience);
                    }
                    None
                }
                Phase::Poll(patience) => {
                    self.poll(patience);
                    None
                }
                Phase::Mail => {
                    self.receive_mail();
                    self.say_goodbye();
                    self.heed_pressure();
                    self.fan_out();
                    self.begin_dialing();
                    None
                }
                Phase::Dial => self.dial_ready(),
                Phase::Accept => self.accept_ready(),
                Phase::Run => self.run_ready(),
                Phase::Expire => self.expire_timers(),
                Phase::Reap => self.reap_closed(),
                Phase::Stopped => {
                    self.desk.close_seats();
                    self.io.common.reactor_stopped();
                    return Step::Stopped;
                }
            };
            if let Some(job) = job {
                if job.has_connection() {
                    self.away.begin(job.hand.id, self.io.now);
                }
                return Step::Run(job);
            }
        }
    }

    fn apply(&mut self, done: Done) {
        self.take_back(done);
    }

    fn run(job: Box<Job>, desk: &Arc<Desk<K>>) -> Done {
        job.run(desk, || desk.now())
    }

    fn post(desk: &Arc<Desk<K>>, done: Done, overtaken: bool) {
        // Nobody waits for a free job.
        if done.kind == Kind::Free {
            return;
        }
        desk.mailbox.post(Letter::Done { done, overtaken });
    }
}
