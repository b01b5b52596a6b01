//! Whether the store can be written and read, and what the log says about it: each outage once when it begins, and once when it ends.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::StoreThread;
use super::repeated::should_log;
use crate::error::StoreError;

impl StoreThread {
    /// Records a successful write. After a full store only the large write of a check proves that there is room again.
    pub(super) fn succeeded(&mut self) {
        if !self.was_out_of_room {
            self.recovered();
        }
    }

    pub(super) fn recovered(&mut self) {
        self.was_out_of_room = false;
        self.written_at = Some(Instant::now());
        if self.retry_at.take().is_none() {
            return;
        }
        self.shared.healthy.store(true, Ordering::Release);
        if std::mem::take(&mut self.outage_logged) {
            tracing::info!("the store can be written again");
        }
    }

    pub(super) fn failed(&mut self, error: &StoreError) {
        self.written_at = None;
        self.was_out_of_room |= error.is_out_of_room();
        self.shared.healthy.store(false, Ordering::Release);
        if self.retry_at.is_none() && should_log(&mut self.write_log, error) {
            self.outage_logged = true;
            tracing::error!("messages can't be stored: {error}");
        }
        // Failing appends must not postpone the next retry of waiting changes.
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|retry_at| *retry_at > now).or(Some(now + wsmb_core::limits::STORE_RETRY));
    }

    pub(super) fn read_failed(&mut self, error: &StoreError) {
        if should_log(&mut self.read_log, error) {
            tracing::error!("stored messages can't be read: {error}");
        }
    }
}
