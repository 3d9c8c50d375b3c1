//! Alarms as one reactor sees them: noticed where limits are met, told in calls of their own.

use std::time::Duration;

use super::Reactor;
use crate::core::job::Call;
use crate::core::limits::{Admission, Alarm, AlarmKind, Told};
use crate::engine::common::{Bell, Common};
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::sync::Arc;

/// What one reactor has to tell, and when it has to look again.
#[derive(Debug, Default)]
pub(super) struct Ring {
    due: Vec<Alarm>,
    reviews: Vec<(AlarmKind, Time)>,
    /// When the queues of clients that wait may be looked at again: each look is a system call.
    look_at: Time,
    /// Somebody has come since then, or may have.
    looks: bool,
}

/// How long nobody looks at the queues again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Ring {
    /// When it has to look again.
    pub(super) fn review_at(&self) -> Option<Time> {
        let look_at = self.looks.then_some(self.look_at);
        self.reviews.iter().map(|review| review.1).chain(look_at).min()
    }

    /// What is to be done about an alarm.
    fn note(&mut self, told: Told, kind: AlarmKind, about: (&Bell, &Admission), now: Time) {
        let mut told = told;
        if let Told::Now(alarm) = told {
            self.due.push(alarm);
            // One that has begun has to be told to be over.
            let (bell, admission) = about;
            told = bell.alarms.review(kind, admission, now);
        }
        self.reviews.retain(|review| review.0 != kind);
        if let Told::Later(at) = told {
            self.reviews.push((kind, at));
        }
    }
}

impl<K: Kernel> Reactor<K> {
    /// A limit was met.
    pub(super) fn meet(&mut self, met: Alarm) {
        let Common { bell: Some(bell), admission, .. } = &*self.io.common else { return };
        let kind = met.kind;
        let told = bell.alarms.meet(met, self.io.now);
        self.ring.note(told, kind, (bell, admission), self.io.now);
        self.tell_alarms();
    }

    /// At the end of a turn: the handlers that are with other threads.
    pub(super) fn look_at_handlers(&mut self) {
        let Common { bell: Some(_), limits, .. } = &*self.io.common else { return };
        let Some(late) = self.away.look(self.io.now, limits.handler_patience) else { return };
        let there = self.table.contains(late.first).then(|| self.table.get(late.first)).flatten();
        self.meet(Alarm {
            count: late.count,
            client: there.map(|entry| entry.conn.peer_ip()),
            connection: Some(late.first),
            ..Alarm::of(AlarmKind::Handlers)
        });
    }

    /// At the end of a turn: whether there are as many connections as to worry, or no longer.
    pub(super) fn weigh(&mut self) {
        let Common { bell: Some(bell), admission, .. } = &*self.io.common else { return };
        if bell.alarms.concerns(admission.count(), admission.max()) {
            let told = bell.alarms.weigh(admission, self.io.now);
            self.ring.note(told, AlarmKind::Connections, (bell, admission), self.io.now);
            self.tell_alarms();
        }
    }

    /// Before accepting: what was to be looked at again is.
    pub(super) fn review_alarms(&mut self) {
        let Common { bell: Some(bell), admission, .. } = &*self.io.common else { return };
        let now = self.io.now;
        while let Some(&(kind, _)) = self.ring.reviews.iter().find(|review| review.1 <= now) {
            let told = bell.alarms.review(kind, admission, now);
            self.ring.note(told, kind, (bell, admission), now);
        }
        self.tell_alarms();
    }

    /// At the end of a turn: the queues of doors that hold clients back.
    pub(super) fn look_at_queues(&mut self) {
        let Common { bell: Some(bell), admission, .. } = &*self.io.common else { return };
        let now = self.io.now;
        let looks = self.doors.iter().any(super::Door::holds_back);
        self.ring.looks = looks && self.ring.look_at > now;
        if !looks || self.ring.looks {
            return;
        }
        self.ring.look_at = now + LOOK_EVERY;
        for door in &self.doors {
            let Some((waiting, max)) = door.waiting(&self.io.kernel) else { continue };
            let count = usize::try_from(waiting).unwrap_or(usize::MAX);
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            if bell.alarms.is_near(count, max) {
                let met = Alarm { count, max, ..Alarm::of(AlarmKind::Backlog) };
                let told = bell.alarms.meet(met, now);
                self.ring.note(told, AlarmKind::Backlog, (bell, admission), now);
            }
        }
        self.tell_alarms();
    }

    /// Has those told who want to know.
    fn tell_alarms(&mut self) {
        let Some(bell) = &self.io.common.bell else { return };
        for alarm in self.ring.due.drain(..) {
            let tell = Arc::clone(&bell.tell);
            self.dials.push_call(Call::new(move || tell(&alarm)));
        }
    }
}
