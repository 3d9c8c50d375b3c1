//! `Server` and `Control`: a server at work, and its end.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::builder::Builder;
use crate::edge::connector::Dialer;
use crate::engine::common::{Common, Ending};
use crate::engine::counters::{MemorySnapshot, ReactorSnapshot};
use crate::engine::desk::Order;
use crate::engine::reactor::Reactor;
use crate::engine::sched::{Running, Stats};
use crate::engine::spawn::Spawner;
use crate::sys::{Awoken, MioKernel, Termination};
use crate::words::clock::{Clock, Time};
use crate::words::config::Admission;
use crate::words::error::Error;
use crate::words::sync::Arc;

/// A server at work. Dropping it stops it, as [`stop`](Server::stop) does.
pub struct Server {
    running: Option<Running<Reactor<MioKernel>>>,
    control: Control,
    addrs: Vec<SocketAddr>,
    clock: Clock,
    started: Time,
    drain: Drain,
}

/// How a server comes to its end after a signal, or when its operator says so.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    pub(super) deadline: Duration,
    pub(super) spread: Duration,
}

/// How long a server that is stopped waits for handlers that are still running.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How long a snapshot waits for a reactor: one that somebody holds answers within a turn, and no
/// reactor lies unattended for longer than a few milliseconds.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);

