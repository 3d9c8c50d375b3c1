//! `Mailbox`: what other threads want a reactor to know, and the wake-up when it is asleep.

use std::mem;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};

use crate::words::sync::Mutex;
use crate::words::sync::atomic::{AtomicBool, AtomicUsize, fence};
use crate::words::sync::lock;

/// Ends the blocking poll of a reactor.
pub(crate) trait Wake: Send + Sync {
    /// Makes the present blocking poll return, or the next one if there is none now.
    fn wake(&self);
}

/// A queue with many writers and one reader, who sleeps in a poll of his own.
///
/// A post to a reader who is awake costs a lock and a fence; only the first post to one who
/// sleeps pays for the wake-up. The two sides meet in a Dekker pair:
///
/// ```text
/// post:         count = n + 1; fence; is he asleep?     -> wake him
/// fall_asleep:  asleep = true; fence; is the count 0?   -> he may block
/// ```
///
/// At least one of the two sees what the other has written. The queue itself has no bound:
/// those who post bound what they have in flight, per connection.
pub(crate) struct Mailbox<T> {
    letters: Mutex<Vec<T>>,
    /// The number of letters; written under the lock only, read without.
    count: AtomicUsize,
    /// The reader is about to block, or blocks, and nobody has woken him yet.
    asleep: AtomicBool,
    waker: Box<dyn Wake>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox whose reader is woken by `waker`.
    pub(crate) fn new(waker: Box<dyn Wake>) -> Self {
        Mailbox {
            letters: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// Leaves `letter` for the reader, and wakes him if he sleeps. Never blocks for long.
    pub(crate) fn post(&self, letter: T) {
        {
            let mut letters = lock(&self.letters);
            letters.push(letter);
            // Relaxed: the fence below pairs it with the reader's look in `fall_asleep`.
            self.count.store(letters.len(), Relaxed);
        }
        // Pairs with the fence in `fall_asleep`.
        if !cfg!(switchboard_mutant = "mailbox_fence") {
            fence(SeqCst);
        }
        // Relaxed: ordered by the fence. The load spares a busy reader's line the write.
        // AcqRel: the swap elects the one who wakes, and pairs with the reader's swaps.
        if self.asleep.load(Relaxed) && self.asleep.swap(false, AcqRel) {
            self.waker.wake();
        }
    }

    /// Whether something waits. One load: a letter that is being posted may be missed.
    pub(crate) fn has_mail(&self) -> bool {
        self.len() != 0
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        // Relaxed: a hint; the letters themselves are read under the lock.
        self.count.load(Relaxed)
    }

    /// Moves all letters to the end of `into`, oldest first. Two buffers change places, so that
    /// nothing is allocated once both have grown.
    pub(crate) fn drain_into(&self, into: &mut Vec<T>) {
        let mut letters = lock(&self.letters);
        if !cfg!(switchboard_mutant = "mailbox_late_clear") {
            // Relaxed: under the lock, like every write of it. Cleared before the letters are
            // taken: a count that is cleared after the lock would hide a letter posted meanwhile.
            self.count.store(0, Relaxed);
        }
        if into.is_empty() {
            mem::swap(&mut *letters, into);
        } else {
            into.append(&mut letters);
        }
        drop(letters);
        if cfg!(switchboard_mutant = "mailbox_late_clear") {
            self.count.store(0, Relaxed);
        }
    }

    /// Shows every letter to `look`, and leaves them where they are.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(crate) fn peek(&self, look: impl FnMut(&T)) {
        lock(&self.letters).iter().for_each(look);
    }

    /// Announces that the reader is about to block. `false`: there is mail, he must not.
    #[must_use]
    pub(crate) fn fall_asleep(&self) -> bool {
        // The fence orders it before the look at the mail, and pairs with `post`. AcqRel, like
        // every write of this flag: all of them are swaps, so that they stand in one order.
        self.asleep.swap(!cfg!(switchboard_sim_mutant = "mailbox_sleep_untold"), AcqRel);
        if !cfg!(switchboard_mutant = "mailbox_fence") {
            fence(SeqCst);
        }
        if self.has_mail() {
            self.wake_up();
            return false;
        }
        true
    }

    /// Announces that the reader no longer blocks: posts need not wake him.
    pub(crate) fn wake_up(&self) {
        // AcqRel: see `fall_asleep`. A post that still sees the old value wakes once for nothing.
        self.asleep.swap(false, AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::words::sync::{Arc, thread};
    use std::sync::mpsc::{Receiver, Sender, channel};

    impl Wake for Sender<()> {
        fn wake(&self) {
            self.send(()).expect("the test still listens");
        }
    }

    fn mailbox() -> (Mailbox<u32>, Receiver<()>) {
        let (wakes, woken) = channel();
        (Mailbox::new(Box::new(wakes)), woken)
    }

    #[test]
    fn only_the_first_post_to_a_sleeper_wakes() {
        let (mailbox, woken) = mailbox();
        mailbox.post(1);
        assert!(woken.try_recv().is_err(), "an awake reader is not woken");
        assert!(!mailbox.fall_asleep(), "mail is there");
        let mut letters = Vec::new();
        mailbox.drain_into(&mut letters);
        assert!(mailbox.fall_asleep());
        mailbox.post(2);
        mailbox.post(3);
        assert_eq!(woken.try_iter().count(), 1);
        assert_eq!((mailbox.len(), mailbox.has_mail()), (2, true));
        mailbox.drain_into(&mut letters);
        assert_eq!(letters, [1, 2, 3]);
        assert!(!mailbox.has_mail());
    }

    #[test]
    fn buffers_change_places() {
        let (mailbox, _woken) = mailbox();
        let mut letters = Vec::with_capacity(64);
        mailbox.drain_into(&mut letters);
        mailbox.post(1);
        assert!(letters.capacity() == 0 && lock(&mailbox.letters).capacity() >= 64);
    }

    #[test]
    fn a_sleeper_misses_nothing_from_many_threads() {
        const POSTERS: u32 = 3;
        const POSTS: u32 = 2_000;
        let (mailbox, woken) = mailbox();
        let mailbox = Arc::new(mailbox);
        let posters: Vec<_> = (0..POSTERS)
            .map(|_| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || (0..POSTS).for_each(|n| mailbox.post(n)))
            })
            .collect();
        let (mut letters, mut seen) = (Vec::new(), 0);
        while seen < POSTERS * POSTS {
            if mailbox.fall_asleep() {
                woken.recv().unwrap();
                mailbox.wake_up();
            }
            mailbox.drain_into(&mut letters);
            seen += u32::try_from(letters.drain(..).count()).unwrap();
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        assert!(!mailbox.has_mail());
    }
}
