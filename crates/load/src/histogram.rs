//! A histogram of times for the percentiles of a report. Its memory must never grow with the number of recorded times.

use std::time::Duration;

use super::report::Latency;
use crate::limits;

/// The significant decimal digits: percentiles are exact to one part in a thousand.
const DIGITS: u8 = 3;

/// A histogram of times.
#[derive(Clone, Debug)]
pub(super) struct Histogram(hdrhistogram::Histogram<u64>);

impl Histogram {
    pub(super) fn new() -> Self {
        let longest = nanos(limits::RUN_TIME);
        // invariant: the bounds are constants that the library accepts; the tests below create a histogram.
        Self(hdrhistogram::Histogram::new_with_max(longest, DIGITS).expect("constant bounds"))
    }

    /// Records one time. A time above [`limits::RUN_TIME`] is recorded as this maximum.
    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(nanos(time));
    }

    /// The percentiles; all zero if no time was recorded.
    pub(super) fn latency(&self) -> Latency {
        let at = |quantile| micros(self.0.value_at_quantile(quantile).min(self.0.max()));
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Converts nanoseconds to microseconds, rounded to a tenth.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list_within_half_a_percent() {
        let mut histogram = Histogram::new();
        // 1 µs to 100 ms, shuffled.
        let times: Vec<u64> = (1..=100_000).map(|number| number * 7_919 % 100_003 * 1_000).collect();
        for time in &times {
            histogram.record(Duration::from_nanos(*time));
        }
        let mut sorted = times;
        sorted.sort_unstable();
        let latency = histogram.latency();
        for (found, per_mille) in
            [(latency.p50, 500), (latency.p90, 900), (latency.p99, 990), (latency.p999, 999), (latency.max, 1_000)]
        {
            let exact = sorted[sorted.len() * per_mille / 1_000 - 1] as f64 / 1_000.0;
            assert!((found - exact).abs() <= exact / 200.0, "{per_mille}: {found} instead of {exact}");
        }
    }

    #[test]
    fn the_longest_time_is_recorded_and_an_empty_histogram_is_zero() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert!(histogram.latency().max >= limits::RUN_TIME.as_secs_f64() * 1e6);
        assert_eq!(Histogram::new().latency(), Latency::default());
    }
}
