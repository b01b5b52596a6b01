//! What callers and the store's thread share: the queue, and how either wakes the other. No call here waits for the store.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Duration;

use tokio::sync::Notify;

use super::queue::Queue;
use crate::error::FailureKind;
use crate::limits;
use wsmb_core::message::{ChannelName, Message, MessageId};

/// What has become of something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These are durable.
    Stored(Vec<MessageId>),
    /// These are not in the store and will not be unless asked again.
    Failed(Vec<MessageId>, FailureKind),
    /// The answer to [`StoreWorker::load`](super::StoreWorker::load).
    Loaded {
        /// Of which channel.
        channel: ChannelName,
        /// In the order of ids. Not empty unless `complete`.
        messages: Vec<Message>,
        /// Nothing lay behind them when the store was read.
        complete: bool,
    },
    /// A page could not be read; the cause is in the log.
    LoadFailed {
        /// Of which channel.
        channel: ChannelName,
    },
    /// The answer to [`StoreWorker::sweep`](super::StoreWorker::sweep).
    Swept {
        /// These were expired and are gone. None if none were, or if the store failed.
        gone: Vec<(MessageId, ChannelName)>,
        /// These are expired, and stay because their channels are spared.
        spared: Vec<Message>,
        /// There may be further ones.
        more: bool,
    },
    /// The wall clock was behind by so much: what was loaded of earlier runs before this is reckoned with the wrong time, and everything after with the
    /// right one. See [`StoreWorker::restamp`](super::StoreWorker::restamp).
    WallAdvanced(Duration),
}

/// How the thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Write everything first, then mark the store clean.
    Orderly,
    /// At once, as in a crash.
    Abrupt,
}

/// What wakes the thread. It costs a system call, so it is done only if there is something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sleep {
    /// It is awake, or has been woken, and will look at the queue before it sleeps.
    #[default]
    Awake,
    /// Anything.
    Idle,
    /// This many messages to be written, or something else that does not wait.
    Until(usize),
}

/// What callers and the thread share under the lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// What the group in the making costs.
    pub(super) in_flight: usize,
    pub(super) end: Option<End>,
    /// The thread sleeps, and for what.
    pub(super) sleep: Sleep,
    /// The store's background has something to say.
    pub(super) woken: bool,
}

/// What callers and the thread share.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// The thread sleeps on it.
    pub(super) wake: Condvar,
    /// A copy of the queue's and the group's bytes, to be read without the lock.
    pub(super) bytes: AtomicUsize,
    pub(super) healthy: AtomicBool,
    /// Those who wait for [`limits::STORE_QUEUE_LOW`].
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves the maps whole: every change of them is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes how much waits, and wakes those who wait for room.
    pub(super) fn account(&self, state: &State) {
        let bytes = state.queue.bytes() + state.in_flight;
        let before = self.bytes.swap(bytes, Ordering::AcqRel);
        if before > limits::STORE_QUEUE_LOW && bytes <= limits::STORE_QUEUE_LOW {
            self.room.notify_waiters();
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut state = self.lock();
        change(&mut state.queue);
        self.account(&state);
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Until(appends) => state.queue.appends() >= appends || state.queue.is_pressing(),
        };
        if wake {
            state.sleep = Sleep::Awake;
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.lock().woken = true;
        self.wake.notify_one();
    }
}
