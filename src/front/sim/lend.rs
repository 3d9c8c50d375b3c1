//! `Lent`: a pool of connections of the simulated program, the threads that use it, played, and the
//! rules for that: never too many, none that is known to be dead, every one comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::app::{Op, frame};
use super::kernel::addr_of;
use super::plan::Plan;
use super::random::Random;
use super::route::Route;
use super::series::{self, Series};
use super::world::{Kernel, Phase, World};
use crate::core::codec::LengthPrefixed;
use crate::core::handle::TrySendError;
use crate::edge::connector::{ConnectOptions, Dialer, Target};
use crate::edge::idle_pool::{
    Asked, CheckoutError, Given, Grant, Line, Making, PoolOptions, RecvError, Stock,
};
use crate::words::clock::Time;
use crate::words::sync::lock;

/// What is planned for one pool.
#[derive(Clone, Debug)]
pub(super) struct LendPlan {
    pub(super) series: Series,
    total_max: usize,
    idle_max: usize,
    idle_timeout: Duration,
    frames_max: usize,
    timeout: Duration,
    borrowers: usize,
    /// The longest that somebody waits for a connection, and for an answer.
    patience: Duration,
    /// The longest that somebody does without.
    rest: Duration,
    /// Its peers say what nobody has asked for, too.
    pub(super) babbles: bool,
}

/// A pool, and those who use it.
pub(super) struct Lent<const DRAINS: bool> {
    stock: Arc<Stock<LengthPrefixed, Kernel<DRAINS>>>,
    borrowers: Vec<Borrower>,
    closed: bool,
    lent: u64,
}

/// A thread that asks over connections of a pool.
struct Borrower {
    state: State,
    asked: u32,
}

/// What it is about; each may end at a time.
enum State {
    Rests(Time),
    Waits(u64, Time),
    Makes(Making<LengthPrefixed>, Time),
    Asks(Line<LengthPrefixed>, Bytes, Time),
    /// What it waited for is there.
    Heard(Line<LengthPrefixed>, Bytes, Result<bytes::BytesMut, RecvError>),
    Left,
}

impl LendPlan {
    fn draw(random: &mut Random, routes: &mut Vec<Route>) -> LendPlan {
        let series = series::draw(random, routes);
        let mut millis = |most| Duration::from_millis(random.magnitude(1, most) as u64);
        let (idle_timeout, timeout) = (millis(100), millis(300));
        let (patience, rest) = (millis(100), millis(30));
        let (total_max, idle_max) = (random.size(1, 3), random.size(0, 3));
        let (frames_max, borrowers) = (random.size(1, 4), random.size(1, 5));
        let babbles = random.one_in(3);
        LendPlan {
            series,
            total_max,
            idle_max,
            idle_timeout,
            frames_max,
            timeout,
            borrowers,
            patience,
            rest,
            babbles,
        }
    }

    fn options(&self) -> PoolOptions {
        PoolOptions::new()
            .total_max(self.total_max)
            .idle_max(self.idle_max)
            .idle_timeout(self.idle_timeout)
            .frames_max(self.frames_max)
            .connect(ConnectOptions::new().timeout(self.timeout))
    }
}

impl Plan {
    /// Pools of connections.
    pub(super) fn draw_lends(random: &mut Random, routes: &mut Vec<Route>) -> Vec<LendPlan> {
        let count = if random.one_in(3) { 1 } else { 0 };
        (0..count).map(|_| LendPlan::draw(random, routes)).collect()
    }
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// The pools of the plan, which nobody has used yet.
    pub(super) fn open_pools(&mut self) {
        self.lent = self
            .plan
            .lends
            .iter()
            .map(|plan| {
                let dialer = Dialer::new(Arc::clone(self.common), Arc::clone(&self.spawner));
                let target = Target::from(addr_of(plan.series.start));
                let stock = Stock::new(dialer, plan.options(), target, LengthPrefixed::u16());
                let stock = Arc::new(stock.expect("a plan keeps to the ranges"));
                let rests = || Borrower { state: State::Rests(self.plan.epoch), asked: 0 };
                let borrowers = (0..plan.borrowers).map(|_| rests()).collect();
                Lent { stock, borrowers, closed: false, lent: 0 }
            })
            .collect();
    }

    /// When this one goes on; what has come for it is taken.
    pub(super) fn borrowing_at(&mut self, pool: usize, index: usize) -> Option<Time> {
        let Lent { stock, borrowers, .. } = &mut self.lent[pool];
        let borrower = &mut borrowers[index];
        match &mut borrower.state {
            State::Rests(until) => Some(*until),
            State::Waits(waiter, until) => {
                Some(if stock.is_granted(*waiter) { Time::ZERO } else { *until })
            }
            State::Makes(making, until) => Some(if making.is_done() { Time::ZERO } else { *until }),
            State::Asks(line, _, until) => {
                let until = *until;
                let came = line.recv(Duration::ZERO);
                if came == Err(RecvError::TimedOut) {
                    return Some(until);
                }
                let state = std::mem::replace(&mut borrower.state, State::Left);
                if let State::Asks(line, question, _) = state {
                    borrower.state = State::Heard(line, question, came);
                }
                Some(Time::ZERO)
            }
            State::Heard(..) => Some(Time::ZERO),
            State::Left => None,
        }
    }

