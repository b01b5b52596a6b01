//! For tests of tools: a store that stops working at a chosen commit, as if the process had died. Must never be part of the program.

use super::{Group, MemoryStore, MessageStore, Page, StoreError, Summary};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};

/// A store that stops working before or after a chosen commit.
pub(super) struct CrashingStore {
    pub(super) rows: MemoryStore,
    commits_left: Option<u32>,
    crashes_after_commit: bool,
    /// Ids that the store cannot hold.
    pub(super) unfit: Vec<MessageId>,
    pub(super) clean: bool,
}

impl CrashingStore {
    pub(super) fn new(messages: &[Message]) -> Self {
        let mut rows = MemoryStore::new(1 << 30);
        rows.commit(&Group { appends: messages.to_vec(), ..Group::default() }).unwrap();
        Self { rows, commits_left: None, crashes_after_commit: false, unfit: Vec::new(), clean: true }
    }

    pub(super) fn crashes_at(&mut self, commits: Option<u32>, after: bool) {
        (self.commits_left, self.crashes_after_commit) = (commits, after);
    }

    pub(super) fn everything(&mut self) -> Vec<Message> {
        self.rows.scan(MessageId(0), usize::MAX, usize::MAX).unwrap().messages
    }
}

fn crashed() -> StoreError {
    StoreError::Unavailable { place: "test".to_owned(), detail: "killed".to_owned() }
}

impl MessageStore for &mut CrashingStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let ids = group.appends.iter().map(|message| message.id);
        let ids: Vec<MessageId> = ids.filter(|id| self.unfit.contains(id)).collect();
        if !ids.is_empty() {
            return Err(StoreError::Unfit { place: "test".to_owned(), ids, reason: "are too large".to_owned() });
        }
        match &mut self.commits_left {
            Some(0) => {
                if self.crashes_after_commit {
                    self.rows.commit(group)?;
                }
                return Err(crashed());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.rows.commit(group)
    }
    /// Returns small pages.
    fn load(&mut self, of: &ChannelName, after: MessageId, _: usize, bytes: usize) -> Result<Page, StoreError> {
        self.rows.load(of, after, 3, bytes)
    }
    /// Returns small pages, so that there are many batches.
    fn scan(&mut self, after: MessageId, _: usize, bytes: usize) -> Result<Page, StoreError> {
        self.rows.scan(after, 3, bytes)
    }
    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        self.rows.mark(name)
    }
    fn purge(&mut self, of: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        self.rows.purge(of, up_to, limit)
    }
    fn summary(&mut self, since: Timestamp) -> Result<Summary, StoreError> {
        let clean = std::mem::take(&mut self.clean);
        Ok(Summary { clean, ..self.rows.summary(since)? })
    }
    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.clean = true;
        Ok(())
    }
}
