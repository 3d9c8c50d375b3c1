//! Tests of the record of a connection, in the tiny engine of `rig`.

use std::time::Duration;

use bytes::Bytes;

use super::rig::{HIGH, Rig, id, rules};
use super::*;
use crate::core::post::Post;
use crate::core::shaping::Leave;
use crate::words::config::Limits;
use crate::words::reason::CloseReason;

mod close;
mod deadlines;
mod groups;
mod random;
mod shaped;
mod times;

impl Rig {
    /// A connection that is open and at rest.
    pub(super) fn open() -> Self {
        let mut rig = Rig::opening();
        rig.finish_job(|_| {});
        rig
    }

    /// A job that is out sends `text` and uses its input up.
    pub(super) fn send(&mut self, text: &str) {
        self.finish_job(|out| {
            out.input.clear();
            out.hand.outbox.put_slice(text.as_bytes());
        });
    }

    /// Makes the connection run a job: on input.
    pub(super) fn job(&mut self) {
        self.receive(1);
        self.run();
        assert!(self.out.is_some(), "input makes a job");
    }
}
