//! Limits how often a user may publish and connect, from the `[[rate]]` entries of the configuration.
//!
//! Each limit is a token bucket with room for the messages of one period, kept as one number (GCRA: the time at which the bucket is full
//! again). A user without a matching entry has no limits, and costs nothing.
//!
//! This module must never read a clock: the time is an argument.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wildmatch::WildMatch;
use wsmb_core::message::Timestamp;

use crate::limits;

/// So many events in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    period: Duration,
}

impl Rate {
    /// Makes a rate. `None` if the count is zero or the period shorter than a millisecond.
    #[must_use]
    pub fn new(count: u32, period: Duration) -> Option<Self> {
        (count > 0 && period >= Duration::from_millis(1)).then_some(Self { count, period })
    }
}

/// One `[[rate]]` entry.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    user: WildMatch,
    publish: Option<Rate>,
    connect: Option<Rate>,
}

/// The `[[rate]]` entries in the order of the configuration. The first entry that matches a user applies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateRules {
    rules: Vec<Rule>,
}

impl RateRules {
    /// Appends an entry. `user` is a pattern: `*` matches any characters, `?` matches one. `None`: no limit.
    #[must_use]
    pub fn with(mut self, user: &str, publish: Option<Rate>, connect: Option<Rate>) -> Self {
        self.rules.push(Rule { user: WildMatch::new(user), publish, connect });
        self
    }
}

/// The limits of all users, and how far each user has used them.
#[derive(Debug, Default)]
pub struct Rates {
    rules: RateRules,
    /// More than [`limits::RATED_USERS`] only while more users than that have used their limits.
    users: Mutex<HashMap<Arc<str>, Arc<UserRate>>>,
}

/// The limits of one user, shared by all its connections.
#[derive(Debug)]
pub struct UserRate {
    publish: Option<Bucket>,
    connect: Option<Bucket>,
}

impl Rates {
    /// Makes the limits for these entries, all unused.
    #[must_use]
    pub fn new(rules: RateRules) -> Self {
        Self { rules, users: Mutex::default() }
    }

    /// Returns the limits of a user; `None` if the user has no limits.
    #[must_use]
    pub fn of(&self, user: &Arc<str>, now: Timestamp) -> Option<Arc<UserRate>> {
        if self.rules.rules.is_empty() {
            return None;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = users.get(user) {
            return Some(known.clone());
        }
        let rule = self.rules.rules.iter().find(|rule| rule.user.matches(user))?;
        if rule.publish.is_none() && rule.connect.is_none() {
            return None;
        }
        if users.len() >= limits::RATED_USERS {
            // A full bucket says no more than a new one.
            users.retain(|_, rate| !rate.is_unused(now));
        }
        let rate =
            Arc::new(UserRate { publish: rule.publish.map(Bucket::new), connect: rule.connect.map(Bucket::new) });
        users.insert(user.clone(), rate.clone());
        Some(rate)
    }
}

impl UserRate {
    /// Counts `messages` that the user publishes.
    ///
    /// # Errors
    /// The time until the user may publish again; nothing is counted.
    pub fn publish(&self, messages: usize, now: Timestamp) -> Result<(), Duration> {
        self.publish.as_ref().map_or(Ok(()), |bucket| bucket.take(messages, now))
    }

    /// Counts `messages` that the user has published, even above the limit. Returns the time until the user may publish again; zero: now.
    pub fn published(&self, messages: usize, now: Timestamp) -> Duration {
        self.publish.as_ref().map_or(Duration::ZERO, |bucket| {
            bucket.add(messages, now);
            bucket.wait(now)
        })
    }

    /// Returns the time until the user may publish again; zero: now.
    #[must_use]
    pub fn publish_wait(&self, now: Timestamp) -> Duration {
        self.publish.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(now))
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// The time until the user may connect again; nothing is counted.
    pub fn connect(&self, now: Timestamp) -> Result<(), Duration> {
        self.connect.as_ref().map_or(Ok(()), |bucket| bucket.take(1, now))
    }

