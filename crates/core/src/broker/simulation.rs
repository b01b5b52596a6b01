//! A seeded, deterministic simulation: clients, a store that fails and a process that dies, in every interleaving that the seed
//! chooses; after every step, what the broker did is held against a naive model and the broker's books are audited.
//!
//! `WSMB_SEED=n cargo test -p wsmb-core simulation` replays one seed, `WSMB_SEEDS=n` runs that many.

mod model;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Tally, World};

/// Seeds in one run of the tests: some seconds, unoptimised.
const SEEDS: u64 = 3_000;

/// Steps of one seed.
const STEPS: u32 = 250;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to `bound` - 1.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len() as u64) as usize) }
    }
}

fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    world.finish()
}

/// `WSMB_SEED=7` is one seed, `WSMB_SEEDS=100` the first hundred, `WSMB_SEEDS=100..200` the second.
fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number of seeds");
    if let Ok(seed) = std::env::var("WSMB_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("WSMB_SEEDS") {
        Ok(seeds) => seeds.split_once("..").map_or_else(|| 0..number(&seeds), |(from, to)| number(from)..number(to)),
        Err(_) => 0..SEEDS,
    }
}

#[test]
fn every_promise_holds_in_every_interleaving() {
    let mut all = Tally::default();
    for seed in seeds() {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(tally) => {
                all.confirmed += tally.confirmed;
                all.by_leaving += tally.by_leaving;
                all.left += tally.left;
                all.unconfirmed += tally.unconfirmed;
                all.late += tally.late;
                all.spared += tally.spared;
                all.preferred += tally.preferred;
            }
            Err(panic) => {
                eprintln!("seed {seed} fails; replay it with: WSMB_SEED={seed} cargo test -p wsmb-core simulation");
                resume_unwind(panic);
            }
        }
    }
    let Tally { confirmed, by_leaving, left, unconfirmed, late, spared, preferred } = all;
    assert!(confirmed > 0, "a simulation in which nothing is ever confirmed proves nothing");
    let whole = seeds().count() >= 1_000;
    assert!(!whole || (by_leaving > 0 && left > 0 && unconfirmed > 0), "it proves nothing about ends: {all:?}");
    assert!(!whole || preferred > 0, "it proves nothing about preference: {all:?}");
    assert!(!whole || (late > 0 && spared > 0), "it proves nothing about expired dead letters: {all:?}");
}
