//! A logarithmic axis: where a value stands on it, and which values are written beside it.
//!
//! Pure arithmetic. A zero, which no logarithm has, gets a place of its own before the smallest value.

/// The steps between two powers of ten at which an axis may begin, end and be marked.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// The least span of an axis, largest value by smallest: less would make noise look like growth.
const SPAN: f64 = 10.0;

/// From this span on only powers of ten are marked.
const WIDE: f64 = 500.0;

/// How much of the axis stands before the smallest value, where there is a zero.
const BEFORE: f64 = 0.12;

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
    has_zero: bool,
}

impl Scale {
    /// An axis that has room for all of these. Negative values and what is no number do not count.
    pub fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high, mut has_zero) = (f64::INFINITY, 0.0_f64, false);
        for value in values {
            if value == 0.0 {
                has_zero = true;
            } else if value.is_finite() && value > 0.0 {
                (low, high) = (low.min(value), high.max(value));
            }
        }
        if high == 0.0 {
            (low, high) = (1.0, 1.0);
        }
        (low, high) = (below(low), above(high));
        while high / low < SPAN * 0.999 {
            // Downwards first, so that a flat line stands in the upper half, as one that could grow would.
            low = below(low * 0.99);
            if high / low < SPAN * 0.999 {
                high = above(high * 1.01);
            }
        }
        Self { low, high, has_zero }
    }

    /// Where a value stands, from 0 (the beginning) to 1 (the end).
    pub fn place(&self, value: f64) -> f64 {
        let before = if self.has_zero { BEFORE } else { 0.0 };
        if value <= 0.0 {
            return 0.0;
        }
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        before + (1.0 - before) * part
    }

    /// The values that are marked.
    pub fn ticks(&self) -> Vec<f64> {
        let steps = if self.high / self.low > WIDE { &STEPS[..1] } else { &STEPS };
        let mut ticks = if self.has_zero { vec![0.0] } else { Vec::new() };
        for power in exponent(self.low)..=exponent(self.high) {
            let within = steps.iter().map(|step| step * 10_f64.powi(power));
            ticks.extend(within.filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001));
        }
        ticks
    }
}

/// The power of ten at or below a value.
fn exponent(value: f64) -> i32 {
    // A small number: values are those of figures.
    (value * 1.000_001).log10().floor() as i32
}

/// The largest step at or below a value.
fn below(value: f64) -> f64 {
    let power = 10_f64.powi(exponent(value));
    let step = STEPS.iter().rev().find(|step| *step * power <= value * 1.000_001);
    step.copied().unwrap_or(1.0) * power
}

/// The smallest step at or above a value.
fn above(value: f64) -> f64 {
    let power = 10_f64.powi(exponent(value));
    let step = STEPS.iter().find(|step| *step * power >= value * 0.999_999);
    step.copied().unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: &[f64]) -> Vec<String> {
        Scale::around(values.iter().copied()).ticks().iter().map(|tick| format!("{tick:.3}")).collect()
    }

    #[test]
    fn an_axis_begins_and_ends_at_a_step() {
        assert_eq!((below(0.23), above(0.23)), (0.2, 0.5));
        assert_eq!((below(1_000.0), above(1_000.0)), (1_000.0, 1_000.0));
        assert_eq!((below(6.0), above(6.0)), (5.0, 10.0));
        assert_eq!(exponent(0.01), -2);
    }

    #[test]
    fn few_ticks_on_a_short_axis_and_powers_of_ten_on_a_long_one() {
        assert_eq!(ticks(&[0.3, 1.7]), ["0.200", "0.500", "1.000", "2.000"]);
        assert_eq!(ticks(&[1.0, 100_000.0]).len(), 6);
        assert_eq!(ticks(&[0.0, 10.0, 15_000.0]).first().map(String::as_str), Some("0.000"));
    }

    #[test]
    fn noise_is_not_blown_up() {
        let scale = Scale::around([1.0, 1.05]);
        assert!(scale.high / scale.low >= 9.99, "{scale:?}");
        assert!((scale.place(1.05) - scale.place(1.0)).abs() < 0.05);
    }

    #[test]
    fn places_run_from_zero_to_one() {
        let scale = Scale::around([1.0, 10_000.0]);
        assert_eq!((scale.place(1.0), scale.place(100.0), scale.place(10_000.0)), (0.0, 0.5, 1.0));
        let scale = Scale::around([0.0, 1.0, 10_000.0]);
        assert_eq!((scale.place(0.0), scale.place(1.0), scale.place(10_000.0)), (0.0, BEFORE, 1.0));
    }

    #[test]
    fn nothing_and_nonsense_still_make_an_axis() {
        for values in [vec![], vec![0.0], vec![f64::NAN, -1.0]] {
            let scale = Scale::around(values);
            assert!(scale.place(1.0).is_finite() && !scale.ticks().is_empty(), "{scale:?}");
        }
    }
}
