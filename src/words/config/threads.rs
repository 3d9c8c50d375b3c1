//! `Threads`: how many a server uses, and what they are called.

use super::{Scheduling, check};
use crate::words::error::Error;
use crate::words::id::REACTORS_MAX;

/// How many threads a server uses, and what they are called.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    pub(crate) reactors: usize,
    pub(crate) workers: usize,
    pub(crate) workers_max: usize,
    pub(crate) name: String,
    pub(crate) scheduling: Scheduling,
}

impl Threads {
    pub(crate) fn check(&self) -> Result<(), Error> {
        check("reactors", self.reactors, 1..=REACTORS_MAX)?;
        check("workers_max", self.workers_max, 0..=65_536)?;
        check("workers", self.workers, 0..=self.workers_max)?;
        let printable = self.name.chars().all(|c| c.is_ascii_graphic());
        if self.name.is_empty() || self.name.len() > 32 || !printable {
            return Err(Error::config(
                "name",
                format!("{:?}", self.name),
                "1 to 32 printable ASCII characters",
            ));
        }
        if self.scheduling == Scheduling::HandOff && self.workers == 0 {
            return Err(Error::config("workers", 0, "at least 1 with Scheduling::HandOff"));
        }
        Ok(())
    }
}
