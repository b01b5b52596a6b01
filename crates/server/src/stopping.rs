//! The state of an orderly stop, for readers and listeners. The procedure is in `stop`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

/// The state of an orderly stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    begun: AtomicBool,
    /// Reads of input since the stop began.
    reads: AtomicU64,
    /// True: the listeners must close when no connection waits to be accepted.
    closing: watch::Sender<bool>,
}

impl Stop {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Counts a read of input, if the stop has begun.
    pub(super) fn note_input(&self) {
        if self.has_begun() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Returns a listener's argument for [`closed`].
    pub(super) fn listeners(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(super) fn close_listeners(&self) {
        self.closing.send_replace(true);
    }
}

/// Waits until the listeners must close.
pub(super) async fn closed(listeners: &mut watch::Receiver<bool>) {
    // No error: the hub holds the sender, and every listener holds the hub.
    let _ = listeners.wait_for(|closing| *closing).await;
}
