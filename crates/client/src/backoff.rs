//! Exponential back-off: computes how long to wait before the next attempt.
//!
//! The wait doubles after each failure, up to a maximum. A random part spreads the clients that a restart of the broker has disconnected, so that they do
//! not all reconnect at the same moment. Never sleeps and never reads a clock.

use std::time::Duration;

/// Exponential back-off with jitter. Returns the wait; the caller sleeps.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Makes a back-off that waits `first / 2` to `first` after the first failure, and never longer than `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Records a success: the next failure counts as the first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Records a failure. Returns the wait before the next attempt: a random time between half of the current step and the whole step.
    pub fn failed(&mut self) -> Duration {
        let wait = self.step(random_fraction());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Returns the wait for the current number of failures. `fraction` (0 to 1) is the jitter.
    fn step(&self, fraction: f64) -> Duration {
        let full = self.first.saturating_mul(2u32.saturating_pow(self.failures)).min(self.longest);
        full.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
    }
}

/// Returns a random number from 0 to 1. If the system provides no random numbers, returns 1; then all clients wait for the same time.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_maximum() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut full = Vec::new();
        for _ in 0..10 {
            full.push(backoff.step(1.0).as_millis());
            let _ = backoff.failed();
        }
        assert_eq!(full, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
    }

    #[test]
    fn the_wait_is_between_half_a_step_and_a_whole_one() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..200 {
            let (least, most) = (backoff.step(0.0), backoff.step(1.0));
            let wait = backoff.failed();
            assert!(least <= wait && wait <= most && wait <= LONGEST, "{wait:?}");
        }
        assert_eq!(backoff.step(0.0), LONGEST / 2, "the number of failures does not overflow");
    }

    #[test]
    fn a_success_resets_the_wait() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let _ = (backoff.failed(), backoff.failed(), backoff.failed());
        backoff.succeeded();
        assert_eq!(backoff.step(1.0), FIRST);
    }
}
