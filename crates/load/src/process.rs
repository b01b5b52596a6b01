//! The CPU time and the memory of the server's process. `platform` reads them.
//!
//! This module must never fail a run: if the process cannot be read, the report has no CPU time and no memory.

use std::collections::BTreeMap;
use std::time::Duration;

/// The CPU time of a process at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// The nanoseconds of each running thread.
    pub(super) threads: BTreeMap<i32, u64>,
    /// User and system time of the whole process, including ended threads. Exact to a tick.
    pub(super) whole: Duration,
    pub(super) tick: Duration,
}

impl Usage {
    /// The CPU time used since `before`: the sum over the threads, or, if a thread has ended in between, the time of the whole process,
    /// which is exact to a tick only.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let whole = self.whole.saturating_sub(before.whole);
        if self.threads.is_empty() || before.threads.keys().any(|thread| !self.threads.contains_key(thread)) {
            return whole;
        }
        let fine: u64 = self
            .threads
            .iter()
            .map(|(thread, used)| used.saturating_sub(before.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let fine = Duration::from_nanos(fine);
        // User and system time are rounded in both readings. A larger difference means that threads have started and ended in between.
        if whole > fine + 4 * self.tick + fine / 20 { whole } else { fine }
    }
}

/// The resident memory in KiB: now, and the maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_ended_threads_is_counted() {
        let tick = Duration::from_millis(10);
        let usage = |threads: &[(i32, u64)], whole: u64| Usage {
            threads: threads.iter().copied().collect(),
            whole: Duration::from_millis(whole),
            tick,
        };
        let before = usage(&[(1, 1_000), (2, 5_000)], 10);
        assert_eq!(usage(&[(1, 3_000), (2, 5_500), (3, 100)], 20).since(&before), Duration::from_nanos(2_600));
        assert_eq!(usage(&[(1, 3_000)], 90).since(&before), Duration::from_millis(80));
        assert_eq!(usage(&[(1, 3_000), (2, 5_000)], 900).since(&before), Duration::from_millis(890));
    }
}
