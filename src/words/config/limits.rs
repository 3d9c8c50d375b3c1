//! `Limits`: what one server, one connection and one turn may use; defaults, units and ranges.

use std::time::Duration;

use super::admission::{check_accept_rate, check_when_too_fast};
use super::{Evict, Overflow, Rate, Timeouts, WhenFull, check, check_rate, check_time};
use crate::words::error::Error;

/// Bounds on what one server, one connection and one turn may use. Every one is finite.
///
/// Set through [`Builder::limits`](crate::Builder::limits); checked when the server starts. Those
/// of a connection hold for each one; how large a frame of input may be is for the
/// [`Codec`](crate::Codec) to say.
///
/// ```
/// use std::time::Duration;
/// use switchboard::{Error, Server};
///
/// let builder = Server::builder().limits(|limits| {
///     limits.send_max_bytes = 1 << 20;
///     limits.timeouts.write_stall = Some(Duration::from_secs(30));
/// });
/// builder.start()?.stop();
///
/// let refused = Server::builder().limits(|limits| limits.connections_max = 0).start();
/// assert!(matches!(refused, Err(Error::Config { field: "connections_max", .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections open at once, over all reactors. What happens to further ones says `when_full`;
    /// those that the program opens itself are refused.
    /// Default: the soft limit of open files less a reserve of 64, at least 64; 65,536 where the
    /// platform has no such limit (Windows). Range: 1 to 2³¹.
    pub connections_max: usize,
    /// Connections open at once of one client, over all reactors and listeners. A client is a
    /// network of addresses: see `client_prefix_v4` and `client_prefix_v6`; ports do not count, and
    /// an IPv4 address that is mapped into IPv6 is the same as without. A connection beyond it is
    /// closed at once, as with [`WhenFull::Reject`]: to pause would be to punish the others.
    /// Default: `None`, as many as come: behind a proxy, and in an office or a phone network that
    /// share one address, many clients look like one. Range: 1 to 2³¹.
    pub connections_per_client_max: Option<usize>,
    /// How many leading bits of an IPv4 address say who the client is. Default: 32, all of them.
    /// Range: 0 to 32.
    pub client_prefix_v4: u8,
    /// How many leading bits of an IPv6 address say who the client is. Default: 64, since a
    /// household or a single host has that much to itself. Range: 0 to 128.
    pub client_prefix_v6: u8,
    /// Connections accepted per second, over all reactors and listeners; those that are turned away
    /// count. Default: `None`, as many as come. Range: 1 to 1,000,000 per second and at once.
    pub accept_rate: Option<Rate>,
    /// What is done about a client when a maximum of connections is reached; each listener may have
    /// [its own way](crate::config::Listening::when_full). Default: [`WhenFull::Pause`].
    pub when_full: WhenFull,
    /// What is done about a client that comes when a rate of accepts is reached:
    /// [`WhenFull::Pause`] or [`WhenFull::Reject`]; each listener may have
    /// [its own way](crate::config::Listening::when_too_fast). Default: [`WhenFull::Pause`].
    pub when_too_fast: WhenFull,
    /// At how many per cent of a maximum an [alarm](crate::Builder::on_alarm) is raised; it is over
    /// at nine tenths of that. Default: 90. Range: 1 to 100.
    pub alarm_percent: u8,
    /// How long after one [alarm](crate::Builder::on_alarm) of a kind there is none of that kind.
    /// Default: 60 s. Range: 1 ms to 7 days.
    pub alarm_cool_down: Duration,
    /// How long a handler may keep a connection before an [alarm](crate::Builder::on_alarm) tells
    /// of it, half as long again later at the latest: from when there was something for it to do,
    /// whether it runs since then or waits for a thread. Nothing else is done about it. Default:
    /// 500 ms. Range: 1 ms to 7 days.
    pub handler_patience: Duration,
    /// What all connections of the server may use of memory, in bytes: their records, their timers,
    /// read buffers, frames that are not complete, output and messages that wait. What handlers
    /// keep for themselves and what the system holds for sockets is not counted. How much there is
    /// of each kind now, a [snapshot](crate::control::MemorySnapshot) says.
    ///
    /// It is answered in grades, each of which begins at a part of it and ends five per cent below
    /// that: at 70 % buffers that are not in use are freed; at 80 % silent connections get less
    /// time ([`Idle::Adaptive`](crate::config::Idle)); at 90 % those that hold more than half of
    /// an equal share are read little by little; at 95 % nobody is accepted; at 98 % those that
    /// hold the most are ended, as [`evict`](Limits::evict) says, and handles take no messages.
    /// Silent connections get less time in a crowd too: from 80 % of `connections_max` on.
    ///
    /// With [`Evict::Heaviest`] the books never exceed
    ///
    /// ```text
    /// memory_max × 17/16 + reactors × (2 × send_max_bytes + frame + memory_max/1024)
    ///                    + jobs × read_chunk_bytes + tables + messages of one turn
    /// ```
    ///
    /// where a job is a handler that runs or waits to run (what it says is seen when it returns),
    /// the tables of records and timers double when they grow, and messages are those that handles
    /// take before the reactor comes to look. What the process uses may be more by what shared
    /// output keeps alive: a part of more than 64 KiB of a read buffer keeps all of that.
    ///
    /// Default: half of the machine's memory; 2⁴⁰ where the system does not tell (Windows). Range:
    /// 64 KiB to 2⁵⁰ (on 32-bit platforms the largest `usize`).
    pub memory_max: usize,
    /// Who is ended when `memory_max` is used up. Default: [`Evict::Heaviest`].
    pub evict: Evict,
    /// The system's queue of connections that wait to be accepted, per listening socket; the system
    /// may cap it (on Linux at `net.core.somaxconn`). Default: 4,096. Range: 1 to 65,535.
    pub backlog: u32,
    /// After how much silence of an accepted connection the system asks whether the peer's host is
    /// still there (TCP keep-alive); without an answer it asks three times, ten seconds apart, and
    /// reports the connection as broken. It costs two packets and no call of ours; of a million
    /// silent connections it is 17,000 questions a second by default. `None`: it does not ask.
    /// Default: 60 s. Range: 1 s to 9 h, in whole seconds.
    pub host_check: Option<Duration>,
    /// How much the system may hold of what has arrived on an accepted connection and is not read
    /// yet (SO_RCVBUF; Linux takes twice as much, for its own use). `None`: as the system likes,
    /// which on Linux may grow to megabytes for each. Default: `None`. Range: 2 KiB to 1 GiB.
    pub recv_buffer_bytes: Option<usize>,
    /// How much the system may hold of what was written to an accepted connection and its peer has
    /// not taken yet (SO_SNDBUF; Linux takes twice as much). `None`: as the system likes, which on
    /// Linux may grow to megabytes for each. Default: `None`. Range: 2 KiB to 1 GiB.
    pub send_buffer_bytes: Option<usize>,
    /// Connections accepted per listener and turn before others get their turn; as many of those
    /// that the program opens itself get on in a turn. Default: 64. Range: 1 to 65,536.
    pub accepts_per_turn: usize,
    /// Members of groups that are told something in one turn of a reactor before the others get
    /// their turn. Default: 256. Range: 1 to 65,536.
    pub broadcasts_per_turn: usize,
    /// Readiness events taken from the system at once. Default: 1,024. Range: 1 to 65,536.
    pub events_per_turn: usize,
    /// The size of a read buffer, which is also the most that is read from one connection before
    /// its handler runs and the others get their turn. Default: 65,536. Range: 512 to 16 MiB.
    pub read_chunk_bytes: usize,
    /// Frames that a connection's handler is shown before the others get their turn, which bounds
    /// how long one that sends many small frames at once occupies a thread. The rest of what was
    /// read waits. Default: 256. Range: 1 to 65,536.
    pub frames_per_turn: usize,
    /// Read buffers that each reactor's pool keeps when they are not in use. Default: 64.
    /// Range: 0 to 65,536.
    pub pool_retained_max: usize,
    /// Queued output of a connection at which its input is no longer read. Default: 262,144.
    /// Range: 1 to `send_max_bytes`.
    pub send_high_bytes: usize,
    /// Queued output at which reading goes on. Default: 131,072. Range: 0 to `send_high_bytes`.
    pub send_low_bytes: usize,
    /// The most output that may be queued for one connection, sends from other threads included.
    /// Beyond it `overflow` says what a handler's send does, and a handle's `try_send` says no.
    /// Default: 16 MiB. Range: 1 to 2⁴⁰.
    pub send_max_bytes: usize,
    /// What happens to a message that would take the queue beyond that. Default:
    /// [`Overflow::Close`].
    pub overflow: Overflow,
    /// How long one connection may take over each part of its life; see there.
    pub timeouts: Timeouts,
    /// What may be read from each connection, in bytes. One that has used it up is not read for a
    /// while, so that its peer has to wait; that time counts for no timeout. A
    /// [`Listening`](crate::config::Listening) and a [`Context`](crate::Context) may say otherwise.
    /// With a burst of less than some ten milliseconds' worth a rate is not reached, since timers
    /// are not finer. Default: `None`, no bound.
    pub read_rate: Option<Rate>,
    /// What may be written to each connection, in bytes; the rest waits in its queue, and that time
    /// is no write stall. Default: `None`, no bound.
    pub send_rate: Option<Rate>,
    /// What may be read from all connections together, in bytes: each that has input waiting gets
    /// its turn. Default: `None`, no bound.
    pub server_read_rate: Option<Rate>,
    /// What may be written to all connections together, in bytes. Default: `None`, no bound.
    pub server_send_rate: Option<Rate>,
    /// How many bytes of input are read and thrown away while lingering; a peer that sends more is
    /// not waited for. Default: 1 MiB. Range: 0 to 2⁴⁰ (on 32-bit platforms the largest `usize`, as
    /// for `send_max_bytes`).
    pub linger_bytes: usize,
    /// Closed connections that wait for their peer to finish at the same time, in all; of more, the
    /// one that has waited longest is reset. Default: a sixteenth of `connections_max` as it is by
    /// default, at least 64. Range: 1 to 2³¹.
    pub lingering_max: usize,
    /// How long a frame may wait for its handler, from when its connection was ready or last had
    /// its turn. What waits longer is shed: [`on_shed`](crate::Handler::on_shed) gets it instead,
    /// which is to be quick, so that a server that is offered more than it can handle goes on to
    /// answer as much as it can, and in time. Costs a look at the clock for each frame. Default:
    /// `None`, whatever comes is handled. Range: 1 ms to 7 days.
    pub queue_wait_max: Option<Duration>,
    /// Timers that a protocol may have set on one connection at a time. Default: 64. Range: 0 to
    /// 65,536.
    pub timers_max: usize,
    /// How long accepting pauses when the system is out of descriptors or buffers; it goes on
    /// earlier when a connection closes. Default: 50 ms. Range: 1 ms to 10 s.
    pub accept_retry: Duration,
    /// Free jobs that may wait for a thread of the pool, see
    /// [`Control::spawn`](crate::control::Control::spawn). Default: 1,024. Range: 1 to 2²⁰.
    pub jobs_max: usize,
}

