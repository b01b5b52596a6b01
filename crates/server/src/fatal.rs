//! A defect (a panic) has ended a part without which the broker can't go on. Whoever notices it declares it here; then [`super::serve`] returns a failure, and
//! `/healthz` answers 503 until the process has ended. Nothing is closed in an orderly way: the store is safe against crashes, and a broken broker must not write to it.

use std::sync::{MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tracing::error;

/// What has died, if anything has.
#[derive(Debug, Default)]
pub(super) struct Fatal {
    part: OnceLock<&'static str>,
    noticed: Notify,
}

impl Fatal {
    /// Notes that a part has died. The first counts.
    pub(super) fn declare(&self, part: &'static str) {
        if self.part.set(part).is_ok() {
            error!(
                "{part} has died of a defect; the broker ends at once, and everything that it has accepted is in the store"
            );
            self.noticed.notify_one();
        }
    }

    /// Whether anything has died.
    pub(super) fn is_declared(&self) -> bool {
        self.part.get().is_some()
    }

    /// A panic has left the core half way. Nobody uses it any more: what it would say next could confirm or remove what nobody has.
    #[cold]
    pub(super) fn core_is_broken<'a, T>(&self, poisoned: PoisonError<MutexGuard<'a, T>>) -> MutexGuard<'a, T> {
        self.declare("the core");
        if !std::thread::panicking() {
            drop(poisoned);
            // Without a message: the first panic had it.
            std::panic::resume_unwind(Box::new("the core has died"));
        }
        // This thread is on its way out, and a second panic would end the process before it can say why.
        poisoned.into_inner()
    }

    /// Waits until something has.
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
