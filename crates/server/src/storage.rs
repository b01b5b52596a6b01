//! The connection to the store's worker: commands in the order of the core's decisions, reports in the order of the worker's.
//!
//! ```text
//! engine ─► submit ─► commands ─► hand_over ─► worker's thread ─► reports ─► a task of the server (`tasks`) ─► engine
//! ```
//!
//! The worker's thread touches no session and no socket: its reports wait in a list until a task of the server takes them.
//!
//! Never here: the hub, the core.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tracing::warn;

use super::session::Session;
use wsmb_core::broker::{ChannelSummary, Restored, StoreEffect, StoreEvent};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_store::{Background, FoundIds, Group, MessageStore, Restamp, StoreError, StoreWorker, Summary};

/// The store's worker, its commands and its reports.
pub(super) struct Storage {
    worker: StoreWorker,
    commands: Mutex<VecDeque<StoreEffect>>,
    /// Locked while commands are handed over, so that two threads do not change their order.
    handing_over: Mutex<()>,
    health_checks: Mutex<HealthChecks>,
    reports: Arc<Reports>,
}

/// The worker's reports that were not taken yet. Their number is bounded, because the core bounds its outstanding commands.
#[derive(Debug, Default)]
struct Reports {
    list: Mutex<VecDeque<Report>>,
    arrived: Notify,
}

/// A report of the worker's thread.
#[derive(Debug)]
pub(super) enum Report {
    /// The outcome of a command.
    Store(StoreEvent),
    /// Whether the store can be written, for all sessions that wait for the answer.
    Health(bool),
}

/// The `ping` commands that the store must answer. One check of the store serves all waiting sessions.
#[derive(Debug, Default)]
struct HealthChecks {
    /// Weak, because a late answer must keep no session alive. At most [`wsmb_store::limits::STORE_CHECKS`].
    waiting: Vec<Weak<Session>>,
    state: CheckState,
}

/// The state of the check for the waiting sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CheckState {
    #[default]
    None,
    /// The check must be handed over.
    Pending,
    /// The check was handed over.
    Sent,
}

impl Reports {
    fn push(&self, report: Report) {
        lock(&self.list).push_back(report);
        self.arrived.notify_one();
    }
}

impl Storage {
    /// Starts the worker's thread. The thread calls `before_removal` before it removes rows, and `died` if it panics.
    ///
    /// # Errors
    /// The system creates no thread.
    pub(super) fn start(
        store: Box<dyn Background>,
        before_removal: impl FnMut() + Send + 'static,
        died: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let reports = Arc::<Reports>::default();
        let target = reports.clone();
        let worker = StoreWorker::start_with(store, before_removal, died, move |event| {
            target.push(Report::Store(event));
        })?;
        Ok(Self {
            worker,
            commands: Mutex::default(),
            handing_over: Mutex::default(),
            health_checks: Mutex::default(),
            reports,
        })
    }

    /// Queues commands. Touches only memory. Must be called under the core's lock, so that commands keep the core's order.
    pub(super) fn submit(&self, commands: Vec<StoreEffect>) {
        if !commands.is_empty() {
            lock(&self.commands).extend(commands);
        }
    }

    /// Whether the last write of the store has succeeded.
    #[cfg(feature = "http")]
    pub(super) fn is_healthy(&self) -> bool {
        self.worker.healthy()
    }

    /// Whether the store can be written; `None` if only a check can tell.
    pub(super) fn known_health(&self) -> Option<bool> {
        // During an outage the worker retries continuously, so its last result is recent.
        if !self.worker.healthy() {
            return Some(false);
        }
        (lock(&self.health_checks).waiting.len() >= wsmb_store::limits::STORE_CHECKS).then_some(true)
    }

    /// Adds a session that waits for a check of the store. Returns false if too many wait already.
    pub(super) fn request_health_check(&self, session: &Arc<Session>) -> bool {
        let mut health_checks = lock(&self.health_checks);
        if health_checks.waiting.len() >= wsmb_store::limits::STORE_CHECKS {
            return false;
        }
        health_checks.waiting.push(Arc::downgrade(session));
        if health_checks.state == CheckState::None {
            health_checks.state = CheckState::Pending;
        }
        true
    }

    /// Takes the sessions that wait for [`Report::Health`].
    pub(super) fn take_waiting(&self) -> Vec<Arc<Session>> {
        let waiting = std::mem::take(&mut *lock(&self.health_checks)).waiting;
        waiting.iter().filter_map(Weak::upgrade).collect()
    }

