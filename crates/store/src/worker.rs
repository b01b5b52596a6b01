//! The store's own thread. Senders never wait for a disk: they leave work in a queue, and hear of it by [`Outcome`]s.
//!
//! **Group commit**: the thread takes whatever has queued as one transaction; while that commits, the next one queues. After a commit it waits a
//! little, at most half as long as that took, for those whom it has just answered to send again, so that groups become as large as the disk is slow.
//! A message removed before its group is cut is never written. What is only to be removed or counted waits a little for a group that is written
//! anyway. What the store holds is the wall clock's time, and the thread translates: to the callers' time a row's is the same whenever the clock was
//! set. Appends that fail are reported once and forgotten, for the broker decides what becomes of them; removals,
//! delivery counts and purges are kept and tried again until they succeed. An outage is logged once when it begins and once when it ends.
//!
//! Nothing here ever blocks its caller for longer than it takes to move entries in a map, except [`StoreWorker::stop`].

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
pub use shared::Outcome;
use shared::{End, Shared};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// The way to the store for everybody else.
pub struct StoreWorker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

impl StoreWorker {
    /// Starts the thread. It calls `report` for every outcome, in the order in which they happen, holding no lock.
    ///
    /// # Errors
    /// If the system makes no thread.
    pub fn start(store: Box<dyn Background>, report: impl FnMut(Outcome) + Send + 'static) -> io::Result<Self> {
        Self::start_with(store, || {}, || {}, report)
    }

    /// The same. On its thread, `before_removal` is called before rows are removed from the store: what must outlive a row can be written down then. `died` is
    /// called there if the thread dies of a defect: nothing is stored any more.
    ///
    /// # Errors
    /// If the system makes no thread.
    pub fn start_with(
        store: Box<dyn Background>,
        before_removal: impl FnMut() + Send + 'static,
        died: impl FnOnce() + Send + 'static,
        report: impl FnMut(Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            bytes: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            room: Notify::new(),
        });
        let mut body = thread::Body::new(Arc::clone(&shared), store, Box::new(before_removal), Box::new(report));
        let thread = std::thread::Builder::new().name("wsmb-store".to_owned()).spawn(move || {
            // What is half done is never used again: the thread ends, and with it the store.
            std::panic::catch_unwind(AssertUnwindSafe(|| body.run())).unwrap_or_else(|panic| {
                died();
                std::panic::resume_unwind(panic)
            })
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Writes these. Reported as stored or failed, unless removed before. An id is never appended again after its removal.
    pub fn append(&self, messages: Vec<Message>) {
        self.shared.change(|queue| queue.append(messages));
    }

    /// Writes this and removes the older rows that stood for it, all or nothing. Reported like an append. If it is removed before it is written,
    /// the older rows stay.
    pub fn replace(&self, message: Message, old: Vec<MessageId>) {
        self.shared.change(|queue| queue.replace(message, old));
    }

    /// Removes these; one that is not written yet is never written, and not reported.
    pub fn remove(&self, ids: &[MessageId]) {
        self.shared.change(|queue| queue.remove(ids));
    }

    /// Removes what may have been written of messages whose writing was reported as failed, and which were refused for that.
    pub fn disown(&self, ids: &[MessageId]) {
        self.shared.change(|queue| queue.disown(ids));
    }

    /// Remembers how often these have been delivered.
    pub fn deliveries(&self, counts: &[(MessageId, u32)]) {
        self.shared.change(|queue| queue.count(counts));
    }

    /// Reads a page: the messages of the channel without due time and above `after`, at most `limit` of them and some
    /// [`wsmb_core::limits::PAGE_BYTES`], after everything queued before has been written.
    pub fn load(&self, channel: ChannelName, after: MessageId, limit: usize) {
        self.shared.change(|queue| queue.load(channel, after, limit));
    }

    /// Removes messages that are expired at `now`, at most [`wsmb_core::limits::SWEEP_ROWS`].
    pub fn sweep(&self, now: Timestamp, spare: Spare) {
        self.shared.change(|queue| queue.sweep(now, spare));
    }

    /// Removes every message of the channel with an id up to `up_to`, written or not.
    pub fn purge(&self, channel: &ChannelName, up_to: MessageId) {
        self.shared.change(|queue| queue.purge(channel, up_to));
    }

    /// Corrects stored times, in order with everything else. From then on what is appended, loaded and swept is translated by `by` milliseconds more:
    /// callers speak of their own time, which goes on as if nothing had happened.
    pub fn restamp(&self, restamp: Restamp) {
        self.shared.change(|queue| queue.restamp(restamp));
    }

    /// Remembers the wall clock's time, under the name [`super::CLOCK`].
    pub fn note_time(&self, now: Timestamp) {
        self.shared.change(|queue| queue.note_time(now));
    }

    /// Bytes that wait for a commit, the running one included. Above [`limits::STORE_QUEUE_HIGH`], readers of sockets should pause.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Waits until [`Self::queued_bytes`] is at [`limits::STORE_QUEUE_LOW`] or below.
    pub async fn room(&self) {
        loop {
            // Made before the look, so that a wake-up in between is not lost.
            let notified = self.shared.room.notified();
            if self.queued_bytes() <= limits::STORE_QUEUE_LOW {
                return;
            }
            notified.await;
        }
    }

    /// What the last commit or check said.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Asks whether the store can be written; the answer, given on the store's thread, is at most [`limits::STORE_CHECK_EVERY`] old.
    pub fn check(&self, answer: impl FnOnce(bool) + Send + 'static) {
        let mut refused = None;
        self.shared.change(|queue| refused = queue.check(Box::new(answer)));
        if let Some(answer) = refused {
            answer(self.healthy());
        }
    }

    /// Writes everything that waits, marks the store clean, closes it and ends the thread. Blocks until then, so it must not be
    /// called from within a report. Nothing may be asked for afterwards; a second call returns at once.
    ///
    /// # Errors
    /// Why not everything could be written. Appends that were not have been reported as failed.
    pub fn stop(&self) -> Result<(), StoreError> {
        self.end(End::Orderly)
    }

    fn end(&self, end: End) -> Result<(), StoreError> {
        self.shared.lock().end.get_or_insert(end);
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|_| {
                let detail = "its thread has died of a defect".to_owned();
                Err(StoreError::Unavailable { place: "of this broker".to_owned(), detail })
            })
        })
    }
}

impl Drop for StoreWorker {
    /// Without [`Self::stop`], nothing more is written and the store is not marked clean: as a crash would leave it.
    fn drop(&mut self) {
        // There is nobody left to tell.
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
