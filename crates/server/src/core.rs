//! The engine behind its lock. One for a server, shared by its loops and by the store's thread, which saves ids.
//!
//! Under the lock there is only memory: no await, no socket closed, no system call. (One exception with several loops: when a session ends, its task is woken,
//! and if the task is on another loop, that is a write to an event descriptor.)

use std::sync::{Arc, Mutex, MutexGuard};

use super::engine::Engine;
use super::fatal::Fatal;
use wsmb_core::broker::{Broker, ForgottenIds, FreshIds};

/// See the module.
pub(super) struct Core {
    engine: Mutex<Engine>,
    fatal: Arc<Fatal>,
}

impl Core {
    pub(super) fn new(engine: Engine, fatal: Arc<Fatal>) -> Self {
        Self { engine: Mutex::new(engine), fatal }
    }

    /// Takes the lock. After a panic under the lock it declares the defect and does not return.
    pub(super) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(|poisoned| self.fatal.core_is_broken(poisoned))
    }

    /// Whether a panic has left the engine in the middle of a change.
    pub(super) fn is_broken(&self) -> bool {
        self.engine.is_poisoned()
    }

    /// Reads something of the broker.
    pub(super) fn with_broker<T>(&self, read: impl FnOnce(&Broker) -> T) -> T {
        read(self.lock().broker())
    }

    /// The ids that the broker has accepted since this was asked last, those that it has forgotten, and how many it knows.
    pub(super) fn take_fresh_ids(&self) -> (FreshIds, Option<ForgottenIds>, usize) {
        let mut engine = self.lock();
        let broker = engine.broker_mut();
        (broker.take_fresh_ids(), broker.take_forgotten_ids(), broker.accepted_ids_count())
    }
}
