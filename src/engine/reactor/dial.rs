//! Dialing: connections that we open ourselves, until they are connections like any other; and the
//! calls that were asked of a reactor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;

use super::{Entry, Phase, Reactor, Watch};
use crate::core::conn::Connection;
use crate::core::dial::{Attempt, ConnectCause, Dial, Next};
use crate::core::gate::Gate;
use crate::core::job::{Call, Job, Task};
use crate::core::limits::Permit;
use crate::core::post::Office;
use crate::core::session::{Errand, Factory};
use crate::engine::request::{Answer, Asked, Request};
use crate::sys::{Event, Kernel};
use crate::words::clock::Time;
use crate::words::id::{ATTEMPTS_MAX, Token};
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// What a reactor is dialing. The number of dials is bounded by permits: each holds one at least.
pub(super) struct Dials<K: Kernel> {
    /// By number.
    dials: BTreeMap<u32, Dialing<K>>,
    /// To which of them an attempt belongs, by the attempt's number.
    attempts: BTreeMap<u32, u32>,
    /// Those of which there is news. May name one twice, or one that is gone.
    ready: VecDeque<u32>,
    /// When each wants to be looked at although there is no news.
    due: BTreeSet<(Time, u32)>,
    /// Calls to be made at a time.
    later: BTreeMap<(Time, u32), Call>,
    /// Calls to be made in this turn.
    calls: VecDeque<Call>,
    /// Those that are being made.
    calls_out: usize,
    /// How many dials and calls this turn still has time for.
    batch: usize,
    next_number: u32,
}

/// One request to connect.
struct Dialing<K: Kernel> {
    dial: Dial,
    trials: Vec<Trial<K>>,
    /// For the next attempt. There is one whenever no attempt is under way, so that the first one
    /// never lacks it; the sockets of one request have a permit each.
    spare: Option<Permit>,
    due: Time,
    factory: Arc<dyn Factory>,
    answer: Answer,
}

/// One attempt that is under way.
struct Trial<K: Kernel> {
    number: u32,
    addr: SocketAddr,
    stream: K::Stream,
    permit: Permit,
    /// The poll has told of it.
    told: bool,
    /// ... more than that it is writable.
    hung_up: bool,
}

impl<K: Kernel> Default for Dials<K> {
    fn default() -> Self {
        Dials {
            dials: BTreeMap::new(),
            attempts: BTreeMap::new(),
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            later: BTreeMap::new(),
            calls: VecDeque::new(),
            calls_out: 0,
            batch: 0,
            next_number: 0,
        }
    }
}

impl<K: Kernel> Dials<K> {
    /// The poll has told of an attempt. False if that is gone.
    pub(super) fn handle_event(&mut self, number: u32, event: &Event) -> bool {
        let Some(&of) = self.attempts.get(&number) else { return false };
        let Some(dialing) = self.dials.get_mut(&of) else { return false };
        for trial in dialing.trials.iter_mut().filter(|trial| trial.number == number) {
            trial.told = true;
            trial.hung_up |= event.readable;
        }
        self.ready.push_back(of);
        true
    }

    /// Has a call made as soon as may be.
    pub(super) fn push_call(&mut self, call: Call) {
        self.calls.push_back(call);
    }

    /// A call is over.
    pub(super) fn handle_called(&mut self) {
        self.calls_out -= 1;
    }

    /// Connections that are being made.
    pub(super) fn count(&self) -> usize {
        self.dials.len()
    }

    /// Permits that it holds.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn permit_count(&self) -> usize {
        let of = |dialing: &Dialing<K>| dialing.trials.len() + usize::from(dialing.spare.is_some());
        self.dials.values().map(of).sum()
    }

    /// Whether there is something to do now.
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.is_empty() || !self.calls.is_empty()
    }

    /// When there is something to do next, unless there is news.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let due = self.due.first().map(|&(at, _)| at);
        let later = self.later.keys().next().map(|&(at, _)| at);
        due.into_iter().chain(later).min()
    }

    /// Whether every call was handed out.
    pub(super) fn are_called(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether nothing is left, and every call is over.
    pub(super) fn are_over(&self) -> bool {
        self.dials.is_empty() && self.calls.is_empty() && self.calls_out == 0
    }

    /// A number that nothing here has.
    fn number(&mut self) -> u32 {
        loop {
            let number = self.next_number;
            self.next_number = (number + 1) % ATTEMPTS_MAX;
            // A call that waits for longer than so many numbers take is found by its time as well.
            if !self.attempts.contains_key(&number) && !self.dials.contains_key(&number) {
                return number;
            }
        }
    }

    /// Takes one out, to go on with it.
    fn take(&mut self, number: u32) -> Option<Dialing<K>> {
        let dialing = self.dials.remove(&number)?;
        self.due.remove(&(dialing.due, number));
        Some(dialing)
    }

    /// Puts one back, which waits until then.
    fn put_back(&mut self, number: u32, mut dialing: Dialing<K>, until: Time) {
        dialing.due = until;
        self.due.insert((until, number));
        self.dials.insert(number, dialing);
    }
}

