//! The registry of sessions, by connection id.
//!
//! The core's lock guards the registry. An id is valid until its session is removed. No id is used twice, even by later runs of the broker.

use std::sync::Arc;

use slab::Slab;

use super::session::Session;
use wsmb_core::message::ConnectionId;

/// The number of low bits of a [`ConnectionId`] that are the index in the registry. The other bits are a serial number.
pub(super) const SLOT_BITS: u32 = 24;

/// All sessions that have not ended.
#[derive(Debug)]
pub(super) struct Registry {
    sessions: Slab<Arc<Session>>,
    /// The last serial number: the upper bits of a [`ConnectionId`].
    serial: u64,
}

impl Registry {
    /// Creates an empty registry. `seed` is random: the serial numbers start with its upper bits, in the lower half of their range. So no id, and no delivery's
    /// name, is one of an earlier run of the broker.
    pub(super) fn new(seed: u64) -> Self {
        Self { sessions: Slab::new(), serial: seed >> (SLOT_BITS + 1) }
    }

    /// Returns the session with this id, if it has not ended.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Arc<Session>> {
        self.sessions.get(slot(id)).filter(|session| session.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.iter().map(|(_, session)| session)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether all indices are used.
    pub(super) fn is_full(&self) -> bool {
        self.sessions.len() >= 1 << SLOT_BITS
    }

    /// Adds the session that `make` creates for a new id.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Session>) -> Arc<Session> {
        let entry = self.sessions.vacant_entry();
        self.serial += 1;
        let session = make(ConnectionId((self.serial << SLOT_BITS) | entry.key() as u64));
        entry.insert(session.clone());
        session
    }

    /// Removes a session. The caller must hold a reference to the session, so that its socket is not closed under the lock.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.sessions.remove(slot(id));
        }
    }
}

fn slot(id: ConnectionId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}
