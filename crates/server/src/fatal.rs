//! Records the death of a vital part by a defect (a panic). After a declaration [`super::serve`] returns a failure, and `/healthz` answers 503 until the
//! process ends. The server does not stop in an orderly way: the store survives crashes, and a broken broker must not write to it.

use std::sync::{MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tracing::error;

/// The part that has died, if any.
#[derive(Debug, Default)]
pub(super) struct Fatal {
    part: OnceLock<&'static str>,
    noticed: Notify,
}

impl Fatal {
    /// Declares that a part has died. Only the first declaration counts.
    pub(super) fn declare(&self, part: &'static str) {
        if self.part.set(part).is_ok() {
            error!(
                "{part} has died of a defect; the broker ends at once, and everything that it has accepted is in the store"
            );
            self.noticed.notify_one();
        }
    }

    pub(super) fn is_declared(&self) -> bool {
        self.part.get().is_some()
    }

    /// Declares that a panic has interrupted a change of the core. The core must not be used any more: it could confirm or remove messages that no receiver
    /// has. Panics, unless this thread is panicking already.
    #[cold]
    pub(super) fn core_is_broken<'a, T>(&self, poisoned: PoisonError<MutexGuard<'a, T>>) -> MutexGuard<'a, T> {
        self.declare("the core");
        if !std::thread::panicking() {
            drop(poisoned);
            // Not `panic!`: the first panic has written its message.
            std::panic::resume_unwind(Box::new("the core has died"));
        }
        // A second panic on this thread would abort the process before the cause is logged.
        poisoned.into_inner()
    }

    /// Waits until a part has died.
    pub(super) async fn declared(&self) -> &'static str {
        loop {
            let noticed = self.noticed.notified();
            if let Some(part) = self.part.get() {
                return part;
            }
            noticed.await;
        }
    }
}
