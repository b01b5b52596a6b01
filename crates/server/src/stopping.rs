//! The state of an orderly stop, for readers and listeners. The procedure is in `stop`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

/// The state of an orderly stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    begun: AtomicBool,
    /// Reads of input since the stop began.
    reads: AtomicU64,
    /// For those who wait for a phase.
    phase: watch::Sender<Phase>,
}

/// A phase of a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// No stop has begun.
    #[default]
    Serving,
    Begun,
    /// The listeners must close when no connection waits to be accepted.
    Closing,
}

impl Stop {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Begun);
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

    /// Waits until the stop begins.
    #[cfg(feature = "http")]
    pub(super) fn begun(&self) -> impl Future<Output = ()> + use<> {
        self.reached(Phase::Begun)
    }

    /// Waits until the listeners must close.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + use<> {
        self.reached(Phase::Closing)
    }

    fn reached(&self, wanted: Phase) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // No error: whoever waits holds the hub, which holds the sender.
            let _ = phase.wait_for(|phase| *phase >= wanted).await;
        }
    }

    pub(super) fn close_listeners(&self) {
        self.phase.send_replace(Phase::Closing);
    }
}
