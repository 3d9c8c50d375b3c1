//! `Spawner`: free jobs, which belong to no connection: a bounded queue to the threads of the pool.

use std::sync::Weak;
use std::time::Duration;

use super::common::Common;
use super::sched::SideDoor;
use crate::core::job::{Call, Job, Task};
use crate::core::offload::Spawn;
use crate::sys::Kernel;
use crate::words::error::SpawnError;
use crate::words::sync::{Arc, Mutex, lock};

/// Takes free jobs for as long as the server runs.
#[derive(Debug)]
pub(crate) struct Spawner<K: Kernel> {
    common: Arc<Common<K>>,
    door: SideDoor<Box<Job>>,
    gate: Arc<Mutex<Gate>>,
}

/// What there is and was of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    closed: bool,
    /// Jobs that were taken and have not begun; never more than `jobs_max`.
    pub(crate) waiting: usize,
    /// Jobs that were run to their end.
    pub(crate) finished: u64,
    /// Those among them that panicked.
    pub(crate) panicked: u64,
}

impl<K: Kernel> Spawner<K> {
    pub(crate) fn new(common: Arc<Common<K>>, door: SideDoor<Box<Job>>) -> Self {
        Spawner { common, door, gate: Arc::default() }
    }

    /// Has `job` run by a thread of the pool; by one of a reactor if there is no pool. A job that
    /// is not taken is dropped.
    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) -> Result<(), SpawnError> {
        self.take(Call::new(job))
    }

    fn take(&self, job: Call) -> Result<(), SpawnError> {
        let gate = Arc::clone(&self.gate);
        let counted = Call::new(move || {
            lock(&gate).waiting -= 1;
            let panicked = job.run();
            let mut gate = lock(&gate);
            gate.finished += 1;
            gate.panicked += u64::from(panicked);
        });
        let mut gate = lock(&self.gate);
        if gate.closed {
            return Err(SpawnError::Stopping);
        }
        if gate.waiting >= self.common.limits.jobs_max {
            return Err(SpawnError::Full);
        }
        gate.waiting += 1;
        // Under the lock, so that nothing is put there any more once the gate is closed.
        let offloaded = self.door.offload(Job::free(counted));
        drop(gate);
        let Err(mut job) = offloaded else { return Ok(()) };
        let Task::Free(counted) = std::mem::replace(&mut job.task, Task::Serve) else {
            return Ok(());
        };
        match self.common.later(Duration::ZERO, counted) {
            None => Ok(()),
            Some(_dropped) => {
                lock(&self.gate).waiting -= 1;
                Err(SpawnError::Stopping)
            }
        }
    }

    /// Takes no job any more.
    pub(crate) fn close(&self) {
        lock(&self.gate).closed = true;
    }

    /// What there is and was.
    pub(crate) fn counts(&self) -> Gate {
        *lock(&self.gate)
    }
}

/// A spawner as the desks know it: they do not keep it alive.
pub(crate) fn spawner_of<K: Kernel>(spawner: &Arc<Spawner<K>>) -> Weak<dyn Spawn> {
    let spawner: Arc<dyn Spawn> = Arc::<Spawner<K>>::clone(spawner);
    Arc::downgrade(&spawner)
}

impl<K: Kernel> Spawn for Spawner<K> {
    fn spawn_call(&self, call: Call) -> Result<(), SpawnError> {
        self.take(call)
    }
}
