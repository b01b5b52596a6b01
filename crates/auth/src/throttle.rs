//! How long a login has to wait for its verification: whoever keeps failing is slowed, never locked out.
//!
//! Failures are counted by address and user, and more loosely by address. A verification may begin when every one before it would have been allowed to end: so
//! guesses that come at once are verified at the same times as guesses that come one after the other.
//!
//! No clock in here: the time is an argument. Keys are digests, so that a table is as large as it is, whatever users are called.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::limits;

/// What failures are counted for: the keyed digest of an address, or of an address and a user.
pub(super) type Key = u64;

/// The failures of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failures {
    count: u32,
    last: Duration,
}

/// The failures of many keys, bounded. The entry with the fewest failures makes room, the oldest of those.
#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<Key, Failures>,
    by_count: BTreeSet<(u32, Duration, Key)>,
    by_age: BTreeSet<(Duration, Key)>,
    capacity: usize,
}

/// Beyond it no delay grows: more failures of one key are not told apart.
const COUNT_MAX: u32 = 64;

impl Table {
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
pub(super) enum When {
    /// Now.
    Now,
    /// At this time, unless something changes.
    At(Duration),
    /// When one that runs has ended: its outcome decides.
    Later,
}

/// The failures of pairs of address and user, and of addresses. Times are measured from any fixed moment.
#[derive(Debug)]
pub(super) struct Throttle {
    pairs: Table,
    addresses: Table,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self::with_capacity(limits::FAILING)
    }

    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { pairs: Table::new(capacity), addresses: Table::new(capacity) }
    }

    /// When the next guess of this pair may be verified; `running`: its verifications whose outcome is not known yet.
    pub(super) fn pair(&self, pair: Key, running: u32, now: Duration) -> When {
        let Failures { count, last } = self.pairs.failures(pair, now);
        when(count, running, limits::FREE_FAILURES, now, last, || delay(count.saturating_sub(limits::FREE_FAILURES)))
    }

    /// The same for an address.
    pub(super) fn address(&self, address: Key, running: u32, now: Duration) -> When {
        let Failures { count, last } = self.addresses.failures(address, now);
        when(count, running, limits::ADDRESS_FREE_FAILURES, now, last, || limits::ADDRESS_DELAY)
    }

    /// The address has used its free failures.
    pub(super) fn is_slowed(&self, address: Key, now: Duration) -> bool {
        self.addresses.failures(address, now).count >= limits::ADDRESS_FREE_FAILURES
    }

    /// A login failed.
    pub(super) fn failed(&mut self, pair: Key, address: Key, now: Duration) {
        self.pairs.fail(pair, now);
        self.addresses.fail(address, now);
    }

    /// A login succeeded: the failures of this user from this address are forgotten, and no others.
    pub(super) fn succeeded(&mut self, pair: Key) {
        self.pairs.forget(pair);
    }
}

fn when(count: u32, running: u32, free: u32, now: Duration, last: Duration, delay: impl Fn() -> Duration) -> When {
    if count + running < free {
        return When::Now;
    }
    if running > 0 {
        return When::Later;
    }
    let from = last + delay();
    if from <= now { When::Now } else { When::At(from) }
}

/// The pause after `beyond` failures more than are free: doubling, up to the longest.
pub(super) fn delay(beyond: u32) -> Duration {
    limits::LOGIN_DELAY.saturating_mul(1 << beyond.min(16)).min(limits::LOGIN_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(1_000);

    #[test]
    fn the_first_failures_are_free_and_then_the_pause_doubles_up_to_its_bound() {
        let mut throttle = Throttle::new();
        let mut now = T;
        let mut pauses = vec![];
        for _ in 0..10 {
            let begins = match throttle.pair(1, 0, now) {
                When::Now => now,
                When::At(at) => at,
                When::Later => panic!("nothing runs"),
            };
            pauses.push((begins - now).as_millis());
            now = begins;
            throttle.failed(1, 9, now);
        }
        assert_eq!(pauses, [0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        assert_eq!(throttle.pair(2, 0, now), When::Now, "another pair is not slowed");
    }

    #[test]
    fn guesses_whose_outcome_is_not_known_count_as_failures() {
        let mut throttle = Throttle::new();
        assert_eq!(throttle.pair(1, 2, T), When::Now);
        assert_eq!(throttle.pair(1, 3, T), When::Later);
        throttle.failed(1, 9, T);
        assert_eq!(throttle.pair(1, 1, T), When::Now);
        assert_eq!(throttle.pair(1, 2, T), When::Later);
    }

    #[test]
    fn an_address_is_slowed_more_loosely() {
        let mut throttle = Throttle::new();
        for user in 0..u64::from(limits::ADDRESS_FREE_FAILURES) {
            assert_eq!(throttle.address(9, 0, T), When::Now);
            throttle.failed(user, 9, T);
        }
        assert!(throttle.is_slowed(9, T) && !throttle.is_slowed(8, T));
        assert_eq!(throttle.address(9, 0, T), When::At(T + limits::ADDRESS_DELAY));
        assert_eq!(throttle.address(9, 1, T), When::Later);
        assert_eq!(throttle.address(8, 0, T), When::Now);
    }

    #[test]
    fn a_success_forgets_its_own_failures_only_and_a_quiet_time_all() {
        let mut throttle = Throttle::new();
        for _ in 0..40 {
            throttle.failed(1, 9, T);
            throttle.failed(2, 9, T);
        }
        throttle.succeeded(1);
        assert_eq!(throttle.pair(1, 0, T), When::Now);
        assert!(matches!(throttle.pair(2, 0, T), When::At(_)), "another user's failures are forgotten");
        assert!(throttle.is_slowed(9, T), "the address's failures are forgotten");
        let later = T + limits::FAILURE_MEMORY;
        assert_eq!((throttle.pair(2, 0, later), throttle.address(9, 0, later)), (When::Now, When::Now));
        throttle.failed(3, 8, later);
        assert_eq!((throttle.pairs.len(), throttle.addresses.len()), (1, 1));
    }

    #[test]
    fn a_flood_pushes_out_no_entry_with_more_failures() {
        let mut throttle = Throttle::with_capacity(100);
        for _ in 0..20 {
            throttle.failed(0, 0, T);
        }
        for flood in 1..100_000_u64 {
            let now = T + Duration::from_millis(flood / 1_000);
            throttle.failed(flood, flood, now);
            // Some of them more than once.
            if flood % 3 == 0 {
                throttle.failed(flood, flood, now);
            }
            assert!(throttle.pairs.entries.len() <= 100);
        }
        assert_eq!(throttle.pairs.len(), 100);
        assert!(matches!(throttle.pair(0, 0, T + Duration::from_millis(200)), When::At(_)), "the entry was pushed out");
        // What is stale makes room, however many failures it has.
        let later = T + limits::FAILURE_MEMORY + Duration::from_secs(1);
        throttle.failed(7, 7, later);
        assert_eq!(throttle.pairs.len(), 1);
    }
}