impl Server {
    /// Says what the server is to be; it begins with the defaults, and without listeners.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(
        running: Running<Reactor<MioKernel>>,
        common: Arc<Common<MioKernel>>,
        spawner: Arc<Spawner<MioKernel>>,
        addrs: Vec<SocketAddr>,
        clock: Clock,
        drain: Drain,
    ) -> Self {
        let started = clock.now();
        let dialer = Dialer::new(Arc::clone(&common), spawner);
        let control = Control { common, stats: running.stats(), dialer };
        Server { running: Some(running), control, addrs, clock, started, drain }
    }

    /// The address of the first listener, with the port that the system chose.
    ///
    /// # Panics
    /// If the server has no listener.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        *self.addrs.first().expect("the server has a listener")
    }

    /// The addresses of all listeners, in the order in which they were asked for.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What steers this server from any thread, handlers included; it may be cloned, and outlive
    /// the server.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.control
    }

    /// See [`Control::suspend`].
    pub fn suspend(&self) {
        self.control.suspend();
    }

    /// See [`Control::resume`].
    pub fn resume(&self) {
        self.control.resume();
    }

    /// See [`Control::snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.control.snapshot()
    }

    /// Comes to an end without losing anything: serves the clients that wait to be accepted,
    /// closes the listeners, asks every connection to come to an end
    /// ([`on_drain`](crate::Handler::on_drain)), one after the other over the time `spread`, each
    /// at a moment of its own, and waits for them; closes what is left once `deadline` has passed,
    /// as [`stop`](Server::stop) does. Blocks until the last one has ended; not to be called from a
    /// handler.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
    ///     .start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// client.write_all(b"hello")?;
    /// // The client finishes when the server has: then nobody has to wait for the deadline.
    /// let client = std::thread::spawn(move || {
    ///     let mut reply = String::new();
    ///     client.read_to_string(&mut reply).map(|_| reply)
    /// });
    /// let report = server.drain(Duration::from_secs(10), Duration::ZERO);
    /// assert_eq!(client.join().expect("it does not panic")?, "hello");
    /// assert_eq!(report.closed_by("drained"), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(mut self, deadline: Duration, spread: Duration) -> Report {
        self.control.common.order(&Order::Drain(spread));
        self.control.common.wait_stopped(deadline);
        self.finish()
    }

    /// Closes everything now: output that waits is lost. Waits a few seconds at most for handlers
    /// that are still running; those that run on are left behind and counted. If one of them keeps
    /// its reactor, because there are no workers or none left, that reactor's connections end only
    /// when it returns, and its figures are missing from the report. Blocks; not to be called from
    /// a handler.
    pub fn stop(mut self) -> Report {
        self.finish()
    }

    /// Serves until somebody calls [`Control::stop`] or [`Control::drain`], and does that. Blocks;
    /// not to be called from a handler.
    ///
    /// # Errors
    /// If the server could not go on.
    pub fn wait(mut self) -> Result<Report, Error> {
        self.serve();
        self.finish_or_fail()
    }

    /// Until it has stopped, or has drained as far as it gets.
    fn serve(&self) {
        let common = &self.control.common;
        if common.wait_for_end() == Ending::Drain {
            common.order(&Order::Drain(self.drain.spread));
            common.wait_drained(self.drain.deadline);
        }
    }

    /// Serves until SIGINT or SIGTERM (Ctrl-C or the closing of the console on Windows), then
    /// drains, as [`Builder::run`] does; for programs that need the server, or its
    /// [`control`](Server::control), before. Signals are caught from this call on. Blocks; not to
    /// be called from a handler.
    ///
    /// ```no_run
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let server = Server::builder().listen("127.0.0.1:7000", Raw::new(), echo).start()?;
    /// let control = server.control();
    /// std::thread::spawn(move || println!("{} connections", control.snapshot().connections()));
    /// println!("{}", server.run()?);
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the signals cannot be caught, because another server of this process does so already,
    /// and if the server cannot go on.
    pub fn run(mut self) -> Result<Report, Error> {
        let termination =
            Termination::install().map_err(|error| Error::io("catching signals", error))?;
        let common = &self.control.common;
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while termination.wait()? == Awoken::Signal {
                    common.note_signal();
                }
                Ok(())
            });
            self.serve();
            termination.interrupter().interrupt();
            watcher.join().unwrap_or(Ok(()))
        })
        .map_err(|error| Error::io("waiting for signals", error))?;
        self.finish_or_fail()
    }

    fn finish_or_fail(&mut self) -> Result<Report, Error> {
        let report = self.finish();
        self.control.common.take_failure().map_or(Ok(report), Err)
    }

    /// Stops what still runs, joins the threads, and sums up.
    fn finish(&mut self) -> Report {
        let common = &self.control.common;
        if !common.wait_stopped(Duration::ZERO) {
            common.order(&Order::Stop);
            if !common.wait_stopped(STOP_GRACE) {
                common.order(&Order::Abandon);
            }
        }
        common.close_requests();
        self.control.dialer.spawner().close();
        let mut report = Report::default();
        if let Some(running) = self.running.take() {
            let joined = running.join(STOP_GRACE, STOP_GRACE);
            report.stuck = joined.stuck;
            report.unserved = joined.unserved.len();
            report.take_overs = joined.stats.take_overs;
            for reactor in &joined.reactors {
                report.add(reactor);
            }
        }
        report.elapsed = self.clock.now().since(self.started);
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.finish();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

/// Steers a server from any thread, also from its own handlers. No call but
/// [`snapshot`](Control::snapshot) waits for anything. Harmless once the server has ended.
///
/// ```
/// use switchboard::{Error, Raw, Server, handler_fn};
///
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
///     .start()?;
/// let control = server.control();
/// let operator = std::thread::spawn(move || {
///     control.suspend();
///     control.resume();
///     control.stop();
/// });
/// let report = server.wait()?; // until the operator says stop
/// println!("{report}");
/// operator.join().expect("it does not panic");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Control {
    common: Arc<Common<MioKernel>>,
    stats: Arc<Stats>,
    pub(super) dialer: Dialer,
}

impl Control {
    /// Stops accepting; new clients wait in the system's queue, and are turned away by the system
    /// when it is full (see `backlog`). Connections are not affected. Each reactor follows when it
    /// comes to its mail: a client or two may still be accepted after the call.
    pub fn suspend(&self) {
        self.common.order(&Order::Suspend);
    }

