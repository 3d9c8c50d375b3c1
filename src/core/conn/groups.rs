//! The groups of one connection: where it stands in them, and what waits for it while it is behind.
//!
//! ```text
//!  a message of a group ──nothing waits──▶ written at once, no call of the handler
//!           │
//!           └──output waits──▶ Pending ──the outbox is empty──▶ outbox ──▶ written
//!                                 └── too much: the group's policy
//! ```

use std::sync::atomic::Ordering::Relaxed;

use super::Connection;
use super::halves::SendHalf;
use crate::core::group::Seat;
use crate::parts::pending::{Pending, Pushed, Shot};
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// The memberships of one connection; few.
#[derive(Debug)]
pub(super) struct Groups {
    list: Vec<Membership>,
}

/// One membership.
#[derive(Debug)]
struct Membership {
    seat: Arc<Seat>,
    /// The number that the reactor has given the group, and the place among its members there.
    fan: u32,
    place: u32,
    /// What it has missed and was not told of, and what waits; most often nothing.
    behind: Option<Box<Behind>>,
}

#[derive(Debug, Default)]
struct Behind {
    pending: Pending,
    missed: u64,
}

/// What became of messages that were not written whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// So many went to the system at least in part.
    pub(crate) begun: u64,
    /// So many were dropped: of these, or of those that waited.
    pub(crate) lost: u64,
}

/// How much of what waits goes to the outbox at a time, once that is empty: enough for one write,
/// so little that what the handler sends now does not come after all of it.
pub(super) const FEED_BYTES: usize = 16 << 10;

impl Connection {
    /// Whether it gets what its groups are told.
    #[inline]
    pub(crate) fn takes_broadcasts(&self) -> bool {
        self.send == SendHalf::Open && !self.flags.dead && !self.flags.discarding
    }

    /// Whether it is a member of the group with this number.
    pub(crate) fn is_member(&self, fan: u32) -> bool {
        self.rare().groups.iter().flat_map(|groups| &groups.list).any(|member| member.fan == fan)
    }

    /// It is a member from now on.
    pub(crate) fn join(&mut self, fan: u32, place: u32, seat: Arc<Seat>) {
        debug_assert!(!self.is_member(fan), "a member joins once");
        let list = || Box::new(Groups { list: Vec::with_capacity(1) });
        let groups = self.rare.get_or_insert_default().groups.get_or_insert_with(list);
        groups.list.push(Membership { seat, fan, place, behind: None });
    }

    /// It has another place among the members.
    pub(crate) fn move_member(&mut self, fan: u32, place: u32) {
        let mut members = self
            .rare
            .iter_mut()
            .flat_map(|rare| &mut rare.groups)
            .flat_map(|groups| &mut groups.list);
        if let Some(member) = members.find(|member| member.fan == fan) {
            member.place = place;
        }
    }

    /// It is a member no longer; answers with its place. What waits is dropped.
    pub(crate) fn leave(&mut self, fan: u32) -> Option<u32> {
        let groups = self.rare.as_mut().and_then(|rare| rare.groups.as_mut())?;
        let at = groups.list.iter().position(|member| member.fan == fan)?;
        let mut member = groups.list.swap_remove(at);
        member.abandon();
        if groups.list.is_empty() {
            self.forget_rare(|rare| rare.groups = None);
        }
        Some(member.place)
    }

    /// Any of the groups that it is a member of, by its number.
    pub(crate) fn any_group(&self) -> Option<u32> {
        self.rare().groups.as_ref().and_then(|groups| groups.list.last()).map(|member| member.fan)
    }

