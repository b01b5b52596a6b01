//! Collects the publications of which a store holds messages, for the broker's deduplication. Never reads a store.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::SmallVec;

use wsmb_core::message::{ChannelName, MessageId, PublicationId, Timestamp};

/// A publication with an id and with stored messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPublication {
    /// The channel that the publication was sent to.
    pub channel: ChannelName,
    /// The publication's id.
    pub id: PublicationId,
    /// When the publication was accepted.
    pub created: Timestamp,
    /// The stored messages of the publication.
    pub rows: SmallVec<[MessageId; 1]>,
}

/// Groups rows by publication.
#[derive(Debug, Default)]
pub(super) struct FoundPublications {
    found: Vec<StoredPublication>,
    /// The index in `found` of each publication.
    indexes: HashMap<(ChannelName, PublicationId), usize>,
}

impl FoundPublications {
    /// The number of publications.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Adds a row. A publication keeps the time of the row that was added first.
    pub(super) fn add(&mut self, channel: ChannelName, id: PublicationId, created: Timestamp, row: MessageId) {
        match self.indexes.entry((channel, id)) {
            Entry::Occupied(known) => self.found[*known.get()].rows.push(row),
            Entry::Vacant(free) => {
                let (channel, id) = free.key().clone();
                free.insert(self.found.len());
                self.found.push(StoredPublication { channel, id, created, rows: SmallVec::from_elem(row, 1) });
            }
        }
    }

    /// Returns the publications, oldest first. Rows must have been added from the newest to the oldest.
    pub(super) fn oldest_first(mut self) -> Vec<StoredPublication> {
        self.found.reverse();
        self.found
    }
}