    /// One of those who use a pool goes on.
    pub(super) fn borrow(&mut self, pool: usize, index: usize) {
        let now = lock(self.net).now;
        let state = &mut self.lent[pool].borrowers[index].state;
        let state = std::mem::replace(state, State::Left);
        let stock = Arc::clone(&self.lent[pool].stock);
        let next = match state {
            State::Rests(_) if self.phase != Phase::Storm => State::Left,
            State::Rests(_) => match stock.ask() {
                Asked::Granted(grant) => self.follow(pool, index, grant),
                Asked::Wait(waiter) => State::Waits(waiter, now + self.patience(pool)),
                Asked::Closed => State::Left,
            },
            State::Waits(waiter, _) => {
                let late = || stock.give_up(waiter).ok_or(CheckoutError::TimedOut);
                match stock.look(waiter).unwrap_or_else(late) {
                    Ok(grant) => self.follow(pool, index, grant),
                    Err(_) => self.rest(pool),
                }
            }
            State::Makes(making, _) => match stock.wait_for(making, now) {
                Ok(line) => self.ask(pool, index, line, false),
                Err(_) => self.rest(pool),
            },
            State::Asks(line, ..) => {
                // Nobody has answered in time.
                stock.give_back(line);
                self.rest(pool)
            }
            State::Heard(line, question, came) => self.hear(pool, line, &question, came),
            State::Left => State::Left,
        };
        self.lent[pool].borrowers[index].state = next;
    }

    /// Makes use of what was granted.
    fn follow(&mut self, pool: usize, index: usize, grant: Grant<Line<LengthPrefixed>>) -> State {
        match self.lent[pool].stock.follow(grant) {
            Given::Line(line) => self.ask(pool, index, line, true),
            Given::Making(making) => State::Makes(making, lock(self.net).now + self.patience(pool)),
        }
    }

    /// Asks over a connection. Nobody else has moved since an `idle` one was given out: it has to
    /// be as good as new.
    fn ask(
        &mut self,
        pool: usize,
        index: usize,
        mut line: Line<LengthPrefixed>,
        idle: bool,
    ) -> State {
        self.lent[pool].lent += 1;
        let asked = self.lent[pool].borrowers[index].asked;
        self.lent[pool].borrowers[index].asked += 1;
        let len = self.random.magnitude(1, 600);
        let question = frame(Op::Echo, BORROWER + index, asked, len);
        let before = line.recv(Duration::ZERO);
        if idle && before != Err(RecvError::TimedOut) {
            lock(self.net).fail(format!("a connection of a pool was given out with {before:?}"));
        }
        // What came before the question is put right.
        line.settle();
        if let Err(error) = line.send(question.clone()) {
            // When memory is short, nobody takes messages.
            if idle && matches!(error, TrySendError::Gone(_)) {
                lock(self.net).fail(format!("a pool gave out a dead connection: {error}"));
            }
            self.lent[pool].stock.give_back(line);
            return self.rest(pool);
        }
        State::Asks(line, question, lock(self.net).now + self.patience(pool))
    }

    /// An answer, or the news that there will be none.
    fn hear(
        &mut self,
        pool: usize,
        line: Line<LengthPrefixed>,
        question: &Bytes,
        came: Result<bytes::BytesMut, RecvError>,
    ) -> State {
        // What is under way unasked, nobody can know.
        let babbles = self.plan.lends[pool].babbles;
        if came.as_ref().is_ok_and(|answer| answer != question) && !babbles {
            lock(self.net).fail(format!("an answer to what somebody else has asked: {came:?}"));
        }
        let stock = &self.lent[pool].stock;
        if self.random.one_in(8) {
            stock.end(&line);
        } else {
            stock.give_back(line);
        }
        self.rest(pool)
    }

    fn rest(&mut self, pool: usize) -> State {
        let most = u64::try_from(self.plan.lends[pool].rest.as_nanos()).unwrap_or(u64::MAX);
        State::Rests(lock(self.net).now + Duration::from_nanos(self.random.range(0, most)))
    }

    fn patience(&mut self, pool: usize) -> Duration {
        let most = u64::try_from(self.plan.lends[pool].patience.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.range(0, most))
    }

    /// How many use a pool.
    pub(super) fn borrower_count(&self, pool: usize) -> usize {
        self.lent[pool].borrowers.len()
    }

    /// What must be true of the pools at every moment. One that nobody uses any more is closed.
    pub(super) fn check_pools(&mut self) -> Result<(), String> {
        for (plan, lent) in self.plan.lends.iter().zip(&mut self.lent) {
            let (idle, total) = lent.stock.counts();
            let has = |borrower: &&Borrower| {
                matches!(borrower.state, State::Makes(..) | State::Asks(..) | State::Heard(..))
            };
            let used = lent.borrowers.iter().filter(has).count();
            if idle > plan.idle_max || total > plan.total_max || idle + used > total {
                return Err(format!(
                    "a pool of {total} has {idle} that are idle and {used} in use: {plan:?}"
                ));
            }
            let over = lent.borrowers.iter().all(|borrower| matches!(borrower.state, State::Left));
            if over && !lent.closed {
                lent.closed = true;
                lent.stock.close();
            }
            if over {
                lock(self.net).end_series(&plan.series);
            }
        }
        Ok(())
    }

    /// Everything has come back to the pools; how often something was given out.
    pub(super) fn check_pools_over(&self) -> Result<u64, String> {
        for lent in &self.lent {
            if lent.stock.counts() != (0, 0) {
                return Err(format!("(idle, all) of a pool are left: {:?}", lent.stock.counts()));
            }
        }
        Ok(self.lent.iter().map(|lent| lent.lent).sum())
    }
}

/// What stands in questions in the place of a socket.
const BORROWER: usize = 0xFFFE_0000;
