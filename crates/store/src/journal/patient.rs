//! What does wait for the database, for a bounded time: the start, a tool, the farewell.

use std::time::Instant;

use super::JournaledStore;
use super::courier::{Report, Task};
use crate::limits;
use crate::{Page, StoreError, Summary};
use wsmb_core::message::{MessageId, Timestamp};

impl JournaledStore {
    /// Asks the database what it holds, and waits for it.
    fn count(&mut self, since: Timestamp) -> Result<Option<Summary>, StoreError> {
        self.ask(Task::Count(since))?;
        loop {
            match self.courier.next(limits::JOURNAL_PATIENCE).map_err(|gone| self.gone(gone))? {
                Some(Report::Counted(result)) => {
                    self.counting = false;
                    let Some(found) = self.noted(result) else { return Ok(None) };
                    self.count_at = Instant::now() + limits::JOURNAL_COUNT_EVERY;
                    self.is_uncounted = false;
                    self.ledger.recount(&found.channels, found.last_id)?;
                    return Ok(Some(found));
                }
                Some(other) => self.heard(other)?,
                None => return Ok(None),
            }
        }
    }

    /// Moves what can be moved at once, so that the database is complete when the broker has stopped. Bounded in time.
    pub(super) fn farewell(&mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + limits::JOURNAL_FAREWELL;
        self.move_at = Some(Instant::now());
        self.count_at = deadline;
        while self.away.is_none()
            && self.stuck_until.is_none()
            && (self.move_at.is_some() || self.courier.under_way() > 0)
        {
            if self.move_at.is_some() {
                self.move_at = Some(Instant::now());
            }
            self.dispatch()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.courier.under_way() > 0 && !self.wait(left)?) {
                break;
            }
        }
        let (messages, debts) = self.ledger.waiting()?;
        if messages + debts > 0 {
            tracing::info!("the journal keeps what is not in the database yet: {messages} messages, {debts} changes");
        } else if self.away.is_none() && self.courier.under_way() == 0 {
            self.ask(Task::MarkClean)?;
            self.wait(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// What is there, here and, if it can be asked, in the database.
    pub(super) fn sum_up(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let theirs = if self.away.is_some() { None } else { self.count(publications_since)? };
        let Some(theirs) = theirs else {
            return self.ledger.summary(publications_since);
        };
        self.ledger.pull(theirs.delayed)?;
        self.move_soon();
        let mut summary = self.ledger.summary(publications_since)?;
        summary.expiries.extend(theirs.expiries);
        summary.publications = self.ledger.publications(theirs.publications, summary.publications)?;
        summary.clean &= theirs.clean;
        Ok(summary)
    }

    /// A page of everything, here and in the database.
    pub(super) fn scan_patiently(
        &mut self,
        mut after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        loop {
            self.ask(Task::Scan(after, limit, max_bytes))?;
            let theirs = loop {
                match self.courier.next(limits::JOURNAL_PATIENCE).map_err(|gone| self.gone(gone))? {
                    Some(Report::Scanned(result)) => break result?,
                    Some(other) => self.heard(other)?,
                    None => return Err(self.silent()),
                }
            };
            let merged = self.ledger.complete_scan(after, theirs, limit, max_bytes)?;
            if merged.page.complete || !merged.page.messages.is_empty() {
                return Ok(merged.page);
            }
            after = merged.horizon;
        }
    }

    /// The database gave no answer at all, although its own time-outs are shorter.
    pub(super) fn silent(&self) -> StoreError {
        let place = format!("behind the journal {}", self.ledger.place());
        StoreError::Unreachable { place, detail: "it does not answer".to_owned() }
    }
}
