//! A table of what is known of messages for a short time, by their ids.
//!
//! Ids are given one after the other, and nearly all that is noted under one is gone soon after. So an id is a place in a row, found
//! without hashing, and neighbours lie together in the processor's caches. What stays while thousands come and go moves over to a common table: the row is
//! never much longer than what is in it.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::message::MessageId;

/// See the module.
#[derive(Debug)]
pub(super) struct Recent<T> {
    /// One place for each id from `first` on. The first place is taken.
    row: VecDeque<Option<T>>,
    /// Never less than it was.
    first: u64,
    /// How many places are taken.
    taken: usize,
    /// What stayed longer.
    old: HashMap<MessageId, T, RandomState>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { row: VecDeque::new(), first: 0, taken: 0, old: HashMap::default() }
    }
}

impl<T> Recent<T> {
    /// Notes something, in place of what was.
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

    /// What is noted, if anything is.
    #[inline]
    pub fn get(&self, id: MessageId) -> Option<&T> {
        match self.index(id) {
            Some(place) => self.row.get(place)?.as_ref(),
            None => self.old.get(&id),
        }
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, id: MessageId) -> Option<&mut T> {
        match self.index(id) {
            Some(place) => self.row.get_mut(place)?.as_mut(),
            None => self.old.get_mut(&id),
        }
    }

    /// Whether anything is noted.
    #[inline]
    pub fn contains(&self, id: MessageId) -> bool {
        self.get(id).is_some()
    }

    /// Takes out what is noted, if anything is.
    #[inline]
    pub fn remove(&mut self, id: MessageId) -> Option<T> {
        let Some(place) = self.index(id) else { return self.old.remove(&id) };
        let value = self.row.get_mut(place)?.take()?;
        self.taken -= 1;
        while self.row.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        if self.row.is_empty() {
            // One burst must not cost memory for ever.
            self.row.shrink_to(limits::RECENT_PLACES);
        }
        Some(value)
    }

    /// All that is noted, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (MessageId, &T)> {
        let row = (self.first..).zip(&self.row).filter_map(|(id, place)| Some((MessageId(id), place.as_ref()?)));
        row.chain(self.old.iter().map(|(id, value)| (*id, value)))
    }

    /// How much is noted.
    pub fn len(&self) -> usize {
        self.taken + self.old.len()
    }

    /// Where in the row an id is, or would be; `None` before it, where only the old ones are.
    #[inline]
    fn index(&self, id: MessageId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first)?).ok()
    }

    /// Moves the first places over to the old ones, until the row has at most so many.
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
        /// So many ids on.
        Insert(u64),
        /// The one that was noted so many ids ago.
        Remove(u64),
        Again(u64),
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
                1 => back.prop_map(Step::Again),
            ],
            0..400,
        )
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(start in prop_oneof![Just(0), 1..1_000_000_u64], steps in steps()) {
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
                    Step::Again(back) => {
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
    fn what_stays_does_not_keep_the_places_of_what_has_gone() {
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
