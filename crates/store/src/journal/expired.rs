//! The results of sweeps of the database that no sweep has returned yet. Bounded: see [`crate::limits::JOURNAL_SPARED_BYTES`].

use std::collections::HashSet;

use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// The sweep of the database, and the results that wait.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// The database is being swept.
    pub(super) under_way: bool,
    /// The time and the spared channels of the next sweep.
    pub(super) now: Timestamp,
    pub(super) spare: Spare,
    /// Expired rows that the database has removed; the next sweep returns them.
    pub(super) gone: Vec<(MessageId, ChannelName)>,
    /// Expired rows of spared channels.
    pub(super) spared: Vec<Message>,
    /// The size of their payloads, in bytes.
    pub(super) spared_bytes: usize,
}

impl Sweeps {
    /// Drops rows that have been removed meanwhile.
    pub(super) fn forget(&mut self, gone: &HashSet<MessageId>) {
        self.gone.retain(|(id, _)| !gone.contains(id));
        self.retain_spared(|message| !gone.contains(&message.id));
    }

    /// Drops the rows of a purged channel.
    pub(super) fn forget_channel(&mut self, channel: &ChannelName, up_to: MessageId) {
        self.gone.retain(|(id, of)| of != channel || *id > up_to);
        self.retain_spared(|message| message.channel != *channel || message.id > up_to);
    }

    /// Drops rows whose times have been corrected since. The next sweeps find them again.
    pub(super) fn forget_times(&mut self) {
        self.retain_spared(|_| false);
    }

    pub(super) fn retain_spared(&mut self, keep: impl Fn(&Message) -> bool) {
        if !self.spared.is_empty() {
            self.spared.retain(keep);
            self.spared_bytes = self.spared.iter().map(|message| message.payload.bytes.len()).sum();
        }
    }
}
