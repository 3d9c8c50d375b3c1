//! `Kept`: a connection of the simulated program that is made again and again, and the rules for
//! that: one at a time, and a wait between that keeps its bounds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::app::{App, codec};
use super::attention::OVERSLEPT;
use super::kernel::addr_of;
use super::plan::Plan;
use super::random::Random;
use super::route::Route;
use super::series::{self, Series};
use super::trace::Note;
use super::world::{Kernel, World};
use crate::core::codec::Raw;
use crate::edge::backoff::{Backoff, Dice};
use crate::edge::connector::{ConnectOptions, Dialer, Target};
use crate::edge::reconnect::{Keeper, ReconnectEvent, ReconnectOptions, ReconnectState};
use crate::words::clock::Time;
use crate::words::sync::lock;

/// What is planned for one of them.
#[derive(Clone, Debug)]
pub(super) struct KeepPlan {
    pub(super) series: Series,
    start: Duration,
    /// When the program stops it; `None` leaves that to the end of the server.
    stop: Option<Duration>,
    base: Duration,
    max: Duration,
    reset_after: Duration,
    timeout: Duration,
}

/// One of them, and what it told.
pub(super) struct Kept<const DRAINS: bool> {
    keeper: Option<Arc<Keeper<bytes::Bytes, Kernel<DRAINS>>>>,
    told: Arc<Mutex<Told>>,
    stopped: bool,
}

/// What it told of itself, and whether that was in order.
#[derive(Debug, Default)]
struct Told {
    attempt: u64,
    /// Attempts that have failed or ended, in a row.
    failures: u32,
    opened_at: Option<Time>,
    /// The attempt has failed, or its connection has ended.
    ended: bool,
    waits_until: Option<Time>,
    stops: u32,
    reconnects: u64,
    broken: Option<String>,
}

impl KeepPlan {
    /// Draws one, and appends its routes. `ends`: somebody has to stop it.
    pub(super) fn draw(
        random: &mut Random,
        routes: &mut Vec<Route>,
        storm: Duration,
        ends: bool,
    ) -> KeepPlan {
        let series = series::draw(random, routes);
        let mut millis = |most| Duration::from_millis(random.magnitude(1, most) as u64);
        let (base, more, reset_after) = (millis(30) * 4, millis(200), millis(400));
        let timeout = millis(300);
        let nanos = u64::try_from(storm.as_nanos()).unwrap_or(u64::MAX);
        let start = Duration::from_nanos(random.range(0, nanos));
        let stop = Duration::from_nanos(random.range(0, nanos * 2));
        let stop = (ends || random.one_in(2)).then_some(start + stop);
        KeepPlan { series, start, stop, base, max: base + more, reset_after, timeout }
    }

    /// The longest wait after so many failures.
    fn wait_max(&self, failures: u32) -> Duration {
        (0..failures).fold(self.base, |wait, _| self.max.min(wait * 2))
    }
}

impl Told {
    /// Takes in what is told now. `ending`: the server comes to its end, and nobody waits for that.
    fn hear(&mut self, plan: &KeepPlan, event: ReconnectEvent<'_>, now: Time, ending: bool) {
        let broken = match event {
            // What becomes of an attempt that is under way then.
            ReconnectEvent::Closed(_) | ReconnectEvent::Failed(_) if self.stops > 0 => None,
            _ if self.stops > 0 => Some(format!("{event:?} after its stop")),
            ReconnectEvent::Connecting(attempt) => {
                let early = self.waits_until.take().is_some_and(|until| now < until) && !ending;
                let next = attempt == self.attempt + 1 && (self.ended || attempt == 1);
                (self.attempt, self.ended, self.opened_at) = (attempt, false, None);
                (early || !next).then(|| format!("attempt {attempt} begins too early"))
            }
            ReconnectEvent::Connected => {
                self.opened_at = Some(now);
                self.reconnects += u64::from(self.attempt > 1);
                None
            }
            ReconnectEvent::Failed(_) | ReconnectEvent::Closed(_) => {
                let twice = std::mem::replace(&mut self.ended, true);
                twice.then(|| String::from("an attempt that ended twice"))
            }
            ReconnectEvent::Waiting(wait) => {
                let lived = self.opened_at.map(|at| now.since(at));
                if lived.is_some_and(|lived| lived >= plan.reset_after) {
                    self.failures = 0;
                }
                let max = plan.wait_max(self.failures);
                self.failures += 1;
                self.waits_until = Some(now + wait);
                let fair = self.ended && wait <= max;
                (!fair).then(|| format!("a wait of {wait:?}, with {max:?} allowed: {self:?}"))
            }
            ReconnectEvent::Stopped => {
                self.stops += 1;
                None
            }
        };
        if let Some(what) = broken {
            self.broken.get_or_insert(what);
        }
    }
}

impl<const DRAINS: bool> Default for Kept<DRAINS> {
    fn default() -> Self {
        Kept { keeper: None, told: Arc::default(), stopped: false }
    }
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// When the program has something to do with one of them.
    pub(super) fn keeping_at(&self, index: usize) -> Option<Time> {
        let (plan, kept) = (&self.plan.keeps[index], &self.kept[index]);
        let next = match (&kept.keeper, kept.stopped) {
            (None, _) => Some(plan.start),
            (Some(_), false) => plan.stop,
            (Some(_), true) => None,
        };
        next.map(|after| self.plan.epoch + after)
    }

