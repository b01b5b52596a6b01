//! The way to the store's worker and back: the core's wishes in their order, the worker's outcomes as events.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tracing::warn;

use super::commands::{Step, ping_reply};
use super::connection::Connection;
use super::runtime::Hub;
use wsmb_core::broker::{ChannelSummary, Event, Restored, StoreEffect, StoreFailure};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_store::{
    Background, FailureKind, FoundIds, Group, MessageStore, Outcome, Restamp, StoreError, StoreWorker, Summary,
};

/// The store's worker, and what the core wants from it. Under the core's lock a wish is only noted, because handing it over may wake a
/// thread; [`Self::kick`] hands over in the order in which the core wished.
pub(super) struct Storage {
    worker: StoreWorker,
    wishes: Mutex<VecDeque<StoreEffect>>,
    /// Held while wishes are handed over, so that two threads do not change their order.
    turn: Mutex<()>,
    pings: Mutex<Pings>,
    hub: Arc<OnceLock<Weak<Hub>>>,
}

/// The `ping` commands whose answer the store has to give. One question to it serves all who wait.
#[derive(Default)]
struct Pings {
    /// Weak, because an answer that is late must keep nothing open. At most [`wsmb_store::limits::STORE_CHECKS`].
    waiting: Vec<Weak<Connection>>,
    question: Question,
}

/// Where the question for the waiting pings is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Question {
    #[default]
    None,
    /// To be handed over by [`Storage::kick`].
    Noted,
    /// The store has it.
    Asked,
}

impl Pings {
    /// Whether the store is to be asked; true once for each question.
    fn take_question(&mut self) -> bool {
        let noted = self.question == Question::Noted;
        if noted {
            self.question = Question::Asked;
        }
        noted
    }
}

impl Storage {
    /// Starts the worker's thread. What it reports before [`Self::attach`] is lost, and so nothing may be asked for before.
    ///
    /// # Errors
    /// If the system makes no thread.
    pub(super) fn start(store: Box<dyn Background>) -> io::Result<Self> {
        let hub: Arc<OnceLock<Weak<Hub>>> = Arc::default();
        let (target, saver, mourner) = (hub.clone(), hub.clone(), hub.clone());
        // The id of a stored message is known by its row; before the row goes, it is written down.
        let save_ids = move || {
            super::defect::strike("store");
            if let Some(hub) = saver.get().and_then(Weak::upgrade) {
                hub.ids.save(&hub, false);
            }
        };
        let died = move || {
            if let Some(hub) = mourner.get().and_then(Weak::upgrade) {
                hub.fatal.declare("the store's thread");
            }
        };
        let worker = StoreWorker::start_with(store, save_ids, died, move |outcome| {
            if let Some(hub) = target.get().and_then(Weak::upgrade) {
                report(&hub, outcome);
            }
        })?;
        Ok(Self { worker, wishes: Mutex::default(), turn: Mutex::default(), pings: Mutex::default(), hub })
    }

    /// From now on outcomes go to `hub`.
    pub(super) fn attach(&self, hub: &Arc<Hub>) {
        self.hub.get_or_init(|| Arc::downgrade(hub));
    }

    /// Notes a wish; pure memory.
    pub(super) fn submit(&self, effect: StoreEffect) {
        lock(&self.wishes).push_back(effect);
    }

    /// Whether the store can be written, if that is known at once; else `connection` gets the answer to its ping when the store has
    /// said it. Pure memory.
    pub(super) fn ask(&self, connection: &Arc<Connection>) -> Option<bool> {
        // In an outage the store is tried all the time anyway, so its last word is fresh.
        if !self.worker.healthy() {
            return Some(false);
        }
        let mut pings = lock(&self.pings);
        if pings.waiting.len() >= wsmb_store::limits::STORE_CHECKS {
            return Some(true);
        }
        pings.waiting.push(Arc::downgrade(connection));
        if pings.question == Question::None {
            pings.question = Question::Noted;
        }
        None
    }

    /// Hands over what is noted. Not to be called under the core's lock.
    pub(super) fn kick(&self) {
        self.hand_over();
        if lock(&self.pings).take_question() {
            let hub = self.hub.clone();
            self.worker.check(move |healthy| {
                if let Some(hub) = hub.get().and_then(Weak::upgrade) {
                    hub.storage.answer_pings(&hub, healthy);
                }
            });
        }
    }

    /// Runs on the worker's thread.
    fn answer_pings(&self, hub: &Hub, healthy: bool) {
        let waiting = std::mem::take(&mut *lock(&self.pings)).waiting;
        for connection in waiting.iter().filter_map(Weak::upgrade) {
            hub.dispatch(Some(&connection), Step::Answer(ping_reply(hub.wall_now(), healthy)));
        }
    }

    fn hand_over(&self) {
        if lock(&self.wishes).is_empty() {
            return;
        }
        let _turn = lock(&self.turn);
        loop {
            let Some(effect) = lock(&self.wishes).pop_front() else { return };
            match effect {
                StoreEffect::Append(messages) => self.worker.append(messages),
                StoreEffect::Replace { message, old } => self.worker.replace(*message, old.into_vec()),
                StoreEffect::Remove(ids) => self.worker.remove(&ids),
                StoreEffect::Disown(ids) => self.worker.disown(&ids),
                StoreEffect::Deliveries(counts) => self.worker.deliveries(&counts),
                StoreEffect::Load { channel, after, limit } => self.worker.load(channel, after, limit),
                StoreEffect::Sweep { now, spare } => self.worker.sweep(now, spare),
                StoreEffect::Purge { channel, up_to } => self.worker.purge(&channel, up_to),
            }
        }
    }

    /// Corrects stored times, in order with what the core has wished for.
    pub(super) fn restamp(&self, restamp: Restamp) {
        self.hand_over();
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
        self.worker.room().await;
    }

    /// Writes everything, marks the store clean and closes it. Blocks.
    ///
    /// # Errors
    /// Why not everything could be written.
    pub(super) fn stop(&self) -> Result<(), StoreError> {
        self.kick();
        self.worker.stop()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs on the worker's thread.
fn report(hub: &Hub, outcome: Outcome) {
    match outcome {
        Outcome::Stored(ids) => hub.happened(Event::Stored(ids)),
        Outcome::Failed(ids, kind) => {
            let failure = match kind {
                FailureKind::Full => StoreFailure::Full,
                FailureKind::Unavailable => StoreFailure::Unavailable,
            };
            hub.happened(Event::StoreFailed(ids, failure));
        }
        Outcome::Loaded { channel, messages, complete } => {
            hub.happened(Event::Loaded { channel, messages, complete });
        }
        Outcome::LoadFailed { channel } => hub.happened(Event::LoadFailed { channel }),
        Outcome::Swept { gone, spared, more } => hub.happened(Event::Swept { gone, spared, more }),
        Outcome::WallAdvanced(by) => hub.happened(Event::WallAdvanced(by)),
    }
    hub.gate.watch(hub.storage.queued_bytes());
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
