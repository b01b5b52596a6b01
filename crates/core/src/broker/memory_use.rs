//! How much memory is used, and which channels wait for memory. `memory.rs` has the rules.

use std::collections::VecDeque;

/// The memory of the whole program, as far as the broker knows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes that the rest of the program used when the turn began.
    pub outside: usize,
    /// Bytes of the pages that the store is reading, each as large as it may become.
    pub loading: usize,
    /// Channels whose next page is not read because memory is short, in order. May contain the key of a channel that is gone.
    pub starved: VecDeque<usize>,
    /// The key of the next channel that is looked at when stored messages leave memory.
    pub next_relieved: usize,
}
