//! What the simulated program asks for itself: connections and free jobs, and what must become of
//! both.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use super::app::App;
use super::kernel::addr_of;
use super::trace::Note;
use super::world::World;
use crate::core::handle::Handle;
use crate::core::job::Call;
use crate::engine::request::{Answer, Answered, Ticket};
use crate::words::sync::lock;

/// One request to connect, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Dialed {
    pub(super) begun: bool,
    pub(super) ticket: Option<Arc<Ticket>>,
    /// The answers: whether each was a connection.
    answers: Arc<Mutex<Vec<bool>>>,
    noted: bool,
}

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// Asks for a connection.
    pub(super) fn dial(&mut self, index: usize) {
        let plan = &self.plan.dials[index];
        lock(self.net).note(Note::Operator("dial"));
        let addrs = plan.routes.clone().map(addr_of).collect();
        let (answer, ticket) = Answer::new(format!("dial {index}"));
        let dial = &mut self.dials[index];
        dial.begun = true;
        if plan.then {
            let (answers, app) = (Arc::clone(&dial.answers), Arc::clone(self.app));
            let routes = plan.routes.clone();
            let then = move |answered| take(&app, &answers, answered, &routes);
            assert!(ticket.then(then).is_none(), "there is no answer yet");
        }
        dial.ticket = Some(ticket);
        let factory = Arc::clone(&self.factory);
        let call = self.common.dial(addrs, plan.times, factory, answer);
        assert!(!call.is_some_and(Call::run), "nothing panics here");
    }

    /// Takes the answers that have come.
    pub(super) fn note_answers(&mut self) {
        for (dial, plan) in self.dials.iter_mut().zip(&self.plan.dials) {
            let told = dial.ticket.as_ref().filter(|ticket| ticket.is_told() && !dial.noted);
            let Some(ticket) = told else { continue };
            if !plan.then {
                let answered = ticket.wait().expect("nobody has taken it");
                take(self.app, &dial.answers, answered, &plan.routes);
            }
            dial.noted = true;
            let mut net = lock(self.net);
            for id in plan.routes.clone() {
                net.routes[id].over |= !net.routes[id].connected;
            }
        }
    }

    /// Asks for a free job.
    pub(super) fn spawn(&mut self) {
        let panics = self.random.one_in(8);
        let app = Arc::clone(self.app);
        let job = move || {
            lock(&app.net).note(Note::Operator("free job"));
            if panics {
                resume_unwind(Box::new(()));
            }
        };
        // It may be too late, or too many may wait.
        let _refused = self.spawner.spawn(job).is_err();
    }

    /// Each request has one answer, and that is true.
    pub(super) fn check_dials(&self) -> Result<(), String> {
        let net = lock(self.net);
        for (index, (dial, plan)) in self.dials.iter().zip(&self.plan.dials).enumerate() {
            let answers = lock(&dial.answers).clone();
            let made = plan.routes.clone().filter(|&id| net.routes[id].connected).count();
            if answers.len() != 1 || made != usize::from(answers[0]) {
                return Err(format!("dial {index}: answers {answers:?}, {made} connections"));
            }
        }
        Ok(())
    }
}

/// Notes an answer. A connection that is there gets its share of other threads.
fn take(app: &App, answers: &Mutex<Vec<bool>>, answered: Answered, routes: &Range<usize>) {
    lock(answers).push(answered.is_ok());
    let Ok(gate) = answered else { return };
    let made = {
        let net = lock(&app.net);
        routes.clone().find(|&id| net.routes[id].connected)
    };
    let handles = &mut lock(&app.book).handles;
    handles.extend(made.map(|id| (id, Handle::new(gate))));
}
