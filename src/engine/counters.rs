//! What a reactor counts, and the copies of it that an operator sees.

use crate::core::limits::Grade;
use crate::words::reason::Cause;

/// What one reactor has counted since it was made. Plain numbers: only its holder touches them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) opened: u64,
    pub(crate) dialed: u64,
    pub(crate) dial_failures: u64,
    pub(crate) closed: [u64; Cause::LABELS.len()],
    pub(crate) jobs: u64,
    pub(crate) turns: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) stale: u64,
    pub(crate) panics: u64,
    pub(crate) overtaken: u64,
    pub(crate) slowed: u64,
    pub(crate) trusted_again: u64,
    pub(crate) refused: u64,
    pub(crate) accept_errors: u64,
    pub(crate) reads_delayed: Delayed,
    pub(crate) sends_delayed: Delayed,
    pub(crate) limit_pauses: u64,
    pub(crate) listener_pauses: u64,
    pub(crate) rate_pauses: u64,
    pub(crate) rejected_full: u64,
    pub(crate) rejected_rate: u64,
    pub(crate) rejected_client: u64,
    pub(crate) descriptor_pauses: u64,
    pub(crate) frames: u64,
    pub(crate) shed: u64,
    pub(crate) dropped: u64,
    pub(crate) broadcasts: u64,
    pub(crate) lagged: u64,
    pub(crate) misdirected: u64,
    pub(crate) linger_resets: u64,
    pub(crate) asked: u64,
    pub(crate) memory_pauses: u64,
    /// Times that each grade of memory but the lowest was reached.
    pub(crate) grades: [u64; Grade::LABELS.len()],
    /// Times that a connection was not read for what it held.
    pub(crate) throttled: u64,
}

/// What had to wait for its turn because rates are bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delayed {
    pub(crate) times: u64,
    pub(crate) bytes: u64,
}

