//! `Rare`: what few connections have, so that the others pay one pointer for all of it.

use super::Connection;
use super::groups::Groups;
use super::memory::Account;
use crate::core::marks::Marks;
use crate::core::shaping::Shape;
use crate::core::timers::Timers;
use crate::words::clock::Time;
use crate::words::config::Timeouts;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// Parts of a record that are most often not there.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// What it has while it is slow or ends.
    pub(super) trouble: Option<Box<Trouble>>,
    /// Where in the output somebody wants to know that it is written.
    pub(super) marks: Option<Box<Marks>>,
    /// Where it was told to have other timeouts than its listener.
    pub(super) own_timeouts: Option<Arc<Timeouts>>,
    /// What it has in the books of its reactor, if it holds anything beside this record.
    pub(super) account: Option<Box<Account>>,
    /// Those of the protocol; with the session while that is out.
    pub(super) timers: Option<Box<Timers>>,
    /// What it is held to, if its rates are bounded.
    pub(super) shape: Option<Box<Shape>>,
    /// The groups that it is a member of.
    pub(super) groups: Option<Box<Groups>>,
}

/// What a connection has while its peer takes nothing, while it waits for its peer to finish, and
/// from then on until its record goes; apart from the rest, since members of groups have none.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Why it ends, once that is certain; the first cause counts.
    pub(super) cause: Option<Cause>,
    /// When a write stall or the linger is over, if either is on.
    pub(super) output_by: Option<Time>,
    /// Input thrown away while lingering.
    pub(super) discarded_bytes: usize,
}

const NOTHING: &Rare = &Rare {
    trouble: None,
    marks: None,
    own_timeouts: None,
    account: None,
    timers: None,
    shape: None,
    groups: None,
};

impl Rare {
    fn is_empty(&self) -> bool {
        let Rare { trouble, marks, own_timeouts, account, timers, shape, groups } = self;
        trouble.is_none()
            && marks.is_none()
            && own_timeouts.is_none()
            && account.is_none()
            && timers.is_none()
            && shape.is_none()
            && groups.is_none()
    }
}

impl Connection {
    /// To look something up.
    #[inline]
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(NOTHING)
    }

    /// To change what it has while it is slow or ends.
    pub(super) fn trouble_mut(&mut self) -> &mut Trouble {
        self.rare.get_or_insert_default().trouble.get_or_insert_default()
    }

    /// Changes something that may be the last that there was.
    pub(super) fn forget_rare(&mut self, forget: impl FnOnce(&mut Rare)) {
        if let Some(rare) = &mut self.rare {
            forget(rare);
            if rare.is_empty() {
                self.rare = None;
            }
        }
    }
}
