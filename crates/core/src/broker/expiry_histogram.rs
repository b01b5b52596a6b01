//! Counts when a channel's unsettled messages expire, so that an expired message counts against no limit, in whatever state it is.
//!
//! A histogram: it contains times and numbers and no messages, so its size does not depend on the number of messages. A bucket covers one
//! millisecond while there are few different times, and more when there are many. Must never have more than
//! [`super::Bounds::expiry_buckets`] buckets.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{MessageId, Timestamp};

/// The unsettled messages of a channel that expire.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex {
    /// The waiting and parked messages by their time of expiry, soonest first. They expire at that time.
    pub waiting: BTreeSet<(Timestamp, MessageId)>,
    /// The time of the timer that runs for `waiting`.
    pub armed: Option<Timestamp>,
    /// All messages that were accepted since the start.
    pub accepted: ExpiryHistogram,
    /// All messages that the store held at the start.
    pub restored: ExpiryHistogram,
}

impl ExpiryIndex {
    /// Returns the number of messages that have expired and are not settled.
    pub fn expired(&mut self, now: Timestamp) -> u64 {
        self.accepted.expired(now) + self.restored.expired(now)
    }

    /// Removes messages from the counts until at most `most` are left, because unknown ones are gone.
    pub fn trim(&mut self, most: u64) {
        self.restored.trim(most.saturating_sub(self.accepted.len()));
        self.accepted.trim(most);
    }
}

/// A histogram of expiry times.
#[derive(Debug, Default)]
pub(super) struct ExpiryHistogram {
    /// Messages that had not expired at the last query, by the bucket of their time. No bucket is empty.
    buckets: BTreeMap<u64, u64>,
    /// The milliseconds that one bucket covers, as a power of two.
    grain: u32,
    /// Messages that had expired at the last query.
    expired: u64,
}

impl ExpiryHistogram {
    /// Adds `messages` that expire at this time. Merges buckets until there are at most `most`.
    pub fn add(&mut self, at: Timestamp, messages: u64, most: usize) {
        *self.buckets.entry(at.0 >> self.grain).or_default() += messages;
        while self.buckets.len() > most {
            self.grain += 1;
            for (bucket, messages) in std::mem::take(&mut self.buckets) {
                *self.buckets.entry(bucket >> 1).or_default() += messages;
            }
        }
    }

    /// Removes a message that expires at this time.
    pub fn remove(&mut self, at: Timestamp) {
        let bucket = at.0 >> self.grain;
        // Merging buckets moves messages to earlier times.
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

    /// Removes a message that has expired at an unknown time.
    pub fn remove_expired(&mut self, now: Timestamp) {
        if self.expired(now) > 0 {
            self.expired -= 1;
        }
    }

    /// Returns the number of expired messages. If a bucket covers more than a millisecond, messages in the same bucket as `now` count as
    /// expired.
    pub fn expired(&mut self, now: Timestamp) -> u64 {
        let bucket = now.0 >> self.grain;
        while let Some(first) = self.buckets.first_entry().filter(|first| *first.key() <= bucket) {
            self.expired += first.remove();
        }
        self.expired
    }

    /// Moves every time earlier by this number of milliseconds.
    pub fn advance(&mut self, millis: u64) {
        for (bucket, messages) in std::mem::take(&mut self.buckets) {
            let at = (bucket << self.grain).saturating_sub(millis);
            *self.buckets.entry(at >> self.grain).or_default() += messages;
        }
    }

    /// Returns the number of messages.
    pub fn len(&self) -> u64 {
        self.expired + self.buckets.values().sum::<u64>()
    }

    /// Removes messages, earliest first, until at most `most` are left.
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

    /// The most buckets in these tests.
    const MOST: usize = 40;

    #[test]
    fn few_expiry_times_are_exact_to_the_millisecond() {
        let mut expiries = ExpiryHistogram::default();
        expiries.add(Timestamp(10), 2, MOST);
        expiries.add(Timestamp(11), 1, MOST);
        assert_eq!([9, 10, 11].map(|now| expiries.expired(Timestamp(now))), [0, 2, 3]);
        expiries.remove(Timestamp(10));
        expiries.remove_expired(Timestamp(11));
        assert_eq!((expiries.expired(Timestamp(11)), expiries.len()), (1, 1));
    }

    #[test]
    fn counts_stay_right_with_many_expiry_times() {
        let mut expiries = ExpiryHistogram::default();
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
    fn unknown_removed_messages_are_taken_from_the_earliest() {
        let mut expiries = ExpiryHistogram::default();
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
