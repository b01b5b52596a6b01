//! What sweeps of the database have found and nobody has been told yet. Holds a bounded number of rows: see [`crate::limits::JOURNAL_SPARED_BYTES`].

use std::collections::HashSet;

use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What the sweeps of the database have come to.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// The database is at one.
    pub(super) under_way: bool,
    /// For when, and what it is to spare.
    pub(super) now: Timestamp,
    pub(super) spare: Spare,
    /// Expired rows that the database has removed, to be told at the next sweep.
    pub(super) gone: Vec<(MessageId, ChannelName)>,
    /// Expired rows that it has spared.
    pub(super) spared: Vec<Message>,
    /// What they take.
    pub(super) spared_bytes: usize,
}

impl Sweeps {
    /// These rows are gone.
    pub(super) fn forget(&mut self, gone: &HashSet<MessageId>) {
        self.gone.retain(|(id, _)| !gone.contains(id));
        self.retain_spared(|message| !gone.contains(&message.id));
    }

    /// A channel is empty up to this id.
    pub(super) fn forget_channel(&mut self, channel: &ChannelName, up_to: MessageId) {
        self.gone.retain(|(id, of)| of != channel || *id > up_to);
        self.retain_spared(|message| message.channel != *channel || message.id > up_to);
    }

    /// What has been read carries times that are wrong now. The next sweeps find it again.
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
