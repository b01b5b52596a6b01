//! Whether the database can be used, and what the log says about it: each outage once when it begins, and once when it ends.

use std::time::Instant;

use super::{JournaledStore, Outage};
use crate::error::StoreError;
use crate::message_store::Group;

impl JournaledStore {
    /// Records that a group failed: all of it is retried.
    pub(super) fn retry_later(&mut self, group: &Group, error: &StoreError) {
        if let Some(first) = group.appends.first() {
            self.ledger.rewind(first.id);
        }
        self.database_failed(error);
        self.write_retry_at = Some(Instant::now() + wsmb_core::limits::STORE_RETRY);
    }

    pub(super) fn record_result<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.database_answered();
                Some(value)
            }
            Err(error) => {
                self.database_failed(&error);
                None
            }
        }
    }

    /// Records that the database has answered.
    pub(super) fn database_answered(&mut self) {
        if self.outage.take().is_none() {
            return;
        }
        self.last_logged = None;
        if self.is_uncounted {
            self.count_at = Instant::now();
        }
        self.move_at = Some(Instant::now());
        tracing::info!("the database can be used again; the rows of the journal are being moved to it");
    }

    /// Records that a request to the database failed.
    pub(super) fn database_failed(&mut self, error: &StoreError) {
        let keeps = matches!(error, StoreError::ReadOnly { .. } | StoreError::Full { .. } | StoreError::Unfit { .. });
        // A database that cannot be opened because it is read-only counts as an outage.
        if !keeps || self.outage.is_some() {
            self.outage =
                Some(Outage { error: error.clone(), retry_at: Instant::now() + wsmb_core::limits::STORE_RETRY });
        }
        // The same outage may have several error texts (refused, reset, no answer).
        let kind = std::mem::discriminant(error);
        if self.last_logged.as_ref().map(std::mem::discriminant) != Some(kind) {
            tracing::warn!("{error}; messages are kept in the journal {} meanwhile", self.ledger.place());
            self.last_logged = Some(error.clone());
        }
    }
}
