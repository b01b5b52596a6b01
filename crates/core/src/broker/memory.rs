//! Whether the memory for messages is short or full.

use super::Broker;
use super::turn::Turn;
use crate::limits;

impl Broker {
    /// Returns the most bytes of one channel's messages that stay in memory while its receivers are there.
    pub(super) fn burst_bytes(&self) -> usize {
        if self.is_memory_short() { limits::PAGE_BYTES / 16 } else { limits::BURST_BYTES }
    }

    /// Whether more than half of [`limits::CORE_BYTES`] is used, so that pages become small.
    pub(super) fn is_memory_short(&self) -> bool {
        self.bytes > limits::CORE_BYTES / 2
    }

    /// Whether `more` bytes would exceed [`limits::CORE_BYTES`]. Expired messages are removed first; `channel` stays open.
    pub(super) fn is_memory_full(&mut self, more: usize, channel: Option<usize>, turn: &mut Turn<'_>) -> bool {
        if self.bytes + more <= limits::CORE_BYTES {
            return false;
        }
        let hold = |broker: &mut Self, by: i64| {
            if let Some(channel) = channel.and_then(|key| broker.channels.get_mut(key)) {
                channel.unsettled = channel.unsettled.wrapping_add_signed(by);
            }
        };
        hold(self, 1);
        self.expire_due(turn);
        hold(self, -1);
        self.bytes + more > limits::CORE_BYTES
    }
}
