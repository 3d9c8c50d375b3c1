//! `World`: chooses who makes the next step, lets time pass, and asks the judge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::app::App;
use super::attention::Watchman;
use super::client::Client;
use super::crowd::{Crowd, Ear};
use super::dialer::{Calls, Dialed};
use super::guest::{Guest, Simulation};
use super::keep::Kept;
use super::kernel::{SimKernel, SimListener, SimWake};
use super::lend::Lent;
use super::net::Net;
use super::peer::Peer;
use super::plan::{Ending, Faults, Plan, policy};
use super::random::Random;
use super::sum::sum_up;
use super::trace::Note;
use super::{Failure, Summary};
use crate::core::post::{Command, Post};
use crate::core::session::Factory;
use crate::engine::common::Common;
use crate::engine::desk::{Desk, Order};
use crate::engine::reactor::{Door, Reactor};
use crate::engine::sched::{Driver, Stage, Stats, Where, prepare};
use crate::engine::spawn::{Spawner, spawner_of};
use crate::words::clock::Time;
use crate::words::config::{Listening, Placement};
use crate::words::id::ConnId;
use crate::words::sync::lock;

pub(super) type Kernel<const DRAINS: bool> = SimKernel<DRAINS>;
/// A server without threads, its figures, and the way to its pool.
type Built<const DRAINS: bool> =
    (Stage<Reactor<Kernel<DRAINS>>>, Arc<Stats>, Arc<Spawner<Kernel<DRAINS>>>);

/// The server, its surroundings, and who does what next.
pub(super) struct World<'s, const DRAINS: bool> {
    pub(super) plan: &'s Plan,
    pub(super) random: Random,
    pub(super) net: &'s Arc<Mutex<Net>>,
    pub(super) app: &'s Arc<App>,
    pub(super) common: &'s Arc<Common<Kernel<DRAINS>>>,
    pub(super) driver: Driver<'s, Reactor<Kernel<DRAINS>>>,
    pub(super) threads: Vec<Pace>,
    pub(super) clients: Vec<Client>,
    /// What pools connect to.
    pub(super) peers: Vec<Peer>,
    /// Those that talk to a protocol of the user's.
    pub(super) guests: Vec<Guest>,
    pub(super) kept: Vec<Kept<DRAINS>>,
    pub(super) lent: Vec<Lent<DRAINS>>,
    pub(super) dials: Vec<Dialed>,
    pub(super) calls: Calls,
    pub(super) factory: Arc<dyn Factory>,
    pub(super) spawner: Arc<Spawner<Kernel<DRAINS>>>,
    /// When the sentinel looks again; `None` while it sleeps deep.
    sample_at: Option<Time>,
    handle_at: Option<Time>,
    /// A command that a thread of the user's is about to post, though its connection may be gone
    /// by then: at the latest at that time, and as soon as another connection has its place.
    late: Option<(Time, ConnId)>,
    pub(super) phase: Phase,
    /// When the faults were over.
    pub(super) calm_at: Time,
    pub(super) watchman: Watchman,
    /// When the operator ends it all, if not when the clients have left.
    end_at: Option<Time>,
    suspended: bool,
    pub(super) crowd: Crowd,
    pub(super) steps: u64,
    /// Who could go on now; scratch.
    due: Vec<Actor>,
}

/// What keeps a thread from going on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) paused_until: Time,
    /// When its poll returns though nothing has happened.
    poll_until: Time,
}

/// Who may make the next step.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Thread(usize),
    Sentinel,
    Client(usize),
    Wire(usize),
    /// A thread of the user's, with a handle.
    Stranger,
    Late,
    /// A thread of the user's, which wants a connection.
    Dialer(usize),
    Peer(usize),
    Guest(usize),
    /// ... which wants to have one again and again.
    Keeper(usize),
    /// One that uses a pool: that, and its number there.
    Borrower(usize, usize),
    Operator,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Things go wrong.
    Storm,
    /// Nothing goes wrong any more.
    Calm,
    /// The server is to end.
    Ending,
    /// All reactors have stopped; threads end.
    Leaving,
}

