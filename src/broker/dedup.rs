//! Which publication ids have been seen lately, so that a repeated publication is delivered to nobody.
//!
//! An id is held as 128 bits of hash, keyed at random: some 50 bytes in all, where the texts would be 200. Two of a few hundred
//! thousand ids are taken for one another once in 10²⁷ windows. What is known of an id lies in a row by age, and the table of hashes holds no more
//! than its place there: so the table stays within a processor's cache, and what has a place is found without a look into it.
//! Must never hold more than [`limits::DEDUP_IDS`]: beyond, the oldest are forgotten before their window is over.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::limits;
use crate::message::{ChannelName, PublicationId, Timestamp};

/// An id and its channel. In two halves, because a `u128` would take the space of its alignment with it.
pub(super) type Key = [u64; 2];

/// Where an id is in the row: a number that is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// What the table holds of it. Those in the row at the same time differ in it.
    fn short(self) -> u32 {
        self.0 as u32
    }
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its publication is not safe yet; the key of the pending publication.
    Pending(usize),
    /// Its publication was accepted.
    Accepted,
}

#[derive(Debug)]
struct Known {
    key: Key,
    at: Timestamp,
    /// None: it is not in the table (any more).
    seen: Option<Seen>,
}

/// The ids, by age.
#[derive(Debug, Default)]
struct Row {
    /// The place of the oldest.
    first: u64,
    known: VecDeque<Known>,
}

impl Row {
    fn next(&self) -> Place {
        Place(self.first + self.known.len() as u64)
    }

    fn get_mut(&mut self, place: Place) -> Option<&mut Known> {
        self.known.get_mut(usize::try_from(place.0.checked_sub(self.first)?).ok()?)
    }

    /// The one that the table means.
    fn short(&self, short: u32) -> &Known {
        // invariant: a place is taken out of the table before it goes from the row.
        &self.known[short.wrapping_sub(self.first as u32) as usize]
    }
}

