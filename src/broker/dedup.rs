//! Which publication ids have been seen lately, so that a repeated publication is delivered to nobody.
//!
//! An id is held as 128 bits of hash, keyed at random: some 70 bytes in all, where the texts would be 200. Two of a few hundred
//! thousand ids are taken for one another once in 10²⁷ windows. Must never hold more than [`limits::DEDUP_IDS`]: beyond, the
//! oldest are forgotten before their window is over.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::limits;
use crate::message::{ChannelName, PublicationId, Timestamp};

/// In two halves, because a `u128` would take the space of its alignment with it.
type Key = [u64; 2];

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its publication is not safe yet; the key of the pending publication.
    Pending(usize),
    /// Its publication was accepted.
    Accepted,
}

/// The ids of the last `dedup_window`.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    seen: HashMap<Key, Seen, RandomState>,
    /// In the order in which they were seen; may name ids that were forgotten since (a refused publication).
    order: VecDeque<(Timestamp, Key)>,
    /// The random keys of the two halves of a hash.
    hashers: (foldhash::quality::RandomState, foldhash::quality::RandomState),
}

impl Dedup {
    fn key(&self, channel: &ChannelName, id: &PublicationId) -> Key {
        [self.hashers.0.hash_one((channel, id)), self.hashers.1.hash_one((channel, id))]
    }

    /// What is known of this id now.
    pub fn get(&mut self, now: Timestamp, window: Duration, channel: &ChannelName, id: &PublicationId) -> Option<Seen> {
        self.forget_old(now, window);
        self.seen.get(&self.key(channel, id)).copied()
    }

    /// Remembers an id.
    pub fn insert(&mut self, now: Timestamp, channel: &ChannelName, id: &PublicationId, seen: Seen) {
        let key = self.key(channel, id);
        if self.seen.insert(key, seen).is_some() {
            return;
        }
        // Before it is added, so that neither grows beyond what the bound needs.
        while self.order.len() >= limits::DEDUP_IDS
            && let Some((_, key)) = self.order.pop_front()
        {
            self.seen.remove(&key);
        }
        self.order.push_back((now, key));
    }

    /// Its publication is safe.
    pub fn accepted(&mut self, channel: &ChannelName, id: &PublicationId) {
        let key = self.key(channel, id);
        if let Some(seen) = self.seen.get_mut(&key) {
            *seen = Seen::Accepted;
        }
    }

    /// Its publication was refused: the sender may try again with the same id.
    pub fn refused(&mut self, channel: &ChannelName, id: &PublicationId) {
        let key = self.key(channel, id);
        if self.seen.remove(&key).is_some() {
            // Rare, and the refused id is among the newest.
            if let Some(index) = self.order.iter().rposition(|(_, other)| *other == key) {
                self.order.remove(index);
            }
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    fn forget_old(&mut self, now: Timestamp, window: Duration) {
        for _ in 0..self.order.len() {
            if self.order.front().is_none_or(|(at, _)| now.since(*at) < window) {
                break;
            }
            let Some((_, key)) = self.order.pop_front() else { break };
            // One that is still pending stays known: its sender has no answer yet.
            if let Some(Seen::Pending(_)) = self.seen.get(&key) {
                self.order.push_back((now, key));
            } else {
                self.seen.remove(&key);
            }
        }
    }
}
