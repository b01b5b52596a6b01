//! Rows that may be in the store although their write was reported as failed: a server's answer was lost, or a disk failed after the commit.
//!
//! The broker writes such a message again, unless the message is removed before. Then the row must be removed too, or it would be delivered after the
//! next start. Bounded: after very many failures the oldest ids are dropped, and their rows, if there are any, are delivered once more.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::limits;
use wsmb_core::message::MessageId;

type Ids = HashSet<MessageId, RandomState>;

#[derive(Default)]
pub(super) struct UncertainRows {
    /// Ids that wait to be written again: at most as many as the queue holds.
    waiting: Ids,
    /// The ids that failed last, and the ids that failed before those; at most [`limits::STORE_UNCERTAIN_ROWS`] each.
    recent: Ids,
    older: Ids,
}

impl UncertainRows {
    /// Records a write that was reported as failed.
    pub(super) fn failed(&mut self, id: MessageId) {
        if self.recent.len() >= limits::STORE_UNCERTAIN_ROWS {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id);
    }

    /// Records that the message waits to be written, perhaps again.
    pub(super) fn retried(&mut self, id: MessageId) {
        let is_empty = self.recent.is_empty() && self.older.is_empty();
        if !is_empty && (self.recent.remove(&id) | self.older.remove(&id)) {
            self.waiting.insert(id);
        }
    }

    /// Removes the id, because the message is written or removed now. True if the row may be in the store.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        let Self { waiting, recent, older } = self;
        let is_empty = waiting.is_empty() && recent.is_empty() && older.is_empty();
        !is_empty && (waiting.remove(&id) | recent.remove(&id) | older.remove(&id))
    }
}
