//! Random choices that a seed repeats: every client and the nemesis draw from a generator of their own, named after them, so that what one of them
//! draws does not depend on how fast the others are.

use std::time::Duration;

/// A generator: the same numbers on every machine.
#[derive(Clone)]
pub struct Random(faulty_disk::Random);

impl Random {
    /// The generator of `name` in the run with `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(faulty_disk::Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash(name.as_bytes())))
    }

    /// A number from `low` on, below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high.saturating_sub(low).max(1))
    }

    /// `true` in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 100) < chance
    }

    /// A time from `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of several, each as often as its weight says; the first if all weights are 0.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.between(0, total);
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        choices[0].1
    }

    /// One of several, all alike.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u64) as usize]
    }
}

/// FNV-1a: tells texts apart that differ by damage, not by intent.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_and_a_name_repeat_every_choice() {
        let draw = |seed, name| {
            let mut random = Random::new(seed, name);
            (0..20).map(|_| random.between(0, 1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "sender"), draw(7, "sender"));
        assert_ne!(draw(7, "sender"), draw(8, "sender"));
        assert_ne!(draw(7, "sender"), draw(7, "receiver"));
    }

    #[test]
    fn choices_stay_within_their_bounds() {
        let mut random = Random::new(1, "bounds");
        for _ in 0..1_000 {
            assert!((5..9).contains(&random.between(5, 9)));
            assert_eq!(random.weighted(&[(0, 'a'), (3, 'b')]), 'b');
        }
        assert!(!random.percent(0) && random.percent(100));
    }
}
