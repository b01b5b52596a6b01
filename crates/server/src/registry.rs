//! The registry of sessions, by connection id.
//!
//! The core's lock guards the registry. An id is valid until its session is removed. No id is used twice, even by later runs of the broker.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::session::Session;
use wsmb_core::message::ConnectionId;
use wsmb_core::shares::SharedBound;

/// The number of low bits of a [`ConnectionId`] that are the index in the registry. The other bits are a serial number.
pub(super) const SLOT_BITS: u32 = 24;

/// All sessions that have not ended.
#[derive(Debug)]
pub(super) struct Registry {
    sessions: Slab<Arc<Session>>,
    /// The number of each user's sessions. A user without sessions is not in the map.
    by_user: HashMap<Arc<str>, usize>,
    /// The last serial number: the upper bits of a [`ConnectionId`].
    serial: u64,
}

impl Registry {
    /// Creates an empty registry. `seed` is random: the serial numbers start with its upper bits, in the lower half of their range. So no id, and no delivery's
    /// name, is one of an earlier run of the broker.
    pub(super) fn new(seed: u64) -> Self {
        Self { sessions: Slab::new(), by_user: HashMap::new(), serial: seed >> (SLOT_BITS + 1) }
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

    /// Whether a user is refused a further session: `max` sessions are open, or nearly as many and the user has more than an equal share.
    pub(super) fn refuses(&self, user: &str, max: usize) -> bool {
        // An id has room for so many indices.
        let bound = max.min(1 << SLOT_BITS);
        let used = self.sessions.len();
        let shared = SharedBound { bound, used, owned: used, holders: self.by_user.len() };
        shared.refuses(1, self.by_user.get(user).copied().unwrap_or_default())
    }

    /// Adds the session that `make` creates for a new id.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Session>) -> Arc<Session> {
        let entry = self.sessions.vacant_entry();
        self.serial += 1;
        let session = make(ConnectionId((self.serial << SLOT_BITS) | entry.key() as u64));
        entry.insert(session.clone());
        *self.by_user.entry(session.profile.user().clone()).or_default() += 1;
        session
    }

    /// Frees the memory that tables keep for ended sessions.
    pub(super) fn shrink(&mut self) {
        self.sessions.shrink_to_fit();
        self.by_user.shrink_to_fit();
    }

    /// Removes a session. The caller must hold a reference to the session, so that its socket is not closed under the lock.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_none() {
            return;
        }
        let session = self.sessions.remove(slot(id));
        if let Some(sessions) = self.by_user.get_mut(session.profile.user()) {
            *sessions -= 1;
            if *sessions == 0 {
                self.by_user.remove(session.profile.user());
            }
        }
    }
}

fn slot(id: ConnectionId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}
