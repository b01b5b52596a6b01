//! Reproducible random choices. Each client and the nemesis has its own generator, seeded with the run's seed and a name. Therefore the choices of
//! one client do not depend on the timing of the others.

use std::time::Duration;

/// A generator that returns the same numbers on every machine.
#[derive(Clone)]
pub struct Random(faulty_disk::Random);

impl Random {
    /// Creates the generator of `name` in the run with `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self(faulty_disk::Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash(name.as_bytes())))
    }

    /// Returns a number from `low`, inclusive, to `high`, exclusive.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high.saturating_sub(low).max(1))
    }

    /// Returns `true` with this probability in per cent.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 100) < chance
    }

    /// Returns a duration from `low` to `high` milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// Returns one of the choices, by weight; the first choice if all weights are 0.
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

    /// Returns one of the choices, with equal probability.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u64) as usize]
    }
}

/// FNV-1a. Detects damaged texts; not for texts of an attacker.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_choices_depend_on_the_seed_and_the_name() {
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
