//! A database and its journal, opened by a tool while no broker runs: every operation is carried out at once, in both, without a thread.
//!
//! Opening carries out all pending changes, so that the database is complete by itself. Only these rows stay in the journal: messages with a due
//! time, and rows that the database cannot hold.

use super::ledger::Ledger;
use crate::sqlite::inspect;
use crate::{Background, Group, JournalSettings, MessageStore, Page, Prefix, StoreError, Summary};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};

/// The database and its journal, both locked.
pub(crate) struct OfflineStore {
    ledger: Ledger,
    server: Box<dyn Background>,
}

impl OfflineStore {
    /// Opens the database together with its journal; opens the database alone if there is no journal, or if the file is another database's journal.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a broker runs on the journal; any error that keeps one of the two from being used.
    pub(crate) fn open(
        server: Box<dyn Background>,
        journal: Option<&JournalSettings>,
        prefix: &Prefix,
        database: &str,
    ) -> Result<Box<dyn MessageStore>, StoreError> {
        let Some(journal) = journal.filter(|journal| inspect::is_journal_of(&journal.path, prefix, database)) else {
            return Ok(server);
        };
        let ledger = Ledger::open(&journal.path, journal.bytes, prefix)?;
        let mut offline = Self { ledger, server };
        offline.flush()?;
        Ok(Box::new(offline))
    }

    /// Carries out the pending changes and moves the rows of the journal.
    fn flush(&mut self) -> Result<(), StoreError> {
        while let Some(restamp) = self.ledger.restamps.first().copied() {
            self.server.restamp(&restamp)?;
            self.ledger.restamped(restamp.token)?;
        }
        while let Some((channel, up_to)) = self.ledger.next_purge()? {
            while self.server.purge(&channel, up_to, wsmb_core::limits::STORE_GROUP)?
                >= wsmb_core::limits::STORE_GROUP as u64
            {}
            self.ledger.purged(&channel, up_to)?;
        }
        loop {
            let mut group = self.ledger.next_batch()?.group;
            if group.is_empty() {
                return Ok(());
            }
            loop {
                match self.server.commit(&group) {
                    Ok(()) => break,
                    Err(StoreError::Unfit { place, ids, reason }) => {
                        if group.without(&ids).is_empty() {
                            return Err(StoreError::Unfit { place, ids, reason });
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            self.ledger.acknowledge(&group)?;
        }
    }

    /// Returns a page of the database, merged with the journal's rows; skips empty pages that are not the last page.
    fn page(
        &mut self,
        mut after: MessageId,
        mut fetch: impl FnMut(&mut Self, MessageId) -> Result<super::merge::Merged, StoreError>,
    ) -> Result<Page, StoreError> {
        loop {
            let merged = fetch(self, after)?;
            if merged.page.complete || !merged.page.messages.is_empty() {
                return Ok(merged.page);
            }
            after = merged.horizon;
        }
    }

    /// Stores the counts of the database's rows in the journal, so that a broker that starts without the database assigns no id twice.
    fn recount(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let theirs = self.server.summary(publications_since)?;
        self.ledger.recount(&theirs.channels, theirs.last_id)?;
        Ok(theirs)
    }
}

impl MessageStore for OfflineStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if !group.appends.is_empty() && group.marks.is_empty() && self.ledger.has_any(&group.removals)? {
            // New rows replace rows of the journal. A transaction cannot span both stores: it is made in the journal, and the database follows.
            self.ledger.commit(group)?;
            return self.flush();
        }
        if let Some(highest) = group.appends.iter().map(|message| message.id).max() {
            self.ledger.raise_last_id(highest)?;
        }
        self.server.commit(group)?;
        // New rows are stored in the database only.
        let rest = Group { removals: group.removals.clone(), deliveries: group.deliveries.clone(), ..Group::default() };
        if rest.is_empty() { Ok(()) } else { self.ledger.rows.commit(&rest) }
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.page(after, |both, after| {
            let theirs = both.server.load(channel, after, limit, max_bytes)?;
            both.ledger.merge_page(channel, after, theirs, limit, max_bytes)
        })
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.page(after, |both, after| {
            let theirs = both.server.scan(after, limit, max_bytes)?;
            both.ledger.merge_scan(after, theirs, limit, max_bytes)
        })
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        // A tool's marks are in the database; a broker's marks are in the journal, or in the database if the broker had no journal then.
        Ok(self.server.mark(name)?.max(self.ledger.rows.mark(name)?))
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        let here = self.ledger.rows.purge(channel, up_to, limit)?;
        let left = limit - usize::try_from(here).unwrap_or(limit).min(limit);
        Ok(if left == 0 { here } else { here + self.server.purge(channel, up_to, left)? })
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let mut theirs = self.recount(publications_since)?;
        let delayed = std::mem::take(&mut theirs.delayed);
        let mut summary = self.ledger.summary_with(theirs, publications_since)?;
        summary.delayed.extend(delayed);
        summary.delayed.sort_by_key(|message| message.id);
        summary.delayed.dedup_by_key(|message| message.id);
        summary.delayed.truncate(wsmb_core::limits::DELAYED);
        Ok(summary)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.recount(Timestamp(u64::MAX))?;
        self.server.mark_clean()?;
        self.ledger.rows.mark_clean()
    }
}
