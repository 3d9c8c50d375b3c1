//! `Common`: what the reactors of one server share: limits, admission, desks, and its end.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use super::desk::{Desk, Freed, Letter, Order};
use super::request::{Answer, Asked, Request};
use crate::core::dial::ConnectCause;
use crate::core::job::Call;
use crate::core::limits::{
    Admission, Alarm, Alarms, Clients, Full, Grade, Permit, Prefixes, Shortage, Via, Waiters,
};
use crate::core::session::Factory;
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::config::{self, Limits, Listening, Placement, Shaper};
use crate::words::error::Error;
use crate::words::pressure::Pressure;
use crate::words::sync::atomic::{AtomicUsize, Ordering};
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait};

/// How long a connection may take to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialTimes {
    /// All of it, once the addresses are known.
    pub(crate) timeout: Duration,
    /// Between one attempt and the next one beside it.
    pub(crate) delay: Duration,
}

/// Why a server comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All reactors have stopped, or somebody asked for it.
    Stop,
    /// The system or the operator asked for one that loses nothing.
    Drain,
}

/// Told how short memory is; user code.
pub(crate) type TellShortage = dyn Fn(&Shortage) + Send + Sync;

/// Told of alarms; user code.
pub(crate) type TellAlarm = dyn Fn(&Alarm) + Send + Sync;

/// The state of the alarms, and who is told of them.
pub(crate) struct Bell {
    pub(crate) alarms: Alarms,
    pub(crate) tell: Arc<TellAlarm>,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("alarms", &self.alarms).finish_non_exhaustive()
    }
}

/// Who is told how short memory is.
pub(crate) struct OnShortage(pub(crate) Arc<TellShortage>);

impl fmt::Debug for OnShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnShortage")
    }
}

/// What the reactors of one server share.
#[derive(Debug)]
pub(crate) struct Common<K: Kernel> {
    pub(crate) limits: Limits,
    /// Those of each listener, by its number; the last ones are for connections that we open.
    pub(crate) listening: Arc<[Listening]>,
    pub(crate) placement: Placement,
    pub(crate) admission: Admission,
    /// What all connections together may read and write, if that is bounded.
    pub(crate) shaper: Option<Shaper>,
    desks: OnceLock<Vec<Arc<Desk<K>>>>,
    /// Listening sockets that are open. AcqRel and Acquire: whoever sees that there are none left
    /// also sees, in its mailbox, every connection that came through one.
    open_doors: AtomicUsize,
    /// Reactors of which a door waits for a permit or a descriptor.
    starved: Waiters,
    /// Those of which a door waits for a place at a listener, by its number.
    crowded: Box<[Waiters]>,
    pub(crate) bell: Option<Bell>,
    pub(crate) on_shortage: Option<OnShortage>,
    progress: Mutex<Progress>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    stopped: usize,
    stop_asked: bool,
    drain_asked: bool,
    signals: usize,
    failure: Option<Error>,
}

impl<K: Kernel> Common<K> {
    pub(crate) fn new(limits: Limits, listening: Arc<[Listening]>, placement: Placement) -> Self {
        let prefixes = Prefixes { v4: limits.client_prefix_v4, v6: limits.client_prefix_v6 };
        let clients = Clients::new(prefixes, limits.connections_per_client_max);
        // The last one is that of connections that the program opens itself.
        let inbound = &listening[..listening.len().saturating_sub(1)];
        let settings = config::Admission::new(&limits, inbound);
        let rates = (limits.server_read_rate, limits.server_send_rate);
        let shaper = (rates != (None, None)).then(|| Shaper::of(rates.0, rates.1));
        Common {
            admission: Admission::new(settings, clients),
            starved: Waiters::default(),
            crowded: listening.iter().map(|_| Waiters::default()).collect(),
            bell: None,
            on_shortage: None,
            limits,
            listening,
            placement,
            shaper,
            desks: OnceLock::new(),
            open_doors: AtomicUsize::new(0),
            progress: Mutex::new(Progress::default()),
            moved: Condvar::new(),
        }
    }

    /// Has `tell` told when memory becomes shorter or less short.
    pub(crate) fn with_shortage(mut self, tell: Option<Arc<TellShortage>>) -> Self {
        self.on_shortage = tell.map(OnShortage);
        self
    }

    /// Has `tell` told of alarms.
    pub(crate) fn with_bell(mut self, tell: Option<Arc<TellAlarm>>) -> Self {
        let Limits { alarm_percent, alarm_cool_down, .. } = self.limits;
        self.bell =
            tell.map(|tell| Bell { alarms: Alarms::new(alarm_percent, alarm_cool_down), tell });
        self
    }