/// One run, from the first choice to the verdict.
/// `own`: a protocol of the user's, which is all that there is then.
pub(super) fn run(mut random: Random, own: Option<&Simulation>) -> Result<Summary, Failure> {
    let plan = Plan::draw(&mut random);
    let plan = own.map_or_else(|| plan.clone(), |own| own.adapt(plan.clone()));
    let net = Arc::new(Mutex::new(Net::new(&plan, random.fork())));
    let drains = plan.short_read_drains;
    let play = || match drains {
        true => play::<true>(&plan, &net, random, own),
        false => play::<false>(&plan, &net, random, own),
    };
    // A panic of our own code is a failure like every other.
    let played = catch_unwind(AssertUnwindSafe(play));
    let verdict = played.unwrap_or_else(|payload| Err(message(payload.as_ref())));
    let net = lock(&net);
    let verdict = verdict.and_then(|summary| net.failure.clone().map_or(Ok(summary), Err));
    verdict.map_err(|what| Failure {
        replay: String::from("the same bytes again"),
        what,
        plan: format!("{plan:#?}"),
        trace: net.trace.to_string(),
    })
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("our own code panicked: {}", text.unwrap_or_default())
}

fn play<const DRAINS: bool>(
    plan: &Plan,
    net: &Arc<Mutex<Net>>,
    mut random: Random,
    own: Option<&Simulation>,
) -> Result<Summary, String> {
    let app = Arc::new(App::new(Arc::clone(net), plan, random.fork()));
    let mut listening = plan.listening.clone();
    listening[0].shaper = plan.group.shaper();
    listening.push(Listening::outbound(&plan.limits));
    let common = Common::new(plan.limits.clone(), listening.into(), plan.placement);
    let ear = Ear::default();
    let tell = random.one_in(2).then(|| ear.tell());
    let common = Arc::new(common.predictable().with_bell(tell));
    let factory = own.map_or_else(|| app.factory(), Simulation::factory);
    let (stage, stats, spawner) = build::<DRAINS>(plan, net, &factory, &common);
    let (clients, peers) = cast(plan, &mut random);
    let guests = own.map_or_else(Vec::new, |own| own.guests(plan, &mut random));
    let storm = u64::try_from(plan.storm.as_nanos()).unwrap_or(u64::MAX);
    let end_at = plan.epoch + Duration::from_nanos(random.range(0, storm));
    let mut world = World {
        plan,
        random,
        net,
        app: &app,
        common: &common,
        driver: stage.driver(),
        threads: Vec::new(),
        clients,
        peers,
        guests,
        kept: plan.keeps.iter().map(|_| Kept::default()).collect(),
        lent: Vec::new(),
        dials: plan.dials.iter().map(|_| Dialed::default()).collect(),
        calls: Calls::default(),
        factory,
        spawner,
        sample_at: None,
        handle_at: Some(plan.epoch),
        late: None,
        phase: Phase::Storm,
        calm_at: Time::NEVER,
        watchman: Watchman::default(),
        end_at: (plan.ending != Ending::Quiet).then_some(end_at),
        suspended: false,
        crowd: Crowd::default(),
        steps: 0,
        due: Vec::new(),
    };
    world.sample_at = world.driver.has_sentinel().then_some(plan.epoch);
    world.open_pools();
    world.play()?;
    world.check_clients()?;
    world.check_guests()?;
    world.check_dials()?;
    let reconnects = world.check_kept_over()?;
    let checkouts = world.check_pools_over()?;
    let steps = world.steps;
    drop(world);
    let (broadcasts, lost) = lock(&app.book).circle_sums();
    ear.check(plan, lock(net).now.since(plan.epoch))?;
    sum_up(
        (&stage, plan),
        &common,
        net,
        &stats,
        Summary { steps, broadcasts, lost, reconnects, checkouts, ..Summary::default() },
    )
    .map(|summary| Summary { elapsed: lock(net).now.since(plan.epoch), ..summary })
}

/// The clients of a world, and the peers of its pools.
fn cast(plan: &Plan, random: &mut Random) -> (Vec<Client>, Vec<Peer>) {
    let lent = |id: &usize| plan.lends.iter().find(|lend| lend.series.contains(id));
    let routes = 0..plan.routes.len();
    let mut clients: Vec<_> = routes
        .clone()
        .filter(|id| lent(id).is_none())
        .map(|id| Client::behind(plan, random.fork(), id))
        .collect();
    let peers = routes.filter_map(|id| {
        let babbles = lent(&id)?.babbles;
        Some(Peer::draw(random.fork(), id, babbles))
    });
    let peers = peers.collect();
    clients.extend((0..plan.clients).map(|_| Client::draw(plan, random.fork())));
    (clients, peers)
}

