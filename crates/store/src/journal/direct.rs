//! A database and the journal in front of it, in the hands of a tool while no broker runs: everything is done at once, in both, and no thread is needed.
//!
//! What the journal owes is paid when it is opened, so that the database is true by itself. Only what it can't or need not hold stays in the journal: messages with
//! a due time, and rows that don't fit it.

use super::ledger::Ledger;
use crate::sqlite::look;
use crate::{Background, Group, JournalSettings, MessageStore, Page, Prefix, StoreError, Summary};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};

/// Both of them, locked.
pub(crate) struct Direct {
    ledger: Ledger,
    server: Box<dyn Background>,
}

impl Direct {
    /// The database, with its journal if there is one; without it if the file is another database's.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a broker runs on the journal, or what keeps one of the two from being used.
    pub(crate) fn open(
        server: Box<dyn Background>,
        journal: Option<&JournalSettings>,
        prefix: &Prefix,
        database: &str,
    ) -> Result<Box<dyn MessageStore>, StoreError> {
        let Some(journal) = journal.filter(|journal| look::is_journal_of(&journal.path, prefix, database)) else {
            return Ok(server);
        };
        let ledger = Ledger::open(&journal.path, journal.bytes, prefix)?;
        let mut direct = Self { ledger, server };
        direct.settle()?;
        Ok(Box::new(direct))
    }

    /// Pays what the journal owes.
    fn settle(&mut self) -> Result<(), StoreError> {
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
            self.ledger.settle(&group)?;
        }
    }

    /// A page of the database, put together with the journal's rows; the next one as long as nothing is in it.
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

    /// Has the journal know what the database holds, so that a broker which starts without it gives no id twice.
    fn recount(&mut self) -> Result<Summary, StoreError> {
        let theirs = self.server.summary(Timestamp(u64::MAX))?;
        self.ledger.recount(&theirs.channels, theirs.last_id)?;
        Ok(theirs)
    }
}

impl MessageStore for Direct {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if !group.appends.is_empty() && group.marks.is_empty() && self.ledger.has_any(&group.removals)? {
            // Rows of the journal give way to others. One transaction in two places is none: it happens in the journal, and the database follows.
            self.ledger.commit(group)?;
            return self.settle();
        }
        if let Some(highest) = group.appends.iter().map(|message| message.id).max() {
            self.ledger.reach(highest)?;
        }
        self.server.commit(group)?;
        // New rows are the database's alone.
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
            both.ledger.complete(channel, after, theirs, limit, max_bytes)
        })
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.page(after, |both, after| {
            let theirs = both.server.scan(after, limit, max_bytes)?;
            both.ledger.complete_scan(after, theirs, limit, max_bytes)
        })
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        // A tool's marks are in the database; the broker's are in the journal, or in the database if it had none then.
        Ok(self.server.mark(name)?.max(self.ledger.rows.mark(name)?))
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        let here = self.ledger.rows.purge(channel, up_to, limit)?;
        let left = limit - usize::try_from(here).unwrap_or(limit).min(limit);
        Ok(if left == 0 { here } else { here + self.server.purge(channel, up_to, left)? })
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let theirs = self.server.summary(publications_since)?;
        self.ledger.recount(&theirs.channels, theirs.last_id)?;
        let mut summary = self.ledger.summary(publications_since)?;
        summary.expiries.extend(theirs.expiries);
        summary.delayed.extend(theirs.delayed);
        summary.delayed.sort_by_key(|message| message.id);
        summary.delayed.dedup_by_key(|message| message.id);
        summary.delayed.truncate(wsmb_core::limits::DELAYED);
        summary.publications = self.ledger.publications(theirs.publications, summary.publications)?;
        summary.clean &= theirs.clean;
        Ok(summary)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.recount()?;
        self.server.mark_clean()?;
        self.ledger.rows.mark_clean()
    }
}
