//! The use of memory, measured by `server.memory_budget` (SPEC section 6).
//!
//! The budget is the whole program's, so the caller tells how much the program uses before each turn; within a turn the broker adds what it holds
//! itself. The nearer the use is to the budget, the more is given up:
//!
//! ```text
//! above 1/2   pages and bursts become small; stored messages that no receiver takes soon leave memory
//! above 3/4   a channel reads its next page only when nothing of the last one is left
//! above 9/10  no page is read; publications are refused, beginning with the users that hold most
//! ```

use super::holdings::{Kind, Owner};
use super::next_page::FinishedLoad;
use super::stage::Cause;
use super::turn::Turn;
use super::{Broker, Effect, StoreEffect};
use crate::broker::entry::Location;
use crate::limits;

impl Broker {
    /// Tells the broker how many bytes the whole program uses, with the broker's own. If the caller does not know, only the broker's own estimate
    /// counts.
    #[inline]
    pub fn set_memory_used(&mut self, bytes: usize) {
        self.memory.outside = bytes.saturating_sub(self.bytes);
    }

    fn is_used(&self, (numerator, denominator): (usize, usize)) -> bool {
        self.memory.outside + self.memory.loading + self.bytes > self.settings.memory_budget / denominator * numerator
    }

    /// Whether pages and bursts must be small.
    pub(super) fn is_memory_short(&self) -> bool {
        self.is_used((1, 2))
    }

    /// Whether the memory for messages is used up for all but those who hold little.
    pub(super) fn is_memory_nearly_full(&self) -> bool {
        self.is_used((9, 10))
    }

    /// Frees the memory that tables keep for removed entries. Takes a few milliseconds; call it after much memory was freed.
    pub fn shrink(&mut self) {
        self.channels.shrink_to_fit();
        self.channel_keys.shrink_to_fit();
        self.receivers.shrink_to_fit();
        self.receiver_keys.shrink_to_fit();
        self.connections.shrink_to_fit();
        self.flights.shrink_to_fit();
        self.pending.shrink_to_fit();
        self.to_pump.shrink_to_fit();
        self.spare_entries.clear();
        self.memory.starved.shrink_to_fit();
    }

    /// Returns the most bytes of one channel's messages that stay in memory while its receivers are there.
    pub(super) fn burst_bytes(&self) -> usize {
        if self.is_memory_short() { self.settings.bounds.short_page_bytes } else { limits::BURST_BYTES }
    }

    /// Returns the most bytes of messages that are held back at once: a quarter of the budget, so that failing messages leave memory to the others.
    pub(super) fn held_bytes_bound(&self) -> usize {
        self.settings.memory_budget / 4
    }

    /// Whether `owner` is refused `more` bytes: the budget is used up, or memory is nearly full and `owner` holds too much of it.
    pub(super) fn refuses_bytes(&self, owner: Owner, more: usize) -> bool {
        let used = self.memory.outside + self.bytes;
        self.holdings.refuses(owner, Kind::Bytes, more, (used, self.settings.memory_budget))
    }

    /// Like [`Self::refuses_bytes`]. Expired messages are removed first; `channel` stays open.
    pub(super) fn is_memory_full(
        &mut self,
        more: usize,
        owner: Owner,
        channel: Option<usize>,
        turn: &mut Turn<'_>,
    ) -> bool {
        if !self.refuses_bytes(owner, more) {
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
        self.refuses_bytes(owner, more)
    }

    /// Asks the store for a channel's next page, or notes the channel for later if memory is short.
    pub(super) fn load_page(&mut self, key: usize, turn: &mut Turn<'_>) {
        let short = self.is_memory_short();
        let channel = &self.channels[key];
        let has_messages = !channel.waiting.is_empty() || channel.in_flight > 0;
        if self.is_memory_nearly_full() || (has_messages && self.is_used((3, 4))) {
            if !std::mem::replace(&mut self.channels[key].next_page.starved, true) {
                self.memory.starved.push_back(key);
            }
            self.deadlines.relief.get_or_insert(turn.now.after(limits::RELIEF_EVERY));
            return;
        }
        let (limit, bytes) = (
            self.settings.bounds.page(short),
            if short { self.settings.bounds.short_page_bytes } else { limits::PAGE_BYTES },
        );
        let channel = &mut self.channels[key];
        let cover = channel.last_paged;
        self.memory.loading += channel.next_page.begin(cover, turn.now, bytes + limit * limits::ENTRY_BYTES);
        // After the appends of this turn, because the page may include them.
        self.flush_store(turn);
        let channel = &self.channels[key];
        turn.effects.list.push(Effect::Store(StoreEffect::Load {
            channel: channel.name.clone(),
            after: channel.cursor,
            limit,
            bytes,
        }));
    }

    /// Ends a channel's read of a page.
    pub(super) fn end_loading(&mut self, key: usize) -> Option<FinishedLoad> {
        let finished = self.channels[key].next_page.end()?;
        self.memory.loading -= finished.most;
        Some(finished)
    }

    /// While memory is short: makes stored messages leave memory, in a few channels in each turn; a deadline follows as long as some leave. Afterwards: continues with the channels whose pages
    /// were not read.
    pub(super) fn relieve_memory(&mut self, turn: &mut Turn<'_>) {
        let mut continues = false;
        if self.is_memory_short() {
            for _ in 0..limits::RELIEVED_AT_ONCE.min(self.channels.capacity()) {
                continues |= self.page_out_last(self.memory.next_relieved, turn);
                self.memory.next_relieved = (self.memory.next_relieved + 1) % self.channels.capacity().max(1);
            }
        }
        for _ in 0..limits::RELIEVED_AT_ONCE {
            if self.is_memory_nearly_full() {
                break;
            }
            let Some(key) = self.memory.starved.pop_front() else { break };
            if let Some(channel) = self.channels.get_mut(key) {
                channel.next_page.starved = false;
                self.to_pump.push(key);
            }
        }
        if continues || !self.memory.starved.is_empty() {
            self.deadlines.relief.get_or_insert(turn.now.after(limits::RELIEF_EVERY));
        }
    }

    /// (Tests.) Returns the channels whose next page is not read because memory is short.
    #[cfg(test)]
    pub(super) fn starved(&self) -> std::collections::BTreeSet<String> {
        let starved = self.channels.iter().filter(|(_, channel)| channel.next_page.starved);
        starved.map(|(_, channel)| channel.name.to_string()).collect()
    }

    /// (Tests.) Whether a channel's next page is not read because memory is short.
    #[cfg(test)]
    pub(super) fn is_starved(&self, key: usize) -> bool {
        self.channels[key].next_page.starved && self.memory.starved.contains(&key) && self.deadlines.relief.is_some()
    }

    /// Makes the stored messages at the end of a channel's backlog leave memory, down to a small page. Returns true if some have left.
    fn page_out_last(&mut self, key: usize, turn: &mut Turn<'_>) -> bool {
        // The answer to a running sweep could name the messages.
        if self.sweeping {
            return false;
        }
        let Some(channel) = self.channels.get_mut(key) else { return false };
        let paged = channel.page_out_last(self.settings.bounds.short_page_bytes);
        if paged.is_empty() {
            return false;
        }
        for mut entry in paged {
            self.uncharge(&entry);
            self.transition(key, &mut entry, Location::Paged, Cause::PagedOut);
        }
        self.sweep_later(turn.now);
        true
    }
}
