//! The calls that wait for the database, for a bounded time: the start, a scan, an orderly stop.

use std::time::Instant;

use super::JournaledStore;
use super::database_thread::{Report, Task};
use crate::limits;
use crate::{Page, StoreError, Summary};
use wsmb_core::message::{MessageId, Timestamp};

impl JournaledStore {
    /// Counts the rows of the database, and waits for the answer.
    fn count(&mut self, since: Timestamp) -> Result<Option<Summary>, StoreError> {
        self.ask(Task::Count(since))?;
        loop {
            match self.database_thread.next(limits::JOURNAL_ANSWER).map_err(|died| self.thread_died(died))? {
                Some(Report::Counted(result)) => {
                    self.counting = false;
                    let Some(found) = self.record_result(result) else { return Ok(None) };
                    self.count_at = Instant::now() + limits::JOURNAL_COUNT_EVERY;
                    self.is_uncounted = false;
                    self.ledger.recount(&found.channels, found.last_id)?;
                    return Ok(Some(found));
                }
                Some(other) => self.handle(other)?,
                None => return Ok(None),
            }
        }
    }

    /// Moves all rows that can be moved, so that the database is complete when the broker has stopped. Bounded in time.
    pub(super) fn flush_before_stop(&mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + limits::JOURNAL_FLUSH_TIME;
        self.move_at = Some(Instant::now());
        self.count_at = deadline;
        while self.outage.is_none()
            && self.write_retry_at.is_none()
            && (self.move_at.is_some() || self.database_thread.under_way() > 0)
        {
            if self.move_at.is_some() {
                self.move_at = Some(Instant::now());
            }
            self.dispatch()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.database_thread.under_way() > 0 && !self.wait(left)?) {
                break;
            }
        }
        let (messages, changes) = self.ledger.waiting()?;
        if messages + changes > 0 {
            tracing::info!(
                "rows that are not in the database yet stay in the journal: {messages} messages, {changes} changes"
            );
        } else if self.outage.is_none() && self.database_thread.under_way() == 0 {
            self.ask(Task::MarkClean)?;
            self.wait(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Returns the contents of the journal and, if it can be reached, of the database.
    pub(super) fn summary_blocking(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let theirs = if self.outage.is_some() { None } else { self.count(publications_since)? };
        let Some(mut theirs) = theirs else {
            return self.ledger.summary(publications_since);
        };
        self.ledger.take_over_delayed(std::mem::take(&mut theirs.delayed))?;
        self.move_soon();
        self.ledger.summary_with(theirs, publications_since)
    }

    /// Returns a page of all channels, from the journal and the database.
    pub(super) fn scan_blocking(
        &mut self,
        mut after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        loop {
            self.ask(Task::Scan(after, limit, max_bytes))?;
            let theirs = loop {
                match self.database_thread.next(limits::JOURNAL_ANSWER).map_err(|died| self.thread_died(died))? {
                    Some(Report::Scanned(result)) => break result?,
                    Some(other) => self.handle(other)?,
                    None => return Err(self.no_answer()),
                }
            };
            let merged = self.ledger.merge_scan(after, theirs, limit, max_bytes)?;
            if merged.page.complete || !merged.page.messages.is_empty() {
                return Ok(merged.page);
            }
            after = merged.horizon;
        }
    }

    /// The error for a database that did not answer, although its client's own timeouts are shorter.
    pub(super) fn no_answer(&self) -> StoreError {
        let place = format!("behind the journal {}", self.ledger.place());
        StoreError::Unreachable { place, detail: "it does not answer".to_owned() }
    }
}
