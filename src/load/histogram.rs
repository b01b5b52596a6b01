//! Times counted in classes that are fine enough for percentiles: memory does not grow with their number.

use std::time::Duration;

use super::report::Latency;

/// Classes for each doubling: a percentile is exact to one part in 256.
const FINE: u64 = 256;
/// Doublings above the first: up to some 18 minutes, in nanoseconds.
const DOUBLINGS: u64 = 32;

/// A distribution of times.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; class(u64::MAX) + 1], count: 0, max: 0 }
    }

    /// Counts one time.
    pub(super) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(class(nanos)) {
            *count += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// The percentiles; all zero if nothing was counted.
    pub(super) fn latency(&self) -> Latency {
        let micros = |per_mille| micros(self.at(per_mille));
        Latency { p50: micros(500), p90: micros(900), p99: micros(990), p999: micros(999), max: micros(1_000) }
    }

    /// The time that so many of a thousand do not exceed, in nanoseconds: the upper end of its class, at most the longest.
    fn at(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end(class).min(self.max);
            }
        }
        self.max
    }
}

/// Microseconds to a tenth.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

/// The class of a time: itself below [`FINE`], else its doubling and the [`FINE`] / 2 parts of it.
fn class(nanos: u64) -> usize {
    let nanos = nanos.min((FINE << DOUBLINGS) - 1);
    let doubling = u64::from((nanos / FINE).checked_ilog2().map_or(0, |log| log + 1));
    // Both are small: a few thousand classes.
    (doubling * FINE / 2 + (nanos >> doubling)) as usize
}

/// The largest time of a class.
fn upper_end(class: usize) -> u64 {
    let class = class as u64;
    if class < FINE {
        return class;
    }
    let doubling = class / (FINE / 2) - 1;
    ((class - doubling * FINE / 2 + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list_within_half_a_percent() {
        let mut histogram = Histogram::new();
        // 1 µs to 100 ms, in an order that is none.
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
        assert_eq!(histogram.count, 100_000);
    }

    #[test]
    fn every_class_ends_where_the_next_begins() {
        for nanos in (0..5_000).chain((5_000..50_000_000).step_by(997)) {
            let class = class(nanos);
            assert!(nanos <= upper_end(class) && (class == 0 || nanos > upper_end(class - 1)), "{nanos}");
        }
        let mut histogram = Histogram::new();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.count, 1);
        assert_eq!(Histogram::new().latency(), Latency::default());
    }
}