/// The ids of the last `dedup_window`.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    row: Row,
    /// Places by the first half of their keys.
    places: HashTable<u32>,
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
        self.forget_old(now, window);
        let short = self.places.find(key[0], |place| self.row.short(*place).key == key)?;
        let known = self.row.short(*short);
        // One that is still pending stays known: its sender has no answer yet. It keeps those behind it from being forgotten.
        known.seen.filter(|seen| matches!(seen, Seen::Pending(_)) || now.since(known.at) < window)
    }

    /// Remembers an id, and says where.
    pub fn insert(&mut self, now: Timestamp, key: Key, seen: Seen) -> Place {
        // Before it is added, so that neither grows beyond what the bound needs.
        while self.row.known.len() >= limits::DEDUP_IDS {
            self.forget_oldest();
        }
        let (place, row) = (self.row.next(), &self.row);
        match self.places.entry(key[0], |other| row.short(*other).key == key, |other| row.short(*other).key[0]) {
            Entry::Occupied(mut other) => {
                let before = std::mem::replace(other.get_mut(), place.short());
                let index = before.wrapping_sub(self.row.first as u32) as usize;
                self.row.known[index].seen = None;
            }
            Entry::Vacant(free) => {
                free.insert(place.short());
            }
        }
        self.row.known.push_back(Known { key, at: now, seen: Some(seen) });
        place
    }

    /// Its publication is safe.
    pub fn accepted(&mut self, place: Place) {
        if let Some(seen) = self.row.get_mut(place).and_then(|known| known.seen.as_mut()) {
            *seen = Seen::Accepted;
        }
    }

    /// Its publication was refused: the sender may try again with the same id.
    pub fn refused(&mut self, place: Place) {
        let Some(known) = self.row.get_mut(place) else { return };
        if known.seen.take().is_some() {
            let key = known.key;
            self.remove(key, place);
        }
        // So that one who tries again and again pushes out nobody: what is refused is among the newest.
        while self.row.known.back().is_some_and(|known| known.seen.is_none()) {
            self.row.known.pop_back();
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.row.known.len()
    }

    fn forget_old(&mut self, now: Timestamp, window: Duration) {
        let old = |known: &Known| match known.seen {
            Some(Seen::Pending(_)) => false,
            Some(Seen::Accepted) => now.since(known.at) >= window,
            None => true,
        };
        while self.row.known.front().is_some_and(old) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(known) = self.row.known.pop_front() else { return };
        let place = Place(self.row.first);
        self.row.first += 1;
        if known.seen.is_some() {
            self.remove(known.key, place);
        }
    }

    fn remove(&mut self, key: Key, place: Place) {
        if let Ok(entry) = self.places.find_entry(key[0], |other| *other == place.short()) {
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

    fn insert(dedup: &mut Dedup, now: u64, key: u64, seen: Seen) -> Place {
        dedup.insert(Timestamp(now), [key, !key], seen)
    }

    #[test]
    fn an_id_is_known_within_the_window_and_free_afterwards() {
        let mut dedup = Dedup::default();
        insert(&mut dedup, 5, 1, Seen::Accepted);
        assert_eq!(known(&mut dedup, 14, 1), Some(Seen::Accepted));
        assert_eq!(known(&mut dedup, 15, 1), None);
        assert_eq!((dedup.len(), dedup.places.len()), (0, 0));
    }

    #[test]
    fn a_pending_id_stays_known_and_those_behind_it_no_longer_than_the_window() {
        let mut dedup = Dedup::default();
        let place = insert(&mut dedup, 0, 1, Seen::Pending(7));
        insert(&mut dedup, 1, 2, Seen::Accepted);
        assert_eq!(known(&mut dedup, 1_000, 1), Some(Seen::Pending(7)));
        assert_eq!(known(&mut dedup, 1_000, 2), None);
        // The same id once more, in front of which its former place still is.
        insert(&mut dedup, 1_000, 2, Seen::Accepted);
        assert_eq!((known(&mut dedup, 1_009, 2), dedup.places.len()), (Some(Seen::Accepted), 2));
        dedup.accepted(place);
        assert_eq!((known(&mut dedup, 1_009, 1), known(&mut dedup, 1_009, 2)), (None, Some(Seen::Accepted)));
        assert_eq!((dedup.len(), dedup.places.len()), (1, 1));
    }

    #[test]
    fn a_refused_id_is_free_at_once_and_pushes_out_nobody() {
        let mut dedup = Dedup::default();
        let first = insert(&mut dedup, 0, 0, Seen::Pending(0));
        for attempt in 0..limits::DEDUP_IDS as u64 * 2 {
            let place = insert(&mut dedup, 0, 1, Seen::Pending(1));
            assert_eq!(known(&mut dedup, 0, 1), Some(Seen::Pending(1)), "attempt {attempt}");
            dedup.refused(place);
            assert_eq!(known(&mut dedup, 0, 1), None, "attempt {attempt}");
        }
        dedup.accepted(first);
        assert_eq!((known(&mut dedup, 0, 0), dedup.len()), (Some(Seen::Accepted), 1));
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_bound_and_their_places_mean_nobody_else() {
        let mut dedup = Dedup::default();
        let oldest = insert(&mut dedup, 0, 0, Seen::Pending(0));
        for key in 1..=limits::DEDUP_IDS as u64 {
            insert(&mut dedup, 0, key, Seen::Pending(0));
        }
        assert_eq!((dedup.len(), dedup.places.len()), (limits::DEDUP_IDS, limits::DEDUP_IDS));
        assert_eq!(known(&mut dedup, 0, 0), None);
        dedup.accepted(oldest);
        dedup.refused(oldest);
        for key in 1..=limits::DEDUP_IDS as u64 {
            assert_eq!(known(&mut dedup, 0, key), Some(Seen::Pending(0)));
        }
    }

    #[test]
    fn whatever_happens_it_knows_what_a_plain_map_knows() {
        let mut dedup = Dedup { row: Row { first: u64::from(u32::MAX) - 50, ..Row::default() }, ..Dedup::default() };
        // By key: when, what, where. A number behind another, so that a failure comes again.
        let mut model = std::collections::BTreeMap::<u64, (u64, Seen, Place)>::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, choice, now) = ((random >> 33) % 20, (random >> 40) % 4, step / 2);
            let expected = model.get(&key).filter(|(at, seen, _)| *seen != Seen::Accepted || now - at < 10);
            assert_eq!(known(&mut dedup, now, key), expected.map(|(_, seen, _)| *seen), "step {step}");
            match expected.copied() {
                None => {
                    let seen = if choice == 0 { Seen::Accepted } else { Seen::Pending(step as usize) };
                    model.insert(key, (now, seen, insert(&mut dedup, now, key, seen)));
                }
                Some((at, Seen::Pending(_), place)) if choice == 1 => {
                    dedup.accepted(place);
                    model.insert(key, (at, Seen::Accepted, place));
                }
                Some((_, Seen::Pending(_), place)) if choice == 2 => {
                    dedup.refused(place);
                    model.remove(&key);
                }
                Some(_) => {}
            }
        }
        assert!(dedup.row.first > u64::from(u32::MAX), "the short places have come round");
    }
}
