//! A reactor that does nothing but run what it is sent, and a scheduler full of them.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::super::{
    Joined, Leased, Mode, Port, Running, SchedConfig, Scheduler, StatsSnapshot, Step, prepare,
};
use crate::parts::mailbox::{Mailbox, Wake};
use crate::words::sync::{Arc, Condvar, Mutex, lock, thread, wait};

/// Longer than anything here takes, on a machine that does many other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to a fake reactor from outside.
pub(super) enum Mail {
    Run(Task),
    Slow(Task),
    Done { name: u32, overtaken: bool },
    Panic,
    Stop,
}

/// User code that says it has begun, and then waits until it may end.
pub(super) struct Task {
    pub(super) name: u32,
    pub(super) begun: Option<Sender<u32>>,
    pub(super) end: Option<Receiver<()>>,
}

pub(super) struct Desk {
    pub(super) mailbox: Mailbox<Mail>,
    pub(super) bell: Arc<Bell>,
    pub(super) done: Sender<Finished>,
}

/// A task that is over, in the words of its reactor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) name: u32,
    pub(super) overtaken: bool,
    pub(super) thread: String,
}

pub(super) struct FakeReactor {
    pub(super) desk: Arc<Desk>,
    pub(super) port: Port<Task>,
    pub(super) mail: Vec<Mail>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) stopping: bool,
}

#[derive(Default)]
pub(super) struct Bell {
    pub(super) rung: Mutex<bool>,
    pub(super) changed: Condvar,
}

impl Wake for Arc<Bell> {
    fn wake(&self) {
        *lock(&self.rung) = true;
        self.changed.notify_one();
    }
}

impl FakeReactor {
    fn poll(&mut self) {
        if self.desk.mailbox.fall_asleep() {
            self.port.fall_asleep();
            let mut rung = lock(&self.desk.bell.rung);
            while !*rung {
                rung = wait(&self.desk.bell.changed, rung);
            }
            *rung = false;
            drop(rung);
            self.port.wake_up();
            self.desk.mailbox.wake_up();
        }
    }

    fn receive_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.desk.mailbox.drain_into(&mut mail);
        for letter in mail.drain(..) {
            match letter {
                Mail::Run(task) if self.port.hands_off() => self.offload(task),
                Mail::Run(task) if self.port.heavy() => self.port.push(task),
                Mail::Run(task) => self.tasks.push_back(task),
                Mail::Slow(task) => self.offload(task),
                Mail::Done { name, overtaken } => self.finish(name, overtaken),
                Mail::Panic => {
                    self.mail = Vec::new();
                    panic!("planted");
                }
                Mail::Stop => self.stopping = true,
            }
        }
        self.mail = mail;
        if self.port.queued() > 1 {
            self.port.call_helper();
        }
    }

    fn offload(&mut self, task: Task) {
        if let Err(task) = self.port.offload(task) {
            self.tasks.push_back(task);
        }
    }

    fn finish(&self, name: u32, overtaken: bool) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        // Nobody may be interested any more.
        drop(self.desk.done.send(Finished { name, overtaken, thread }));
    }
}

impl Leased for FakeReactor {
    type Job = Task;
    type Done = u32;
    type Desk = Desk;

    fn step(&mut self) -> Step<Task> {
        loop {
            self.receive_mail();
            if let Some(task) = self.tasks.pop_front().or_else(|| self.port.pop()) {
                return Step::Run(task);
            }
            if self.stopping {
                return Step::Stopped;
            }
            self.poll();
        }
    }

    fn apply(&mut self, name: u32) {
        self.finish(name, false);
    }

    fn run(task: Task, _desk: &Arc<Desk>) -> u32 {
        if let Some(begun) = task.begun {
            let _ = begun.send(task.name);
        }
        if let Some(end) = task.end {
            let _ = end.recv();
        }
        task.name
    }

    fn post(desk: &Arc<Desk>, name: u32, overtaken: bool) {
        desk.mailbox.post(Mail::Done { name, overtaken });
    }
}

/// A scheduler with fake reactors, and all that a test wants of it.
pub(super) struct Bench {
    pub(super) running: Running<FakeReactor>,
    pub(super) desks: Vec<Arc<Desk>>,
    pub(super) done: Receiver<Finished>,
}

/// The ends of a task's strings.
pub(super) struct Strings {
    pub(super) begun: Receiver<u32>,
    pub(super) end: Sender<()>,
}

pub(super) fn config(reactors: usize, workers: usize, mode: Mode) -> SchedConfig {
    SchedConfig { reactors, workers, workers_max: 8, mode, name: "test".to_owned() }
}

pub(super) type Parts =
    (Scheduler<FakeReactor>, Vec<FakeReactor>, Vec<Arc<Desk>>, Receiver<Finished>);

pub(super) fn parts(config: SchedConfig) -> Parts {
    let (finished, done) = channel();
    let desk = |_| {
        let bell = Arc::new(Bell::default());
        let mailbox = Mailbox::new(Box::new(Arc::clone(&bell)));
        Arc::new(Desk { mailbox, bell, done: finished.clone() })
    };
    let desks: Vec<_> = (0..config.reactors).map(desk).collect();
    let (scheduler, ports) = prepare(config, desks.clone());
    let reactor = |(port, desk): (Port<Task>, &Arc<Desk>)| FakeReactor {
        desk: Arc::clone(desk),
        port,
        mail: Vec::new(),
        tasks: VecDeque::new(),
        stopping: false,
    };
    let reactors = ports.into_iter().zip(&desks).map(reactor).collect();
    (scheduler, reactors, desks, done)
}

impl Bench {
    pub(super) fn start(config: SchedConfig) -> Bench {
        let (scheduler, reactors, desks, done) = parts(config);
        Bench { running: scheduler.start(reactors).expect("threads can be had"), desks, done }
    }

    pub(super) fn post(&self, reactor: usize, mail: Mail) {
        self.desks[reactor].mailbox.post(mail);
    }

    pub(super) fn finished(&self) -> Finished {
        self.done.recv_timeout(PATIENCE).expect("it ends at last")
    }

    pub(super) fn stats(&self) -> StatsSnapshot {
        self.running.stats().snapshot()
    }

    /// Waits until the counters say what the test waits for.
    pub(super) fn until(&self, reached: impl Fn(StatsSnapshot) -> bool) {
        let deadline = crate::words::clock::Clock::start();
        while !reached(self.stats()) {
            assert!(deadline.now().as_nanos() < 60_000_000_000, "{:?}", self.stats());
            thread::yield_now();
        }
    }

    pub(super) fn stop(self, grace: Duration) -> Joined<FakeReactor> {
        self.desks.iter().for_each(|desk| desk.mailbox.post(Mail::Stop));
        self.running.join(Duration::MAX, grace)
    }
}

pub(super) fn quick(name: u32) -> Task {
    Task { name, begun: None, end: None }
}

/// A task that ends when its string is pulled.
pub(super) fn long(name: u32) -> (Task, Strings) {
    let ((begin, begun), (end, ended)) = (channel(), channel());
    (Task { name, begun: Some(begin), end: Some(ended) }, Strings { begun, end })
}

impl Strings {
    pub(super) fn wait_begun(&self) -> u32 {
        self.begun.recv_timeout(PATIENCE).expect("it begins at last")
    }

    pub(super) fn has_not_begun(&self) -> bool {
        self.begun.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout)
    }
}
