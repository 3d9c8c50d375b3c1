//! `Timeouts`: how long one connection may take over each part of its life.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Idle, check_time};
use crate::words::error::Error;

/// How long one connection may take over what it does; after that it ends, with a close reason that
/// says which time was over.
///
/// Those of a server are set through [`Limits::timeouts`](crate::Limits::timeouts), those of one
/// listener through [`listen_with`](crate::Builder::listen_with), those of one connection through
/// [`Context::set_timeouts`](crate::Context::set_timeouts), at any time. `None` means: for ever.
///
/// None fires early; silence is measured from the turn of the loop in which a peer was last heard,
/// which may have begun eight calls of handlers before. One fires late by at most a millisecond,
/// and by as long as the threads of the server get no time to run. Before one fires, input that
/// has arrived is looked at: a pause of the whole process ends no connection whose peer has spoken.
///
/// ```
/// use std::time::Duration;
/// use switchboard::Server;
///
/// let builder = Server::builder().limits(|limits| {
///     limits.timeouts.first_frame = Some(Duration::from_secs(5));
///     limits.timeouts.write_stall = Some(Duration::from_secs(30));
/// });
/// builder.start()?.stop();
/// # Ok::<(), switchboard::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the opening of a connection, or from when `on_open` has returned if that takes long, to
    /// the end of its first frame: a handshake, as a rule. The connection is reset
    /// ([`Cause::FirstFrameTimeout`](crate::close::Cause)). Peers that only listen never send a
    /// frame: set `None` for them. Default: 60 s. Range: 1 ms to 7 days.
    pub first_frame: Option<Duration>,
    /// From the first byte of a frame to its last, whatever trickles in meanwhile
    /// ([`frame_rate_min`](Timeouts::frame_rate_min) grants large frames more). The connection is
    /// reset ([`Cause::FrameTimeout`](crate::close::Cause)). Counts for codecs that leave the
    /// beginning of a frame in their input until the rest of it has come; the time stands still
    /// while we do not read. Default: 10 s. Range: 1 ms to 7 days.
    pub frame: Option<Duration>,
    /// The slowest a large frame may come, in bytes per second: every so many bytes of it that have
    /// arrived grant it a second more. 0 grants nothing, so that `frame` is the time for frames of
    /// any size. Default: 1,024. Range: any.
    pub frame_rate_min: u32,
    /// How long a connection may be silent. It is closed
    /// ([`Cause::IdleTimeout`](crate::close::Cause)) after what was sent before. Bytes of the peer
    /// count, and calls of the handler for its frames; the time stands still while we do not read.
    /// Default and range: see [`Idle`].
    pub idle: Idle,
    /// Whether bytes that we send count as a sign of life too: for protocols in which the peer only
    /// listens. They count in any case once the peer has finished. Default: no.
    pub idle_counts_sent: bool,
    /// How long output may wait without a single byte of progress. The connection is reset
    /// ([`Cause::WriteStalled`](crate::close::Cause)): not before, and by up to a half later, since
    /// systems do not tell of a little room, but are asked for it twice in that time. Linux itself
    /// gives up a peer that acknowledges nothing for 30 s, or for one and a half times what is set
    /// here for the server if that is longer. Default: 10 s. Range: 1 ms to 7 days.
    pub write_stall: Option<Duration>,
    /// How long a closed connection waits for the peer to finish too, so that the last output is
    /// not destroyed by a reset. Default: 2 s. Range: 1 ms to 7 days.
    pub linger: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            first_frame: Some(Duration::from_secs(60)),
            frame: Some(Duration::from_secs(10)),
            frame_rate_min: 1_024,
            idle: Idle::default(),
            idle_counts_sent: false,
            write_stall: Some(Duration::from_secs(10)),
            linger: Some(Duration::from_secs(2)),
        }
    }
}

impl Timeouts {
    /// Brings what is outside of its range to the nearer end of it.
    pub(crate) fn clamp(&mut self) {
        let times =
            [&mut self.first_frame, &mut self.frame, &mut self.write_stall, &mut self.linger];
        for time in times.into_iter().flatten() {
            *time = (*time).clamp(*ALLOWED.start(), *ALLOWED.end());
        }
        self.idle.clamp();
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.idle.check()?;
        let times = [
            ("first_frame", self.first_frame),
            ("frame", self.frame),
            ("write_stall", self.write_stall),
            ("linger", self.linger),
        ];
        let set = times.into_iter().filter_map(|(field, time)| Some((field, time?)));
        set.into_iter().try_for_each(|(field, time)| check_time(field, time, ALLOWED))
    }
}

/// What any of them may be, but `None`.
pub(super) const ALLOWED: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 60 * 60);
