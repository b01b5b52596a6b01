//! Computes when a login may be verified. Repeated failures delay further logins; they never lock a user out.
//!
//! Failures are counted for each pair of address and user, and with a higher limit for each address. Verifications whose result is not
//! known yet count as failures, so that concurrent guesses are not faster than consecutive ones.
//!
//! This module must never read a clock: the time is an argument. Keys are digests, so that the size of a table does not depend on the
//! length of user names.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::limits;

/// The keyed digest of an address, or of an address and a user.
pub(super) type Key = u64;

/// The failures of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failures {
    count: u32,
    last: Duration,
}

/// The failures of a bounded number of keys. A new key replaces the key with the fewest failures, the oldest of those.
#[derive(Debug)]
pub(super) struct FailureTable {
    entries: HashMap<Key, Failures>,
    by_count: BTreeSet<(u32, Duration, Key)>,
    by_age: BTreeSet<(Duration, Key)>,
    capacity: usize,
}

/// The maximum count of failures of a key. No delay grows beyond this count.
const COUNT_MAX: u32 = 64;

impl FailureTable {
    fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_count: BTreeSet::new(), by_age: BTreeSet::new(), capacity }
    }

    fn failures(&self, key: Key, now: Duration) -> Failures {
        let found = self.entries.get(&key).copied().unwrap_or_default();
        if now.saturating_sub(found.last) >= limits::FAILURE_MEMORY { Failures::default() } else { found }
    }

    fn fail(&mut self, key: Key, now: Duration) {
        let count = (self.failures(key, now).count + 1).min(COUNT_MAX);
        self.forget(key);
        while let Some((last, oldest)) = self.by_age.first().copied() {
            if now.saturating_sub(last) < limits::FAILURE_MEMORY {
                break;
            }
            self.forget(oldest);
        }
        if self.entries.len() >= self.capacity
            && let Some((_, _, least)) = self.by_count.first().copied()
        {
            self.forget(least);
        }
        self.entries.insert(key, Failures { count, last: now });
        self.by_count.insert((count, now, key));
        self.by_age.insert((now, key));
    }

    fn forget(&mut self, key: Key) {
        if let Some(Failures { count, last }) = self.entries.remove(&key) {
            self.by_count.remove(&(count, last, key));
            self.by_age.remove(&(last, key));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!((self.by_count.len(), self.by_age.len()), (self.entries.len(), self.entries.len()));
        self.entries.len()
    }
}

/// When a verification may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Now.
    Now,
    /// At this time, unless something changes.
    At(Duration),
    /// After a running verification, because its result decides.
    AfterRunning,
}

/// Counts the failures of pairs of address and user, and of addresses. Times are measured from any fixed moment.
#[derive(Debug)]
pub(super) struct Throttle {
    pairs: FailureTable,
    addresses: FailureTable,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self::with_capacity(limits::FAILURE_ENTRIES)
    }

    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { pairs: FailureTable::new(capacity), addresses: FailureTable::new(capacity) }
    }

    /// Returns when the next login of this pair may be verified. `running` is the number of verifications of the pair that are running.
    pub(super) fn start_of_pair(&self, pair: Key, running: u32, now: Duration) -> Start {
        let Failures { count, last } = self.pairs.failures(pair, now);
        start(count, running, limits::FREE_FAILURES, now, last, || delay(count.saturating_sub(limits::FREE_FAILURES)))
    }

    /// Returns when the next login of this address may be verified. `running` is the number of running verifications of the address.
    pub(super) fn start_of_address(&self, address: Key, running: u32, now: Duration) -> Start {
        let Failures { count, last } = self.addresses.failures(address, now);
        start(count, running, limits::ADDRESS_FREE_FAILURES, now, last, || limits::ADDRESS_DELAY)
    }

    /// Whether the address has used its free failures.
    pub(super) fn is_slowed(&self, address: Key, now: Duration) -> bool {
        self.addresses.failures(address, now).count >= limits::ADDRESS_FREE_FAILURES
    }

    /// Records a failed login.
    pub(super) fn failed(&mut self, pair: Key, address: Key, now: Duration) {
        self.pairs.fail(pair, now);
        self.addresses.fail(address, now);
    }

    /// Records a successful login: forgets the failures of this pair only.
    pub(super) fn succeeded(&mut self, pair: Key) {
        self.pairs.forget(pair);
    }
}