/// Builds the server as `Builder::start` does, but for its threads.
fn build<const DRAINS: bool>(
    plan: &Plan,
    net: &Arc<Mutex<Net>>,
    factory: &Arc<dyn Factory>,
    common: &Arc<Common<Kernel<DRAINS>>>,
) -> Built<DRAINS> {
    let desk = |poll| {
        let (wake, clock) = (SimWake { net: Arc::clone(net), poll }, Arc::clone(net));
        let listening = Arc::clone(&common.listening);
        Arc::new(Desk::new(Box::new(wake), move || lock(&clock).now, listening))
    };
    let desks: Vec<_> = (0..plan.sched.reactors).map(desk).collect();
    common.set_desks(desks.clone());
    let (scheduler, ports) = prepare::<Reactor<Kernel<DRAINS>>>(plan.sched.clone(), desks.clone());
    let stats = scheduler.stats();
    let spawner = Arc::new(Spawner::new(Arc::clone(common), scheduler.side_door()));
    desks.iter().for_each(|desk| desk.set_spawner(spawner_of(&spawner)));
    let reactors = ports.into_iter().zip(desks).enumerate().map(|(index, (port, desk))| {
        let doors = (0..plan.listening.len()).map(|number| {
            let here = match plan.placement {
                Placement::ReusePort => true,
                Placement::LeastLoaded => number % plan.sched.reactors == index,
            };
            let socket = here.then(|| SimListener::new(net, number));
            let number = u16::try_from(number).expect("a plan has few listeners");
            Door::new(number, socket, Arc::clone(factory))
        });
        let kernel = SimKernel::new(Arc::clone(net), index);
        let made = Reactor::new(kernel, Arc::clone(common), desk, port, doors.collect());
        made.expect("a simulated listener can be watched")
    });
    let reactors = reactors.collect();
    (Stage::new(scheduler, reactors), stats, spawner)
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// Everything, until the last thread has ended.
    fn play(&mut self) -> Result<(), String> {
        loop {
            self.settle_phase();
            self.note_new_threads();
            let next = self.find_due();
            if !self.due.is_empty() {
                let actor = self.due[self.random.below(self.due.len())];
                self.step(actor);
            } else if let Some(at) = next {
                self.check_attention(at)?;
                self.check_keeping(at)?;
                self.check_timers(at)?;
                lock(self.net).now = at;
            } else if self.phase == Phase::Leaving {
                return Ok(());
            } else {
                return Err(self.describe_standstill());
            }
            self.check()?;
        }
    }

    fn now(&self) -> Time {
        lock(self.net).now
    }

    /// Fills `due` with those who can go on now, and says when the next one can if none is.
    fn find_due(&mut self) -> Option<Time> {
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        let mut next: Option<Time> = None;
        if self.sample_at.is_none() && self.driver.sentinel_was_called() {
            self.sample_at = self.driver.has_sentinel().then(|| self.now());
        }
        let late = self.late.map(|(at, name)| {
            let succeeded = self.app.is_succeeded(name);
            (if succeeded { Time::ZERO } else { at }, name)
        });
        let mut borrowers = Vec::new();
        for pool in 0..self.lent.len() {
            for index in 0..self.borrower_count(pool) {
                let at = self.borrowing_at(pool, index);
                borrowers.extend(at.map(|at| (Actor::Borrower(pool, index), at)));
            }
        }
        let net = lock(self.net);
        let now = net.now;
        let mut see = |actor, at: Time| {
            if at <= now {
                due.push(actor);
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        for thread in 0..self.threads.len() {
            let at = self.thread_due(&net, thread);
            at.into_iter().for_each(|at| see(Actor::Thread(thread), at));
        }
        for (index, client) in self.clients.iter().enumerate() {
            client.acts_at(&net).into_iter().for_each(|at| see(Actor::Client(index), at));
            let wire = client.socket.and_then(|id| net.arrives_at(id).map(|at| (id, at)));
            wire.into_iter().for_each(|(id, at)| see(Actor::Wire(id), at));
        }
        for (index, peer) in self.peers.iter().enumerate() {
            peer.acts_at(&net).into_iter().for_each(|at| see(Actor::Peer(index), at));
            let wire = net.arrives_at(peer.id());
            wire.into_iter().for_each(|at| see(Actor::Wire(peer.id()), at));
        }
        for (index, guest) in self.guests.iter().enumerate() {
            guest.acts_at(&net).into_iter().for_each(|at| see(Actor::Guest(index), at));
            let wire = guest.socket.and_then(|id| net.arrives_at(id).map(|at| (id, at)));
            wire.into_iter().for_each(|(id, at)| see(Actor::Wire(id), at));
        }
        for (actor, at) in borrowers {
            see(actor, at);
        }
        for index in 0..self.kept.len() {
            self.keeping_at(index).into_iter().for_each(|at| see(Actor::Keeper(index), at));
        }
        if self.phase != Phase::Leaving {
            self.sample_at.into_iter().for_each(|at| see(Actor::Sentinel, at));
        }
        if self.phase == Phase::Storm {
            self.handle_at.into_iter().for_each(|at| see(Actor::Stranger, at));
            see(Actor::Operator, self.plan.epoch + self.plan.storm);
        }
        late.into_iter().for_each(|(at, _)| see(Actor::Late, at));
        for (index, dial) in self.dials.iter().enumerate().filter(|(_, dial)| !dial.begun) {
            see(Actor::Dialer(index), self.plan.epoch + self.plan.dials[index].start);
            debug_assert!(dial.ticket.is_none());
        }
        self.end_at.into_iter().for_each(|at| see(Actor::Operator, at));
        drop(net);
        self.due = due;
        next
    }

    /// When a thread can go on.
    fn thread_due(&self, net: &Net, thread: usize) -> Option<Time> {
        let Pace { paused_until, poll_until } = self.threads[thread];
        match self.driver.at(thread, net.now) {
            Where::Busy | Where::BeforeJob(_) | Where::AfterJob(_) => Some(paused_until),
            Where::Polling(reactor, _) => {
                let told = net.told_at(reactor).unwrap_or(Time::NEVER);
                let ready = net.poll_ready(reactor);
                let at = if ready { net.now } else { poll_until.min(told) };
                (at != Time::NEVER).then_some(at.max(paused_until))
            }
            Where::Waiting | Where::Gone => None,
        }
    }

    fn step(&mut self, actor: Actor) {
        self.steps += 1;
        match actor {
            Actor::Thread(thread) => self.step_thread(thread),
            Actor::Sentinel => self.sample(),
            Actor::Client(index) => self.clients[index].step(&mut lock(self.net)),
            Actor::Wire(id) => lock(self.net).deliver(id),
            Actor::Stranger => self.use_handle(),
            Actor::Late => self.post_late(),
            Actor::Dialer(index) => self.dial(index),
            Actor::Peer(index) => self.peers[index].step(&mut lock(self.net)),
            Actor::Guest(index) => self.guests[index].step(&mut lock(self.net)),
            Actor::Keeper(index) => self.keep(index),
            Actor::Borrower(pool, index) => self.borrow(pool, index),
            Actor::Operator => self.operate(),
        }
    }

    fn step_thread(&mut self, thread: usize) {
        let now = self.now();
        self.driver.step(thread, now);
        let at = self.driver.at(thread, now);
        let stall = lock(&self.app.book).stall.take();
        let mut net = lock(self.net);
        net.note(Note::Thread(thread, at));
        let most = u64::try_from(self.plan.step.as_nanos()).unwrap_or(u64::MAX);
        net.now = now + Duration::from_nanos(net.random.range(0, most));
        let pace = &mut self.threads[thread];
        pace.poll_until = Time::NEVER;
        if let Some(stall) = stall {
            pace.paused_until = net.now + stall;
        } else if net.strikes(|faults| faults.pause) {
            pace.paused_until = net.delay();
            let micros = pace.paused_until.since(net.now).as_micros();
            net.note(Note::Paused(thread, u64::try_from(micros).unwrap_or(u64::MAX)));
        }
        if let Where::Polling(_, patience) = at {
            let until = patience.map_or(Time::NEVER, |patience| now + patience);
            let early = net.strikes(|faults| faults.empty);
            pace.poll_until = if early { until.min(net.delay()) } else { until };
        }
    }

    fn sample(&mut self) {
        let (now, refused) = {
            let mut net = lock(self.net);
            let refused = net.strikes(|faults| faults.spawn);
            net.note(Note::Sampled);
            (net.now, refused)
        };
        let nap = self.driver.sample(now, refused);
        let mut net = lock(self.net);
        self.sample_at = nap.map(|nap| now + nap);
        if net.strikes(|faults| faults.double_sample) {
            self.sample_at = Some(now);
        } else if self.sample_at.is_some() && net.strikes(|faults| faults.late_sample) {
            self.sample_at = Some(net.delay());
        }
    }

    fn use_handle(&mut self) {
        let wanted = {
            let mut net = lock(self.net);
            self.handle_at = Some(net.delay() + Duration::from_micros(1));
            net.strikes(|faults| faults.handle)
        };
        if wanted && self.late.is_none() && self.random.one_in(4) {
            let late = self.app.begin_abort();
            let end = self.plan.epoch + self.plan.storm;
            self.late = late.map(|name| (lock(self.net).until(end), name));
        } else if wanted {
            self.app.use_handle();
        }
        if wanted && self.random.one_in(4) {
            self.spawn();
        }
        if wanted {
            self.app.broadcast();
        }
        if wanted && self.random.one_in(4) {
            self.app.move_member();
        }
        let (toggles, readmits) = {
            let mut net = lock(self.net);
            (net.strikes(|faults| faults.suspend), net.strikes(|faults| faults.readmit))
        };
        if readmits {
            self.readmit();
        }
        if toggles {
            self.suspended = !self.suspended;
            let order = if self.suspended { Order::Suspend } else { Order::Resume };
            self.order(&order, "suspend or resume");
        }
    }

    /// The operator changes a maximum or a policy, within what the plan says.
    fn readmit(&mut self) {
        let base = self.common.admission.settings();
        let mut new = base.clone();
        let most = self.plan.limits.connections_max;
        new.connections_max = self.random.size(1, most.min(6));
        let number = self.random.below(new.listeners.len());
        let own = &mut new.listeners[number];
        own.connections_max = self.random.one_in(2).then(|| self.random.size(1, 4));
        if self.plan.evicts() {
            own.when_full = policy(&mut self.random);
        }
        lock(self.net).note(Note::Operator("readmit"));
        self.common.change_admission(&base, &new);
    }

    fn post_late(&mut self) {
        if let Some((_, name)) = self.late.take() {
            lock(self.net).note(Note::Operator("late abort"));
            self.common.desks()[name.reactor()].command(Command::Abort(name));
        }
    }

    fn order(&self, order: &Order, what: &'static str) {
        lock(self.net).note(Note::Operator(what));
        self.common.order(order);
    }

    /// Ends the storm, or the server, if its time has come.
    fn operate(&mut self) {
        let now = self.now();
        if self.end_at.is_some_and(|at| at <= now) {
            self.end_at = None;
            if self.plan.ending == Ending::Stop {
                lock(self.net).stopping = true;
                self.order(&Order::Stop, "stop");
            } else {
                self.order(&Order::Drain(self.plan.spread), "drain");
            }
        } else if self.phase == Phase::Storm {
            self.phase = Phase::Calm;
            self.calm_at = now;
            let mut net = lock(self.net);
            net.faults = Faults::default();
            net.exhausted_until = now;
            drop(net);
            self.order(&Order::Resume, "calm");
            self.clients.iter_mut().for_each(Client::calm_down);
        }
    }

    /// What follows from everybody having come so far.
    fn settle_phase(&mut self) {
        if self.phase == Phase::Calm && self.end_at.is_none() {
            let left = self.all_have_left();
            if self.plan.ending != Ending::Quiet || left {
                self.phase = Phase::Ending;
                if self.plan.ending == Ending::Quiet {
                    self.order(&Order::Drain(self.plan.spread), "drain");
                }
            }
        }
        self.note_answers();
        let over = self.phase == Phase::Ending
            && self.spawner.counts().waiting == 0
            && self.driver.stopped_count() == self.plan.sched.reactors
            && self.all_have_left();
        if over {
            self.phase = Phase::Leaving;
            self.driver.tell_to_quit();
        }
    }

    fn all_have_left(&self) -> bool {
        let clients = self.clients.iter().all(|client| client.end.is_some());
        let guests = self.guests.iter().all(Guest::has_left);
        clients && guests && self.peers.iter().all(Peer::is_over)
    }

    fn note_new_threads(&mut self) {
        let fresh = Pace { paused_until: Time::ZERO, poll_until: Time::NEVER };
        self.threads.resize(self.driver.thread_count(), fresh);
    }
}
