//! `Builder`: what a server is to be, and how it comes to be.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread::available_parallelism;
use std::time::Duration;

use super::server::{Drain, Report, Server};
use crate::core::codec::Codec;
use crate::core::handler::Handler;
use crate::core::job::Job;
use crate::core::limits::{Alarm, Shortage};
use crate::core::session::{Factory, Maker};
use crate::edge::listener::Plan;
use crate::engine::common::{Common, TellAlarm, TellShortage};
use crate::engine::desk::Desk;
use crate::engine::reactor::{Door, Reactor};
use crate::engine::sched::{self, Mode, Port, SchedConfig};
use crate::engine::spawn::{Spawner, spawner_of};
use crate::sys::{
    Listener, MioKernel, REUSE_PORT_BALANCES, descriptor_limit, memory_total,
    raise_descriptor_limit,
};
use crate::words::clock::Clock;
use crate::words::config::{Limits, Listening, Placement, Scheduling, Threads};
use crate::words::error::Error;
use crate::words::sync::Arc;

/// Says what a server is to be. Made by [`Server::builder`].
///
/// Nothing is opened or checked before [`start`](Builder::start) or [`run`](Builder::run), which
/// answer with the first thing that is wrong.
pub struct Builder {
    plans: Vec<Plan>,
    limits: Limits,
    threads: Threads,
    placement: Placement,
    drain_deadline: Duration,
    drain_spread: Duration,
    on_start: Option<Box<OnStart>>,
    on_alarm: Option<Arc<TellAlarm>>,
    on_shortage: Option<Arc<TellShortage>>,
}

/// Told the addresses of all listeners.
type OnStart = dyn FnOnce(&[SocketAddr]);

/// Threads that the pool may grow to unless `workers_max` says otherwise.
const WORKERS_MAX: usize = 512;
/// How many listeners a server may have: their numbers are 16 bits wide.
const LISTENERS_MAX: usize = 1 << 10;

