//! Bounds of the broker that tests reduce, so that a simulation of a few hundred steps reaches them.
//!
//! The broker gets the bounds with its [`super::Settings`]. A value in this file must never depend on `cfg(test)`: tests of other crates
//! would use the production value.

use std::time::Duration;

/// Bounds of the broker that no configuration key changes. [`Bounds::default`] has the values for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Unconfirmed deliveries at which a receiver of a channel without receiver limit is ended as slow (nobody waits for anybody there).
    pub fanout_deliveries: usize,
    /// Receivers of a channel that a search for one with room may pass by. With more, the channel keeps an index of those with room: a look at 32
    /// receivers costs about as much as the index.
    pub members_searched: usize,
    /// The most channels that exist at once ([`crate::limits::CHANNELS`]). Shared by users ([`crate::shares`]).
    pub channels: usize,
    /// The most delayed messages and publications ([`crate::limits::DELAYED`]). Shared by users.
    pub delayed: usize,
    /// Bytes of messages that wait for the store ([`crate::limits::STORE_QUEUE`]). Shared by users.
    pub store_queue: usize,
    /// Messages of one channel's backlog in memory; the rest is in the store. A burst up to this size that is confirmed in time is not
    /// written.
    pub page_messages: usize,
    /// The bytes of one channel's backlog in memory while memory is short.
    pub short_page_bytes: usize,
    /// Messages that are held back at once. Above this number, the message with the earliest release time is released early, so that no
    /// message is lost or refused.
    pub held: usize,
    /// The time for which a message that a group has lost or given back waits for another member of the group. Afterwards any receiver of
    /// the channel gets it. Long enough for the restart of a gateway. Applies without a receiver limit, or if receivers outside the group
    /// had the message, too.
    pub group_wait: Duration,
    /// The interval of the sweeps that remove expired messages from the store.
    pub sweep_every: Duration,
    /// Different expiry times that a channel counts separately. Above this number, nearby times count as the earliest of them. With the
    /// same ttl for all messages they differ by less than half a percent of it. About 10 KiB a channel at most.
    pub expiry_buckets: usize,
    /// Messages with older rows that still stand for them (dead letters, delayed messages that came due). Above this number, no further
    /// expired rows are read from the store to become dead letters, so that a slow store is not overloaded. Twice the rows of a sweep.
    pub superseded_rows: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            fanout_deliveries: 4_096,
            members_searched: 32,
            channels: crate::limits::CHANNELS,
            delayed: crate::limits::DELAYED,
            store_queue: crate::limits::STORE_QUEUE,
            page_messages: 8_192,
            short_page_bytes: crate::limits::PAGE_BYTES / 16,
            held: 100_000,
            group_wait: Duration::from_secs(300),
            sweep_every: Duration::from_secs(5),
            expiry_buckets: 512,
            superseded_rows: 2 * crate::limits::SWEEP_ROWS,
        }
    }
}

impl Bounds {
    /// Returns the most messages in one page. `memory_short`: the memory for messages is short.
    pub(super) const fn page(&self, memory_short: bool) -> usize {
        if memory_short { self.page_messages.div_ceil(16) } else { self.page_messages }
    }
}

#[cfg(test)]
impl Bounds {
    /// Small bounds for tests.
    pub(super) const TIGHT: Self = Self {
        fanout_deliveries: 4,
        members_searched: 1,
        channels: 20,
        delayed: 10,
        store_queue: crate::limits::STORE_QUEUE,
        page_messages: 8,
        short_page_bytes: 2 * crate::limits::ENTRY_BYTES,
        held: 6,
        group_wait: Duration::from_secs(2),
        sweep_every: Duration::from_millis(300),
        expiry_buckets: 40,
        superseded_rows: 2 * Self::TIGHT_SWEEP_ROWS,
    };

    /// Rows that the test store removes, or returns, in one sweep.
    pub(super) const TIGHT_SWEEP_ROWS: usize = 3;
}
