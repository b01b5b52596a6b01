//! Which publication ids have been seen lately, so that a repeated publication is delivered to nobody.
//!
//! An id is held as 128 bits of hash, keyed at random: some 35 bytes in all, where the texts would be 200. Two of a few hundred
//! thousand ids are taken for one another once in 10²⁷ windows. Those of accepted publications lie in a row by age, and the table of hashes holds no more
//! than their places there, so that it stays within a processor's cache. Must never hold more than [`limits::DEDUP_IDS`] of them: beyond, the oldest are
//! forgotten before their window is over. One that is pending is never forgotten: its sender has no answer yet, and will ask again.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::limits;
use crate::message::{ChannelName, PublicationId, Timestamp};

/// An id and its channel. In two halves, because a `u128` would take the space of its alignment with it.
pub(super) type Key = [u64; 2];

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its publication is not safe yet; the key of the pending publication.
    Pending(usize),
    /// Its publication was accepted.
    Accepted,
}

/// The ids of accepted publications, by age.
#[derive(Debug, Default)]
struct Row {
    /// The number of the oldest, from which the others count up. It comes round, which is harmless: there are never so many.
    first: u32,
    ids: VecDeque<(Timestamp, Key)>,
}

impl Row {
    /// The id with this number, which is in the table.
    fn get(&self, number: u32) -> &(Timestamp, Key) {
        // invariant: a number is taken out of the table before its id goes from the row.
        &self.ids[number.wrapping_sub(self.first) as usize]
    }
}

/// The ids of the last `dedup_window`.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    /// Those whose publications are not safe, each with the key of the pending publication: as many as there are of these.
    pending: HashMap<Key, usize, RandomState>,
    row: Row,
    /// Numbers in the row, by the first half of their keys. Of an id that was accepted again when its window was over, the newer one.
    numbers: HashTable<u32>,
    /// The random keys of the two halves of a hash.
    hashers: (foldhash::quality::RandomState, foldhash::quality::RandomState),
}

impl Dedup {
    /// By what an id is known.
    pub fn key(&self, channel: &ChannelName, id: &PublicationId) -> Key {
        [self.hashers.0.hash_one((channel, id)), self.hashers.1.hash_one((channel, id))]
    }

    /// What is known of this id now.
    pub fn get(&mut self, now: Timestamp, window: Duration, key: Key) -> Option<Seen> {
        if let Some(pending) = self.pending.get(&key) {
            return Some(Seen::Pending(*pending));
        }
        while self.row.ids.front().is_some_and(|(at, _)| now.since(*at) >= window) {
            self.forget_oldest();
        }
        let number = self.numbers.find(key[0], |number| self.row.get(*number).1 == key)?;
        // What is restored need not be in order.
        (now.since(self.row.get(*number).0) < window).then_some(Seen::Accepted)
    }

    /// Remembers an id whose publication is not safe yet.
    pub fn pend(&mut self, key: Key, pending: usize) {
        self.pending.insert(key, pending);
    }

    /// Its publication is safe, now or from the start.
    pub fn accept(&mut self, now: Timestamp, key: Key) {
        self.pending.remove(&key);
        // Before it is added, so that neither grows beyond what the bound needs.
        while self.row.ids.len() >= limits::DEDUP_IDS {
            self.forget_oldest();
        }
        let row = &self.row;
        let number = row.first.wrapping_add(row.ids.len() as u32);
        match self.numbers.entry(key[0], |other| row.get(*other).1 == key, |other| row.get(*other).1[0]) {
            Entry::Occupied(mut older) => *older.get_mut() = number,
            Entry::Vacant(free) => drop(free.insert(number)),
        }
        self.row.ids.push_back((now, key));
    }

    /// Its publication was refused: the sender may try again with the same id.
    pub fn refuse(&mut self, key: Key) {
        self.pending.remove(&key);
    }

