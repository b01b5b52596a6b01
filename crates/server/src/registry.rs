//! The register of sessions: a connection's id leads to its session.
//!
//! Guarded by the core's lock: an id is good until its session is removed, and no id comes twice, also not in the next run of the broker.

use std::sync::Arc;

use slab::Slab;

use super::session::Session;
use wsmb_core::message::ConnectionId;

/// How many low bits of a [`ConnectionId`] are the place in the register; the others count up, so that no id comes twice.
pub(super) const SLOT_BITS: u32 = 24;

/// Every session that has not ended.
#[derive(Debug)]
pub(super) struct Registry {
    sessions: Slab<Arc<Session>>,
    /// Counts the sessions of this run: the upper bits of a [`ConnectionId`].
    serial: u64,
}

impl Registry {
    /// An empty register. `seed` is random: the count begins with it, anywhere in the lower half of the numbers, so that no id, and so no delivery's name, is
    /// one of an earlier run of the broker.
    pub(super) fn new(seed: u64) -> Self {
        Self { sessions: Slab::new(), serial: seed >> (SLOT_BITS + 1) }
    }

    /// The session with this id, if it has not ended.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Arc<Session>> {
        self.sessions.get(slot(id)).filter(|session| session.id == id)
    }

    /// Every session.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.iter().map(|(_, session)| session)
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no place is left that an id could name.
    pub(super) fn is_full(&self) -> bool {
        self.sessions.len() >= 1 << SLOT_BITS
    }

    /// Adds a session, which `make` makes with its id.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Session>) -> Arc<Session> {
        let entry = self.sessions.vacant_entry();
        self.serial += 1;
        let session = make(ConnectionId((self.serial << SLOT_BITS) | entry.key() as u64));
        entry.insert(session.clone());
        session
    }

    /// Removes a session. The caller holds the session, so that no socket is closed under the lock.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.sessions.remove(slot(id));
        }
    }
}

fn slot(id: ConnectionId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}
