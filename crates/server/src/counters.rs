//! The server's counters, and the rate limit of repeated warnings.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::limits;

/// Counts since the start. The core's counters are [`wsmb_core::broker::Broker::counters`].
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that completed their handshake.
    pub connected: AtomicU64,
    /// Connections that have ended after their handshake.
    pub disconnected: AtomicU64,
    /// Requests with missing or wrong credentials.
    pub unauthorized: AtomicU64,
    /// Connections refused because `server.max_connections`, or the user's share of it, was reached, or nearly all memory was used.
    pub crowded: AtomicU64,
    /// Commands of envelope connections, good and bad.
    pub commands: AtomicU64,
    /// Commands that were malformed or unknown.
    pub malformed: AtomicU64,
    /// Messages, subscriptions and connections that were refused for lack of a permission, and web pages whose origin was refused.
    pub forbidden: AtomicU64,
    /// Publications that were refused because their user had reached its rate.
    pub above_rate: AtomicU64,
    /// Empty topic frames, which are ignored.
    pub empty: AtomicU64,
    /// Publications that were refused (codes 05, 06, 08).
    pub refused: AtomicU64,
    /// Deliveries queued.
    pub deliveries: AtomicU64,
    /// Connections ended as slow: their queue was full, or they fell behind the other receivers of a channel.
    pub slow: AtomicU64,
    /// Connections ended because they confirmed nothing for `server.confirm_timeout`.
    pub unconfirmed: AtomicU64,
    /// Connections ended because a newer one took their receiver name.
    pub replaced: AtomicU64,
    /// Connections ended because they held most of the memory when nearly all of the memory budget was used.
    pub over_memory: AtomicU64,
    /// Connections ended because they answered no ping.
    pub dead: AtomicU64,
    /// Connections ended because they violated the WebSocket protocol.
    pub violations: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Open connections whose handshake has completed.
    #[must_use]
    pub fn open(&self) -> u64 {
        Self::get(&self.connected).saturating_sub(Self::get(&self.disconnected))
    }
}

/// Allows one warning per [`limits::REPEATED_WARNING`], and counts the withheld ones.
#[derive(Debug, Default)]
pub(super) struct WarningLimit {
    last: Mutex<(Option<Instant>, u64)>,
}

impl WarningLimit {
    /// `Some(n)`: log the warning; `n` were withheld since the last one. `None`: withhold it.
    pub(super) fn admit(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, withheld) = &mut *last;
        if time.is_some_and(|time| now.saturating_duration_since(time) < limits::REPEATED_WARNING) {
            *withheld += 1;
            return None;
        }
        *time = Some(now);
        Some(std::mem::take(withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_warning_is_withheld_and_counted() {
        let (limit, start) = (WarningLimit::default(), Instant::now());
        assert_eq!(limit.at(start), Some(0));
        assert_eq!(limit.at(start), None);
        assert_eq!(limit.at(start + limits::REPEATED_WARNING / 2), None);
        assert_eq!(limit.at(start + limits::REPEATED_WARNING), Some(2));
        assert_eq!(limit.at(start + limits::REPEATED_WARNING * 2), Some(0));
    }
}
