//! Medians and spreads of a handful of rounds.

/// The median, smallest and largest of the values of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle value; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; none of an empty slice. Values that are no numbers are left out.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted[sorted.len() / 2];
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }

    /// How often `base` goes into this one, by medians; none if the base is 0.
    #[must_use]
    pub fn ratio(&self, base: &Self) -> Option<f64> {
        (base.median != 0.0).then(|| self.median / base.median)
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_of_an_odd_number_is_the_middle_value() {
        let spread = Spread::of(&[9.0, 1.0, 4.0]).expect("three values");
        assert_eq!(spread, Spread { median: 4.0, min: 1.0, max: 9.0 });
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let spread = Spread::of(&[8.0, 1.0, 2.0, 4.0]).expect("four values");
        assert_eq!(spread, Spread { median: 3.0, min: 1.0, max: 8.0 });
    }

    #[test]
    fn nothing_and_not_a_number_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN]), None);
        let spread = Spread::of(&[f64::NAN, 7.0]).expect("one value");
        assert_eq!(spread, Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn a_ratio_is_of_medians_and_never_divides_by_zero() {
        let six = Spread { median: 6.0, min: 0.0, max: 0.0 };
        let three = Spread { median: 3.0, min: 1.0, max: 9.0 };
        let zero = Spread { median: 0.0, min: 0.0, max: 0.0 };
        assert_eq!(six.ratio(&three), Some(2.0));
        assert_eq!(six.ratio(&zero), None);
    }
}
