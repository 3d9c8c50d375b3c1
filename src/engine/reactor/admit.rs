//! Admitting: what is done about the next client of a door when there is no room, or too many come.

use std::io::IoSlice;
use std::net::SocketAddr;

use super::accept::{Accepted, Newcomer};
use super::{May, Reactor};
use crate::core::limits::{Alarm, AlarmKind, Full, Permit, Tokens, Via};
use crate::sys::Kernel;
use crate::words::config::WhenFull;
use crate::words::id::ConnId;
use crate::words::reason::Cause;

/// What is to become of the next client of a door.
pub(super) enum Way {
    /// It comes in.
    In(Permit),
    /// It is looked at when it is there. A place that is held only to ask the system for a client
    /// would look to other doors as if there were one connection more, and they would turn somebody
    /// away, or end a connection, for nothing.
    Look(Option<ConnId>),
    /// It is turned away.
    Away(Met),
}

/// The limit for which a client is turned away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Met {
    Full,
    Rate,
    Client,
}

/// How many records are looked at for one that makes room. The best of a sample is nearly as good
/// as the best of all, and costs the same however many there are: Redis takes five keys at a time
/// and keeps the best candidates (<https://redis.io/docs/latest/develop/reference/eviction/>). We
/// look at more and go on from there the next time, so that nobody is overlooked for long.
const WINDOW: usize = 256;

impl<K: Kernel> Reactor<K> {
    /// The right to accept one more now, at the rates that hold; or else what to do. `None` shuts
    /// the door for a while.
    pub(super) fn find_way(&mut self, index: usize) -> Option<(Way, Option<Tokens>)> {
        let listener = self.doors[index].index;
        let admission = &self.io.common.admission;
        let mut tokens = None;
        if admission.is_paced(listener) {
            // Not the time of the turn: in that, others may have been served at length.
            match admission.take_tokens(listener, self.io.kernel.now()) {
                Ok(taken) => tokens = Some(taken),
                Err(at) => {
                    let policy = admission.when_too_fast(listener);
                    self.meet(Alarm::of(AlarmKind::AcceptRate));
                    if policy == WhenFull::Reject {
                        return Some((Way::Away(Met::Rate), None));
                    }
                    self.io.counters.rate_pauses += 1;
                    self.doors[index].shut.by_rate = Some(at);
                    return None;
                }
            }
        }
        let way = self.find_place(index);
        if let (None, Some(tokens)) = (&way, tokens) {
            self.io.common.admission.refund(listener, tokens);
        }
        way.map(|way| (way, tokens))
    }

    fn find_place(&mut self, index: usize) -> Option<Way> {
        let listener = self.doors[index].index;
        let admission = &self.io.common.admission;
        match admission.when_full(listener) {
            WhenFull::Pause => match self.io.common.try_admit(listener) {
                Ok(permit) => Some(Way::In(permit)),
                Err(full) => self.wait_for_place(index, full).map(Way::In),
            },
            WhenFull::Reject => Some(Way::Look(None)),
            WhenFull::EvictIdle => {
                let Some(full) = admission.is_full(listener) else { return Some(Way::Look(None)) };
                let victim = self.idlest(full, listener);
                if victim.is_some() {
                    return Some(Way::Look(victim));
                }
                self.wait_for_idleness(index, full).map(Way::In)
            }
        }
    }

    /// Shuts a door until there is room, or somebody may be idle who is not now.
    fn wait_for_idleness(&mut self, index: usize, full: Full) -> Option<Permit> {
        let permit = self.wait_for_place(index, full);
        let at = self.io.now + self.io.common.limits.accept_retry;
        self.doors[index].shut.evict_at = permit.is_none().then_some(at);
        permit
    }

    /// Shuts a door until there is room. It is asked for again after saying so, since the last
    /// connection may have ended in between.
    fn wait_for_place(&mut self, index: usize, mut full: Full) -> Option<Permit> {
        let listener = self.doors[index].index;
        let common = &self.io.common;
        loop {
            match full {
                Full::Listener => common.crowd(self.port.index(), listener),
                Full::Server => common.starve(self.port.index()),
            }
            match common.try_admit(listener) {
                Ok(permit) => return Some(permit),
                Err(again) if again == full => break,
                Err(other) => full = other,
            }
        }
        match full {
            Full::Listener => self.io.counters.listener_pauses += 1,
            Full::Server => self.io.counters.limit_pauses += 1,
        }
        self.doors[index].shut.by_full(full);
        None
    }

