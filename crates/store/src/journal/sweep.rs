//! Sweeps of expired rows: those of the journal's file at once, those of the database in the background; a later sweep returns the latter.
//!
//! Results of the database agree with the journal: rows with a pending removal, and rows with a pending correction of times, are left out.

use std::collections::HashSet;

use super::JournaledStore;
use super::database_thread::Task;
use super::expired::Sweeps;
use crate::limits;
use crate::{StoreError, Swept};
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_core::policy::Spare;

impl JournaledStore {
    /// Sweeps the journal's file, and starts a sweep of the database; also returns the results of earlier sweeps of the database.
    pub(super) fn sweep_both(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        let mut swept = self.ledger.sweep(now, limit, spare)?;
        self.fetches.forget(&swept.gone.iter().map(|(id, _)| *id).collect());
        let here: HashSet<MessageId> = swept.gone.iter().map(|(id, _)| *id).collect();
        swept.gone.extend(std::mem::take(&mut self.sweeps.gone).into_iter().filter(|(id, _)| !here.contains(id)));
        let part = self.sweeps.spared.len().min(limit);
        swept.spared.extend(self.sweeps.spared.drain(..part));
        self.sweeps.retain_spared(|_| true);
        swept.more |= !self.sweeps.spared.is_empty();
        self.sweeps.now = now;
        self.sweeps.spare = spare.clone();
        self.sweep_database()?;
        self.move_soon();
        Ok(swept)
    }

    /// Starts a sweep of the database, unless a correction of times is pending, or too many results have not been returned yet.
    fn sweep_database(&mut self) -> Result<(), StoreError> {
        let Sweeps { under_way, spared_bytes, .. } = self.sweeps;
        let is_wanted = self.outage.is_none() && !self.ledger.is_database_empty() && self.ledger.restamps.is_empty();
        if under_way || !is_wanted || spared_bytes > limits::JOURNAL_SPARED_BYTES {
            return Ok(());
        }
        self.sweeps.under_way = true;
        self.ask(Task::Sweep(self.sweeps.now, wsmb_core::limits::SWEEP_ROWS, self.sweeps.spare.clone()))
    }

    /// Handles the result of a sweep of the database.
    pub(super) fn swept(&mut self, result: Result<Swept, StoreError>) -> Result<(), StoreError> {
        self.sweeps.under_way = false;
        let Some(mut swept) = self.record_result(result) else { return Ok(()) };
        self.ledger.retain_not_removed(&mut swept.gone)?;
        self.fetches.forget(&swept.gone.iter().map(|(id, _)| *id).collect());
        self.sweeps.gone.append(&mut swept.gone);
        if self.ledger.restamps.is_empty() && !swept.spared.is_empty() {
            self.ledger.apply_pending_changes(&mut swept.spared)?;
            self.sweeps.spared.append(&mut swept.spared);
            self.sweeps.retain_spared(|_| true);
        }
        let waiting = self.sweeps.gone.len() + self.sweeps.spared.len();
        if swept.more && waiting < limits::STORE_PENDING { self.sweep_database() } else { Ok(()) }
    }
}
