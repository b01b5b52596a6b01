//! All receivers without a socket, by their connection and by their name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mailbox::Mailbox;
use wsmb_core::broker::ReceiverKey;
use wsmb_core::message::{ConnectionId, DeliveryName, Timestamp};

/// The mailboxes. Each has a session, so `server.max_connections` bounds their number.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_connection: HashMap<ConnectionId, (Arc<Mailbox>, Option<ReceiverKey>)>,
    by_name: HashMap<ReceiverKey, ConnectionId>,
}

impl Mailboxes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mailbox. `name`: the receiver keeps its place between two requests.
    pub(super) fn add(&self, mailbox: Arc<Mailbox>, name: Option<ReceiverKey>) {
        let mut state = self.state();
        let id = mailbox.session.id;
        if let Some(name) = &name {
            state.by_name.insert(name.clone(), id);
        }
        state.by_connection.insert(id, (mailbox, name));
    }

    /// The mailbox of a named receiver whose session has not ended.
    pub(super) fn named(&self, name: &ReceiverKey) -> Option<Arc<Mailbox>> {
        let state = self.state();
        let (mailbox, _) = state.by_connection.get(state.by_name.get(name)?)?;
        (!mailbox.session.is_forgotten()).then(|| mailbox.clone())
    }

    pub(super) fn of(&self, connection: ConnectionId) -> Option<Arc<Mailbox>> {
        self.state().by_connection.get(&connection).map(|(mailbox, _)| mailbox.clone())
    }

    /// Removes a mailbox. Returns false if it was removed already.
    pub(super) fn remove(&self, connection: ConnectionId) -> bool {
        let mut state = self.state();
        let Some((_, name)) = state.by_connection.remove(&connection) else { return false };
        if let Some(name) = name
            && state.by_name.get(&name) == Some(&connection)
        {
            state.by_name.remove(&name);
        }
        true
    }

    /// Whether the receiver with this connection keeps its place between two requests.
    pub(super) fn is_named(&self, connection: ConnectionId) -> bool {
        self.state().by_connection.get(&connection).is_some_and(|(_, name)| name.is_some())
    }

    /// The mailboxes to which no response has been attached since `since`, and those whose session has ended.
    pub(super) fn abandoned(&self, since: Timestamp) -> Vec<Arc<Mailbox>> {
        let is_abandoned = |mailbox: &Mailbox| {
            mailbox.detached().is_some_and(|detached| detached <= since || mailbox.session.is_forgotten())
        };
        self.state()
            .by_connection
            .values()
            .map(|(mailbox, _)| mailbox)
            .filter(|mailbox| is_abandoned(mailbox))
            .cloned()
            .collect()
    }

    /// The core has taken a delivery from its receiver.
    pub(crate) fn revoke(&self, delivery: DeliveryName) {
        if let Some(mailbox) = self.of(delivery.connection) {
            mailbox.revoke(delivery.sequence);
        }
    }
}
