//! `Ledger`: what passed on each socket, and that it never was more than the rates allow.

use super::plan::Plan;
use super::random::Random;
use crate::core::shaping::quantum;
use crate::words::clock::Time;
use crate::words::config::{Limits, Rate, Shaper};

/// What is bounded, in both directions; `None` is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) read: Option<Rate>,
    pub(super) send: Option<Rate>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Send,
}

/// What has passed, of one socket, of a group or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    since: Time,
    bounds: Bounds,
    passed: (u64, u64),
}

/// All accounts.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By the number of the socket, and whether it is of the group.
    sockets: Vec<(Account, bool)>,
    group: Account,
    server: Account,
    of_each: Bounds,
}

impl Bounds {
    /// Rates as `random` will have them: those of each connection go into `limits`, those of the
    /// server too; those of the group of the first listener are the answer.
    pub(super) fn draw(random: &mut Random, limits: &mut Limits) -> Bounds {
        if random.one_in(2) {
            return Bounds::default();
        }
        let each = Bounds::some(random, 2_000);
        (limits.read_rate, limits.send_rate) = (each.read, each.send);
        let server = Bounds::some(random, 20_000);
        (limits.server_read_rate, limits.server_send_rate) = (server.read, server.send);
        Bounds::some(random, 10_000)
    }

    pub(super) fn shaper(self) -> Option<Shaper> {
        let Bounds { read, send } = self;
        (read.is_some() || send.is_some()).then(|| Shaper::of(read, send))
    }

    fn some(random: &mut Random, least: usize) -> Bounds {
        let mut one = || random.one_in(3).then(|| rate_from(random, least));
        Bounds { read: one(), send: one() }
    }

    /// Whatever both allow.
    fn widen(&mut self, other: Bounds) {
        let wider = |one: Option<Rate>, other: Option<Rate>| {
            let (one, other) = one.zip(other)?;
            let rate = Rate::per_second(one.refill().max(other.refill()));
            Some(rate.burst(one.depth().max(other.depth())))
        };
        *self = Bounds { read: wider(self.read, other.read), send: wider(self.send, other.send) };
    }
}

fn rate_from(random: &mut Random, least: usize) -> Rate {
    let rate = Rate::per_second(random.magnitude(least, least * 100) as u64);
    rate.burst(random.magnitude(1, 8 << 10) as u64)
}

impl Plan {
    /// Whether output may wait though there is room for it.
    pub(super) fn holds_output(&self) -> bool {
        let Limits { send_rate, server_send_rate, .. } = self.limits;
        send_rate.or(server_send_rate).or(self.group.send).is_some()
    }
}

impl Ledger {
    pub(super) fn new(plan: &Plan) -> Self {
        let Limits { read_rate, send_rate, server_read_rate, server_send_rate, .. } = plan.limits;
        let open = |bounds| Account { since: plan.epoch, bounds, ..Account::default() };
        Ledger {
            sockets: Vec::new(),
            group: open(plan.group),
            server: open(Bounds { read: server_read_rate, send: server_send_rate }),
            of_each: Bounds { read: read_rate, send: send_rate },
        }
    }

    /// A connection was accepted, through the first listener or not.
    pub(super) fn open(&mut self, id: usize, first: bool, now: Time) {
        if self.sockets.len() <= id {
            self.sockets.resize(id + 1, Default::default());
        }
        let account = Account { since: now, bounds: self.of_each, ..Account::default() };
        self.sockets[id] = (account, first);
    }

    /// Other rates for a connection that has some, as its protocol will have it. What it may pass
    /// in all is bounded by the highest.
    pub(super) fn redraw(&mut self, id: usize, random: &mut Random) -> Bounds {
        let mut other = |rate: Option<Rate>| rate.map(|_| rate_from(random, 2_000));
        let Bounds { read, send } = self.of_each;
        let bounds = Bounds { read: other(read), send: other(send) };
        self.sockets[id].0.bounds.widen(bounds);
        bounds
    }

    /// So many bytes have passed.
    pub(super) fn pass(
        &mut self,
        id: usize,
        way: Way,
        count: usize,
        now: Time,
    ) -> Result<(), String> {
        let (account, grouped) = &mut self.sockets[id];
        let tell = |whose: &str, what: String| format!("socket {id}, {whose}: {what}");
        account.pass(way, count, now).map_err(|what| tell("itself", what))?;
        if *grouped {
            self.group.pass(way, count, now).map_err(|what| tell("its group", what))?;
        }
        self.server.pass(way, count, now).map_err(|what| tell("its server", what))
    }
}

impl Account {
    fn pass(&mut self, way: Way, count: usize, now: Time) -> Result<(), String> {
        let (passed, rate) = match way {
            Way::Read => (&mut self.passed.0, self.bounds.read),
            Way::Send => (&mut self.passed.1, self.bounds.send),
        };
        *passed += count as u64;
        let Some(rate) = rate else { return Ok(()) };
        let time = now.since(self.since);
        let refilled = time.as_nanos() * u128::from(rate.refill()) / 1_000_000_000;
        let allowed = refilled + u128::from(rate.depth() + quantum(rate));
        if u128::from(*passed) <= allowed {
            return Ok(());
        }
        Err(format!("{way:?} {passed} bytes in {time:?}, but {rate:?} allows {allowed}"))
    }
}
