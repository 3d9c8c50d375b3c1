//! `Rate`: so many of something per second, and how many of them at once.

use super::check;
use crate::words::error::Error;

/// So many of something per second, and how many of them at once.
///
/// Of what, the setting that takes it says: bytes, messages, connections. Over any time `t` no more
/// than `burst + per_second × t` pass, and one unit of work in the middle of which the limit was
/// met.
///
/// ```
/// use switchboard::config::Rate;
///
/// // 1 MiB per second, and up to 64 KiB at once after a pause.
/// let rate = Rate::per_second(1 << 20).burst(64 << 10);
/// assert_ne!(rate, Rate::per_second(1 << 20));
/// // Without a word about it, what a second is worth may come at once.
/// assert_eq!(Rate::per_second(100), Rate::per_second(100).burst(100));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// The most per second and at once: 2⁴⁰, a terabyte.
    pub(crate) const MAX: u64 = 1 << 40;

    /// So many per second, and as many at once. Range: 1 to 2⁴⁰; checked when the setting that
    /// takes it is.
    pub const fn per_second(per_second: u64) -> Self {
        Rate { per_second, burst: per_second }
    }

    /// So many at once, after a pause that was long enough. Range: 1 to 2⁴⁰.
    #[must_use]
    pub const fn burst(self, burst: u64) -> Self {
        Rate { burst, ..self }
    }

    /// How many per second.
    pub(crate) const fn refill(self) -> u64 {
        self.per_second
    }

    /// How many at once.
    pub(crate) const fn depth(self) -> u64 {
        self.burst
    }

    /// The nearest rate that is in its range.
    pub(crate) fn clamp(self) -> Self {
        let per_second = self.per_second.clamp(1, Self::MAX);
        Rate { per_second, burst: self.burst.clamp(1, Self::MAX) }
    }

    /// Refuses what is outside of its range, in the name of the setting that took it.
    pub(crate) fn check(&self, field: &'static str) -> Result<(), Error> {
        check(field, self.per_second, 1..=Self::MAX)?;
        check(field, self.burst, 1..=Self::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_in_the_name_of_its_setting() {
        assert!(Rate::per_second(1).check("a").is_ok());
        assert!(Rate::per_second(Rate::MAX).check("a").is_ok());
        let refused =
            [Rate::per_second(0).burst(1), Rate::per_second(1).burst(0), Rate::per_second(1 << 41)];
        for rate in refused {
            let said = rate.check("accept_rate").expect_err("out of range").to_string();
            assert!(said.starts_with("`accept_rate` is "), "{said}");
            assert!(said.ends_with("must be 1 to 1099511627776"), "{said}");
        }
    }
}
