//! The end of a simulated world: nothing is left, and what happened in all.

use std::sync::Mutex;

use super::Summary;
use super::net::Net;
use super::plan::Plan;
use super::world::Kernel;
use crate::engine::common::Common;
use crate::engine::reactor::Reactor;
use crate::engine::sched::{Stage, Stats};
use crate::words::sync::lock;

/// Nobody was turned away but for a limit that there is.
pub(super) fn check_turned_away<const DRAINS: bool>(
    reactors: &[Reactor<Kernel<DRAINS>>],
    plan: &Plan,
) -> Result<(), String> {
    let mut turned_away = [0; 3];
    for reactor in reactors {
        let counters = reactor.counters();
        let here = [counters.rejected_full, counters.rejected_rate, counters.rejected_client];
        turned_away.iter_mut().zip(here).for_each(|(sum, here)| *sum += here);
    }
    let fair = turned_away.iter().zip(plan.turns_away()).all(|(&count, may)| count == 0 || may);
    if fair { Ok(()) } else { Err(format!("turned away for nothing: {turned_away:?}")) }
}

/// What must be true when all is over, and what there was.
pub(super) fn sum_up<const DRAINS: bool>(
    (stage, plan): (&Stage<Reactor<Kernel<DRAINS>>>, &Plan),
    common: &Common<Kernel<DRAINS>>,
    net: &Mutex<Net>,
    stats: &Stats,
    mut summary: Summary,
) -> Result<Summary, String> {
    let reactors = stage.take_retired();
    for reactor in &reactors {
        let snapshot = reactor.snapshot();
        let closed = reactor.counters().closed.iter().sum::<u64>();
        let left = (snapshot.connections, snapshot.buffers_leased, snapshot.timers);
        if left != (0, 0, 0) || snapshot.held_bytes > 0 {
            return Err(format!("(connections, buffers, timers) are left: {left:?}"));
        }
        if snapshot.opened != closed {
            return Err(format!("{} connections opened, {closed} closed", snapshot.opened));
        }
        summary.connections += closed;
        summary.jobs += snapshot.jobs;
        summary.received_bytes += snapshot.received_bytes;
        summary.panics += snapshot.panics;
        summary.dialed += snapshot.dialed;
        summary.dial_failures += snapshot.dial_failures;
        summary.delays += snapshot.read_delays + snapshot.send_delays;
        summary.throttles += snapshot.memory.pauses;
        summary.memory_pauses += snapshot.memory_pauses;
        let evicted = snapshot.closed.iter().filter(|&&(label, _)| label == "out_of_memory");
        summary.evictions += evicted.map(|&(_, count)| count).sum::<u64>();
        let memory = &snapshot.memory;
        reactor.audit()?;
        if [memory.partial_frames, memory.output, memory.mailboxes] != [0; 3] {
            return Err(format!("memory is left of connections that are gone: {memory:?}"));
        }
    }
    let unserved = stage.unserved_count();
    let placed: usize = common.desks().iter().map(|desk| desk.load()).sum();
    let out = (common.admission.count(), unserved, placed);
    if out != (0, 0, 0) {
        return Err(format!("(permits, jobs, placements) are left: {out:?}"));
    }
    let held = lock(net).held.clone();
    if !held.is_empty() {
        return Err(format!("sockets {held:?} were never closed"));
    }
    check_turned_away(&reactors, plan)?;
    let stats = stats.snapshot();
    let net = lock(net);
    Ok(Summary {
        take_overs: stats.take_overs,
        steals: stats.steals,
        offloads: stats.offloads,
        digest: net.trace.digest(),
        ..summary
    })
}
