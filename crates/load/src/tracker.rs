//! Detects lost, duplicate and reordered messages of one sender at one receiver. Its memory must never grow with the number of messages.

use std::ops::Range;

use crate::limits;

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// For the first time, after all smaller numbers that have arrived.
    InOrder,
    /// For the first time, but after a larger number.
    Late,
    /// Not for the first time.
    Duplicate,
}

/// The numbers of one sender's messages on one channel that one receiver has received.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker {
    /// The largest received number plus one.
    next: u64,
    /// The missing numbers below `next`, in order.
    gaps: Vec<Range<u64>>,
}

impl Tracker {
    /// Records the arrival of a number.
    #[inline]
    pub(super) fn record(&mut self, number: u64) -> Arrival {
        if number == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.record_out_of_order(number)
    }

    #[cold]
    fn record_out_of_order(&mut self, number: u64) -> Arrival {
        if number > self.next {
            if self.gaps.len() == limits::GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push(self.next..number);
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let Some(index) = self.gaps.iter().position(|gap| gap.contains(&number)) else { return Arrival::Duplicate };
        let gap = self.gaps.remove(index);
        for part in [number + 1..gap.end, gap.start..number] {
            if !part.is_empty() {
                self.gaps.insert(index, part);
            }
        }
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the arrivals: in order, late, duplicate.
    fn count(numbers: impl IntoIterator<Item = u64>) -> (u64, u64, u64) {
        let mut tracker = Tracker::default();
        let mut counts = (0, 0, 0);
        for number in numbers {
            match tracker.record(number) {
                Arrival::InOrder => counts.0 += 1,
                Arrival::Late => counts.1 += 1,
                Arrival::Duplicate => counts.2 += 1,
            }
        }
        counts
    }

    #[test]
    fn gaps_duplicates_and_swaps_are_distinguished() {
        assert_eq!(count(0..100), (100, 0, 0));
        // 3 and 4 are lost, so the counts have two less than seven.
        assert_eq!(count([0, 1, 2, 5, 6]), (5, 0, 0));
        assert_eq!(count([0, 1, 1, 2, 0]), (3, 0, 2));
        assert_eq!(count([0, 2, 1, 3]), (3, 1, 0));
        assert_eq!(count([5, 0, 4, 2, 2, 1, 3, 6]), (2, 5, 1));
    }

    #[test]
    fn the_number_of_remembered_gaps_is_bounded() {
        let mut tracker = Tracker::default();
        for number in 0..=limits::GAPS as u64 {
            tracker.record(2 * number + 1);
        }
        assert_eq!(tracker.gaps.len(), limits::GAPS);
        assert_eq!(tracker.record(0), Arrival::Duplicate);
        assert_eq!(tracker.record(2), Arrival::Late);
    }
}
