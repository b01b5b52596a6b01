//! Whether the messages of one sender arrive at one receiver once each and in order.

use std::ops::Range;

use crate::limits;

/// What a number is to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It comes for the first time, behind all that came before.
    InOrder,
    /// It comes for the first time, but later ones were here before it.
    Late,
    /// It was here before.
    Again,
}

/// The numbers of one sender, on one channel, as one receiver sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker {
    /// The lowest number above all that came.
    next: u64,
    /// What is missing below it, in order.
    gaps: Vec<Range<u64>>,
}

impl Tracker {
    /// Takes note of a number.
    #[inline]
    pub(super) fn note(&mut self, number: u64) -> Arrival {
        if number == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.note_odd(number)
    }

    #[cold]
    fn note_odd(&mut self, number: u64) -> Arrival {
        if number > self.next {
            if self.gaps.len() == limits::GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push(self.next..number);
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let Some(index) = self.gaps.iter().position(|gap| gap.contains(&number)) else { return Arrival::Again };
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

    /// How the numbers arrive: in order, late, again.
    fn count(numbers: impl IntoIterator<Item = u64>) -> (u64, u64, u64) {
        let mut tracker = Tracker::default();
        let mut counts = (0, 0, 0);
        for number in numbers {
            match tracker.note(number) {
                Arrival::InOrder => counts.0 += 1,
                Arrival::Late => counts.1 += 1,
                Arrival::Again => counts.2 += 1,
            }
        }
        counts
    }

    #[test]
    fn gaps_doubles_and_swaps_are_told_apart() {
        assert_eq!(count(0..100), (100, 0, 0));
        // 3 and 4 are lost: two of seven are missing in the sum.
        assert_eq!(count([0, 1, 2, 5, 6]), (5, 0, 0));
        assert_eq!(count([0, 1, 1, 2, 0]), (3, 0, 2));
        assert_eq!(count([0, 2, 1, 3]), (3, 1, 0));
        assert_eq!(count([5, 0, 4, 2, 2, 1, 3, 6]), (2, 5, 1));
    }

    #[test]
    fn only_so_many_gaps_are_remembered() {
        let mut tracker = Tracker::default();
        for number in 0..=limits::GAPS as u64 {
            tracker.note(2 * number + 1);
        }
        assert_eq!(tracker.gaps.len(), limits::GAPS);
        assert_eq!(tracker.note(0), Arrival::Again);
        assert_eq!(tracker.note(2), Arrival::Late);
    }
}