    fn is_unused(&self, now: Timestamp) -> bool {
        [&self.publish, &self.connect].into_iter().flatten().all(|bucket| bucket.is_full(now))
    }
}

/// A token bucket. Times are in nanoseconds, so that a rate of millions a second has an interval.
#[derive(Debug)]
struct Bucket {
    /// The time in which one token is added.
    interval: u64,
    /// The time in which an empty bucket fills.
    period: u64,
    /// When the bucket is full again.
    full_at: AtomicU64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX / 2);
        Self { interval: (period / u64::from(rate.count)).max(1), period, full_at: AtomicU64::new(0) }
    }

    /// Takes tokens if there is at least one. A publication with more messages than there are tokens is accepted, and delays the next one:
    /// otherwise a publication with more messages than the bucket holds could never be accepted.
    fn take(&self, tokens: usize, now: Timestamp) -> Result<(), Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.add(tokens, now);
        Ok(())
    }

    /// Takes tokens, also those that are not there yet.
    fn add(&self, tokens: usize, now: Timestamp) {
        let now = nanos(now);
        let cost = self.interval.saturating_mul(tokens as u64);
        let later = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        // With several event loops two threads may take the same last token; both are charged for it.
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Returns the time until there is a token.
    fn wait(&self, now: Timestamp) -> Duration {
        let token_at = (self.full_at.load(Ordering::Relaxed).saturating_add(self.interval)).saturating_sub(self.period);
        Duration::from_nanos(token_at.saturating_sub(nanos(now)))
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn nanos(at: Timestamp) -> u64 {
    at.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn user(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn rates(user: &str, publish: Option<Rate>, connect: Option<Rate>) -> Rates {
        Rates::new(RateRules::default().with(user, publish, connect))
    }

    #[test]
    fn a_burst_of_one_period_is_allowed_and_then_the_rate() {
        let rates = rates("*", Rate::new(10, SECOND), None);
        let start = Timestamp(1_000_000);
        let app = rates.of(&user("app"), start).expect("a limit");
        for _ in 0..10 {
            assert_eq!(app.publish(1, start), Ok(()));
        }
        assert_eq!(app.publish(1, start), Err(Duration::from_millis(100)));
        let mut accepted = 0;
        for millis in 1..=10_000 {
            accepted += u32::from(app.publish(1, Timestamp(start.0 + millis)).is_ok());
        }
        assert_eq!(accepted, 100, "ten a second for ten seconds");
        assert_eq!(app.connect(start), Ok(()), "no limit");
    }

    #[test]
    fn a_large_publication_is_accepted_and_paid_for_later() {
        let rates = rates("*", Rate::new(10, SECOND), None);
        let now = Timestamp(5_000);
        let app = rates.of(&user("app"), now).expect("a limit");
        assert_eq!(app.publish(100, now), Ok(()));
        assert_eq!(app.publish(1, now), Err(Duration::from_millis(9_100)));
        assert_eq!(app.publish_wait(Timestamp(now.0 + 9_100)), Duration::ZERO);
    }

    #[test]
    fn what_was_published_above_the_limit_delays_the_next() {
        let rates = rates("*", Rate::new(2, SECOND), None);
        let now = Timestamp(0);
        let app = rates.of(&user("app"), now).expect("a limit");
        assert_eq!(app.published(1, now), Duration::ZERO);
        assert_eq!(app.published(1, now), Duration::from_millis(500));
        assert_eq!(app.published(1, now), Duration::from_millis(1_000));
    }

    #[test]
    fn only_the_first_matching_entry_applies_and_users_do_not_share() {
        let rules = RateRules::default().with("admin", None, None).with("app-*", None, Rate::new(1, SECOND)).with(
            "app-1",
            None,
            Rate::new(1_000, SECOND),
        );
        let rates = Rates::new(rules);
        let now = Timestamp(0);
        assert!(rates.of(&user("admin"), now).is_none() && rates.of(&user("other"), now).is_none());
        let one = rates.of(&user("app-1"), now).expect("a limit");
        assert_eq!((one.connect(now), one.connect(now).is_err()), (Ok(()), true));
        let again = rates.of(&user("app-1"), now).expect("a limit");
        assert!(again.connect(now).is_err(), "all connections of a user share its limits");
        assert_eq!(rates.of(&user("app-2"), now).expect("a limit").connect(now), Ok(()));
    }

    #[test]
    fn users_that_use_nothing_are_forgotten() {
        let rates = rates("*", None, Rate::new(1, SECOND));
        for number in 0..limits::RATED_USERS {
            rates
                .of(&user(&number.to_string()), Timestamp(0))
                .expect("a limit")
                .connect(Timestamp(0))
                .expect("the first");
        }
        let count = || rates.users.lock().unwrap().len();
        rates.of(&user("early"), Timestamp(500)).expect("a limit");
        assert_eq!(count(), limits::RATED_USERS + 1, "all of them still wait");
        rates.of(&user("late"), Timestamp(1_000)).expect("a limit");
        assert_eq!(count(), 1);
    }
}