impl<K: Kernel> Reactor<K> {
    /// Takes in what was asked of it.
    pub(super) fn take_requests(&mut self) {
        for request in self.desk.take_requests() {
            let number = self.dials.number();
            match request {
                Request::Dial(asked) => {
                    let Asked { addrs, timeout, delay, factory, answer, permit } = asked;
                    let dial = Dial::new(addrs, timeout, delay, self.io.now);
                    let (trials, spare) = (Vec::new(), Some(permit));
                    let dialing = Dialing { dial, trials, spare, due: Time::ZERO, factory, answer };
                    self.dials.dials.insert(number, dialing);
                    self.dials.ready.push_back(number);
                }
                Request::Later(at, call) => {
                    let before = self.dials.later.insert((at, number), call);
                    debug_assert!(before.is_none(), "the number was free");
                }
            }
        }
    }

    /// Gets ready for the dial phase.
    pub(super) fn begin_dialing(&mut self) {
        let (now, dials) = (self.io.now, &mut self.dials);
        while let Some((_, number)) = dials.due.first().copied().filter(|&(at, _)| at <= now) {
            dials.due.pop_first();
            dials.ready.push_back(number);
        }
        while let Some(first) = dials.later.first_entry().filter(|first| first.key().0 <= now) {
            dials.calls.push_back(first.remove());
        }
        dials.batch = self.io.common.limits.accepts_per_turn;
        self.phase = Phase::Dial;
    }