    /// The program begins or stops one.
    pub(super) fn keep(&mut self, index: usize) {
        let plan = &self.plan.keeps[index];
        if let Some(keeper) = &self.kept[index].keeper {
            lock(self.net).note(Note::Operator("stop of one that is kept"));
            let keeper = Arc::clone(keeper);
            self.kept[index].stopped = true;
            let mut book = lock(&self.app.book);
            plan.series.clone().for_each(|id| {
                let life = book.life(id);
                (life.close_asked, life.close_posted) = (true, true);
            });
            drop(book);
            return keeper.stop();
        }
        lock(self.net).note(Note::Operator("keep"));
        let backoff = Backoff::new().base(plan.base).max(plan.max).reset_after(plan.reset_after);
        let connect = ConnectOptions::new().timeout(plan.timeout);
        let (told, app, net) =
            (Arc::clone(&self.kept[index].told), Arc::clone(self.app), Arc::clone(self.net));
        let (common, its) = (Arc::clone(self.common), plan.clone());
        let watch = move |event: ReconnectEvent<'_>| {
            let now = lock(&net).now;
            let ending = common.desks().iter().any(|desk| desk.refuses_requests());
            lock(&told).hear(&its, event, now, ending);
        };
        let options = ReconnectOptions::new().backoff(backoff).connect(connect).watch(watch);
        let series = plan.series.clone();
        let target = Target::from(addr_of(series.start));
        let dialer = Dialer::new(Arc::clone(self.common), Arc::clone(&self.spawner));
        let dice = Dice::new(self.random.next());
        let make = move |_| app.handler(app.newest_of(&series));
        let keeper = match self.plan.raw {
            true => Keeper::start(dialer, options, target, dice, Raw::new(), make),
            false => Keeper::start(dialer, options, target, dice, codec(0), make),
        };
        self.kept[index].keeper = Some(keeper);
    }

    /// What must be true of them at every moment; their handles go to other threads.
    pub(super) fn check_kept(&mut self) -> Result<(), String> {
        for (plan, kept) in self.plan.keeps.iter().zip(&self.kept) {
            let Some(keeper) = &kept.keeper else { continue };
            let told = lock(&kept.told);
            if let Some(broken) = &told.broken {
                return Err(format!("kept at {:?}: {broken}", plan.series));
            }
            let is_over = told.stops > 0;
            drop(told);
            if is_over {
                lock(self.net).end_series(&plan.series);
            }
            let mut book = lock(&self.app.book);
            let live = |id: &usize| book.lives.get(*id).is_some_and(|life| life.is_live());
            let live: Vec<usize> = plan.series.clone().filter(live).collect();
            if live.len() > 1 {
                return Err(format!("sockets {live:?} are one connection that is kept"));
            }
            if let Some(handle) = keeper.handle() {
                book.share(&plan.series, handle);
            }
        }
        Ok(())
    }

    /// Nobody has anything to do until `next`: then none may have overslept.
    pub(super) fn check_keeping(&self, next: Time) -> Result<(), String> {
        if !self.is_settled() {
            return Ok(());
        }
        for (plan, kept) in self.plan.keeps.iter().zip(&self.kept) {
            let told = lock(&kept.told);
            let until = told.waits_until.filter(|_| told.stops == 0);
            if let Some(until) = until.filter(|&until| next > until + OVERSLEPT) {
                return Err(format!("kept at {:?}: nobody ends its wait {until:?}", plan.series));
            }
        }
        Ok(())
    }

    /// Each has stopped, once, and nothing of it is left; how often a connection was made again.
    pub(super) fn check_kept_over(&self) -> Result<u64, String> {
        let mut reconnects = 0;
        for (plan, kept) in self.plan.keeps.iter().zip(&self.kept) {
            let Some(keeper) = &kept.keeper else { continue };
            let stops = lock(&kept.told).stops;
            if stops != 1 || keeper.state() != ReconnectState::Stopped || keeper.handle().is_some()
            {
                return Err(format!("kept at {:?}: {stops} stops, {:?}", plan.series, kept.told));
            }
            reconnects += lock(&kept.told).reconnects;
        }
        Ok(reconnects)
    }
}

impl App {
    /// The connection of a series that is to have its handler now.
    fn newest_of(&self, series: &Series) -> usize {
        let net = lock(&self.net);
        let newest = net.connected_of(series).next();
        newest.unwrap_or(series.start)
    }
}

impl Plan {
    /// Those that are made again and again.
    pub(super) fn draw_keeps(
        random: &mut Random,
        routes: &mut Vec<Route>,
        storm: Duration,
        ends: bool,
    ) -> Vec<KeepPlan> {
        let count = if random.one_in(3) { random.size(1, 2) } else { 0 };
        (0..count).map(|_| KeepPlan::draw(random, routes, storm, ends)).collect()
    }
}
