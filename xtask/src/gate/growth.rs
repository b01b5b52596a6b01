//! The second part of `cargo xtask gate`: fails if the cost of an operation grows with the number of receivers, messages or channels beside it.
//!
//! Each script of `benches/instructions/growth.rs` runs with a size n and with 8 n. A cost that does not depend on n is the same, a logarithm grows a
//! little, and a search through all n costs up to eight times as much.

use std::path::Path;

use super::count;
use crate::Failure;

/// The scripts, with n and what n counts. One operation: a departure, an acknowledgement, a message, a message, a channel of the list.
const SCRIPTS: &[Script] = &[
    Script { name: "leave", what: "receivers of the channel", n: 1_000, operations: Operations::Fixed(64) },
    Script { name: "ack", what: "receivers of the channel, all busy", n: 800, operations: Operations::Fixed(64) },
    Script { name: "busy", what: "receivers of the channel, all busy", n: 800, operations: Operations::Fixed(64) },
    Script { name: "due", what: "messages that are due", n: 500, operations: Operations::Times(1) },
    Script { name: "list", what: "channels of the receiver", n: 12, operations: Operations::Times(16) },
];

/// The factor between the two sizes.
const FACTOR: u64 = 8;

/// The most by which a cost may grow: some logarithms, and larger tables, but nothing that is proportional to n.
const MOST: f64 = 1.5;

/// Counts only the instructions of the function `measured`.
const MEASURED: [&str; 2] = ["--collect-atstart=no", "--toggle-collect=*growth*measured*"];

struct Script {
    name: &'static str,
    what: &'static str,
    n: u64,
    operations: Operations,
}

/// The number of operations in a run.
#[derive(Clone, Copy)]
enum Operations {
    /// For every n.
    Fixed(u64),
    /// This many for each of n.
    Times(u64),
}

impl Operations {
    fn of(self, n: u64) -> u64 {
        match self {
            Self::Fixed(operations) => operations,
            Self::Times(operations) => operations * n,
        }
    }
}

/// Runs all scripts, prints the costs as a table, and fails with the scripts whose cost grows.
pub fn check(program: &Path) -> Result<(), Failure> {
    let mut grown = Vec::new();
    eprintln!("| script | n | instructions with n | with {FACTOR} n | factor |\n|---|---|--:|--:|--:|");
    for script in SCRIPTS {
        let cost = |n: u64| Ok::<_, Failure>(count(program, script.name, n, &MEASURED)? / script.operations.of(n));
        let (few, many) = (cost(script.n)?, cost(FACTOR * script.n)?);
        let factor = factor(few, many);
        eprintln!("| {} | {} {} | {few} | {many} | {factor:.2} |", script.name, script.n, script.what);
        if factor > MOST {
            grown.push(format!(
                "{}: {few} instructions with {} {}, {many} with {} times as many",
                script.name, script.n, script.what, FACTOR
            ));
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("the cost of an operation grows by more than {MOST} times:\n  {}", grown.join("\n  "))))
}

#[allow(clippy::cast_precision_loss)] // Both are far below 2⁵².
fn factor(few: u64, many: u64) -> f64 {
    // A script that counts nothing does not call `measured`, or the compiler has inlined it.
    if few == 0 { f64::INFINITY } else { many as f64 / few as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_was_not_counted_fails() {
        assert!(factor(0, 0) > MOST);
        assert!(factor(100, 150) <= MOST && factor(100, 151) > MOST);
    }

    #[test]
    fn the_operations_are_fixed_or_proportional() {
        assert_eq!([Operations::Fixed(64).of(10), Operations::Times(2).of(10)], [64, 20]);
    }
}
