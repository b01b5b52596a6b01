//! Rows that may be in the store although writing them was reported as failed: the answer of a server was lost, or a disk failed behind the commit.
//!
//! The broker writes such a message again, unless it is settled meanwhile. Then the row, if there is one, must go: it would be delivered after the next
//! start. Bounded: of very many failures the oldest are forgotten, whose rows, if there are any, are delivered once more.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::limits;
use wsmb_core::message::MessageId;

type Ids = HashSet<MessageId, RandomState>;

#[derive(Default)]
pub(super) struct Doubtful {
    /// Those that wait to be written again: as many as the queue has of them.
    waiting: Ids,
    /// Those that failed last, and those before them; at most [`limits::STORE_DOUBTS`] each.
    recent: Ids,
    older: Ids,
}

impl Doubtful {
    /// Writing it was reported as failed.
    pub(super) fn failed(&mut self, id: MessageId) {
        if self.recent.len() >= limits::STORE_DOUBTS {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id);
    }

    /// It waits to be written, maybe again.
    pub(super) fn asked_again(&mut self, id: MessageId) {
        let is_empty = self.recent.is_empty() && self.older.is_empty();
        if !is_empty && (self.recent.remove(&id) | self.older.remove(&id)) {
            self.waiting.insert(id);
        }
    }

    /// It is written now, or goes; true if it may be in the store.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        let Self { waiting, recent, older } = self;
        let is_empty = waiting.is_empty() && recent.is_empty() && older.is_empty();
        !is_empty && (waiting.remove(&id) | recent.remove(&id) | older.remove(&id))
    }
}
