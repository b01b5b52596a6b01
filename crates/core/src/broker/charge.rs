//! Charges what comes into memory, and what waits for the store, to its user, and asks whether the user is refused more. Every change of
//! `Broker::bytes` and `Broker::writing` is made here.

use super::Broker;
use super::entry::Entry;
use super::holdings::{Kind, Owner};
use crate::limits;

impl Broker {
    /// Counts an entry that comes into memory.
    #[inline]
    pub(super) fn charge(&mut self, entry: &Entry) {
        self.charge_bytes(entry.owner, entry.bytes());
    }

    /// Stops counting an entry that leaves memory.
    #[inline]
    pub(super) fn uncharge(&mut self, entry: &Entry) {
        self.uncharge_bytes(entry.owner, entry.bytes());
    }

    /// Counts an entry anew that had `before` bytes and has changed.
    pub(super) fn recharge(&mut self, entry: &Entry, before: usize) {
        // Added first, because an owner that holds nothing is forgotten.
        self.charge(entry);
        self.uncharge_bytes(entry.owner, before);
    }

    /// Counts bytes.
    #[inline]
    pub(super) fn charge_bytes(&mut self, owner: Owner, bytes: usize) {
        self.bytes += bytes;
        self.holdings.add(owner, Kind::Bytes, bytes);
    }

    /// Stops counting bytes.
    #[inline]
    pub(super) fn uncharge_bytes(&mut self, owner: Owner, bytes: usize) {
        self.bytes -= bytes;
        self.holdings.take(owner, Kind::Bytes, bytes);
    }

    /// Counts a message that the store is asked to write. Its entry must be charged. Returns the counted bytes.
    pub(super) fn charge_write(&mut self, owner: Owner, payload: usize) -> u32 {
        let bytes = u32::try_from(payload + limits::ENTRY_BYTES).unwrap_or(u32::MAX);
        self.writing += bytes as usize;
        self.holdings.add(owner, Kind::Writing, bytes as usize);
        bytes
    }

    /// Stops counting a message that the store has written, or need not write, or has failed to write. `bytes`: as [`Self::charge_write`] returned them,
    /// or 0.
    #[inline]
    pub(super) fn uncharge_write(&mut self, owner: Owner, bytes: u32) {
        if bytes > 0 {
            self.writing -= bytes as usize;
            self.holdings.take(owner, Kind::Writing, bytes as usize);
        }
    }

    /// Whether a user's publication of `messages` messages with `payload` bytes is refused, because too much waits for the store.
    pub(super) fn refuses_write(&self, owner: Owner, messages: usize, payload: usize) -> bool {
        let bound = self.settings.bounds.store_queue.min(self.settings.memory_budget / 2);
        self.holdings.refuses(owner, Kind::Writing, payload + messages * limits::ENTRY_BYTES, (self.writing, bound))
    }

    /// Counts a channel that was opened.
    pub(super) fn charge_channel(&mut self, owner: Owner) {
        self.charge_bytes(owner, limits::CHANNEL_BYTES);
        self.holdings.add(owner, Kind::Channels, 1);
    }

    /// Stops counting a channel that was closed.
    pub(super) fn uncharge_channel(&mut self, owner: Owner) {
        self.holdings.take(owner, Kind::Channels, 1);
        self.uncharge_bytes(owner, limits::CHANNEL_BYTES);
    }

    /// Whether a user is refused `more` channels.
    pub(super) fn refuses_channels(&self, owner: Owner, more: usize) -> bool {
        let channels = (self.channels.len(), self.settings.bounds.channels);
        self.holdings.refuses(owner, Kind::Channels, more, channels)
            || self.refuses_bytes(owner, more * limits::CHANNEL_BYTES)
    }

    /// Whether a user is refused `more` delayed messages.
    pub(super) fn refuses_delayed(&self, owner: Owner, more: usize) -> bool {
        self.holdings.refuses(owner, Kind::Delayed, more, (self.delayed.len(), self.settings.bounds.delayed))
    }
}
