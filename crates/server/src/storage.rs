//! The way to the store's worker and back: commands in the order of the core's decisions, reports in the order of the worker's.
//!
//! ```text
//! engine ─► submit ─► commands ─► hand_over ─► worker's thread ─► reports ─► a task of the server (`tasks`) ─► engine
//! ```
//!
//! The worker's thread touches no session and no socket: what it reports waits here until a task of the server takes it.
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

/// The store's worker, the commands for it, and what it has reported.
pub(super) struct Storage {
    worker: StoreWorker,
    commands: Mutex<VecDeque<StoreEffect>>,
    /// Held while commands are handed over, so that two threads do not change their order.
    handing_over: Mutex<()>,
    questions: Mutex<Questions>,
    reports: Arc<Reports>,
}

/// What the worker's thread has said and nobody has taken yet. The core asks for a bounded number of things at a time, so there are not many.
#[derive(Debug, Default)]
struct Reports {
    list: Mutex<VecDeque<Report>>,
    arrived: Notify,
}

/// Something that the worker's thread has said.
#[derive(Debug)]
pub(super) enum Report {
    /// What has become of a command.
    Store(StoreEvent),
    /// Whether the store can be written, for all sessions that have asked.
    Health(bool),
}

/// The `ping` commands whose answer the store has to give. One question to it serves all sessions that wait.
#[derive(Debug, Default)]
struct Questions {
    /// Weak, because a late answer must keep no session alive. At most [`wsmb_store::limits::STORE_CHECKS`].
    waiting: Vec<Weak<Session>>,
    state: Question,
}

/// Where the question for the waiting sessions is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Question {
    #[default]
    None,
    /// To be handed over.
    Noted,
    /// The store has it.
    Asked,
}

impl Reports {
    fn push(&self, report: Report) {
        lock(&self.list).push_back(report);
        self.arrived.notify_one();
    }
}

impl Storage {
    /// Starts the worker's thread. There, `before_removal` is called before rows are removed, and `died` if the thread dies of a defect.
    ///
    /// # Errors
    /// If the system makes no thread.
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
            questions: Mutex::default(),
            reports,
        })
    }

    /// Takes commands; pure memory, to be called under the core's lock, so that their order is the core's.
    pub(super) fn submit(&self, commands: Vec<StoreEffect>) {
        if !commands.is_empty() {
            lock(&self.commands).extend(commands);
        }
    }

    /// Whether the store can be written, if that is known without asking it.
    pub(super) fn known_health(&self) -> Option<bool> {
        // In an outage the store is tried all the time anyway, so its last word is fresh.
        if !self.worker.healthy() {
            return Some(false);
        }
        (lock(&self.questions).waiting.len() >= wsmb_store::limits::STORE_CHECKS).then_some(true)
    }

    /// Has the session answered when the store has said whether it can be written. False: too many wait already.
    pub(super) fn ask(&self, session: &Arc<Session>) -> bool {
        let mut questions = lock(&self.questions);
        if questions.waiting.len() >= wsmb_store::limits::STORE_CHECKS {
            return false;
        }
        questions.waiting.push(Arc::downgrade(session));
        if questions.state == Question::None {
            questions.state = Question::Noted;
        }
        true
    }

    /// The sessions that wait for [`Report::Health`]; they wait no longer.
    pub(super) fn take_waiting(&self) -> Vec<Arc<Session>> {
        let waiting = std::mem::take(&mut *lock(&self.questions)).waiting;
        waiting.iter().filter_map(Weak::upgrade).collect()
    }

    /// Gives the worker's thread what was submitted and asked. It may wake a thread, so it must not be called under the core's lock.
    pub(super) fn hand_over(&self) {
        self.hand_over_commands();
        let is_noted = {
            let mut questions = lock(&self.questions);
            let is_noted = questions.state == Question::Noted;
            if is_noted {
                questions.state = Question::Asked;
            }
            is_noted
        };
        if is_noted {
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
                StoreEffect::Load { channel, after, limit } => self.worker.load(channel, after, limit),
                StoreEffect::Sweep { now, spare } => self.worker.sweep(now, spare),
                StoreEffect::Purge { channel, up_to } => self.worker.purge(&channel, up_to),
            }
        }
    }

    /// Waits until the worker's thread has said something.
    pub(super) async fn reported(&self) {
        self.reports.arrived.notified().await;
    }

    /// The oldest report that nobody has taken.
    pub(super) fn next_report(&self) -> Option<Report> {
        lock(&self.reports.list).pop_front()
    }

    /// Corrects stored times, in order with the commands.
    pub(super) fn restamp(&self, restamp: Restamp) {
        self.hand_over_commands();
        self.worker.restamp(restamp);
    }

    /// Remembers the wall clock's time.
    pub(super) fn note_time(&self, now: Timestamp) {
        self.worker.note_time(now);
    }

    /// Bytes that wait for a commit.
    pub(super) fn queued_bytes(&self) -> usize {
        self.worker.queued_bytes()
    }

    /// Waits until there is room for more.
    pub(super) async fn room(&self) {
        self.worker.wait_for_room().await;
    }

    /// Writes everything, marks the store clean and closes it. Blocks. Reports may be left to be taken.
    ///
    /// # Errors
    /// Why not everything could be written.
    pub(super) fn stop(&self) -> Result<(), StoreError> {
        self.hand_over();
        self.worker.stop()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the store remembers of the last crash, by name.
const SUSPECT: &str = "restart.suspect";

/// Up to which id messages may have been delivered more often than their rows say: everything that was there at the last crash. It is remembered over
/// orderly restarts, because messages may wait through many of them.
///
/// # Errors
/// If the store can't be read.
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

/// What the store and the file of ids held, in the core's words.
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