const MS: Duration = Duration::from_millis(1);
/// The largest byte count a setting takes: 2⁴⁰ where `usize` holds it.
const BYTES_MAX: usize = if usize::BITS > 40 { 1 << 40 } else { usize::MAX };
/// The most that all connections may be given: 2⁵⁰ where `usize` holds it.
const MEMORY_MAX: usize = if usize::BITS > 50 { 1 << 50 } else { usize::MAX };
const MEMORY_MIN: usize = 64 << 10;
/// What no system refuses.
const SYSTEM_BUFFER_MIN: usize = 2 << 10;
const SYSTEM_BUFFER_MAX: usize = 1 << 30;

impl Limits {
    /// Half of what the machine has, if it tells.
    pub(crate) fn memory_for(machine: Option<u64>) -> usize {
        let half = machine.map(|bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX));
        half.map_or(BYTES_MAX, |half| half.clamp(MEMORY_MIN, MEMORY_MAX))
    }

    /// The defaults, for a process that may open `descriptors` files.
    pub(crate) fn for_descriptors(descriptors: Option<u64>) -> Self {
        let connections_max = match descriptors {
            Some(limit) => {
                let rest = usize::try_from(limit.saturating_sub(64)).unwrap_or(usize::MAX);
                rest.clamp(64, 1 << 31)
            }
            None => 65_536,
        };
        Limits {
            connections_max,
            connections_per_client_max: None,
            client_prefix_v4: 32,
            client_prefix_v6: 64,
            accept_rate: None,
            when_full: WhenFull::Pause,
            when_too_fast: WhenFull::Pause,
            alarm_percent: 90,
            alarm_cool_down: Duration::from_secs(60),
            handler_patience: Duration::from_millis(500),
            memory_max: BYTES_MAX,
            evict: Evict::default(),
            backlog: 4_096,
            host_check: Some(Duration::from_secs(60)),
            recv_buffer_bytes: None,
            send_buffer_bytes: None,
            accepts_per_turn: 64,
            broadcasts_per_turn: 256,
            events_per_turn: 1_024,
            read_chunk_bytes: 64 << 10,
            frames_per_turn: 256,
            pool_retained_max: 64,
            send_high_bytes: 256 << 10,
            send_low_bytes: 128 << 10,
            send_max_bytes: 16 << 20,
            overflow: Overflow::default(),
            timeouts: Timeouts::default(),
            read_rate: None,
            send_rate: None,
            server_read_rate: None,
            server_send_rate: None,
            linger_bytes: 1 << 20,
            lingering_max: (connections_max / 16).max(64),
            queue_wait_max: None,
            timers_max: 64,
            accept_retry: Duration::from_millis(50),
            jobs_max: 1_024,
        }
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check("connections_max", self.connections_max, 1..=1 << 31)?;
        if let Some(max) = self.connections_per_client_max {
            check("connections_per_client_max", max, 1..=1 << 31)?;
        }
        check("client_prefix_v4", self.client_prefix_v4, 0..=32)?;
        check("client_prefix_v6", self.client_prefix_v6, 0..=128)?;
        check_accept_rate(self.accept_rate)?;
        check_when_too_fast(self.when_too_fast)?;
        check("alarm_percent", self.alarm_percent, 1..=100)?;
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        check_time("alarm_cool_down", self.alarm_cool_down, MS..=week)?;
        check_time("handler_patience", self.handler_patience, MS..=week)?;
        check("memory_max", self.memory_max, MEMORY_MIN..=MEMORY_MAX)?;
        check("backlog", self.backlog, 1..=65_535)?;
        if let Some(silence) = self.host_check {
            let hours = Duration::from_secs(9 * 60 * 60);
            check_time("host_check", silence, Duration::from_secs(1)..=hours)?;
        }
        for (field, bytes) in [
            ("recv_buffer_bytes", self.recv_buffer_bytes),
            ("send_buffer_bytes", self.send_buffer_bytes),
        ] {
            let bytes = bytes.unwrap_or(SYSTEM_BUFFER_MIN);
            check(field, bytes, SYSTEM_BUFFER_MIN..=SYSTEM_BUFFER_MAX)?;
        }
        check("accepts_per_turn", self.accepts_per_turn, 1..=65_536)?;
        check("broadcasts_per_turn", self.broadcasts_per_turn, 1..=65_536)?;
        check("events_per_turn", self.events_per_turn, 1..=65_536)?;
        check("read_chunk_bytes", self.read_chunk_bytes, 512..=16 << 20)?;
        check("frames_per_turn", self.frames_per_turn, 1..=65_536)?;
        check("pool_retained_max", self.pool_retained_max, 0..=65_536)?;
        check("send_max_bytes", self.send_max_bytes, 1..=BYTES_MAX)?;
        check("send_high_bytes", self.send_high_bytes, 1..=self.send_max_bytes)?;
        check("send_low_bytes", self.send_low_bytes, 0..=self.send_high_bytes)?;
        self.timeouts.check()?;
        check_rate("read_rate", self.read_rate)?;
        check_rate("send_rate", self.send_rate)?;
        check_rate("server_read_rate", self.server_read_rate)?;
        check_rate("server_send_rate", self.server_send_rate)?;
        check("linger_bytes", self.linger_bytes, 0..=BYTES_MAX)?;
        check("lingering_max", self.lingering_max, 1..=1 << 31)?;
        if let Some(wait) = self.queue_wait_max {
            check_time("queue_wait_max", wait, super::timeouts::ALLOWED)?;
        }
        check("timers_max", self.timers_max, 0..=65_536)?;
        check_time("accept_retry", self.accept_retry, MS..=Duration::from_secs(10))?;
        check("jobs_max", self.jobs_max, 1..=1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Limits)) -> String {
        let mut limits = Limits::for_descriptors(Some(20_000));
        assert!(limits.check().is_ok());
        change(&mut limits);
        limits.check().expect_err("out of range").to_string()
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        assert_eq!(
            refused(|l| l.connections_max = 0),
            "`connections_max` is 0, but must be 1 to 2147483648"
        );
        assert!(refused(|l| l.memory_max = 65_535).contains("`memory_max`"));
        if MEMORY_MAX < usize::MAX {
            assert!(refused(|l| l.memory_max = usize::MAX).contains("65536 to"));
        }
        assert!(refused(|l| l.backlog = 0).contains("`backlog`"));
        assert!(refused(|l| l.accepts_per_turn = 0).contains("`accepts_per_turn`"));
        assert!(refused(|l| l.broadcasts_per_turn = 0).contains("`broadcasts_per_turn`"));
        assert!(refused(|l| l.events_per_turn = 0).contains("`events_per_turn`"));
        assert!(refused(|l| l.read_chunk_bytes = 511).contains("512 to 16777216"));
        assert!(refused(|l| l.pool_retained_max = 65_537).contains("`pool_retained_max`"));
        assert!(refused(|l| l.send_max_bytes = 0).contains("`send_max_bytes`"));
        assert!(refused(|l| l.send_high_bytes = usize::MAX).contains("`send_high_bytes`"));
        assert!(refused(|l| l.send_low_bytes = usize::MAX).contains("`send_low_bytes`"));
        let zero = Some(Duration::ZERO);
        assert!(refused(|l| l.timeouts.first_frame = zero).contains("`first_frame`"));
        assert!(refused(|l| l.timeouts.frame = zero).contains("`frame`"));
        assert!(refused(|l| l.timeouts.write_stall = zero).contains("1ms to 604800s"));
        assert!(refused(|l| l.timeouts.linger = Some(Duration::MAX)).contains("`linger`"));
        if BYTES_MAX < usize::MAX {
            assert!(refused(|l| l.linger_bytes = usize::MAX).contains("`linger_bytes`"));
        }
        assert!(refused(|l| l.lingering_max = 0).contains("`lingering_max`"));
        let zero = Some(Duration::ZERO);
        assert!(refused(|l| l.queue_wait_max = zero).contains("`queue_wait_max`"));
        assert!(refused(|l| l.timers_max = 65_537).contains("`timers_max`"));
        assert!(refused(|l| l.accept_retry = Duration::ZERO).contains("`accept_retry`"));
        assert!(refused(|l| l.jobs_max = 0).contains("`jobs_max`"));
    }

    #[test]
    fn the_connection_limit_follows_the_descriptor_limit() {
        assert_eq!(Limits::for_descriptors(Some(20_000)).connections_max, 19_936);
        assert_eq!(Limits::for_descriptors(Some(10)).connections_max, 64);
        assert_eq!(Limits::for_descriptors(Some(u64::MAX)).connections_max, 1 << 31);
        assert_eq!(Limits::for_descriptors(None).connections_max, 65_536);
    }
}