    /// Goes on with a bounded number of those of which there is news; hands out one job at a time.
    pub(super) fn dial_ready(&mut self) -> Option<Box<Job>> {
        while self.dials.batch > 0 {
            let Some(number) = self.dials.ready.pop_front() else { break };
            self.dials.batch -= 1;
            if let Some(job) = self.go_on_dialing(number).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        while self.dials.batch > 0 {
            let Some(call) = self.dials.calls.pop_front() else { break };
            self.dials.batch -= 1;
            let mut job = self.io.blank();
            job.task = Task::Call(call);
            job.timed = false;
            self.dials.calls_out += 1;
            if let Some(job) = self.dispatch(job) {
                return Some(job);
            }
        }
        self.begin_accepting();
        None
    }

    fn go_on_dialing(&mut self, number: u32) -> Option<Box<Job>> {
        let mut dialing = self.dials.take(number)?;
        if let Some(won) = self.look_at_trials(&mut dialing) {
            return self.open_dialed(dialing, won);
        }
        loop {
            match dialing.dial.next(self.io.now) {
                Next::Start(addr) => self.try_addr(number, &mut dialing, addr),
                Next::Wait(until) => {
                    self.dials.put_back(number, dialing, until);
                    return None;
                }
                Next::Failed => {
                    self.give_up_dial(dialing, ConnectCause::Failed);
                    return None;
                }
                Next::TimedOut => {
                    self.give_up_dial(dialing, ConnectCause::TimedOut);
                    return None;
                }
            }
        }
    }

    /// Asks what has become of those attempts that the poll has told of: the first that is a
    /// connection wins.
    fn look_at_trials(&mut self, dialing: &mut Dialing<K>) -> Option<Trial<K>> {
        let mut index = 0;
        while let Some(trial) = dialing.trials.get_mut(index) {
            if !std::mem::take(&mut trial.told) {
                index += 1;
                continue;
            }
            match self.io.kernel.connected(&mut trial.stream) {
                Ok(true) => return Some(self.end_trial(dialing, index)),
                Ok(false) => index += 1,
                Err(error) => {
                    let Trial { addr, stream, permit, .. } = self.end_trial(dialing, index);
                    self.io.kernel.close(stream);
                    self.keep_permit(dialing, permit);
                    dialing.dial.handle_failed(addr, error, self.io.now);
                }
            }
        }
        None
    }

    fn end_trial(&mut self, dialing: &mut Dialing<K>, index: usize) -> Trial<K> {
        let trial = dialing.trials.swap_remove(index);
        self.dials.attempts.remove(&trial.number);
        trial
    }

    /// The permit of an attempt that has failed goes to the next one, if that has none.
    fn keep_permit(&mut self, dialing: &mut Dialing<K>, permit: Permit) {
        match dialing.spare {
            None => dialing.spare = Some(permit),
            Some(_) if cfg!(switchboard_sim_mutant = "trial_permit_kept") => {}
            Some(_) => self.io.common.release_dialed(permit),
        }
    }

    /// Begins an attempt.
    fn try_addr(&mut self, of: u32, dialing: &mut Dialing<K>, addr: SocketAddr) {
        let now = self.io.now;
        let spare = dialing.spare.take();
        let Some(permit) = spare.or_else(|| self.io.common.admission.try_dial()) else {
            dialing.dial.handle_no_room();
            return;
        };
        let number = self.dials.number();
        let begun = self.io.kernel.connect(addr).and_then(|mut stream| {
            let token = Token::Attempt(number).pack();
            match self.io.kernel.watch_connecting(&mut stream, token) {
                Ok(()) => Ok(stream),
                Err(error) => {
                    self.io.kernel.close(stream);
                    Err(error)
                }
            }
        });
        match begun {
            Ok(stream) => {
                dialing.dial.handle_started(now);
                self.dials.attempts.insert(number, of);
                let (told, hung_up) = (false, false);
                dialing.trials.push(Trial { number, addr, stream, permit, told, hung_up });
            }
            Err(error) => {
                dialing.dial.handle_not_started(error, now);
                self.keep_permit(dialing, permit);
            }
        }
    }

    /// Makes the record of a connection that was made, and the job that opens it.
    fn open_dialed(&mut self, mut dialing: Dialing<K>, won: Trial<K>) -> Option<Box<Job>> {
        let Trial { addr, stream, permit, hung_up, .. } = won;
        self.close_trials(&mut dialing);
        let Dialing { factory, answer, .. } = dialing;
        // As for one that comes in.
        self.io.look_at_clock();
        let now = self.io.now;
        // The number after those of the listeners.
        let door = self.io.common.admission.outbound();
        let keepalive = self.io.priors[usize::from(door)].open();
        let mut parts = Some((stream, permit));
        let made = self.table.insert_with(|_| {
            let (stream, permit) = parts.take().expect("asked for once");
            Entry::new(stream, permit, door, Connection::new(addr, now, keepalive))
        });
        let Ok(id) = made else {
            let (stream, permit) = parts.take()?;
            self.io.kernel.close(stream);
            self.io.common.release_dialed(permit);
            self.note_failure(answer, ConnectCause::Full, Vec::new());
            return None;
        };
        self.io.counters.opened += 1;
        self.io.counters.dialed += 1;
        let max = self.io.common.limits.send_max_bytes;
        let gate = Arc::new(Gate::new(id, factory.handler(), max, self.desk.post()));
        let mut job = self.io.blank();
        let entry = self.table.get_mut(id)?;
        entry.conn.set_shape(self.io.shape(door));
        entry.conn.attach(Arc::clone(&gate));
        (job.hand.now, job.hand.door) = (now, door.listener());
        entry.conn.lend(id, &mut job.hand, self.io.rules(door));
        entry.watch = Watch::Input;
        let stream = entry.stream.as_mut()?;
        if let Err(error) = self.io.kernel.rewatch(stream, Token::of(id).pack(), false) {
            entry.conn.die(Cause::of_io(&error));
            self.io.counters.refused += 1;
        } else if hung_up {
            // What there was to tell was told already.
            entry.conn.handle_readable(true, now);
        }
        self.dials.calls.extend(answer.succeed(gate));
        job.task = Task::Open(factory);
        job.errand = Errand { open: true, ..Errand::default() };
        job.timed = false;
        Some(job)
    }

    /// Closes the attempts that are under way, and gives all permits of a request back.
    fn close_trials(&mut self, dialing: &mut Dialing<K>) {
        while !dialing.trials.is_empty() {
            let Trial { addr, stream, permit, .. } = self.end_trial(dialing, 0);
            self.io.kernel.close(stream);
            self.keep_permit(dialing, permit);
            dialing.dial.handle_failed(addr, io::ErrorKind::TimedOut.into(), self.io.now);
        }
        dialing.spare.take().into_iter().for_each(|permit| self.io.common.release_dialed(permit));
    }

    fn give_up_dial(&mut self, mut dialing: Dialing<K>, cause: ConnectCause) {
        self.close_trials(&mut dialing);
        let attempts = dialing.dial.into_attempts();
        self.note_failure(dialing.answer, cause, attempts);
    }

    fn note_failure(&mut self, answer: Answer, cause: ConnectCause, attempts: Vec<Attempt>) {
        self.io.counters.dial_failures += 1;
        self.desk.unplace();
        self.dials.calls.extend(answer.fail(cause, attempts));
    }

    /// The server comes to its end: no connection is made any more, and who waits is told so.
    pub(super) fn give_up_dials(&mut self) {
        for request in self.desk.close_requests() {
            if matches!(request, Request::Dial(_)) {
                self.desk.unplace();
                self.io.counters.dial_failures += 1;
            }
            self.dials.calls.extend(self.io.common.refuse(request));
        }
        for (_, dialing) in std::mem::take(&mut self.dials.dials) {
            self.give_up_dial(dialing, ConnectCause::Stopping);
        }
        self.dials.due.clear();
        // They come too early, and find out.
        let early = std::mem::take(&mut self.dials.later);
        if !cfg!(switchboard_sim_mutant = "later_forgotten") {
            self.dials.calls.extend(early.into_values());
        }
    }
}