    /// The system took the first `taken` bytes of these messages of a group, or they were not
    /// offered, because other output waits. The rest of the one that is cut is next, whatever else
    /// waits; those behind it wait, as the group's policy has it.
    pub(crate) fn handle_told(&mut self, fan: u32, shots: &[Shot], mut taken: usize) -> Told {
        let mut begun = 0;
        for shot in shots {
            if taken == 0 {
                break;
            }
            let here = taken.min(shot.bytes.len());
            if here < shot.bytes.len() {
                debug_assert!(self.outbox.is_none(), "it was written past an empty outbox");
                self.outbox.get_or_insert_default().put(shot.bytes.slice(here..));
            }
            taken -= here;
            begun += 1;
        }
        let lost = self.hold_back(fan, &shots[begun..]);
        if self.outbox.is_none() && !self.flags.dead {
            self.feed();
        }
        Told { begun: begun as u64, lost }
    }

    /// Messages that cannot be written now. How many are lost for it.
    fn hold_back(&mut self, fan: u32, shots: &[Shot]) -> u64 {
        let mut members = self
            .rare
            .iter_mut()
            .flat_map(|rare| &mut rare.groups)
            .flat_map(|groups| &mut groups.list);
        let Some(member) = members.find(|member| member.fan == fan) else {
            debug_assert!(false, "only members are told");
            return 0;
        };
        if shots.is_empty() {
            return 0;
        }
        let mut lost = 0;
        let hub = &member.seat.hub;
        let behind = member.behind.get_or_insert_default();
        for (at, shot) in shots.iter().enumerate() {
            match behind.pending.push(shot.clone(), hub.policy, hub.queue_max_bytes) {
                Pushed::Lost(count) => lost += count as u64,
                Pushed::Kick => {
                    hub.kicked.fetch_add(1, Relaxed);
                    hub.abandoned.fetch_add((shots.len() - at) as u64, Relaxed);
                    self.abort(Cause::Lagged);
                    return 0;
                }
            }
        }
        behind.missed += lost;
        hub.lost.fetch_add(lost, Relaxed);
        lost
    }

    /// The outbox is empty: what waits of the groups goes there next, one message of each after
    /// the other, up to [`FEED_BYTES`] and the last one's end; and what was lost is told. False if
    /// nothing waited.
    pub(super) fn feed(&mut self) -> bool {
        let Some(mut groups) = self.rare.as_mut().and_then(|rare| rare.groups.take()) else {
            return false;
        };
        let outbox = self.outbox.get_or_insert_default();
        debug_assert!(outbox.is_empty(), "what waits of the groups comes behind the outbox");
        let mut goes_on = true;
        while goes_on && outbox.len_bytes() < FEED_BYTES {
            goes_on = false;
            for member in &mut groups.list {
                let Some(behind) = &mut member.behind else { continue };
                let Some(shot) = behind.pending.pop() else { continue };
                member.seat.hub.delivered.fetch_add(1, Relaxed);
                outbox.put(shot.bytes);
                goes_on = true;
            }
        }
        let is_fed = !outbox.is_empty();
        if !is_fed {
            self.outbox = None;
        }
        let mut lost = 0;
        for member in &mut groups.list {
            let Some(behind) = &mut member.behind else { continue };
            lost += std::mem::take(&mut behind.missed);
            if behind.pending.is_empty() {
                member.behind = None;
            }
        }
        self.rare.get_or_insert_default().groups = Some(groups);
        if lost > 0 && self.takes_broadcasts() {
            self.inbox_mut().lagged += lost;
        }
        is_fed
    }

    /// What waits of its groups, as [`Shot::cost`] counts it.
    pub(super) fn pending_bytes(&self) -> usize {
        let members = self.rare().groups.iter().flat_map(|groups| &groups.list);
        members.filter_map(|member| member.behind.as_ref()).map(|b| b.pending.cost_bytes()).sum()
    }

    /// It gets no more of what its groups were told, nor what waits.
    pub(super) fn abandon_broadcasts(&mut self) {
        let members = self
            .rare
            .iter_mut()
            .flat_map(|rare| &mut rare.groups)
            .flat_map(|groups| &mut groups.list);
        members.for_each(Membership::abandon);
    }
}

impl Membership {
    fn abandon(&mut self) {
        if let Some(behind) = self.behind.take() {
            self.seat.hub.abandoned.fetch_add(behind.pending.len() as u64, Relaxed);
        }
    }
}