    /// How many are remembered of those accepted.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.row.ids.len()
    }

    /// How many are pending.
    #[cfg(test)]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.row.ids.pop_front() else { return };
        let oldest = self.row.first;
        self.row.first = oldest.wrapping_add(1);
        if let Ok(entry) = self.numbers.find_entry(key[0], |number| *number == oldest) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(10);

    fn known(dedup: &mut Dedup, now: u64, key: u64) -> Option<Seen> {
        dedup.get(Timestamp(now), WINDOW, [key, !key])
    }

    fn accept(dedup: &mut Dedup, now: u64, key: u64) {
        dedup.accept(Timestamp(now), [key, !key]);
    }

    #[test]
    fn an_id_is_known_within_the_window_and_free_afterwards() {
        let mut dedup = Dedup::default();
        accept(&mut dedup, 5, 1);
        assert_eq!(known(&mut dedup, 14, 1), Some(Seen::Accepted));
        assert_eq!(known(&mut dedup, 15, 1), None);
        assert_eq!((dedup.len(), dedup.numbers.len()), (0, 0));
    }

    #[test]
    fn a_pending_id_is_known_until_its_fate_is_whatever_comes_meanwhile() {
        let mut dedup = Dedup::default();
        dedup.pend([1, !1], 7);
        for key in 2..limits::DEDUP_IDS as u64 * 2 {
            accept(&mut dedup, 0, key);
        }
        assert_eq!(known(&mut dedup, 1_000_000, 1), Some(Seen::Pending(7)));
        accept(&mut dedup, 1_000_000, 1);
        assert_eq!(known(&mut dedup, 1_000_009, 1), Some(Seen::Accepted));
        assert!(dedup.pending.is_empty());
    }

    #[test]
    fn a_refused_id_is_free_at_once() {
        let mut dedup = Dedup::default();
        dedup.pend([1, !1], 7);
        dedup.refuse([1, !1]);
        assert_eq!(known(&mut dedup, 0, 1), None);
        assert_eq!((dedup.len(), dedup.pending.len()), (0, 0));
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_forgotten() {
        let mut dedup = Dedup::default();
        for key in 0..=limits::DEDUP_IDS as u64 {
            accept(&mut dedup, 0, key);
        }
        assert_eq!((dedup.len(), dedup.numbers.len()), (limits::DEDUP_IDS, limits::DEDUP_IDS));
        assert_eq!(known(&mut dedup, 0, 0), None);
        for key in 1..=limits::DEDUP_IDS as u64 {
            assert_eq!(known(&mut dedup, 0, key), Some(Seen::Accepted));
        }
    }

    #[test]
    fn whatever_happens_it_knows_what_a_plain_map_knows() {
        let mut dedup = Dedup { row: Row { first: u32::MAX - 50, ..Row::default() }, ..Dedup::default() };
        // By key: since when it is accepted, or by what it is pending. A number behind another, so that a failure comes again.
        let mut model = std::collections::BTreeMap::<u64, Result<u64, usize>>::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, choice, now) = ((random >> 33) % 20, (random >> 40) % 4, step / 2);
            let expected =
                model.get(&key).copied().filter(|known| known.is_err() || known.is_ok_and(|at| now - at < 10));
            let seen = expected.map(|known| known.map_or_else(Seen::Pending, |_| Seen::Accepted));
            assert_eq!(known(&mut dedup, now, key), seen, "step {step}");
            match (expected, choice) {
                (None, 0) | (Some(Err(_)), 1) => {
                    accept(&mut dedup, now, key);
                    model.insert(key, Ok(now));
                }
                (None, 1..) => {
                    dedup.pend([key, !key], step as usize);
                    model.insert(key, Err(step as usize));
                }
                (Some(Err(_)), 2) => {
                    dedup.refuse([key, !key]);
                    model.remove(&key);
                }
                _ => {}
            }
        }
        assert!(dedup.row.first < u32::MAX / 2, "the numbers have come round");
    }
}
