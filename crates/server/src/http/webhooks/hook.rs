//! One webhook, shared by the tasks of its channels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::client::Client;
use crate::counters::WarningLimit;
use crate::settings::Webhook;

/// A webhook.
pub(super) struct Hook {
    pub(super) settings: Webhook,
    pub(super) client: Client,
    /// One for each request at the same time.
    pub(super) permits: Semaphore,
    ended: watch::Sender<bool>,
    health: Mutex<Health>,
    told: WarningLimit,
}

/// The failures since the last success.
#[derive(Debug, Default)]
struct Health {
    failures: u64,
    since: Option<Instant>,
    /// The failures were logged, so the recovery is logged too.
    is_told: bool,
}

impl Hook {
    pub(super) fn new(settings: Webhook, lookups: Arc<Semaphore>) -> Self {
        Self {
            client: Client::new(&settings, lookups),
            permits: Semaphore::new(settings.concurrency),
            ended: watch::Sender::new(false),
            health: Mutex::default(),
            told: WarningLimit::default(),
            settings,
        }
    }

    /// Ends the webhook. A request that runs is finished.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the webhook ends.
    pub(super) async fn ended(&self) {
        // No error: the sender is a part of this value.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends the webhook because its URL has answered 410.
    pub(super) fn disable(&self) {
        if !self.has_ended() {
            self.end();
            warn!(
                webhook = self.settings.name,
                "the URL of a webhook has answered 410 Gone: nothing is posted to it until a reload or restart; its messages wait on their channels"
            );
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the first failure, and each time the number has doubled.
    pub(super) fn note_failure(&self, cause: &str) {
        let mut health = self.health();
        health.failures += 1;
        health.since.get_or_insert_with(Instant::now);
        let (failures, name) = (health.failures, &self.settings.name);
        if failures == 1 {
            if let Some(withheld) = self.told.admit() {
                health.is_told = true;
                warn!(webhook = name, cause, withheld, "a webhook fails; its messages wait and are posted again");
            }
        } else if failures.is_power_of_two() {
            health.is_told = true;
            warn!(webhook = name, cause, failures, "a webhook still fails; its messages wait and are posted again");
        }
    }

    /// Logs the end of failures, if they were logged.
    pub(super) fn note_success(&self) {
        let health = std::mem::take(&mut *self.health());
        if let Some(since) = health.since.filter(|_| health.is_told) {
            let seconds = since.elapsed().as_secs();
            info!(webhook = self.settings.name, failures = health.failures, seconds, "a webhook delivers again");
        }
    }
}
