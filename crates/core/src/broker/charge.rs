//! Charges what comes into memory to its user, and asks whether the user is refused more. Every change of `Broker::bytes` is made here.

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
