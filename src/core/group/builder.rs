//! `GroupBuilder`: what a group is to be, and what becomes of members that do not keep up.

use std::fmt;

use super::{Group, Hub, Writer};
use crate::core::codec::Codec;
use crate::parts::pending::Policy;
use crate::words::sync::Arc;

/// What a message is about.
pub(super) type Key<M> = dyn Fn(&M) -> u64 + Send + Sync;

/// What becomes of messages for a member that is behind and has
/// [`queue_max_bytes`](GroupBuilder::queue_max_bytes) of them waiting already.
#[non_exhaustive]
pub enum SlowPolicy<M> {
    /// The message that finds no room is dropped: a log that is complete up to a point.
    DropNewest,
    /// The oldest that wait are dropped to make room. The default.
    DropOldest,
    /// Of messages with the same key only the newest waits, at the place of the newest; if there
    /// is no room all the same, the oldest go. For the state of things, of which the last one
    /// counts. Made by [`SlowPolicy::conflate`].
    Conflate(Box<Key<M>>),
    /// The member is reset, [`Cause::Lagged`](crate::close::Cause::Lagged): for those who have to
    /// get everything or nothing.
    Kick,
}

impl<M> SlowPolicy<M> {
    /// Of messages for which `key` answers the same only the newest waits. `key` is called on the
    /// thread that broadcasts.
    #[must_use]
    pub fn conflate(key: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self {
        SlowPolicy::Conflate(Box::new(key))
    }
}

impl<M> fmt::Debug for SlowPolicy<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SlowPolicy::DropNewest => "DropNewest",
            SlowPolicy::DropOldest => "DropOldest",
            SlowPolicy::Conflate(_) => "Conflate",
            SlowPolicy::Kick => "Kick",
        })
    }
}

/// Says what a [`Group`] is to be. Made by [`Group::builder`].
#[derive(Debug)]
pub struct GroupBuilder<C: Codec> {
    codec: C,
    policy: SlowPolicy<C::Message>,
    queue_max_bytes: usize,
    backlog_max_bytes: usize,
}

/// What may wait for a member unless somebody says otherwise.
const QUEUE_MAX_BYTES: usize = 256 << 10;
/// What may wait in a reactor unless somebody says otherwise.
const BACKLOG_MAX_BYTES: usize = 4 << 20;

impl<C: Codec + Clone + Sync> GroupBuilder<C> {
    pub(super) fn new(codec: C) -> Self {
        let (queue_max_bytes, backlog_max_bytes) = (QUEUE_MAX_BYTES, BACKLOG_MAX_BYTES);
        GroupBuilder { codec, policy: SlowPolicy::DropOldest, queue_max_bytes, backlog_max_bytes }
    }

    /// What becomes of messages for a member that is behind. Default: [`SlowPolicy::DropOldest`].
    #[must_use]
    pub fn policy(mut self, policy: SlowPolicy<C::Message>) -> Self {
        self.policy = policy;
        self
    }

    /// What may wait for one member that is behind, outside of its send queue: the encoded
    /// messages, and 64 bytes for each. A message that is larger than this finds no room in it,
    /// ever. A member that is behind holds at most this, 16 KiB in its send queue, and one message.
    /// The bytes are shared: what waits for many members is in memory once. Default: 262,144. Any
    /// number will do; with 0 who is behind misses everything.
    #[must_use]
    pub fn queue_max_bytes(mut self, bytes: usize) -> Self {
        self.queue_max_bytes = bytes;
        self
    }

    /// What may be on its way in one reactor, encoded messages and 64 bytes for each, before
    /// [`broadcast`](Group::broadcast) refuses to take more. Each thread that broadcasts may go
    /// beyond it by one message. Default: 4 MiB. At least 1.
    #[must_use]
    pub fn backlog_max_bytes(mut self, bytes: usize) -> Self {
        self.backlog_max_bytes = bytes.max(1);
        self
    }

    /// The group.
    #[must_use]
    pub fn build(self) -> Group<C::Message> {
        let (policy, key) = match self.policy {
            SlowPolicy::DropNewest => (Policy::DropNewest, None),
            SlowPolicy::DropOldest => (Policy::DropOldest, None),
            SlowPolicy::Conflate(key) => (Policy::Conflate, Some(key)),
            SlowPolicy::Kick => (Policy::Kick, None),
        };
        Group {
            hub: Arc::new(Hub::new(policy, self.queue_max_bytes, self.backlog_max_bytes)),
            encoder: Arc::new(Writer { codec: self.codec, key }),
        }
    }
}
