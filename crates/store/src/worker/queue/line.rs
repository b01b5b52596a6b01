//! Things in the order of their coming, each with a number by which it can leave before its turn. Must never give a number twice.

use std::collections::VecDeque;

use crate::limits;

/// A queue from whose middle things may be taken. Its front is never empty, so that places left behind last no longer than what is before them.
#[derive(Debug)]
pub(super) struct Line<T> {
    places: VecDeque<Option<T>>,
    /// The number of the first place.
    first: u64,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { places: VecDeque::new(), first: 0, len: 0 }
    }
}

impl<T> Line<T> {
    /// How many are in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of the first that is in it; if there is none, that of the next to come.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next to come.
    pub(super) fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Adds one behind all others. Its number is what [`Self::next`] said.
    pub(super) fn push(&mut self, item: T) {
        self.places.push_back(Some(item));
        self.len += 1;
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.take(self.first)
    }

    /// Takes the one with this number, if it is there.
    pub(super) fn take(&mut self, number: u64) -> Option<T> {
        let item = self.place(number)?.take()?;
        self.len -= 1;
        while self.places.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        if self.places.is_empty() {
            // One burst must not cost memory for ever.
            self.places.shrink_to(limits::STORE_PLACES);
        }
        Some(item)
    }

    /// The one with this number, if it is there.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.place(number)?.as_mut()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<T>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.places.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_early_is_passed_over() {
        let mut line = Line::default();
        for item in ["a", "b", "c", "d"] {
            line.push(item);
        }
        assert_eq!((line.take(1), line.take(1), line.take(9)), (Some("b"), None, None));
        assert_eq!((line.first(), line.len()), (0, 3));
        assert_eq!(line.pop(), Some("a"));
        assert_eq!((line.first(), line.get_mut(3).copied()), (2, Some("d")));
        assert_eq!(line.iter().copied().collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!((line.pop(), line.pop(), line.pop()), (Some("c"), Some("d"), None));
        assert_eq!((line.first(), line.next(), line.is_empty()), (4, 4, true));
        line.push("e");
        assert_eq!((line.take(0), line.take(4)), (None, Some("e")));
    }
}