/// What connections use of memory, in bytes: those of one reactor, or of a whole server. What
/// handlers keep for themselves, and what the system holds for sockets, is not in it.
///
/// What memory is short does is told by [`Limits::memory_max`](crate::Limits::memory_max).
///
/// ```
/// use switchboard::{Error, Raw, Server, handler_fn};
///
/// let server = Server::builder()
///     .limits(|limits| limits.memory_max = 64 << 20)
///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
///     .start()?;
/// let memory = server.snapshot().memory;
/// assert_eq!((memory.max, memory.grade, memory.output), (64 << 20, 0, 0));
/// assert!(memory.total < memory.max);
/// # server.stop();
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MemorySnapshot {
    /// The tables of connections, free slots included.
    pub records: usize,
    /// Read buffers: those that are lent, each as `read_chunk_bytes`, and those that are kept.
    pub buffers: usize,
    /// Input that is not a whole frame yet, to the capacity of what it stands in.
    pub partial_frames: usize,
    /// Output that the system has not taken yet: what was copied to the capacity of the copies,
    /// what is shared with others (a large message, sent as [`Bytes`](bytes::Bytes)) to its length.
    /// A part of a larger buffer keeps all of that alive; parts of up to 64 KiB are copied.
    pub output: usize,
    /// Messages sent through handles that are not encoded yet, each with 64 bytes more.
    pub mailboxes: usize,
    /// Deadlines of connections and timers of their protocols, room for more included.
    pub timers: usize,
    /// All of these.
    pub total: usize,
    /// What the server may use: `memory_max`.
    pub max: usize,
    /// How much is given up to stay within that: 0 nothing, 1 idle buffers, 2 patience with silent
    /// peers, 3 the speed of those that hold the most, 4 newcomers, 5 those that hold the most. Of
    /// several reactors the highest.
    pub grade: usize,
    /// Times that each grade was reached, by its label: `trim`, `hurry`, `pause`, `refuse`,
    /// `evict`; those never reached are left out. Each reactor counts for itself.
    pub reached: Vec<(&'static str, u64)>,
    /// Connections that are not read at the moment because they hold so much.
    pub throttled: usize,
    /// Times that a connection was not read for that reason.
    pub pauses: u64,
}

impl MemorySnapshot {
    /// What the kinds are in all.
    pub(crate) fn sum(&self) -> usize {
        self.records
            + self.buffers
            + self.partial_frames
            + self.output
            + self.mailboxes
            + self.timers
    }

    /// Adds what another reactor uses.
    pub(crate) fn add(&mut self, other: &MemorySnapshot) {
        self.records += other.records;
        self.buffers += other.buffers;
        self.partial_frames += other.partial_frames;
        self.output += other.output;
        self.mailboxes += other.mailboxes;
        self.timers += other.timers;
        self.total += other.total;
        self.max = self.max.max(other.max);
        self.grade = self.grade.max(other.grade);
        for &(label, count) in &other.reached {
            match self.reached.iter_mut().find(|(name, _)| *name == label) {
                Some((_, sum)) => *sum += count,
                None => self.reached.push((label, count)),
            }
        }
        self.throttled += other.throttled;
        self.pauses += other.pauses;
    }

    /// Times that the grade with this label was reached.
    #[must_use]
    pub fn reached(&self, label: &str) -> u64 {
        let matching = self.reached.iter().filter(|&&(name, _)| name == label);
        matching.map(|&(_, count)| count).sum()
    }
}

/// One reactor at one moment. What is counted is counted since the start and never goes back.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReactorSnapshot {
    /// Its number, from 0.
    pub reactor: usize,
    /// Connections that it holds now.
    pub connections: usize,
    /// Connections that it is making: their addresses are known, and they are neither open nor
    /// given up.
    pub connecting: usize,
    /// Connections whose handler runs now, or waits for a thread to run it. One that stays here is
    /// a handler that does not return.
    pub handlers_out: usize,
    /// Clients that wait in the system's queues to be accepted by this reactor; 0 where the system
    /// does not tell (all but Linux).
    pub waiting: u64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Those among them that we have asked for ourselves.
    pub dialed: u64,
    /// Connections that we have asked for and that could not be made.
    pub dial_failures: u64,
    /// Connections ended since the start, by the label of their cause; those that never happened
    /// are left out.
    pub closed: Vec<(&'static str, u64)>,
    /// Times that user code was run; each time it may be shown several frames.
    pub jobs: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Bytes read from connections.
    pub received_bytes: u64,
    /// Bytes handed to the system.
    pub sent_bytes: u64,
    /// Events, commands and timers for connections that were gone already: normal, and ignored.
    pub stale: u64,
    /// Panics of user code on connections.
    pub panics: u64,
    /// Jobs during which another thread had to take the reactor over.
    pub overtaken: u64,
    /// Connections that were moved to the slow lane.
    pub slowed: u64,
    /// Connections that came back from it.
    pub trusted_again: u64,
    /// Accepted connections that could not be served, for want of a slot or of a place to watch
    /// them, and were closed.
    pub refused: u64,
    /// Errors of single clients while they were accepted.
    pub accept_errors: u64,
    /// Connections that are held to a rate, see [`Limits::read_rate`](crate::Limits::read_rate).
    pub shaped: usize,
    /// Those of them whose input waits for its turn now.
    pub reads_held: usize,
    /// Those of them whose output waits for its turn now.
    pub sends_held: usize,
    /// Times that input had to wait for its turn.
    pub read_delays: u64,
    /// Bytes that were read after they had to.
    pub read_delayed_bytes: u64,
    /// Times that output had to wait for its turn.
    pub send_delays: u64,
    /// Bytes that were written after they had to.
    pub send_delayed_bytes: u64,
    /// Times that accepting paused because `connections_max` was reached. A pause lasts until there
    /// is room, and all clients that come in the meantime wait.
    pub limit_pauses: u64,
    /// Times that a listener paused because its own `connections_max` was reached.
    pub listener_pauses: u64,
    /// Times that accepting paused because a rate of accepts was reached.
    pub rate_pauses: u64,
    /// Clients that were turned away because a maximum of connections was reached. Those that were
    /// ended to make room are in `closed` under `evicted`, those that a filter did not let in under
    /// `refused`.
    pub rejected_full: u64,
    /// Clients that were turned away because a rate of accepts was reached.
    pub rejected_rate: u64,
    /// Clients that were turned away because they had `connections_per_client_max` already.
    pub rejected_client: u64,
    /// Times that accepting paused because the system was out of descriptors or memory.
    pub descriptor_pauses: u64,
    /// Frames that were shown to handlers.
    pub frames: u64,
    /// Frames among them that had waited for longer than `queue_wait_max`.
    pub shed: u64,
    /// Messages that were dropped because their connection had `send_max_bytes` queued.
    pub dropped: u64,
    /// Messages of groups that were handed to the system at once, counted for each member. Those
    /// for members that were behind are in [`GroupStats`](crate::group::GroupStats) only.
    pub broadcasts: u64,
    /// Messages of groups that were dropped because a member was behind, counted for each member.
    pub lagged: u64,
    /// Messages and closures of handles that came after their codec or handler was replaced by one
    /// of another type, and were dropped.
    pub misdirected: u64,
    /// Closed connections that were reset because more than `lingering_max` waited for their peers.
    pub linger_resets: u64,
    /// Connections that were asked to come to an end by a drain.
    pub asked: u64,
    /// Times that accepting paused because connections used too much memory.
    pub memory_pauses: u64,
    /// What its connections use of memory.
    pub memory: MemorySnapshot,
    /// Read buffers that jobs have at the moment.
    pub buffers_leased: usize,
    /// Read buffers that the pool keeps, at most `pool_retained_max`.
    pub buffers_retained: usize,
    /// What these buffers hold of memory, in bytes.
    pub buffers_retained_bytes: usize,
    /// Times that a read buffer came from the pool.
    pub buffer_hits: u64,
    /// Times that a read buffer had to be allocated.
    pub buffer_misses: u64,
    /// Frames that are not complete, output that waits, and messages of groups that wait for
    /// members that are behind, of all connections, in bytes.
    pub held_bytes: usize,
    /// Memory of the table of connections, in bytes.
    pub table_bytes: usize,
    /// Armed timers.
    pub timers: usize,
}

impl Counters {
    /// Counts the end of a connection.
    pub(crate) fn close(&mut self, cause: &Cause) {
        self.closed[cause.index()] += 1;
    }

    /// The ends by label, without those that never happened.
    pub(crate) fn closed_by_label(&self) -> Vec<(&'static str, u64)> {
        let pairs = Cause::LABELS.iter().copied().zip(self.closed);
        pairs.filter(|&(_, count)| count > 0).collect()
    }
}
