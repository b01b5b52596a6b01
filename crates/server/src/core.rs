//! The engine behind its lock. A server has one; its loops share it with the store's thread, which saves ids.
//!
//! Code under the lock touches only memory: it must not await, close a socket or make a system call. (One exception with several loops: the end of
//! a session wakes its task, and waking a task of another loop writes to an event descriptor.)

use std::sync::{Arc, Mutex, MutexGuard};

use super::engine::Engine;
use super::fatal::Fatal;
use wsmb_core::broker::{Broker, ForgottenIds, FreshIds};

/// The engine's lock, and where a panic under it is declared.
pub(super) struct Core {
    engine: Mutex<Engine>,
    fatal: Arc<Fatal>,
}

impl Core {
    pub(super) fn new(engine: Engine, fatal: Arc<Fatal>) -> Self {
        Self { engine: Mutex::new(engine), fatal }
    }

    /// Takes the lock. After a panic under the lock, declares the defect and panics, unless this thread is panicking already.
    pub(super) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(|poisoned| self.fatal.core_is_broken(poisoned))
    }

    /// Whether a panic has interrupted a change of the engine.
    pub(super) fn is_broken(&self) -> bool {
        self.engine.is_poisoned()
    }

    /// Returns what `read` returns for the broker, under the lock.
    pub(super) fn with_broker<T>(&self, read: impl FnOnce(&Broker) -> T) -> T {
        read(self.lock().broker())
    }

    /// Returns the ids that the broker has accepted since the last call, those that it has forgotten, and how many it knows.
    pub(super) fn take_fresh_ids(&self) -> (FreshIds, Option<ForgottenIds>, usize) {
        let mut engine = self.lock();
        let broker = engine.broker_mut();
        (broker.take_fresh_ids(), broker.take_forgotten_ids(), broker.accepted_ids_count())
    }
}
