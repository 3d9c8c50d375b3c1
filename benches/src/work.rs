//! The work byte: what a peer's handler does before it echoes, if it was started with `--work`.

use std::hint;
use std::time::Duration;

use crate::{clock, sys};

/// First byte of a chunk that makes the handler sleep.
pub const SLEEP: u8 = 0xFF;
/// First byte of a chunk that makes the handler use the CPU.
pub const BURN: u8 = 0xFE;

/// What handlers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Without it every chunk is only echoed.
    pub enabled: bool,
    /// How long a [`SLEEP`] blocks the thread.
    pub sleep: Duration,
    /// How much CPU time of the thread a [`BURN`] uses.
    pub burn: Duration,
}

impl Work {
    /// Whether [`Work::perform`] would take long for this chunk.
    #[must_use]
    pub fn is_slow(&self, chunk: &[u8]) -> bool {
        self.enabled && matches!(chunk.first(), Some(&(SLEEP | BURN)))
    }

    /// Does what the first byte asks for, on the calling thread.
    pub fn perform(&self, chunk: &[u8]) {
        if !self.enabled {
            return;
        }
        match chunk.first() {
            Some(&SLEEP) => clock::block(self.sleep),
            Some(&BURN) => burn(self.burn),
            _ => {}
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        let (sleep, burn) = (Duration::from_millis(50), Duration::from_millis(5));
        Self { enabled: false, sleep, burn }
    }
}

/// Uses CPU time of this thread: being preempted does not count, as for a real computation.
fn burn(duration: Duration) {
    let until = sys::thread_cpu() + clock::nanoseconds(duration);
    while sys::thread_cpu() < until {
        (0..100).for_each(|_| hint::spin_loop());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BURN, SLEEP, Work};
    use crate::{clock, sys};

    #[test]
    fn only_the_work_bytes_are_slow_and_only_when_enabled() {
        let off = Work::default();
        let on = Work { enabled: true, ..off };
        for byte in 0..=u8::MAX {
            assert_eq!(on.is_slow(&[byte, 0]), byte == BURN || byte == SLEEP);
            assert!(!off.is_slow(&[byte]));
        }
        assert!(!on.is_slow(&[]));
    }

    #[test]
    fn burning_uses_cpu_and_sleeping_uses_time() {
        let few = Duration::from_millis(2);
        let work = Work { enabled: true, sleep: few, burn: few };
        let cpu = sys::thread_cpu();
        work.perform(&[BURN]);
        assert!(sys::thread_cpu() - cpu >= clock::nanoseconds(few));
        let start = clock::now();
        work.perform(&[SLEEP]);
        assert!(clock::now() - start >= clock::nanoseconds(few));
    }
}
