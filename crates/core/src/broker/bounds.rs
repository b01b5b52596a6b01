//! Bounds of the broker that tests make smaller, so that a simulation of a few hundred steps reaches them.
//!
//! The broker gets the bounds with its [`super::Settings`]. A value in this file must never depend on whether a test is compiled: the tests of other crates
//! would use the other value.

use std::time::Duration;

/// Bounds of the broker that no configuration key changes. [`Bounds::default`] has the values that a real broker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Unconfirmed deliveries at which a receiver of a fan-out (receiver limit 0, where nobody waits for anybody) is ended as slow.
    pub fanout_deliveries: usize,
    /// Messages of one channel's backlog in memory; the rest is in the store. A burst that runs ahead of its receiver by no more than that is
    /// not written if it is confirmed in time.
    pub page_messages: usize,
    /// Messages that are held back at once. Beyond it, the message whose turn is next stands in its place early, so that none is lost or refused.
    pub held: usize,
    /// How long a message that the members of a group have given back, or lost by vanishing, waits for another member if receivers outside the group
    /// have it too. Afterwards any receiver of the channel gets it. A gateway that restarts is back by then.
    pub group_wait: Duration,
    /// How often the store is asked to remove expired messages.
    pub sweep_every: Duration,
    /// Different moments of expiry that a channel counts separately; beyond it, neighbouring moments count as the earliest of them. With a uniform
    /// ttl they differ by less than half a hundredth of it. Some 10 KiB a channel at the most.
    pub expiry_buckets: usize,
    /// Messages whose older rows still stand for them (dead letters, delayed ones that came due) above which no further expired rows are read from
    /// the store to become dead letters, so that a store that writes slowly is not outrun: twice what one sweep reads.
    pub dying: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            fanout_deliveries: 4_096,
            page_messages: 2_048,
            held: 100_000,
            group_wait: Duration::from_secs(300),
            sweep_every: Duration::from_secs(5),
            expiry_buckets: 512,
            dying: 2 * crate::limits::SWEEP_ROWS,
        }
    }
}

impl Bounds {
    /// Messages in one page of a backlog. `pressed`: memory as a whole is short.
    pub(super) const fn page(&self, pressed: bool) -> usize {
        if pressed { self.page_messages.div_ceil(16) } else { self.page_messages }
    }
}

#[cfg(test)]
impl Bounds {
    /// Bounds that a short test reaches.
    pub(super) const TIGHT: Self = Self {
        fanout_deliveries: 4,
        page_messages: 8,
        held: 6,
        group_wait: Duration::from_secs(2),
        sweep_every: Duration::from_millis(300),
        expiry_buckets: 40,
        dying: 2 * Self::TIGHT_SWEEP_ROWS,
    };

    /// Rows that the store of a test removes, or reads, in one sweep.
    pub(super) const TIGHT_SWEEP_ROWS: usize = 3;
}
