//! Closures that threads of the user's have run on connections of the simulation.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::app::{App, Op, Talker, frame};
use crate::core::context::Context;
use crate::core::handle::Handle;
use crate::words::sync::{Arc, lock};

/// Goes with a closure, and is gone with it. Counts in a world of one thread: hence Relaxed.
#[derive(Debug)]
struct Token(Arc<AtomicUsize>);

impl Token {
    fn new(count: &Arc<AtomicUsize>) -> Token {
        count.fetch_add(1, Relaxed);
        Token(Arc::clone(count))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl App {
    /// Another thread has a closure run that sends what it could have sent itself.
    pub(super) fn visit(&self, id: usize, handle: &Handle, number: u32, len: usize) {
        let token = Token::new(&self.visits);
        let visit = move |talker: &mut Talker, cx: &mut Context<'_>| {
            let _token = token;
            talker.enter("visit", |_| {})?;
            talker.send(cx, frame(Op::Push, id, number, len))
        };
        if handle.run(visit).is_ok() {
            lock(&self.book).life(id).pushes += 1;
        }
    }

    /// How many closures there are that are not dropped.
    pub(super) fn visit_count(&self) -> usize {
        self.visits.load(Relaxed)
    }
}
