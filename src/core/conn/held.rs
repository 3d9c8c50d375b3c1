//! Rates in the life of a connection: input and output that wait for their turn, and that nobody is
//! blamed for that time.

use std::time::Duration;

use super::Connection;
use super::rare::Rare;
use crate::core::shaping::{Leave, Reshape, Shape};
use crate::words::clock::Time;

impl Connection {
    /// Holds it to the rates of its listener and its server, if there are some.
    pub(crate) fn set_shape(&mut self, shape: Option<Box<Shape>>) {
        if shape.is_some() {
            self.rare.get_or_insert_default().shape = shape;
        }
    }

    /// Whether it is held to a rate.
    pub(crate) fn is_shaped(&self) -> bool {
        self.rare().shape.is_some()
    }

    /// Whether its input waits for its turn.
    #[inline]
    pub(crate) fn holds_input(&self) -> bool {
        self.rare().shape.as_ref().is_some_and(|shape| shape.read.is_held())
    }

    /// Whether its output does.
    #[inline]
    pub(crate) fn holds_output(&self) -> bool {
        self.rare().shape.as_ref().is_some_and(|shape| shape.send.is_held())
    }

    /// When it goes on with what waits for its turn.
    #[inline]
    pub(super) fn held_until(&self) -> Time {
        if cfg!(switchboard_sim_mutant = "slot_overslept") {
            return Time::NEVER;
        }
        self.rare().shape.as_ref().map_or(Time::NEVER, |shape| shape.held_until())
    }

    /// How many of `wanted` bytes may be read now; if none, it waits for its turn.
    #[inline]
    pub(crate) fn ask_to_read(&mut self, wanted: usize, now: Time) -> Leave {
        let Some(shape) = self.rare.as_mut().and_then(|rare| rare.shape.as_mut()) else {
            return Leave::Go(wanted);
        };
        let leave = shape.read.ask(wanted, now);
        self.flags.sooner |= leave == Leave::Wait;
        leave
    }

    /// How many of `wanted` bytes may be written now; if none, they wait for their turn.
    #[inline]
    pub(crate) fn ask_to_send(&mut self, wanted: usize, now: Time) -> Leave {
        let Some(Rare { shape: Some(shape), trouble, .. }) = self.rare.as_deref_mut() else {
            return Leave::Go(wanted);
        };
        let leave = shape.send.ask(wanted, now);
        if leave == Leave::Wait {
            self.flags.sooner = true;
            // The clock of a write stall stands still, since it is not the kernel who refuses.
            shape.stall_by = trouble.as_mut().and_then(|trouble| trouble.output_by.take());
            if let Some(outbox) = &mut self.outbox {
                outbox.compact();
            }
        }
        leave
    }

    /// So many bytes were read of those that might. Whether they had to wait.
    #[inline]
    pub(crate) fn note_read(&mut self, count: usize) -> bool {
        self.rare
            .as_mut()
            .and_then(|rare| rare.shape.as_mut())
            .is_some_and(|shape| shape.read.spend(count))
    }

    /// So many bytes were written of those that might. Whether they had to wait.
    #[inline]
    pub(crate) fn note_written(&mut self, count: usize) -> bool {
        self.rare
            .as_mut()
            .and_then(|rare| rare.shape.as_mut())
            .is_some_and(|shape| shape.send.spend(count))
    }

    /// Lets go what waits for its turn if that has come. Whether anything does.
    #[inline]
    pub(crate) fn wake_held(&mut self, now: Time) -> bool {
        let Some(shape) = self.rare.as_mut().and_then(|rare| rare.shape.as_mut()) else {
            return false;
        };
        let (read, send) = (shape.read.wake(now), shape.send.wake(now));
        self.let_go(read, send, now);
        read.is_some() || send.is_some()
    }

    /// Changes what it is held to. What waits for its turn asks for a new one.
    pub(super) fn reshape(&mut self, change: Reshape, now: Time) {
        if self.flags.dead {
            return;
        }
        let shape =
            self.rare.get_or_insert_default().shape.get_or_insert_with(|| Box::new(Shape::new()));
        let (read, send) = (shape.read.cancel(now), shape.send.cancel(now));
        shape.change(change, now);
        let bound = shape.is_bound();
        self.let_go(read, send, now);
        if !bound {
            self.forget_rare(|rare| rare.shape = None);
        }
    }

    /// For so long input or output was held back: nobody else's clock has run meanwhile.
    fn let_go(&mut self, read: Option<Duration>, send: Option<Duration>, now: Time) {
        if let Some(held) = read {
            self.last_seen = (self.last_seen + held).min(now);
            if self.frame_since != Time::NEVER {
                self.frame_since = (self.frame_since + held).min(now);
            }
            self.flags.sooner = true;
        }
        let shape = self.rare.as_mut().and_then(|rare| rare.shape.as_mut());
        if let (Some(held), Some(shape)) = (send, shape) {
            let stall_by = shape.stall_by.take();
            if let Some(stall_by) = stall_by.filter(|_| !self.flags.dead) {
                self.await_until(stall_by + held);
            }
        }
    }
}
