//! The store's own thread. Senders never wait for a disk: callers add work to a queue, and the thread reports the results as [`StoreEvent`]s.
//!
//! **Group commit**: the thread writes everything that is queued in one transaction; during the commit the next group collects. After a commit the
//! thread waits up to half the time of that commit, so that senders that were just answered can send again: slow disks get large groups. A message
//! that is removed before its group is cut is never written. Removals and delivery counts wait a short time for a group with new messages. The store
//! holds the wall clock's time, and the thread converts between this time and the callers' time, which no step of the clock changes. Failed appends
//! are reported once and dropped, because the broker decides whether to retry them; removals, delivery counts and purges are kept and retried until
//! they succeed. An outage is logged once when it begins and once when it ends.
//!
//! No call blocks its caller for longer than it takes to move entries in a map, except [`StoreWorker::stop`].

mod queue;
mod shared;
mod thread;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use super::{Background, Restamp, StoreError};
use crate::limits;
use shared::{End, Shared};
use wsmb_core::broker::StoreEvent;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// The handle to the store's thread.
pub struct StoreWorker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

impl StoreWorker {
    /// Starts the thread. The thread calls `report` for every outcome, in order, holding no lock.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start(store: Box<dyn Background>, report: impl FnMut(StoreEvent) + Send + 'static) -> io::Result<Self> {
        Self::start_with(store, || {}, || {}, report)
    }

    /// As [`Self::start`]. The thread calls `before_removal` before it removes rows from the store, so that data which must outlive a row can be
    /// saved. The thread calls `died` if it panics: nothing is stored after that.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start_with(
        store: Box<dyn Background>,
        before_removal: impl FnMut() + Send + 'static,
        died: impl FnOnce() + Send + 'static,
        report: impl FnMut(StoreEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            bytes: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            room: Notify::new(),
        });
        let mut store_thread =
            thread::StoreThread::new(Arc::clone(&shared), store, Box::new(before_removal), Box::new(report));
        let thread = std::thread::Builder::new().name("wsmb-store".to_owned()).spawn(move || {
            // After a panic the store may be in an inconsistent state: it is never used again.
            std::panic::catch_unwind(AssertUnwindSafe(|| store_thread.run())).unwrap_or_else(|panic| {
                died();
                std::panic::resume_unwind(panic)
            })
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Writes messages. Each message is reported as stored or failed, unless it is removed before. An id must never be appended again after its
    /// removal.
    pub fn append(&self, messages: Vec<Message>) {
        self.shared.change(|queue| queue.append(messages));
    }

    /// Writes a message and removes the older rows that it replaces, atomically. Reported like an append. If the message is removed before it is
    /// written, the older rows stay.
    pub fn replace(&self, message: Message, old: Vec<MessageId>) {
        self.shared.change(|queue| queue.replace(message, old));
    }

    /// Removes messages. A message that is not written yet is never written, and not reported.
    pub fn remove(&self, ids: &[MessageId]) {
        self.shared.change(|queue| queue.remove(ids));
    }

    /// Removes the rows of refused messages whose write was reported as failed: the rows may have been written.
    pub fn remove_uncertain(&self, ids: &[MessageId]) {
        self.shared.change(|queue| queue.remove_uncertain(ids));
    }

    /// Stores the number of deliveries of messages.
    pub fn deliveries(&self, counts: &[(MessageId, u32)]) {
        self.shared.change(|queue| queue.count(counts));
    }

    /// Reads a page: messages of the channel without a due time and above `after`, at most `limit` messages and about
    /// `bytes`, after everything that was queued before has been written.
    pub fn load(&self, channel: ChannelName, after: MessageId, limit: usize, bytes: usize) {
        self.shared.change(|queue| queue.load(channel, after, (limit, bytes)));
    }

    /// Removes messages that are expired at `now`, at most [`wsmb_core::limits::SWEEP_ROWS`].
    pub fn sweep(&self, now: Timestamp, spare: Spare) {
        self.shared.change(|queue| queue.sweep(now, spare));
    }

    /// Removes every message of the channel with an id up to `up_to`, including messages that are not written yet.
    pub fn purge(&self, channel: &ChannelName, up_to: MessageId) {
        self.shared.change(|queue| queue.purge(channel, up_to));
    }

    /// Corrects stored times, in order with other requests. From then on, appended, loaded and swept rows are converted by `by` more milliseconds:
    /// the callers' time continues as if the clock had not changed.
    pub fn restamp(&self, restamp: Restamp) {
        self.shared.change(|queue| queue.restamp(restamp));
    }

    /// Stores the wall clock's time, under the name [`super::CLOCK`].
    pub fn note_time(&self, now: Timestamp) {
        self.shared.change(|queue| queue.note_time(now));
    }

    /// Bytes that wait for a commit, including the running commit. Above [`limits::STORE_QUEUE_HIGH`], readers of sockets should pause.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Waits until [`Self::queued_bytes`] is at [`limits::STORE_QUEUE_LOW`] or below.
    pub async fn wait_for_room(&self) {
        loop {
            // Created before the check, so that a notification in between is not lost.
            let notified = self.shared.room.notified();
            if self.queued_bytes() <= limits::STORE_QUEUE_LOW {
                return;
            }
            notified.await;
        }
    }

    /// Whether the last commit or check succeeded.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Checks whether the store can be written. `answer` is called on the store's thread; the result is at most [`limits::STORE_CHECK_EVERY`] old.
    pub fn check(&self, answer: impl FnOnce(bool) + Send + 'static) {
        let mut refused = None;
        self.shared.change(|queue| refused = queue.check(Box::new(answer)));
        if let Some(answer) = refused {
            answer(self.healthy());
        }
    }

    /// Writes everything that waits, marks the store clean, closes it and ends the thread. Blocks until then, so it must not be called from a report.
    /// No request may follow; a second call returns at once.
    ///
    /// # Errors
    /// The reason why not everything could be written. Unwritten appends have been reported as failed.
    pub fn stop(&self) -> Result<(), StoreError> {
        self.end(End::Orderly)
    }

    fn end(&self, end: End) -> Result<(), StoreError> {
        self.shared.lock().end.get_or_insert(end);
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|_| {
                let detail = "its thread has panicked".to_owned();
                Err(StoreError::Unavailable { place: "of this broker".to_owned(), detail })
            })
        })
    }
}

impl Drop for StoreWorker {
    /// Without [`Self::stop`], nothing more is written and the store is not marked clean, as after a crash.
    fn drop(&mut self) {
        // No caller is left that could handle the error.
        let _ = self.end(End::Abrupt);
    }
}

impl std::fmt::Debug for StoreWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreWorker")
            .field("queued_bytes", &self.queued_bytes())
            .field("healthy", &self.healthy())
            .finish()
    }
}
