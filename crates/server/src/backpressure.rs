//! Backpressure: while too much waits for the store, no socket is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

/// Closed while more than [`wsmb_store::limits::STORE_QUEUE_HIGH`] bytes wait for the store, until less than [`wsmb_store::limits::STORE_QUEUE_LOW`] do.
#[derive(Debug, Default)]
pub(super) struct Backpressure {
    /// The number of the pause, odd while there is one.
    pause: AtomicU64,
    /// Who waits for its end: each connection once in each pause.
    waiting: Mutex<Vec<Waker>>,
    /// It has closed: somebody has to see to it that it opens.
    pub(super) closed: Notify,
}

impl Backpressure {
    /// Notes how much waits for the store.
    pub(super) fn watch(&self, bytes: usize) {
        let pause = self.pause.load(Ordering::SeqCst);
        let closed = pause % 2 == 1;
        if closed
            == (bytes > if closed { wsmb_store::limits::STORE_QUEUE_LOW } else { wsmb_store::limits::STORE_QUEUE_HIGH })
        {
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

    /// Whether no socket is read.
    pub(super) fn is_closed(&self) -> bool {
        self.pause.load(Ordering::SeqCst) % 2 == 1
    }

    /// `Some(pause)`: wait; `waker` is woken at the end of that pause. `known` is the pause that was waited for last.
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
    fn closes_above_the_high_mark_and_opens_below_the_low_one() {
        let reading = Backpressure::default();
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
    fn who_waits_is_woken_once_when_it_opens() {
        let (reading, count) = (Backpressure::default(), Arc::new(Count::default()));
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