fn start(count: u32, running: u32, free: u32, now: Duration, last: Duration, delay: impl Fn() -> Duration) -> Start {
    if count + running < free {
        return Start::Now;
    }
    if running > 0 {
        return Start::AfterRunning;
    }
    let from = last + delay();
    if from <= now { Start::Now } else { Start::At(from) }
}

/// The delay after `beyond` failures in excess of the free ones. It doubles with each failure up to [`limits::LOGIN_DELAY_MAX`].
pub(super) fn delay(beyond: u32) -> Duration {
    limits::LOGIN_DELAY.saturating_mul(1 << beyond.min(16)).min(limits::LOGIN_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(1_000);

    #[test]
    fn after_the_free_failures_the_delay_doubles_up_to_its_maximum() {
        let mut throttle = Throttle::new();
        let mut now = T;
        let mut pauses = vec![];
        for _ in 0..10 {
            let begins = match throttle.start_of_pair(1, 0, now) {
                Start::Now => now,
                Start::At(at) => at,
                Start::AfterRunning => panic!("nothing runs"),
            };
            pauses.push((begins - now).as_millis());
            now = begins;
            throttle.failed(1, 9, now);
        }
        assert_eq!(pauses, [0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        assert_eq!(throttle.start_of_pair(2, 0, now), Start::Now, "another pair is not slowed");
    }

    #[test]
    fn running_verifications_count_as_failures() {
        let mut throttle = Throttle::new();
        assert_eq!(throttle.start_of_pair(1, 2, T), Start::Now);
        assert_eq!(throttle.start_of_pair(1, 3, T), Start::AfterRunning);
        throttle.failed(1, 9, T);
        assert_eq!(throttle.start_of_pair(1, 1, T), Start::Now);
        assert_eq!(throttle.start_of_pair(1, 2, T), Start::AfterRunning);
    }

    #[test]
    fn an_address_is_slowed_after_its_own_limit() {
        let mut throttle = Throttle::new();
        for user in 0..u64::from(limits::ADDRESS_FREE_FAILURES) {
            assert_eq!(throttle.start_of_address(9, 0, T), Start::Now);
            throttle.failed(user, 9, T);
        }
        assert!(throttle.is_slowed(9, T) && !throttle.is_slowed(8, T));
        assert_eq!(throttle.start_of_address(9, 0, T), Start::At(T + limits::ADDRESS_DELAY));
        assert_eq!(throttle.start_of_address(9, 1, T), Start::AfterRunning);
        assert_eq!(throttle.start_of_address(8, 0, T), Start::Now);
    }

    #[test]
    fn a_success_clears_the_failures_of_its_pair_and_a_pause_clears_all() {
        let mut throttle = Throttle::new();
        for _ in 0..40 {
            throttle.failed(1, 9, T);
            throttle.failed(2, 9, T);
        }
        throttle.succeeded(1);
        assert_eq!(throttle.start_of_pair(1, 0, T), Start::Now);
        assert!(matches!(throttle.start_of_pair(2, 0, T), Start::At(_)), "another user's failures are forgotten");
        assert!(throttle.is_slowed(9, T), "the address's failures are forgotten");
        let later = T + limits::FAILURE_MEMORY;
        assert_eq!(
            (throttle.start_of_pair(2, 0, later), throttle.start_of_address(9, 0, later)),
            (Start::Now, Start::Now)
        );
        throttle.failed(3, 8, later);
        assert_eq!((throttle.pairs.len(), throttle.addresses.len()), (1, 1));
    }

    #[test]
    fn a_flood_displaces_no_entry_with_more_failures() {
        let mut throttle = Throttle::with_capacity(100);
        for _ in 0..20 {
            throttle.failed(0, 0, T);
        }
        for flood in 1..100_000_u64 {
            let now = T + Duration::from_millis(flood / 1_000);
            throttle.failed(flood, flood, now);
            // A third of the keys fails twice.
            if flood % 3 == 0 {
                throttle.failed(flood, flood, now);
            }
            assert!(throttle.pairs.entries.len() <= 100);
        }
        assert_eq!(throttle.pairs.len(), 100);
        assert!(
            matches!(throttle.start_of_pair(0, 0, T + Duration::from_millis(200)), Start::At(_)),
            "the entry was displaced"
        );
        // Expired entries are removed, however many failures they have.
        let later = T + limits::FAILURE_MEMORY + Duration::from_secs(1);
        throttle.failed(7, 7, later);
        assert_eq!(throttle.pairs.len(), 1);
    }
}