    /// Accepts again. Nothing happens if accepting was not suspended.
    pub fn resume(&self) {
        self.common.order(&Order::Resume);
    }

    /// Changes who is let in: maxima, rates, and what is done when they are reached. `change` gets
    /// what holds now; what it makes of that holds at once. Nobody is sent away: where there are
    /// more connections than a new maximum allows, none is accepted until enough have ended. Where
    /// there is room now, clients that wait come in. Of changes that are made at the same time all
    /// count, and the last one of the same setting.
    ///
    /// What a client is ([`client_prefix_v4`](crate::Limits::client_prefix_v4) and the other) and
    /// the filters cannot be changed. Connections that came while there was no
    /// `connections_per_client_max` do not count against one that is set later.
    ///
    /// ```
    /// use switchboard::config::{Rate, WhenFull};
    /// use switchboard::{Error, Raw, Server, handler_fn};
    ///
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
    ///     .start()?;
    /// let control = server.control();
    /// control.admission(|admission| {
    ///     admission.connections_max = 5_000;
    ///     admission.accept_rate = Some(Rate::per_second(1_000));
    ///     admission.listeners[0].when_full = WhenFull::EvictIdle;
    /// })?;
    /// let refused = control.admission(|admission| admission.connections_max = 0);
    /// assert!(matches!(refused, Err(Error::Config { field: "connections_max", .. })));
    /// # server.stop();
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for a setting outside of its range; then nothing is changed.
    pub fn admission(&self, change: impl FnOnce(&mut Admission)) -> Result<(), Error> {
        // No lock is held meanwhile.
        let base = self.common.admission.settings();
        let mut new = base.clone();
        change(&mut new);
        new.check(base.listeners.len())?;
        self.common.change_admission(&base, &new);
        Ok(())
    }

    /// Asks the server to drain, as a signal does: [`Server::wait`] or
    /// [`Builder::run`](crate::Builder::run) asks every connection to come to an end, over the
    /// [`drain_spread`](crate::Builder::drain_spread), and returns when the last one has, or when
    /// the [`drain_deadline`](crate::Builder::drain_deadline) has passed. A signal during the drain
    /// leaves it at that; a second one stops. Asked for again, it changes nothing; where nobody
    /// waits for the server, it begins when somebody does.
    pub fn drain(&self) {
        self.common.ask_drain();
    }

    /// Asks the server to stop: [`Server::wait`] and [`Builder::run`](crate::Builder::run) return.
    /// Every connection is closed at once.
    pub fn stop(&self) {
        self.common.order(&Order::Stop);
        self.common.ask_stop();
    }

