//! `Meter`: how much of a budget is used, in grades that do not flicker.

use crate::words::pressure::Pressure;

/// What is given up to stay within the budget; each grade does what those below it do, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    /// Nothing.
    #[default]
    Calm,
    /// Buffers that nobody uses.
    Trim,
    /// The patience with silent peers.
    Hurry,
    /// The speed of those that hold the most.
    Pause,
    /// Newcomers.
    Refuse,
    /// Those that hold the most.
    Evict,
}

/// Where the grades begin, in per cent of the budget.
const RISES: [u128; 5] = [70, 80, 90, 95, 98];
/// Where each is left again: lower, so that what a grade frees does not end it at once.
const FALLS: [u128; 5] = [65, 75, 85, 90, 93];
/// Where the levels of pressure begin that the number of connections makes, in per cent of the
/// most there may be, and how far below they are left.
const CROWDED: [u128; 3] = [80, 90, 97];
const CROWDED_FALL: u128 = 5;

/// That memory has become shorter, or less short: see
/// [`Builder::on_shortage`](crate::Builder::on_shortage).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// How much is given up now to stay within `memory_max`, from 0, nothing, to 5, as
    /// [`MemorySnapshot::grade`](crate::control::MemorySnapshot) says.
    pub grade: u8,
    /// How much was given up before.
    pub before: u8,
    /// What all connections of the server use, in bytes.
    pub used_bytes: usize,
    /// What they may use, in bytes: `memory_max`.
    pub max_bytes: usize,
}

impl Grade {
    /// Every grade, the lowest first.
    pub(crate) const ALL: [Grade; 6] =
        [Grade::Calm, Grade::Trim, Grade::Hurry, Grade::Pause, Grade::Refuse, Grade::Evict];

    /// The names of all but the lowest, for metrics.
    pub(crate) const LABELS: [&'static str; 5] = ["trim", "hurry", "pause", "refuse", "evict"];

    /// The grade as a number, from 0 to 5.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// What it means for the patience with silent peers.
    pub(crate) const fn pressure(self) -> Pressure {
        match self {
            Grade::Calm | Grade::Trim => Pressure::Calm,
            Grade::Hurry => Pressure::Raised,
            Grade::Pause => Pressure::High,
            Grade::Refuse | Grade::Evict => Pressure::Critical,
        }
    }
}

/// The use of one budget. Each grade is reached at one mark and left at a lower one; both are kept,
/// so that what changes nothing costs two comparisons.
#[derive(Debug)]
pub(crate) struct Meter {
    max: usize,
    grade: Grade,
    /// Here a higher grade begins.
    rises_at: usize,
    /// Below this the present one ends.
    falls_below: usize,
}

impl Meter {
    pub(crate) fn new(max: usize) -> Self {
        Meter { max, grade: Grade::Calm, rises_at: part(max, RISES[0]), falls_below: 0 }
    }

    pub(crate) fn grade(&self) -> Grade {
        self.grade
    }

    /// So much is used now. True if that changes the grade.
    #[inline]
    pub(crate) fn observe(&mut self, used: usize) -> bool {
        if used < self.rises_at && used >= self.falls_below {
            return false;
        }
        let fallen = cfg!(switchboard_sim_mutant = "grade_stuck").then_some(self.grade);
        let before = self.grade;
        let rises = RISES.iter().filter(|&&mark| used >= part(self.max, mark)).count();
        let keeps = FALLS.iter().filter(|&&mark| used >= part(self.max, mark)).count();
        // It is reached at the higher mark, and kept down to the lower one.
        let number = rises.max(keeps.min(usize::from(before.number())));
        self.grade = Grade::ALL[number].max(fallen.unwrap_or_default());
        let number = usize::from(self.grade.number());
        self.rises_at = RISES.get(number).map_or(usize::MAX, |&mark| part(self.max, mark));
        self.falls_below = number.checked_sub(1).map_or(0, |below| part(self.max, FALLS[below]));
        self.grade != before
    }

    /// What each of so many connections may hold without being one of the heavy ones.
    pub(crate) fn share(&self, connections: usize) -> usize {
        self.max / connections.max(1)
    }

    /// What may be used at the very most, one growth aside: a sixteenth more than the budget.
    pub(crate) fn ceiling(&self) -> usize {
        self.max.saturating_add(self.max / 16)
    }

    /// How much more may be used before the top grade begins.
    pub(crate) fn room(&self, used: usize) -> usize {
        part(self.max, RISES[4]).saturating_sub(used)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

/// How crowded a server is that has `count` of at most `max` connections, and was `before`.
pub(crate) fn crowding(before: Pressure, count: usize, max: usize) -> Pressure {
    let reached = |less: u128| {
        let over = |mark: &&u128| count >= part(max, **mark - less).max(1);
        CROWDED.iter().filter(over).count()
    };
    let kept = reached(CROWDED_FALL).min(before.level() as usize);
    Pressure::ALL[reached(0).max(kept)]
}

/// So many per cent of `whole`, rounded up.
fn part(whole: usize, per_cent: u128) -> usize {
    usize::try_from((whole as u128 * per_cent).div_ceil(100)).unwrap_or(usize::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn each_grade_has_its_mark_and_a_lower_one_at_which_it_ends() {
        let mut meter = Meter::new(1_000);
        for (grade, (rise, fall)) in Grade::ALL[1..].iter().zip(RISES.iter().zip(&FALLS)) {
            let [rise, fall] = [*rise, *fall].map(|mark| part(1_000, mark));
            meter.observe(rise - 1);
            assert!(meter.grade() < *grade, "one byte below {rise}");
            assert!(meter.observe(rise) && meter.grade() == *grade);
            assert!(!meter.observe(fall) && meter.grade() == *grade, "it is kept at {fall}");
            assert!(meter.observe(fall - 1) && meter.grade() < *grade, "it ends below {fall}");
        }
        assert!(meter.observe(0));
        assert_eq!(meter.grade(), Grade::Calm);
    }

    #[test]
    fn a_crowd_is_told_by_the_number_of_connections() {
        let max = 1_000;
        let marks =
            [(799, 0), (800, 1), (899, 1), (900, 2), (970, 3), (925, 3), (919, 2), (845, 1)];
        let mut pressure = Pressure::Calm;
        for (count, level) in marks {
            pressure = crowding(pressure, count, max);
            assert_eq!(pressure.level(), level, "{count} connections");
        }
        assert_eq!(crowding(pressure, 0, max), Pressure::Calm);
        assert_eq!(crowding(Pressure::Critical, 0, 1), Pressure::Calm, "nobody is no crowd");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn the_grade_is_that_of_its_marks_whatever_came_before(
            max in 1..1_000_000usize,
            steps in vec(0..120u32, 1..50),
        ) {
            let mut meter = Meter::new(max);
            let mut last = Grade::Calm;
            for step in steps {
                let used = part(max, u128::from(step));
                let changed = meter.observe(used);
                let at = usize::from(meter.grade().number());
                prop_assert_eq!(changed, meter.grade() != last);
                // At least that of the upper marks, at most that of the lower ones.
                prop_assert!(RISES[at..].iter().all(|&mark| used < part(max, mark)));
                prop_assert!(FALLS[..at].iter().all(|&mark| used >= part(max, mark)));
                // It rises only over an upper mark.
                if meter.grade() > last {
                    prop_assert!(used >= part(max, RISES[at - 1]));
                }
                last = meter.grade();
            }
            meter.observe(0);
            prop_assert_eq!(meter.grade(), Grade::Calm);
        }
    }
}