    /// What becomes of a client that was accepted.
    pub(super) fn receive(
        &mut self,
        index: usize,
        way: Way,
        client: (K::Stream, SocketAddr),
    ) -> Accepted<K> {
        match way {
            Way::In(permit) => self.let_in(index, permit, client),
            Way::Look(victim) => self.look_at(index, victim, client),
            Way::Away(met) => self.reject(self.doors[index].index, client.0, met),
        }
    }

    fn let_in(
        &mut self,
        index: usize,
        permit: Permit,
        (stream, peer): (K::Stream, SocketAddr),
    ) -> Accepted<K> {
        let listener = self.doors[index].index;
        let admission = &self.io.common.admission;
        if let Some(via) = admission.try_count(listener, peer.ip()) {
            return Accepted::Connection(Newcomer { stream, peer, via, permit });
        }
        let (client, max) = (admission.client(peer.ip()), admission.client_max());
        self.io.common.give_back(permit, Via::door(listener), peer.ip());
        let client = Some(client);
        self.meet(Alarm { count: max, max, client, ..Alarm::of(AlarmKind::Client) });
        self.reject(listener, stream, Met::Client)
    }

    /// A client that is there: is there room, or who makes room for it? `victim` does, if somebody
    /// has to.
    fn look_at(
        &mut self,
        index: usize,
        victim: Option<ConnId>,
        client: (K::Stream, SocketAddr),
    ) -> Accepted<K> {
        let listener = self.doors[index].index;
        let full = match self.io.common.try_admit(listener) {
            Ok(permit) => return self.let_in(index, permit, client),
            Err(full) => full,
        };
        if self.io.common.admission.when_full(listener) == WhenFull::Reject {
            return self.reject(listener, client.0, Met::Full);
        }
        if let Some(victim) = victim.or_else(|| self.idlest(full, listener)) {
            self.evict(victim);
        } else if let Some(permit) = self.wait_for_idleness(index, full) {
            return self.let_in(index, permit, client);
        }
        self.doors[index].guest = Some(client);
        Accepted::Shut
    }

    /// A client for whom room was made comes in; or more room is made, if others were faster.
    pub(super) fn seat(&mut self, index: usize) -> Option<Accepted<K>> {
        let guest = self.doors[index].guest.take()?;
        Some(self.look_at(index, None, guest))
    }

    /// The connection that may be ended for another one that comes through `listener`: one of that
    /// listener, if that is what is full.
    fn idlest(&mut self, full: Full, listener: u16) -> Option<ConnId> {
        // What the program opened itself is not for clients to take away.
        let outbound = self.io.common.admission.outbound().listener();
        let may_go = |via: Via| match full {
            Full::Listener => via.listener() == listener,
            Full::Server => via.listener() != outbound,
        };
        let now = self.io.now;
        let window = self.table.window(self.evict_from, WINDOW);
        let keys = window.filter(|(_, entry)| may_go(entry.door));
        let keys = keys.filter_map(|(id, entry)| {
            Some((entry.conn.idle_key(now, self.io.rules(entry.door))?, id))
        });
        let best = keys.max_by_key(|&(key, _)| key);
        self.evict_from = self.table.after_window(self.evict_from, WINDOW);
        best.map(|(_, id)| id)
    }

    fn evict(&mut self, victim: ConnId) {
        if let Some(entry) = self.table.get_mut(victim) {
            entry.conn.die(Cause::Evicted);
            self.io.advance(victim, entry, May::Queue);
        }
    }

    /// Closes the connection of a client that does not come in, with a last word if there is one.
    fn reject(&mut self, listener: u16, mut stream: K::Stream, met: Met) -> Accepted<K> {
        let counters = &mut self.io.counters;
        match met {
            Met::Full => counters.rejected_full += 1,
            Met::Rate => counters.rejected_rate += 1,
            Met::Client => counters.rejected_client += 1,
        }
        if self.say_farewell(listener, &mut stream) {
            self.io.kernel.close(stream);
        } else {
            self.io.kernel.reset(stream);
        }
        Accepted::Nobody
    }

    /// Writes the farewell, once, and FIN behind it. What the client has said already is read, or
    /// else closing would answer it with RST, which may overtake the farewell.
    fn say_farewell(&mut self, listener: u16, stream: &mut K::Stream) -> bool {
        let farewell = &self.io.common.listening[usize::from(listener)].farewell;
        let kernel = &mut self.io.kernel;
        let said = !farewell.is_empty()
            && kernel.write(stream, &[IoSlice::new(farewell)]).is_ok()
            && kernel.shutdown_write(stream).is_ok();
        if said {
            let mut input = self.io.pool.lease();
            let _nothing_to_learn = kernel.read(stream, &mut input).is_ok();
            self.io.pool.give_back(input);
        }
        said
    }
}