    /// How the server is. Blocks for as long as a reactor needs to answer: a turn, as a rule less
    /// than a millisecond. Not to be called from a handler, which would wait for its own reactor.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (sender, receiver) = mpsc::channel();
        self.common.order(&Order::Snapshot(sender));
        let count = self.common.desks().len();
        let mut reactors: Vec<_> =
            (0..count).map_while(|_| receiver.recv_timeout(SNAPSHOT_PATIENCE).ok()).collect();
        reactors.sort_by_key(|reactor| reactor.reactor);
        let mut memory = MemorySnapshot::default();
        reactors.iter().for_each(|reactor| memory.add(&reactor.memory));
        let stats = self.stats.snapshot();
        let jobs = self.dialer.spawner().counts();
        Snapshot {
            reactors,
            memory,
            admitted: self.common.admission.count(),
            threads: stats.threads,
            take_overs: stats.take_overs,
            lost_races: stats.lost_races,
            steals: stats.steals,
            offloads: stats.offloads,
            samples: stats.samples,
            jobs_waiting: jobs.waiting,
            jobs_finished: jobs.finished,
            jobs_panicked: jobs.panicked,
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

/// A server at one moment. The reactors answer one after the other, so sums over them may be off
/// by what happened in between. What is counted is counted since the start.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use switchboard::{Raw, Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"hello")?;
/// client.read_exact(&mut [0; 5])?;
///
/// let snapshot = server.snapshot();
/// assert_eq!((snapshot.connections(), snapshot.opened()), (1, 1));
/// let sent: u64 = snapshot.reactors.iter().map(|reactor| reactor.sent_bytes).sum();
/// assert_eq!(sent, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Each reactor, in the order of their numbers; those that have ended, or do not answer within
    /// two seconds, are missing.
    pub reactors: Vec<ReactorSnapshot>,
    /// What the connections of all these reactors use of memory, against what they may.
    pub memory: MemorySnapshot,
    /// Connections that count against `connections_max`: those that are open, being opened or
    /// closing, and those that we are making.
    pub admitted: usize,
    /// Threads that run, the sentinel not counted.
    pub threads: u64,
    /// Reactors that were taken over from a thread with a slow handler.
    pub take_overs: u64,
    /// Take-overs that came too late because the thread was back.
    pub lost_races: u64,
    /// Jobs that idle threads took from a heavy reactor.
    pub steals: u64,
    /// Jobs that went through the slow lane, free ones included.
    pub offloads: u64,
    /// Looks of the sentinel at the reactors.
    pub samples: u64,
    /// Free jobs that wait for a thread, see [`Control::spawn`].
    pub jobs_waiting: usize,
    /// Free jobs that were run to their end, or their panic.
    pub jobs_finished: u64,
    /// Free jobs that panicked.
    pub jobs_panicked: u64,
}

impl Snapshot {
    /// Connections that are being made, see [`Control::connect`].
    #[must_use]
    pub fn connecting(&self) -> usize {
        self.reactors.iter().map(|reactor| reactor.connecting).sum()
    }

    /// Connections that reactors hold now, those that are closing included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.reactors.iter().map(|reactor| reactor.connections).sum()
    }

    /// Connections opened since the start.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.reactors.iter().map(|reactor| reactor.opened).sum()
    }
}

/// What a server did in all, once it has ended.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Connections opened, those of our own included.
    pub opened: u64,
    /// Connections that a drain asked to come to an end.
    pub asked: u64,
    /// Connections ended, by the label of their cause.
    pub closed: Vec<(&'static str, u64)>,
    /// Threads that were left behind in a handler that did not return.
    pub stuck: usize,
    /// Calls that were never made, because handlers that did not return held all threads; and free
    /// jobs that had not begun.
    pub unserved: usize,
    /// Reactors that were taken over from a thread with a slow handler.
    pub take_overs: u64,
    /// How long the server ran.
    pub elapsed: Duration,
}

impl Report {
    /// Connections ended; equals `opened` unless threads are stuck.
    #[must_use]
    pub fn closed_count(&self) -> u64 {
        self.closed.iter().map(|&(_, count)| count).sum()
    }

    /// Connections ended for the cause with this [label](crate::close::Cause::label).
    #[must_use]
    pub fn closed_by(&self, label: &str) -> u64 {
        let matching = self.closed.iter().filter(|&&(name, _)| name == label);
        matching.map(|&(_, count)| count).sum()
    }

    fn add(&mut self, reactor: &Reactor<MioKernel>) {
        let counters = reactor.counters();
        self.opened += counters.opened;
        self.asked += counters.asked;
        for (label, count) in counters.closed_by_label() {
            match self.closed.iter_mut().find(|(name, _)| *name == label) {
                Some((_, sum)) => *sum += count,
                None => self.closed.push((label, count)),
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections opened, {} closed", self.opened, self.closed_count())?;
        for (label, count) in &self.closed {
            write!(f, ", {label}: {count}")?;
        }
        if self.stuck > 0 {
            write!(f, ", {} threads stuck in handlers", self.stuck)?;
        }
        write!(f, ", {:.1} s", self.elapsed.as_secs_f64())
    }
}
