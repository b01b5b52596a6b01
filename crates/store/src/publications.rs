//! Which publications a store holds messages of, for the broker's memory of ids: put together row by row. Knows no store, and must never read one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::SmallVec;

use wsmb_core::message::{ChannelName, MessageId, PublicationId, Timestamp};

/// A publication with an id, of which messages are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPublication {
    /// Where it was sent to.
    pub channel: ChannelName,
    /// Its id.
    pub id: PublicationId,
    /// When it was accepted.
    pub created: Timestamp,
    /// Its messages that are stored.
    pub rows: SmallVec<[MessageId; 1]>,
}

/// Publications, put together row by row.
#[derive(Debug, Default)]
pub(super) struct FoundPublications {
    found: Vec<StoredPublication>,
    /// Where in the list each is.
    places: HashMap<(ChannelName, PublicationId), usize>,
}

impl FoundPublications {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// A row of one was found. The time of the row that is named first counts.
    pub(super) fn add(&mut self, channel: ChannelName, id: PublicationId, created: Timestamp, row: MessageId) {
        match self.places.entry((channel, id)) {
            Entry::Occupied(known) => self.found[*known.get()].rows.push(row),
            Entry::Vacant(free) => {
                let (channel, id) = free.key().clone();
                free.insert(self.found.len());
                self.found.push(StoredPublication { channel, id, created, rows: SmallVec::from_elem(row, 1) });
            }
        }
    }

    /// The rows were named from the newest back.
    pub(super) fn oldest_first(mut self) -> Vec<StoredPublication> {
        self.found.reverse();
        self.found
    }
}