impl Builder {
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Builder {
            plans: Vec::new(),
            limits: Limits {
                memory_max: Limits::memory_for(memory_total()),
                ..Limits::for_descriptors(descriptor_limit())
            },
            threads: Threads {
                reactors: cores.min(64),
                workers: 2,
                workers_max: WORKERS_MAX,
                name: String::from("switchboard"),
                scheduling: Scheduling::TakeOver,
            },
            placement: Placement::default(),
            drain_deadline: Duration::from_secs(10),
            drain_spread: Duration::from_secs(1),
            on_start: None,
            on_alarm: None,
            on_shortage: None,
        }
    }

    /// Serves connections to `addr`: each gets a clone of `codec` and the handler that `handler`
    /// makes for the peer's address. May be called several times.
    ///
    /// An address with port 0 gets a port from the system, see [`Server::local_addr`]. If a name
    /// has several addresses, the first that can be listened on is taken. A name is resolved at
    /// once, which may block.
    ///
    /// `handler` runs where handlers run, for several connections at once; it may block. A panic in
    /// it ends the connection, before there is a handler that could be told.
    #[must_use]
    pub fn listen<C, H>(
        self,
        addr: impl ToSocketAddrs + fmt::Debug,
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
    ) -> Self
    where
        C: Codec + Clone + Sync,
        H: Handler<C::Frame, C::Message>,
    {
        self.listen_with(addr, codec, handler, |_| {})
    }

    /// Like [`listen`](Builder::listen), for a listener that has settings of its own: `adapt` gets
    /// those of the server, as they are when it starts, and changes them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", Raw::new(), echo)
    ///     .listen_with("127.0.0.1:0", Raw::new(), echo, |public| {
    ///         public.timeouts.first_frame = Some(Duration::from_secs(3));
    ///     })
    ///     .start()?;
    /// # server.stop();
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    #[must_use]
    pub fn listen_with<C, H>(
        mut self,
        addr: impl ToSocketAddrs + fmt::Debug,
        codec: C,
        handler: impl Fn(SocketAddr) -> H + Send + Sync + 'static,
        adapt: impl FnOnce(&mut Listening) + 'static,
    ) -> Self
    where
        C: Codec + Clone + Sync,
        H: Handler<C::Frame, C::Message>,
    {
        self.plans.push(Plan::new(addr, Arc::new(Maker { codec, handler }), adapt));
        self
    }

    /// Threads that poll and run quick handlers. Default: the number of cores, at most 64.
    /// Range: 1 to 256.
    #[must_use]
    pub fn reactors(mut self, count: usize) -> Self {
        self.threads.reactors = count;
        self
    }

    /// Threads that stand by to pick up a reactor whose handler is slow. Default: 2. Range: 0 to
    /// 65,536; `workers_max` is raised to it. With 0 there are never any, whatever `workers_max`
    /// says: every handler runs on its reactor's thread, as with [`Scheduling::Inline`].
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.threads.workers = count;
        self.threads.workers_max = self.threads.workers_max.max(count);
        self
    }

    /// How many workers there may be while handlers block; they come as needed and leave after
    /// 10 s without work. Default: 512. Range: `workers` to 65,536. When all of them are in a
    /// handler, the next handler that blocks delays the others of its reactor.
    #[must_use]
    pub fn workers_max(mut self, count: usize) -> Self {
        self.threads.workers_max = count;
        self
    }

    /// What the threads' names begin with. Default: `switchboard`. 1 to 32 printable ASCII
    /// characters, no spaces. The system may show less of it: Linux 15 bytes.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.threads.name = name.into();
        self
    }

    /// Which thread runs a handler. Default: [`Scheduling::TakeOver`].
    #[must_use]
    pub fn scheduling(mut self, scheduling: Scheduling) -> Self {
        self.threads.scheduling = scheduling;
        self
    }

    /// Which reactor a connection goes to. Default: see [`Placement`].
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Raises the number of files that the process may open as far as the system lets it, and
    /// `connections_max` with it unless that was set. Nothing happens where there is no such limit.
    #[must_use]
    pub fn raise_descriptor_limit(mut self) -> Self {
        let before = Limits::for_descriptors(descriptor_limit()).connections_max;
        let after = Limits::for_descriptors(raise_descriptor_limit()).connections_max;
        if self.limits.connections_max == before {
            self.limits.connections_max = after;
        }
        self
    }

    /// Changes the limits.
    ///
    /// ```
    /// let builder = switchboard::Server::builder().limits(|limits| limits.connections_max = 500);
    /// ```
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// How long [`run`](Builder::run) lets connections come to an end after a signal or
    /// [`Control::drain`](crate::control::Control::drain). Default: 10 s. Any value is allowed;
    /// zero closes them at once.
    #[must_use]
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Over what time [`run`](Builder::run) asks the connections to come to an end after a signal
    /// or [`Control::drain`](crate::control::Control::drain), so that their peers do not all
    /// connect to another server at once. Default: 1 s. Any value is allowed; zero asks all of
    /// them at once.
    #[must_use]
    pub fn drain_spread(mut self, spread: Duration) -> Self {
        self.drain_spread = spread;
        self
    }

    /// Calls `tell` with the addresses of all listeners once they are open, which is the way to
    /// learn of ports that the system chose if [`run`](Builder::run) is called. It runs on the
    /// thread that starts the server, when clients are served already. A second one replaces the
    /// first.
    #[must_use]
    pub fn on_start(mut self, tell: impl FnOnce(&[SocketAddr]) + 'static) -> Self {
        self.on_start = Some(Box::new(tell));
        self
    }

    /// Calls `tell` when a limit is near or reached, or handlers do not come back, and when that is
    /// over; see [`AlarmKind`](crate::control::AlarmKind) for what there is. At most one call for
    /// each kind and [`alarm_cool_down`](Limits::alarm_cool_down), by which time the server tells
    /// what holds then, if that is news. Without anybody to tell nothing happens but that it is
    /// counted.
    ///
    /// It runs in the pool of workers, where it delays no connection, several calls at once maybe;
    /// without workers, on the thread of a reactor. A panic in it is counted and goes no further.
    /// An alarm that is due when the server stops is not told. A second callback replaces the
    /// first.
    ///
    /// ```
    /// use switchboard::control::AlarmKind;
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
    ///     .limits(|limits| limits.alarm_percent = 80)
    ///     .on_alarm(|alarm| match alarm.kind {
    ///         AlarmKind::Connections if alarm.raised => {
    ///             eprintln!("{} of {} connections are open", alarm.count, alarm.max);
    ///         }
    ///         _ => eprintln!("{alarm:?}"),
    ///     })
    ///     .start()?;
    /// # server.stop();
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    #[must_use]
    pub fn on_alarm(mut self, tell: impl Fn(&Alarm) + Send + Sync + 'static) -> Self {
        self.on_alarm = Some(Arc::new(tell));
        self
    }

    /// Calls `tell` when the connections have come to use so much of
    /// [`memory_max`](Limits::memory_max) that more is given up to stay within it, or less again.
    ///
    /// It runs in the pool of workers, where it delays no connection; without workers, on the
    /// thread of a reactor. Calls come in no certain order if one takes its time. A panic in it is
    /// counted and goes no further. A second callback replaces the first.
    ///
    /// ```
    /// use switchboard::{Raw, Server, handler_fn};
    ///
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
    ///     .limits(|limits| limits.memory_max = 64 << 20)
    ///     .on_shortage(|news| eprintln!("memory: grade {} of 5", news.grade))
    ///     .start()?;
    /// # server.stop();
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    #[must_use]
    pub fn on_shortage(mut self, tell: impl Fn(&Shortage) + Send + Sync + 'static) -> Self {
        self.on_shortage = Some(Arc::new(tell));
        self
    }

    /// Starts the server in threads of its own and returns. A server without listeners is allowed.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting outside of its range; [`Error::Io`] if the system refuses a
    /// listener, a poll or a thread. Nothing is left running then.
    pub fn start(self) -> Result<Server, Error> {
        let Builder {
            mut plans, limits, threads, placement, on_start, on_alarm, on_shortage, ..
        } = self;
        let drain = Drain { deadline: self.drain_deadline, spread: self.drain_spread };
        limits.check()?;
        threads.check()?;
        if plans.len() > LISTENERS_MAX {
            let allowed = format!("at most {LISTENERS_MAX}");
            return Err(Error::config("listen", format!("{} listeners", plans.len()), allowed));
        }
        let clock = Clock::start();
        let listening = plans.iter_mut().map(|plan| plan.listening(&limits));
        let listening = listening.chain([Ok(Listening::outbound(&limits))]);
        let listening = listening.collect::<Result<Arc<[_]>, _>>()?;
        let common = Common::new(limits, listening, placement).with_bell(on_alarm);
        let common = common.with_shortage(on_shortage);
        let common = Arc::new(common);
        let kernels = (0..threads.reactors)
            .map(|_| MioKernel::new(clock, common.limits.events_per_turn))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::io("making a poll", error))?;
        let desks: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                let listening = Arc::clone(&common.listening);
                Arc::new(Desk::new(Box::new(kernel.waker()), move || clock.now(), listening))
            })
            .collect();
        common.set_desks(desks.clone());
        let mut addrs = Vec::with_capacity(plans.len());
        let doors = open_doors(plans, threads.reactors, &common, &mut addrs)?;
        let (scheduler, ports) =
            sched::prepare::<Reactor<MioKernel>>(sched_config(threads), desks.clone());
        let spawner = Arc::new(Spawner::new(Arc::clone(&common), scheduler.side_door()));
        desks.iter().for_each(|desk| desk.set_spawner(spawner_of(&spawner)));
        let reactors = make_reactors(kernels, &common, desks, ports, doors)?;
        let running =
            scheduler.start(reactors).map_err(|error| Error::io("starting the threads", error))?;
        if let Some(tell) = on_start {
            tell(&addrs);
        }
        Ok(Server::new(running, common, spawner, addrs, clock, drain))
    }

    /// Starts the server and serves until SIGINT or SIGTERM (Ctrl-C or the closing of the console
    /// on Windows), then drains: stops accepting, asks every connection to come to an end, and
    /// closes what is left after [`drain_deadline`](Builder::drain_deadline). A second signal ends
    /// the wait, as [`Control::stop`](crate::control::Control::stop) does. Blocks until the server
    /// has ended.
    ///
    /// # Errors
    /// As [`start`](Builder::start); also if the signals cannot be caught, because another server
    /// of this process does so already, and if the server cannot go on.
    pub fn run(self) -> Result<Report, Error> {
        self.start()?.run()
    }
}

