//! A table of values by message id, fast for young ids.
//!
//! Ids ascend, and nearly all values are removed soon after they were inserted. So a value of a young id is in a row of slots, found
//! without hashing, next to its neighbours in the processor's caches. A value that stays while thousands come and go moves to a hash map,
//! so that the row never has many more slots than values.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::message::MessageId;

/// A table of values by message id.
#[derive(Debug)]
pub(super) struct Recent<T> {
    /// One slot for each id from `first` on. The first slot is never empty.
    row: VecDeque<Option<T>>,
    /// The id of the first slot. Never decreases.
    first: u64,
    /// The number of slots with a value.
    taken: usize,
    /// The values of ids before `first`.
    old: HashMap<MessageId, T, RandomState>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { row: VecDeque::new(), first: 0, taken: 0, old: HashMap::default() }
    }
}

impl<T> Recent<T> {
    /// Inserts a value, or replaces the value of this id.
    #[inline]
    pub fn insert(&mut self, id: MessageId, value: T) {
        if self.row.is_empty() {
            self.first = self.first.max(id.0);
        }
        let Some(place) = self.index(id) else {
            self.old.insert(id, value);
            return;
        };
        if let Some(place) = self.row.get_mut(place) {
            self.taken += usize::from(place.is_none());
            *place = Some(value);
            return;
        }
        if place - self.row.len() > limits::RECENT_PLACES {
            self.age(0);
            self.first = id.0;
        } else {
            self.row.resize_with(place, || None);
        }
        self.row.push_back(Some(value));
        self.taken += 1;
        self.age(limits::RECENT_PLACES.max(self.taken * limits::RECENT_SPARSE));
    }

    /// Returns the value of an id.
    #[inline]
    pub fn get(&self, id: MessageId) -> Option<&T> {
        match self.index(id) {
            Some(place) => self.row.get(place)?.as_ref(),
            None => self.old.get(&id),
        }
    }

    /// Returns the value of an id for changes.
    #[inline]
    pub fn get_mut(&mut self, id: MessageId) -> Option<&mut T> {
        match self.index(id) {
            Some(place) => self.row.get_mut(place)?.as_mut(),
            None => self.old.get_mut(&id),
        }
    }

    /// Whether the table has a value for an id.
    #[inline]
    pub fn contains(&self, id: MessageId) -> bool {
        self.get(id).is_some()
    }

    /// Removes the value of an id and returns it.
    #[inline]
    pub fn remove(&mut self, id: MessageId) -> Option<T> {
        let Some(place) = self.index(id) else { return self.old.remove(&id) };
        let value = self.row.get_mut(place)?.take()?;
        self.taken -= 1;
        while self.row.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        if self.row.is_empty() {
            // Frees the memory of a burst.
            self.row.shrink_to(limits::RECENT_PLACES);
        }
        Some(value)
    }

    /// Returns all values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (MessageId, &T)> {
        let row = (self.first..).zip(&self.row).filter_map(|(id, place)| Some((MessageId(id), place.as_ref()?)));
        row.chain(self.old.iter().map(|(id, value)| (*id, value)))
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.taken + self.old.len()
    }

    /// Returns the slot of an id; `None` for ids before the row.
    #[inline]
    fn index(&self, id: MessageId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first)?).ok()
    }

    /// Moves values from the start of the row to the hash map until the row has at most this number of slots.
    fn age(&mut self, places: usize) {
        while self.row.len() > places || self.row.front().is_some_and(Option::is_none) {
            let Some(place) = self.row.pop_front() else { break };
            if let Some(value) = place {
                self.old.insert(MessageId(self.first), value);
                self.taken -= 1;
            }
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// Inserts the id that is this far after the last one.
        Insert(u64),
        /// Removes the id that is this far before the last one.
        Remove(u64),
        /// Inserts the id that is this far before the last one.
        Reinsert(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let places = limits::RECENT_PLACES as u64;
        let back = prop_oneof![8 => 0..40_u64, 1 => 0..4 * places];
        prop::collection::vec(
            prop_oneof![
                12 => Just(Step::Insert(1)),
                2 => (1..40_u64).prop_map(Step::Insert),
                1 => (1..3 * places).prop_map(Step::Insert),
                10 => back.clone().prop_map(Step::Remove),
                1 => back.prop_map(Step::Reinsert),
            ],
            0..400,
        )
    }

    proptest! {
        #[test]
        fn the_table_has_the_values_of_a_plain_map(start in prop_oneof![Just(0), 1..1_000_000_u64], steps in steps()) {
            let (mut table, mut model) = (Recent::default(), BTreeMap::new());
            let mut last = start;
            for (number, step) in steps.into_iter().enumerate() {
                let id = match step {
                    Step::Insert(on) => {
                        last += on;
                        table.insert(MessageId(last), number);
                        model.insert(last, number);
                        last
                    }
                    Step::Reinsert(back) => {
                        let id = last.saturating_sub(back);
                        table.insert(MessageId(id), number);
                        model.insert(id, number);
                        id
                    }
                    Step::Remove(back) => {
                        let id = last.saturating_sub(back);
                        prop_assert_eq!(table.remove(MessageId(id)), model.remove(&id));
                        id
                    }
                };
                prop_assert_eq!(table.get(MessageId(id)), model.get(&id));
                prop_assert_eq!(table.get_mut(MessageId(id)).copied(), model.get(&id).copied());
                prop_assert_eq!(table.contains(MessageId(last + 1)), false);
                prop_assert_eq!(table.len(), model.len());
            }
            let mut all: Vec<(u64, usize)> = table.iter().map(|(id, value)| (id.0, *value)).collect();
            all.sort_unstable();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_lived_values_do_not_keep_empty_slots() {
        let mut table = Recent::default();
        for id in 0..1_000_000_u64 {
            table.insert(MessageId(id), id);
            if !id.is_multiple_of(100_000) {
                assert_eq!(table.remove(MessageId(id)), Some(id));
            }
            assert!(table.row.len() <= limits::RECENT_PLACES + 1, "{}", table.row.len());
        }
        assert!(table.row.capacity() <= 4 * limits::RECENT_PLACES, "{}", table.row.capacity());
        assert!((0..10).all(|stayed| table.get(MessageId(stayed * 100_000)) == Some(&(stayed * 100_000))));
        assert_eq!(table.len(), 10);
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut table = Recent::default();
        (0..100_000).for_each(|id| table.insert(MessageId(id), id));
        (0..100_000).for_each(|id| assert_eq!(table.remove(MessageId(id)), Some(id)));
        assert!(table.row.capacity() <= 2 * limits::RECENT_PLACES && table.old.is_empty());
    }
}
