//! How far an orderly stop is, as readers and listeners see it. `stop` is the procedure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stop {
    begun: AtomicBool,
    /// Reads that brought something since it began.
    reads: AtomicU64,
    /// The listeners close once nobody is waiting at them.
    closing: watch::Sender<bool>,
}

impl Stop {
    /// Whether the server is going down.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Begins it.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Notes that a client has sent something.
    pub(super) fn note_input(&self) {
        if self.has_begun() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads that brought something since it began.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// For a listener: see [`closed`].
    pub(super) fn listeners(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Has the listeners closed.
    pub(super) fn close_listeners(&self) {
        self.closing.send_replace(true);
    }
}

/// Waits until the listeners are to close.
pub(super) async fn closed(listeners: &mut watch::Receiver<bool>) {
    // The sender lives as long as the hub, which every listener has.
    let _ = listeners.wait_for(|closing| *closing).await;
}
