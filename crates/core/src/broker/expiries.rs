//! How many of a channel's unsettled messages expire when, so that an expired message counts against no limit, wherever it is.
//!
//! A histogram: it knows moments and numbers, no messages, and so has one size for ten messages and for a million. Its grain is a
//! millisecond while there are few different moments, and grows with them. Must never hold more than [`super::Bounds::expiry_buckets`] buckets.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{MessageId, Timestamp};

/// What a channel knows of its unsettled messages that expire.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// Those that wait in memory, soonest first: they are let go in time.
    pub waiting: BTreeSet<(Timestamp, MessageId)>,
    /// The timer that runs for them.
    pub armed: Option<Timestamp>,
    /// All that were accepted in this run.
    pub new: Expiries,
    /// All that the store held at the start.
    pub old: Expiries,
}

impl Expiring {
    /// How many have expired and are not settled.
    pub fn expired(&mut self, now: Timestamp) -> u64 {
        self.new.expired(now) + self.old.expired(now)
    }

    /// Forgets messages that are gone, nobody knows which, until no more than `most` are left.
    pub fn trim(&mut self, most: u64) {
        self.old.trim(most.saturating_sub(self.new.len()));
        self.new.trim(most);
    }
}

/// The messages of a channel that expire at all.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// Those that had not expired when it was last asked, by the bucket of their moment. No bucket is empty.
    buckets: BTreeMap<u64, u64>,
    /// How many milliseconds one bucket covers, as a power of two.
    grain: u32,
    /// Those that had.
    expired: u64,
}

impl Expiries {
    /// Counts `messages` that expire at this moment, in at most `most` buckets.
    pub fn add(&mut self, at: Timestamp, messages: u64, most: usize) {
        *self.buckets.entry(at.0 >> self.grain).or_default() += messages;
        while self.buckets.len() > most {
            self.grain += 1;
            for (bucket, messages) in std::mem::take(&mut self.buckets) {
                *self.buckets.entry(bucket >> 1).or_default() += messages;
            }
        }
    }

    /// A message that expires at this moment is settled.
    pub fn remove(&mut self, at: Timestamp) {
        let bucket = at.0 >> self.grain;
        // What was counted with a coarser grain stands further to the front.
        let found = self.buckets.range(..=bucket).next_back().map(|(bucket, _)| *bucket);
        match found {
            Some(bucket) => self.take(bucket),
            None if self.expired > 0 => self.expired -= 1,
            None => {
                if let Some((bucket, _)) = self.buckets.first_key_value() {
                    self.take(*bucket);
                }
            }
        }
    }

    fn take(&mut self, bucket: u64) {
        if let Some(messages) = self.buckets.get_mut(&bucket) {
            *messages -= 1;
            if *messages == 0 {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// A message that has expired, nobody knows when, is settled.
    pub fn remove_expired(&mut self, now: Timestamp) {
        if self.expired(now) > 0 {
            self.expired -= 1;
        }
    }

    /// How many have expired. With a grain above a millisecond, those count that expire within the same bucket as `now`.
    pub fn expired(&mut self, now: Timestamp) -> u64 {
        let bucket = now.0 >> self.grain;
        while let Some(first) = self.buckets.first_entry().filter(|first| *first.key() <= bucket) {
            self.expired += first.remove();
        }
        self.expired
    }

    /// Every moment comes so much sooner.
    pub fn advance(&mut self, millis: u64) {
        for (bucket, messages) in std::mem::take(&mut self.buckets) {
            let at = (bucket << self.grain).saturating_sub(millis);
            *self.buckets.entry(at >> self.grain).or_default() += messages;
        }
    }

    /// How many messages are counted.
    pub fn len(&self) -> u64 {
        self.expired + self.buckets.values().sum::<u64>()
    }

    /// Forgets messages that are gone, nobody knows which, until no more than `most` are left.
    pub fn trim(&mut self, most: u64) {
        let mut surplus = self.len().saturating_sub(most);
        let gone = surplus.min(self.expired);
        self.expired -= gone;
        surplus -= gone;
        while surplus > 0
            && let Some(mut first) = self.buckets.first_entry()
        {
            let gone = surplus.min(*first.get());
            surplus -= gone;
            *first.get_mut() -= gone;
            if *first.get() == 0 {
                first.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets in these tests.
    const MOST: usize = 40;

    #[test]
    fn few_moments_are_counted_to_the_millisecond() {
        let mut expiries = Expiries::default();
        expiries.add(Timestamp(10), 2, MOST);
        expiries.add(Timestamp(11), 1, MOST);
        assert_eq!([9, 10, 11].map(|now| expiries.expired(Timestamp(now))), [0, 2, 3]);
        expiries.remove(Timestamp(10));
        expiries.remove_expired(Timestamp(11));
        assert_eq!((expiries.expired(Timestamp(11)), expiries.len()), (1, 1));
    }

    #[test]
    fn however_many_moments_there_are_the_counts_stay_right() {
        let mut expiries = Expiries::default();
        let moments: Vec<u64> = (0..50_000).map(|number| 1_000_000 + number * 7).collect();
        for at in &moments {
            expiries.add(Timestamp(*at), 1, MOST);
            assert!(expiries.buckets.len() <= MOST);
        }
        let grain = 1 << expiries.grain;
        for now in (1_000_000..1_350_000).step_by(1_013) {
            let exact = moments.iter().filter(|at| **at <= now).count() as u64;
            let early = moments.iter().filter(|at| **at <= now + grain).count() as u64;
            let counted = expiries.expired(Timestamp(now));
            assert!((exact..=early).contains(&counted), "{counted} of {exact} to {early} at {now}");
        }
        for at in moments {
            expiries.remove(Timestamp(at));
        }
        assert_eq!(expiries.len(), 0);
    }

    #[test]
    fn what_is_gone_without_a_name_was_among_the_oldest() {
        let mut expiries = Expiries::default();
        (1..=5).for_each(|at| expiries.add(Timestamp(at), 2, MOST));
        assert_eq!(expiries.expired(Timestamp(1)), 2);
        expiries.trim(5);
        assert_eq!((expiries.len(), expiries.expired(Timestamp(3))), (5, 1));
        expiries.advance(4);
        assert_eq!(expiries.expired(Timestamp(1)), 5);
        expiries.trim(0);
        assert_eq!(expiries.len(), 0);
    }
}