impl Default for Placement {
    /// [`ReusePort`](Placement::ReusePort) where the system balances it, else
    /// [`LeastLoaded`](Placement::LeastLoaded).
    fn default() -> Self {
        if REUSE_PORT_BALANCES { Placement::ReusePort } else { Placement::LeastLoaded }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listeners", &self.plans.len())
            .field("limits", &self.limits)
            .field("threads", &self.threads)
            .field("placement", &self.placement)
            .field("drain_deadline", &self.drain_deadline)
            .field("drain_spread", &self.drain_spread)
            .finish_non_exhaustive()
    }
}

fn sched_config(threads: Threads) -> SchedConfig {
    let Threads { reactors, workers, workers_max, name, scheduling } = threads;
    let mode = match scheduling {
        Scheduling::TakeOver => Mode::TakeOver,
        Scheduling::HandOff => Mode::HandOff,
        Scheduling::Inline => Mode::Inline,
    };
    SchedConfig { reactors, workers, workers_max, mode, name }
}

type Doors = Vec<Door<MioKernel>>;

/// Opens the listeners: for each reactor, a door for each of them.
fn open_doors(
    plans: Vec<Plan>,
    reactors: usize,
    common: &Common<MioKernel>,
    addrs: &mut Vec<SocketAddr>,
) -> Result<Vec<Doors>, Error> {
    let mut doors: Vec<Doors> = (0..reactors).map(|_| Vec::new()).collect();
    for (number, mut plan) in plans.into_iter().enumerate() {
        let opened = plan.open(number, reactors, common.placement, &common.limits)?;
        addrs.push(opened.addr);
        let number = u16::try_from(number).expect("LISTENERS_MAX is less than 2^16");
        let places = doors.iter_mut().zip(opened.sockets);
        places.for_each(|(doors, socket): (&mut Doors, Option<Listener>)| {
            let factory: Arc<dyn Factory> = Arc::clone(&plan.factory);
            doors.push(Door::new(number, socket, factory));
        });
    }
    Ok(doors)
}

fn make_reactors(
    kernels: Vec<MioKernel>,
    common: &Arc<Common<MioKernel>>,
    desks: Vec<Arc<Desk<MioKernel>>>,
    ports: Vec<Port<Box<Job>>>,
    doors: Vec<Doors>,
) -> Result<Vec<Reactor<MioKernel>>, Error> {
    let parts = kernels.into_iter().zip(desks).zip(ports).zip(doors);
    parts
        .map(|(((kernel, desk), port), doors)| {
            Reactor::new(kernel, Arc::clone(common), desk, port, doors)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::io("watching a listener", error))
}
