//! `Series`: one address to which the simulated server may connect again and again: each time it
//! finds what lies behind the next one of some routes.

use std::ops::Range;
use std::time::Duration;

use super::net::{Net, ServerEnd};
use super::random::Random;
use super::route::{Fate, Route};

/// The routes of one address, which is that of the first.
pub(super) type Series = Range<usize>;

/// Up to so many routes behind one address: whoever comes more often finds no way.
const ROUTES_MAX: usize = 12;

/// Draws a series and appends its routes.
pub(super) fn draw(random: &mut Random, routes: &mut Vec<Route>) -> Series {
    let first = routes.len();
    for _ in 0..random.size(1, ROUTES_MAX) {
        let fate = match random.below(12) {
            0 => Fate::Unreachable,
            1 => Fate::Refuses,
            2 => Fate::Silent,
            3 => Fate::Resets,
            _ => Fate::Accepts,
        };
        let delay = u64::try_from(random.magnitude(1, 40_000)).unwrap_or(1);
        routes.push(Route::new(fate, Duration::from_micros(delay)));
    }
    first..routes.len()
}

impl Net {
    /// The socket that the next connection to this address gets; `None` if there is no way.
    pub(super) fn next_of(&self, addressed: usize) -> Option<usize> {
        let Some(series) = self.series.iter().find(|series| series.start == addressed) else {
            return Some(addressed);
        };
        let is_new = |id: &usize| self.routes[*id].answer_at.is_none() && !self.routes[*id].over;
        series.clone().find(is_new)
    }

    /// Whether a connection with this socket was made to that address.
    pub(super) fn is_at(&self, id: usize, addressed: usize) -> bool {
        let holds = |series: &&Series| series.contains(&id);
        self.series.iter().find(holds).map_or(id, |series| series.start) == addressed
    }

    /// The connections of a series that the server has, the last one first.
    pub(super) fn connected_of(&self, series: &Series) -> impl Iterator<Item = usize> {
        let is_held = |id: &usize| self.sockets[*id].end == ServerEnd::Held;
        series.clone().rev().filter(move |&id| self.routes[id].connected && is_held(&id))
    }

    /// Nobody connects to this address any more.
    pub(super) fn end_series(&mut self, series: &Series) {
        for route in &mut self.routes[series.clone()] {
            route.over |= route.answer_at.is_none();
        }
    }
}
