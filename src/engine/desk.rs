//! `Desk`: what all threads may use of one reactor at any time: its mailbox, its figures.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use super::counters::ReactorSnapshot;
use super::reactor::Newcomer;
use super::request::Request;
use crate::core::group::{Seat, Seats};
use crate::core::job::{Call, Done};
use crate::core::offload::Spawn;
use crate::core::post::{Command, Office, Post};
use crate::parts::mailbox::{Mailbox, Wake};
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::config::{Listening, Timeouts};
use crate::words::error::SpawnError;
use crate::words::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::words::sync::{Arc, Mutex, lock};

/// What a reactor finds in its mailbox.
pub(crate) enum Letter<K: Kernel> {
    /// What a job left that another thread ran.
    Done { done: Done, overtaken: bool },
    /// Something for one connection.
    Command(Command),
    /// A connection that another reactor accepted.
    Adopt(Newcomer<K>),
    /// Something that a door may wait for is free again: try to accept.
    Retry(Freed),
    /// Memory or room for connections has become shorter: look how short.
    Look,
    /// Something for the whole server.
    Order(Order),
    /// Requests lie at the desk.
    Asked,
}

/// What is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// A connection is gone: a permit, a descriptor, memory.
    Connection,
    /// A permit alone, that an accept did not need because it failed.
    Permit,
    /// A place among the connections of this listener.
    Place(u16),
    /// Maybe anything: the operator has changed the limits.
    Limits,
    /// Nothing: the last listener is closed, and those who have waited for that may end.
    Nothing,
}

/// What an operator asks of a server.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Stop accepting; new clients wait in the system's queue.
    Suspend,
    /// Accept again.
    Resume,
    /// Accept those that wait already, close the listeners, ask every connection to come to an end,
    /// one after the other over this time.
    Drain(Duration),
    /// Close everything now.
    Stop,
    /// Wait no longer for handlers that are still running.
    Abandon,
    /// Say how things are.
    Snapshot(Sender<ReactorSnapshot>),
}

/// One reactor, as every thread may see it.
pub(crate) struct Desk<K: Kernel> {
    pub(crate) mailbox: Mailbox<Letter<K>>,
    /// Connections placed here. A hint for placement and nothing else: Relaxed everywhere.
    pub(super) load: AtomicUsize,
    /// What is asked of the reactor and was not taken yet; `None` once it takes no more. Not in the
    /// mailbox, which a reactor that has ended never reads again.
    requests: Mutex<Option<Vec<Request>>>,
    /// What the connections of this reactor use of memory, as it last told. SeqCst, with `heeded`:
    /// who has risen tells what is used and then looks what others heed; who has fallen tells what
    /// it heeds and then looks what others use. One of the two sees the other.
    used: AtomicUsize,
    /// What other threads have sent to connections of this reactor and no job has taken yet. A
    /// number that guards no other memory, like the next: Relaxed everywhere.
    posted: AtomicUsize,
    /// No memory is left for such messages.
    full: AtomicBool,
    /// The grade and the pressure that this reactor acts upon, four bits each. SeqCst, as `used`.
    pub(super) heeded: AtomicU8,
    seats: Seats,
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    listening: Arc<[Listening]>,
    /// Who takes free jobs; gone when the server is.
    spawner: OnceLock<Weak<dyn Spawn>>,
}

impl<K: Kernel> Desk<K> {
    pub(crate) fn new(
        wake: Box<dyn Wake>,
        clock: impl Fn() -> Time + Send + Sync + 'static,
        listening: Arc<[Listening]>,
    ) -> Self {
        Desk {
            mailbox: Mailbox::new(wake),
            load: AtomicUsize::new(0),
            requests: Mutex::new(Some(Vec::new())),
            used: AtomicUsize::new(0),
            posted: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            heeded: AtomicU8::new(0),
            seats: Seats::new(),
            clock: Box::new(clock),
            listening,
            spawner: OnceLock::new(),
        }
    }

    /// Says who takes free jobs; once, before the reactor turns.
    pub(crate) fn set_spawner(&self, spawner: Weak<dyn Spawn>) {
        let set = self.spawner.set(spawner);
        debug_assert!(set.is_ok(), "the spawner is set once");
    }

    /// The present moment, for jobs whose time is taken.
    pub(crate) fn now(&self) -> Time {
        (self.clock)()
    }

    /// Whether nothing can be asked for any more.
    pub(crate) fn refuses_requests(&self) -> bool {
        lock(&self.requests).is_none()
    }

    /// Asks for something; gives it back if the reactor takes no more requests.
    pub(crate) fn ask(&self, request: Request) -> Result<(), Request> {
        match &mut *lock(&self.requests) {
            Some(requests) => requests.push(request),
            None => return Err(request),
        }
        self.mailbox.post(Letter::Asked);
        Ok(())
    }

    /// Takes what was asked.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        lock(&self.requests).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes what was asked, and no request from now on.
    pub(crate) fn close_requests(&self) -> Vec<Request> {
        if cfg!(switchboard_sim_mutant = "requests_forgotten") {
            return Vec::new();
        }
        lock(&self.requests).take().unwrap_or_default()
    }

    /// No group has members here any more, nor ever again.
    pub(crate) fn close_seats(&self) {
        self.seats.close();
    }

    /// Connections that are asked for and not begun, each of which has a permit.
    pub(crate) fn asked_count(&self) -> usize {
        let requests = lock(&self.requests);
        let dials = requests.iter().flatten().filter(|r| matches!(r, Request::Dial(_)));
        dials.count()
    }

    /// How many connections are placed here.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// What its connections use of memory, as its reactor last told.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// The reactor tells what its connections use.
    pub(crate) fn publish_used(&self, bytes: usize) {
        self.used.store(bytes, Ordering::SeqCst);
    }

    /// The messages on their way to its connections, in bytes.
    pub(crate) fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    /// Whether such messages are refused.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// A connection is placed here.
    pub(crate) fn place(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is gone.
    pub(crate) fn unplace(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Kernel> Post for Desk<K> {
    fn command(&self, command: Command) {
        self.mailbox.post(Letter::Command(command));
    }

    fn admit(&self, cost: usize) -> bool {
        let full = self.full.load(Ordering::Relaxed);
        if !full {
            self.posted.fetch_add(cost, Ordering::Relaxed);
        }
        !full
    }

    fn taken(&self, cost: usize) {
        self.posted.fetch_sub(cost, Ordering::Relaxed);
    }

    fn enroll(&self, seat: &Arc<Seat>) -> bool {
        self.seats.enroll(seat)
    }

    fn dismiss(&self, seat: &Arc<Seat>) {
        self.seats.dismiss(seat);
    }
}

impl<K: Kernel> Office for Arc<Desk<K>> {
    fn post(&self) -> Arc<dyn Post> {
        Arc::clone(self) as Arc<dyn Post>
    }

    fn spawn(&self, call: Call) -> Result<(), SpawnError> {
        let spawner = self.spawner.get().and_then(Weak::upgrade);
        spawner.map_or(Err(SpawnError::Stopping), |spawner| spawner.spawn_call(call))
    }

    fn now(&self) -> Time {
        (self.clock)()
    }

    fn timeouts(&self, listener: u16) -> Timeouts {
        self.listening[usize::from(listener)].timeouts.clone()
    }
}

impl<K: Kernel> fmt::Debug for Desk<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("load", &self.load).finish_non_exhaustive()
    }
}
