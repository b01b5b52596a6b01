//! Corrections of stored times: carried out in the journal's file at once, and pending for the database.
//!
//! While a correction is pending, no new rows are moved to the database, so that the database corrects only rows that were written before the
//! correction; pages of the database are corrected when they are merged with the journal's rows.

use rusqlite::params;

use super::database_thread::Task;
use super::fetch::Fetches;
use super::ledger::{Ledger, immediate};
use super::{Background as _, JournaledStore};
use crate::sqlite::{self, row};
use crate::{Restamp, StoreError};
use wsmb_core::message::{Message, MessageId, Timestamp};

impl Ledger {
    /// Corrects the rows of the journal, and records the correction as pending for the database.
    ///
    /// # Errors
    /// No row has been corrected.
    pub(super) fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        let record = format!("INSERT INTO {} (token, above, of_all, by) VALUES (?1, ?2, ?3, ?4)", self.names.restamp);
        let is_new = self.rows.run(|connection, sql, _| {
            let transaction = immediate(connection)?;
            let is_new = sqlite::restamp(&transaction, sql, restamp)?;
            if is_new {
                let Restamp { token, after, all, by } = *restamp;
                transaction.execute(&record, params![row::integer(token), row::integer(after.0), all, by])?;
            }
            transaction.commit()?;
            Ok(is_new)
        })?;
        self.restamps.extend(Some(*restamp).filter(|_| is_new));
        Ok(())
    }

    /// Reads the pending corrections.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn read_restamps(&mut self) -> Result<Vec<Restamp>, StoreError> {
        let query = format!("SELECT token, above, of_all, by FROM {} ORDER BY number", self.names.restamp);
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare(&query)?;
            let rows = statement.query_map([], |found| {
                let unsigned = |column| found.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Restamp {
                    token: unsigned(0)?,
                    after: MessageId(unsigned(1)?),
                    all: found.get(2)?,
                    by: found.get(3)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Removes a pending correction that the database has carried out.
    ///
    /// # Errors
    /// If the file cannot be written; then the correction is sent again, which is harmless.
    pub(super) fn restamped(&mut self, token: u64) -> Result<(), StoreError> {
        let delete = format!("DELETE FROM {} WHERE token = ?1", self.names.restamp);
        self.rows.run(|connection, _, _| connection.execute(&delete, [row::integer(token)]).map(drop))?;
        self.restamps.retain(|restamp| restamp.token != token);
        Ok(())
    }

    /// Applies the pending corrections to messages of the database.
    pub(super) fn correct(&self, messages: &mut [Message]) {
        for message in messages {
            self.restamps.iter().for_each(|restamp| restamp.apply(message));
        }
    }
}

impl Fetches {
    /// Corrects the pages that have arrived.
    pub(super) fn restamp(&mut self, restamp: &Restamp) {
        self.pages().for_each(|page| page.messages.iter_mut().for_each(|message| restamp.apply(message)));
    }
}

impl JournaledStore {
    /// Corrects times in the journal now, and in the database before any other change.
    pub(super) fn restamp_both(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.ledger.restamp(restamp)?;
        self.fetches.restamp(restamp);
        self.sweeps.forget_times();
        self.move_soon();
        Ok(())
    }

    /// Corrects rows that were created in the future: in the journal now, in the database as soon as it can be reached.
    pub(super) fn clamp_future_rows_both(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.ledger.rows.clamp_future_rows(now, up_to)?;
        self.sweeps.forget_times();
        let theirs = self.ledger.known_last_id()?.min(up_to);
        self.future_clamp = Some((now, theirs));
        self.start_restamp().map(drop)
    }

    /// Sends the next correction to the database. True while a correction is pending: then no other change may be sent.
    pub(super) fn start_restamp(&mut self) -> Result<bool, StoreError> {
        if self.outage.is_none()
            && let Some((now, up_to)) = self.future_clamp.take()
        {
            self.ask(Task::ClampFutureRows(now, up_to))?;
        }
        let Some(restamp) = self.ledger.restamps.first().copied() else { return Ok(false) };
        if !self.restamping {
            self.restamping = true;
            self.ask(Task::Restamp(restamp))?;
        }
        Ok(true)
    }

    /// Handles the result of a correction.
    pub(super) fn restamped(&mut self, token: u64, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.restamping = false;
        let now = std::time::Instant::now();
        self.move_at = Some(now);
        if self.record_result(result).is_none() {
            self.write_retry_at = Some(now + wsmb_core::limits::STORE_RETRY);
            return Ok(());
        }
        self.ledger.restamped(token)
    }
}