    /// Hands queued commands and checks over to the worker's thread. May wake a thread, so must not be called under the core's lock.
    pub(super) fn hand_over(&self) {
        self.hand_over_commands();
        let is_pending = {
            let mut health_checks = lock(&self.health_checks);
            let is_pending = health_checks.state == CheckState::Pending;
            if is_pending {
                health_checks.state = CheckState::Sent;
            }
            is_pending
        };
        if is_pending {
            let reports = self.reports.clone();
            self.worker.check(move |healthy| reports.push(Report::Health(healthy)));
        }
    }

    fn hand_over_commands(&self) {
        if lock(&self.commands).is_empty() {
            return;
        }
        let _turn = lock(&self.handing_over);
        loop {
            let Some(command) = lock(&self.commands).pop_front() else { return };
            match command {
                StoreEffect::Append(messages) => self.worker.append(messages),
                StoreEffect::Replace { message, old } => self.worker.replace(*message, old.into_vec()),
                StoreEffect::Remove(ids) => self.worker.remove(&ids),
                StoreEffect::Disown(ids) => self.worker.remove_uncertain(&ids),
                StoreEffect::Deliveries(counts) => self.worker.deliveries(&counts),
                StoreEffect::Load { channel, after, limit, bytes } => self.worker.load(channel, after, limit, bytes),
                StoreEffect::Sweep { now, spare } => self.worker.sweep(now, spare),
                StoreEffect::Purge { channel, up_to } => self.worker.purge(&channel, up_to),
            }
        }
    }

    pub(super) async fn reported(&self) {
        self.reports.arrived.notified().await;
    }

    pub(super) fn next_report(&self) -> Option<Report> {
        lock(&self.reports.list).pop_front()
    }

    /// Corrects stored times, in order with the commands.
    pub(super) fn restamp(&self, restamp: Restamp) {
        self.hand_over_commands();
        self.worker.restamp(restamp);
    }

    pub(super) fn note_time(&self, now: Timestamp) {
        self.worker.note_time(now);
    }

    /// Bytes that wait for a commit.
    pub(super) fn queued_bytes(&self) -> usize {
        self.worker.queued_bytes()
    }

    /// Waits until few enough bytes wait for a commit.
    pub(super) async fn room(&self) {
        self.worker.wait_for_room().await;
    }

    /// Writes all queued changes, marks the store clean and closes it. Blocks. Reports may be left.
    ///
    /// # Errors
    /// The store could not be written or closed.
    pub(super) fn stop(&self) -> Result<(), StoreError> {
        self.hand_over();
        self.worker.stop()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store's mark of the last crash.
const SUSPECT: &str = "restart.suspect";

/// Returns the highest id that the store held at the last crash: messages up to it may have been delivered more often than their rows say. The store keeps
/// the id over orderly restarts, because messages may wait through many of them.
///
/// # Errors
/// The store cannot be read.
pub(super) fn suspect_up_to(store: &mut dyn MessageStore, summary: &Summary) -> Result<MessageId, StoreError> {
    if summary.clean {
        return Ok(MessageId(store.mark(SUSPECT)?.unwrap_or_default()));
    }
    let marks = vec![(SUSPECT.to_owned(), summary.last_id.0)];
    if let Err(cause) = store.commit(&Group { marks, ..Group::default() }) {
        warn!(
            %cause,
            "the store cannot note which messages were there at the crash; if they wait until after the next restart, they come without \"redelivered\""
        );
    }
    Ok(summary.last_id)
}

/// Converts the contents of the store and of the file of ids for the core.
pub(super) fn restored(summary: Summary, suspect_up_to: MessageId, found: FoundIds) -> Restored {
    let mut expiries: HashMap<ChannelName, Vec<(Timestamp, u64)>> = HashMap::new();
    for (channel, expires, messages) in summary.expiries {
        expiries.entry(channel).or_default().push((expires, messages));
    }
    let channels = summary.channels.into_iter().map(|found| {
        let expiries = expiries.remove(&found.channel).unwrap_or_default();
        ChannelSummary { channel: found.channel, messages: found.messages, last: found.last, expiries }
    });
    let publications = summary.publications.into_iter().map(|found| {
        let rows = u32::try_from(found.rows.len()).unwrap_or(u32::MAX);
        (found.channel, found.id, found.created, rows)
    });
    Restored {
        channels: channels.collect(),
        delayed: summary.delayed,
        publications: publications.collect(),
        ids: found.ids,
        id_seed: found.seed,
        id_bound: None,
        last_id: summary.last_id,
        suspect_up_to,
    }
}
