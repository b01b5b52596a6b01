//! Backpressure: while too many bytes wait for the store, the connections whose messages wait are not read.
//!
//! A connection is paused after one of its messages was passed to the store, for at most [`limits::STORE_WAIT`]; then its publications for the store
//! are refused until the pause ends. Other connections are read all the time: confirmations, commands, publications on channels that are not kept,
//! and messages that a receiver confirms in time. If the queue grows nevertheless, because each of many connections sends a little before it
//! pauses, the core refuses publications by user ([`wsmb_core::limits::STORE_QUEUE`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

#[cfg(doc)]
use crate::limits;

/// Begins a pause when more than [`wsmb_store::limits::STORE_QUEUE_HIGH`] bytes wait for the store (or a quarter of the memory budget), until [`wsmb_store::limits::STORE_QUEUE_LOW`]
/// or fewer do.
#[derive(Debug)]
pub(super) struct Backpressure {
    /// Bytes that wait for the store at which a pause begins.
    high: usize,
    /// The number of starts and ends of pauses: odd during a pause.
    pause: AtomicU64,
    /// The tasks that wait for the end of the pause, each connection once.
    waiting: Mutex<Vec<Waker>>,
    /// A pause has begun. The task that is notified must end it ([`Self::watch`]).
    pub(super) closed: Notify,
}

impl Backpressure {
    /// `budget`: the program's memory budget in bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self {
            high: wsmb_store::limits::STORE_QUEUE_HIGH.min(budget / 4),
            pause: AtomicU64::new(0),
            waiting: Mutex::default(),
            closed: Notify::new(),
        }
    }

    /// Begins or ends the pause, according to the number of bytes that wait for the store.
    pub(super) fn watch(&self, bytes: usize) {
        let pause = self.pause.load(Ordering::SeqCst);
        let closed = pause % 2 == 1;
        if closed == (bytes > if closed { wsmb_store::limits::STORE_QUEUE_LOW } else { self.high }) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pause.compare_exchange(pause, pause + 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        if closed {
            woken.iter().for_each(Waker::wake_by_ref);
        } else {
            self.closed.notify_one();
        }
    }

    /// Whether connections that publish are paused.
    pub(super) fn is_closed(&self) -> bool {
        self.pause.load(Ordering::SeqCst) % 2 == 1
    }

    /// `Some(pause)`: the connection must not be read, and `waker` is woken at the end of that pause. `known`: the pause for which the caller is registered already.
    pub(super) fn pause(&self, waker: &Waker, known: u64) -> Option<u64> {
        if !self.is_closed() {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = self.pause.load(Ordering::SeqCst);
        if pause.is_multiple_of(2) {
            return None;
        }
        if pause != known {
            waiting.push(waker.clone());
        }
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn reading_pauses_above_the_high_mark_and_resumes_at_the_low_mark() {
        let reading = Backpressure::new(1 << 30);
        reading.watch(wsmb_store::limits::STORE_QUEUE_HIGH);
        assert!(!reading.is_closed());
        reading.watch(wsmb_store::limits::STORE_QUEUE_HIGH + 1);
        assert!(reading.is_closed());
        reading.watch(wsmb_store::limits::STORE_QUEUE_LOW + 1);
        assert!(reading.is_closed());
        reading.watch(wsmb_store::limits::STORE_QUEUE_LOW);
        assert!(!reading.is_closed());
    }

    #[test]
    fn a_waiting_task_is_woken_once_when_reading_resumes() {
        let (reading, count) = (Backpressure::new(1 << 30), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        assert_eq!(reading.pause(&waker, 0), None);
        reading.watch(usize::MAX);
        let pause = reading.pause(&waker, 0).expect("a pause");
        assert_eq!(reading.pause(&waker, pause), Some(pause));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        reading.watch(0);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(reading.pause(&waker, pause), None);
    }
}
