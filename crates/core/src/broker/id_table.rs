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
pub(super) struct IdTable<T> {
    /// One slot for each id from `first` on. The first slot is never empty.
    slots: VecDeque<Option<T>>,
    /// The id of the first slot. Never decreases.
    first: u64,
    /// The number of slots with a value.
    occupied: usize,
    /// The values of ids before `first`.
    overflow: HashMap<MessageId, T, RandomState>,
}

impl<T> Default for IdTable<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new(), first: 0, occupied: 0, overflow: HashMap::default() }
    }
}

impl<T> IdTable<T> {
    /// Inserts a value, or replaces the value of this id.
    #[inline]
    pub fn insert(&mut self, id: MessageId, value: T) {
        if self.slots.is_empty() {
            self.first = self.first.max(id.0);
        }
        let Some(slot) = self.index(id) else {
            self.overflow.insert(id, value);
            return;
        };
        if let Some(slot) = self.slots.get_mut(slot) {
            self.occupied += usize::from(slot.is_none());
            *slot = Some(value);
            return;
        }
        if slot - self.slots.len() > limits::UNSTORED_SLOTS {
            self.move_to_overflow(0);
            self.first = id.0;
        } else {
            self.slots.resize_with(slot, || None);
        }
        self.slots.push_back(Some(value));
        self.occupied += 1;
        self.move_to_overflow(limits::UNSTORED_SLOTS.max(self.occupied * limits::UNSTORED_SLOTS_PER_MESSAGE));
    }

    /// Returns the value of an id.
    #[inline]
    pub fn get(&self, id: MessageId) -> Option<&T> {
        match self.index(id) {
            Some(slot) => self.slots.get(slot)?.as_ref(),
            None => self.overflow.get(&id),
        }
    }

    /// Returns the value of an id for changes.
    #[inline]
    pub fn get_mut(&mut self, id: MessageId) -> Option<&mut T> {
        match self.index(id) {
            Some(slot) => self.slots.get_mut(slot)?.as_mut(),
            None => self.overflow.get_mut(&id),
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
        let Some(slot) = self.index(id) else { return self.overflow.remove(&id) };
        let value = self.slots.get_mut(slot)?.take()?;
        self.occupied -= 1;
        while self.slots.pop_front_if(|slot| slot.is_none()).is_some() {
            self.first += 1;
        }
        if self.slots.is_empty() {
            // Frees the memory of a burst.
            self.slots.shrink_to(limits::UNSTORED_SLOTS);
        }
        Some(value)
    }

    /// Returns all values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (MessageId, &T)> {
        let slots = (self.first..).zip(&self.slots).filter_map(|(id, slot)| Some((MessageId(id), slot.as_ref()?)));
        slots.chain(self.overflow.iter().map(|(id, value)| (*id, value)))
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.occupied + self.overflow.len()
    }

    /// Returns the slot of an id; `None` for ids before the row.
    #[inline]
    fn index(&self, id: MessageId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first)?).ok()
    }

    /// Moves values from the start of the row to the hash map until the row has at most this number of slots.
    fn move_to_overflow(&mut self, most: usize) {
        while self.slots.len() > most || self.slots.front().is_some_and(Option::is_none) {
            let Some(slot) = self.slots.pop_front() else { break };
            if let Some(value) = slot {
                self.overflow.insert(MessageId(self.first), value);
                self.occupied -= 1;
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
        let most = limits::UNSTORED_SLOTS as u64;
        let back = prop_oneof![8 => 0..40_u64, 1 => 0..4 * most];
        prop::collection::vec(
            prop_oneof![
                12 => Just(Step::Insert(1)),
                2 => (1..40_u64).prop_map(Step::Insert),
                1 => (1..3 * most).prop_map(Step::Insert),
                10 => back.clone().prop_map(Step::Remove),
                1 => back.prop_map(Step::Reinsert),
            ],
            0..400,
        )
    }

    proptest! {
        #[test]
        fn the_table_has_the_values_of_a_plain_map(start in prop_oneof![Just(0), 1..1_000_000_u64], steps in steps()) {
            let (mut table, mut model) = (IdTable::default(), BTreeMap::new());
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
        let mut table = IdTable::default();
        for id in 0..1_000_000_u64 {
            table.insert(MessageId(id), id);
            if !id.is_multiple_of(100_000) {
                assert_eq!(table.remove(MessageId(id)), Some(id));
            }
            assert!(table.slots.len() <= limits::UNSTORED_SLOTS + 1, "{}", table.slots.len());
        }
        assert!(table.slots.capacity() <= 4 * limits::UNSTORED_SLOTS, "{}", table.slots.capacity());
        assert!((0..10).all(|stayed| table.get(MessageId(stayed * 100_000)) == Some(&(stayed * 100_000))));
        assert_eq!(table.len(), 10);
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut table = IdTable::default();
        (0..100_000).for_each(|id| table.insert(MessageId(id), id));
        (0..100_000).for_each(|id| assert_eq!(table.remove(MessageId(id)), Some(id)));
        assert!(table.slots.capacity() <= 2 * limits::UNSTORED_SLOTS && table.overflow.is_empty());
    }
}
