//! Corrections of stored times: carried out in the journal's file at once, and owed to the database.
//!
//! While a correction is owed, no new rows go to the database, so that it finds there only rows that were written before it; and pages of the database
//! are corrected when they are put together with the journal's.

use rusqlite::params;

use super::courier::Task;
use super::fetch::Fetches;
use super::ledger::{Ledger, immediate};
use super::{Background as _, JournaledStore};
use crate::sqlite::{self, row};
use crate::{Restamp, StoreError};
use wsmb_core::message::{Message, MessageId, Timestamp};

impl Ledger {
    /// Corrects the rows that are here, and owes the same to the database.
    ///
    /// # Errors
    /// Then nothing is corrected.
    pub(super) fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        let owe = format!("INSERT INTO {} (token, above, of_all, by) VALUES (?1, ?2, ?3, ?4)", self.names.restamp);
        let news = self.rows.run(|connection, sql, _| {
            let transaction = immediate(connection)?;
            let news = sqlite::restamp(&transaction, sql, restamp)?;
            if news {
                let Restamp { token, after, all, by } = *restamp;
                transaction.execute(&owe, params![row::integer(token), row::integer(after.0), all, by])?;
            }
            transaction.commit()?;
            Ok(news)
        })?;
        self.restamps.extend(Some(*restamp).filter(|_| news));
        Ok(())
    }

    /// Reads what is owed.
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

    /// The database has carried out this correction.
    ///
    /// # Errors
    /// If the file can't be written; then it will be sent again, which does no harm.
    pub(super) fn restamped(&mut self, token: u64) -> Result<(), StoreError> {
        let paid = format!("DELETE FROM {} WHERE token = ?1", self.names.restamp);
        self.rows.run(|connection, _, _| connection.execute(&paid, [row::integer(token)]).map(drop))?;
        self.restamps.retain(|restamp| restamp.token != token);
        Ok(())
    }

    /// Corrects messages that the database has given.
    pub(super) fn correct(&self, messages: &mut [Message]) {
        for message in messages {
            self.restamps.iter().for_each(|restamp| restamp.apply(message));
        }
    }
}

impl Fetches {
    /// Corrects the pages that have come.
    pub(super) fn restamp(&mut self, restamp: &Restamp) {
        self.pages().for_each(|page| page.messages.iter_mut().for_each(|message| restamp.apply(message)));
    }
}

impl JournaledStore {
    /// Corrects times: here now, and in the database before anything else goes there.
    pub(super) fn restamp_both(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.ledger.restamp(restamp)?;
        self.fetches.restamp(restamp);
        self.sweeps.forget_times();
        self.move_soon();
        Ok(())
    }

    /// Takes rows from the future as created now, here and in the database as soon as it can be reached.
    pub(super) fn rejuvenate_both(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.ledger.rows.rejuvenate(now, up_to)?;
        self.sweeps.forget_times();
        let theirs = self.ledger.known_last_id()?.min(up_to);
        self.rejuvenation = Some((now, theirs));
        self.start_restamp().map(drop)
    }

    /// Has the database do the next correction. True while any is owed: then nothing else is to go there.
    pub(super) fn start_restamp(&mut self) -> Result<bool, StoreError> {
        if self.away.is_none()
            && let Some((now, up_to)) = self.rejuvenation.take()
        {
            self.ask(Task::Rejuvenate(now, up_to))?;
        }
        let Some(restamp) = self.ledger.restamps.first().copied() else { return Ok(false) };
        if !self.restamping {
            self.restamping = true;
            self.ask(Task::Restamp(restamp))?;
        }
        Ok(true)
    }

    /// The database has done a correction, or has not.
    pub(super) fn restamped(&mut self, token: u64, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.restamping = false;
        let now = std::time::Instant::now();
        self.move_at = Some(now);
        if self.noted(result).is_none() {
            self.stuck_until = Some(now + wsmb_core::limits::STORE_RETRY);
            return Ok(());
        }
        self.ledger.restamped(token)
    }
}