    /// Clients are hashed the same way every time.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn predictable(self) -> Self {
        let prefixes =
            Prefixes { v4: self.limits.client_prefix_v4, v6: self.limits.client_prefix_v6 };
        let settings = self.admission.settings();
        let clients = Clients::predictable(prefixes, settings.connections_per_client_max);
        Common { admission: Admission::new(settings, clients), ..self }
    }

    /// Makes the desks known; once, before any reactor turns.
    pub(crate) fn set_desks(&self, desks: Vec<Arc<Desk<K>>>) {
        let set = self.desks.set(desks);
        debug_assert!(set.is_ok(), "the desks are set once");
    }

    pub(crate) fn desks(&self) -> &[Arc<Desk<K>>] {
        self.desks.get().map_or(&[], Vec::as_slice)
    }

    /// The reactor with the fewest connections; `home` if none has fewer.
    pub(crate) fn least_loaded(&self, home: usize) -> usize {
        let load = |desk: &Arc<Desk<K>>| desk.load.load(Ordering::Relaxed);
        let desks = self.desks();
        let mut best = home;
        for (index, desk) in desks.iter().enumerate() {
            if load(desk) < load(&desks[best]) {
                best = index;
            }
        }
        best
    }

    /// A listening socket is open.
    pub(crate) fn door_opened(&self) {
        self.open_doors.fetch_add(1, Ordering::AcqRel);
    }

    /// A listening socket is closed, and all that came through it was handed on. Reactors that
    /// have only waited for the last one look again.
    pub(crate) fn door_closed(&self) {
        if self.open_doors.fetch_sub(1, Ordering::AcqRel) == 1 {
            let retry = |desk: &Arc<Desk<K>>| desk.mailbox.post(Letter::Retry(Freed::Nothing));
            self.desks().iter().for_each(retry);
        }
    }

    /// Whether a connection may still come from any reactor.
    pub(crate) fn has_open_doors(&self) -> bool {
        self.open_doors.load(Ordering::Acquire) > 0
            && !cfg!(switchboard_sim_mutant = "door_unheeded")
    }

    /// A place for one more connection of `listener`.
    ///
    /// # Errors
    /// Which maximum is reached.
    pub(crate) fn try_admit(&self, listener: u16) -> Result<Permit, Full> {
        let admitted = self.admission.try_admit(listener);
        if matches!(admitted, Err(Full::Server)) {
            // It had a place of the listener for a moment, which somebody may have missed.
            self.free_place(listener);
        }
        admitted
    }

    /// A door of reactor `index` will wait for a permit or a descriptor. Try once more after this.
    pub(crate) fn starve(&self, index: usize) {
        self.starved.join(index);
    }

    /// A door of reactor `index` will wait for a place at this listener. Try once more after this.
    pub(crate) fn crowd(&self, index: usize, listener: u16) {
        self.crowded[usize::from(listener)].join(index);
    }

    /// A connection is gone that came in so from `ip`: its permit is free, and those who wait for
    /// one may try.
    pub(crate) fn release(&self, permit: Permit, via: Via, ip: IpAddr) {
        self.free(permit, via, ip, Freed::Connection);
    }

    /// A connection that the program opened, or tried to, is gone.
    pub(crate) fn release_dialed(&self, permit: Permit) {
        // Nobody was counted, whatever the address.
        self.release(permit, self.admission.outbound(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    /// An accept failed. That is no news for those who wait for descriptors: if it were, one that
    /// failed for want of one would be tried again at once, for ever.
    pub(crate) fn give_back(&self, permit: Permit, via: Via, ip: IpAddr) {
        self.free(permit, via, ip, Freed::Permit);
    }

    fn free(&self, permit: Permit, via: Via, ip: IpAddr, freed: Freed) {
        self.admission.release(permit, via, ip);
        self.starved.call(|index| {
            if !cfg!(switchboard_sim_mutant = "release_untold") {
                self.retry(index, freed);
            }
        });
        self.free_place(via.listener());
    }

    fn free_place(&self, listener: u16) {
        self.crowded[usize::from(listener)].call(|index| {
            if !cfg!(switchboard_sim_mutant = "place_untold") {
                self.retry(index, Freed::Place(listener));
            }
        });
    }

    fn retry(&self, index: usize, freed: Freed) {
        self.desks()[index].mailbox.post(Letter::Retry(freed));
    }

    /// Lets other limits hold; doors that wait look again.
    pub(crate) fn change_admission(&self, base: &config::Admission, new: &config::Admission) {
        let now = self.desks().first().map_or(Time::ZERO, |desk| desk.now());
        self.admission.change(base, new, now);
        (0..self.desks().len()).for_each(|index| self.retry(index, Freed::Limits));
    }

    /// Asks for a connection. The answer comes in any case; the call that may come of it is user
    /// code, for the caller to run.
    pub(crate) fn dial(
        &self,
        addrs: Vec<SocketAddr>,
        times: DialTimes,
        factory: Arc<dyn Factory>,
        answer: Answer,
    ) -> Option<Call> {
        if addrs.is_empty() {
            return answer.fail(ConnectCause::NoAddress, Vec::new());
        }
        let desk = &self.desks()[self.least_loaded(0)];
        let Some(permit) = self.admission.try_dial() else {
            // Whoever tries again after a while would at once: at its end a server makes no one
            // wait.
            let over = desk.refuses_requests() && !cfg!(switchboard_sim_mutant = "full_for_ever");
            let cause = if over { ConnectCause::Stopping } else { ConnectCause::Full };
            return answer.fail(cause, Vec::new());
        };
        desk.place();
        let DialTimes { timeout, delay } = times;
        let asked = Asked { addrs, timeout, delay, factory, answer, permit };
        let Err(request) = desk.ask(Request::Dial(asked)) else { return None };
        desk.unplace();
        self.refuse(request)
    }

    /// Has `call` made where handlers run, once so much time has passed, or earlier if the server
    /// comes to its end. If it has, the call comes back, for the caller to run.
    pub(crate) fn later(&self, after: Duration, call: Call) -> Option<Call> {
        let desk = &self.desks()[self.least_loaded(0)];
        let refused = desk.ask(Request::Later(desk.now() + after, call)).err();
        refused.and_then(|request| self.refuse(request))
    }

    /// Answers a request that no reactor takes any more. The call that may come of it is user
    /// code, for the caller to run.
    pub(crate) fn refuse(&self, request: Request) -> Option<Call> {
        match request {
            Request::Dial(asked) => {
                self.release_dialed(asked.permit);
                asked.answer.fail(ConnectCause::Stopping, Vec::new())
            }
            Request::Later(_, call) => Some(call),
        }
    }

    /// No reactor takes requests any more, and what lies at the desks is answered here: of those
    /// that hang in a handler too.
    pub(crate) fn close_requests(&self) {
        for desk in self.desks() {
            desk.close_seats();
            for request in desk.close_requests() {
                if matches!(request, Request::Dial(_)) {
                    desk.unplace();
                }
                let _panicked = self.refuse(request).is_some_and(Call::run);
            }
        }
    }

    /// Reactor `index` acts upon this grade of memory and this pressure: those that have not come
    /// so far are to look.
    pub(crate) fn tell_pressure(&self, index: usize, grade: Grade, pressure: Pressure) {
        let level = pressure.level().to_le_bytes()[0];
        let desks = self.desks();
        desks[index].heeded.store(grade.number() << 4 | level, Ordering::SeqCst);
        for (other, desk) in desks.iter().enumerate() {
            let heeded = desk.heeded.load(Ordering::SeqCst);
            let behind = heeded >> 4 < grade.number() || heeded & 0xF < level;
            if other != index && behind {
                desk.mailbox.post(Letter::Look);
            }
        }
    }

    /// Tells every reactor.
    pub(crate) fn order(&self, order: &Order) {
        for desk in self.desks() {
            desk.mailbox.post(Letter::Order(order.clone()));
        }
    }

    /// A reactor has stopped; the last one of all ends every wait.
    pub(crate) fn reactor_stopped(&self) {
        lock(&self.progress).stopped += 1;
        self.moved.notify_all();
    }

    /// A reactor cannot go on: the server ends with this error, the first one counts.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.progress).failure.get_or_insert(error);
        self.order(&Order::Stop);
    }

    /// Notes that somebody asked for the end.
    pub(crate) fn ask_stop(&self) {
        lock(&self.progress).stop_asked = true;
        self.moved.notify_all();
    }

    /// Notes that somebody asked for an end that loses nothing.
    pub(crate) fn ask_drain(&self) {
        lock(&self.progress).drain_asked = true;
        self.moved.notify_all();
    }

    /// The system asked for the end.
    pub(crate) fn note_signal(&self) {
        lock(&self.progress).signals += 1;
        self.moved.notify_all();
    }

    /// Waits until all reactors have stopped or somebody asks for the end.
    pub(crate) fn wait_for_end(&self) -> Ending {
        let mut progress = lock(&self.progress);
        loop {
            if progress.stopped == self.desks().len() || progress.stop_asked {
                return Ending::Stop;
            }
            if progress.drain_asked || progress.signals > 0 {
                return Ending::Drain;
            }
            progress = wait(&self.moved, progress);
        }
    }

    /// Waits until all reactors have stopped, at most for `patience`; a second signal or a stop
    /// ends the wait.
    pub(crate) fn wait_drained(&self, patience: Duration) {
        let all = self.desks().len();
        let goes_on = |p: &mut Progress| p.stopped < all && p.signals < 2 && !p.stop_asked;
        let waited = self.moved.wait_timeout_while(lock(&self.progress), patience, goes_on);
        drop(waited.unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// Waits until all reactors have stopped, at most for `patience`. True if they have.
    pub(crate) fn wait_stopped(&self, patience: Duration) -> bool {
        let all = self.desks().len();
        let progress = lock(&self.progress);
        let waited = self.moved.wait_timeout_while(progress, patience, |p| p.stopped < all);
        let (progress, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        progress.stopped == all
    }

    /// Why the server could not go on, if so.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.progress).failure.take()
    }
}
