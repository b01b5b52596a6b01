//! State that callers and the store's thread share: the queue, and the wake-ups. No call here waits for the store.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use tokio::sync::Notify;

use super::queue::Queue;
use crate::limits;

/// How the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Write everything first, then mark the store clean.
    Orderly,
    /// End at once, as in a crash.
    Abrupt,
}

/// Which events wake the thread. A wake-up is a system call, so the thread is woken only if there is work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sleep {
    /// The thread is awake and checks the queue before it sleeps.
    #[default]
    Awake,
    /// Any request wakes the thread.
    Idle,
    /// This many waiting appends, or an urgent request, wake the thread.
    Until(usize),
}

/// The shared state under the lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// The cost of the group that is being committed, in bytes.
    pub(super) in_flight: usize,
    pub(super) end: Option<End>,
    /// Which events wake the thread.
    pub(super) sleep: Sleep,
    /// The store's background work has called the waker.
    pub(super) woken: bool,
}

/// The shared state.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Wakes the thread.
    pub(super) wake: Condvar,
    /// The bytes of the queue and of the running group, readable without the lock.
    pub(super) bytes: AtomicUsize,
    pub(super) healthy: AtomicBool,
    /// Wakes callers that wait for [`limits::STORE_QUEUE_LOW`].
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves the maps consistent: every change is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the number of waiting bytes, and wakes callers that wait for room.
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
            Sleep::Until(appends) => state.queue.appends() >= appends || state.queue.is_urgent(),
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
