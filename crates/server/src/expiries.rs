//! The times at which the tokens of sessions expire. Never here: a clock, or what happens to the sessions ([`super::expiry`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::access::LiveToken;
use super::session::Session;
use wsmb_auth::Grant;
use wsmb_core::message::ConnectionId;

/// The times at which tokens of sessions expire. One entry for each session that has logged in with a token.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    state: Mutex<State>,
    /// There is an entry, and there was none before.
    began: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By time in seconds since 1970.
    due: BTreeSet<(u64, ConnectionId)>,
    /// Sessions with a new token, which may give fewer rights.
    changed: BTreeSet<ConnectionId>,
}

impl Expiries {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the session if it has a token.
    pub(super) fn watch(&self, session: &Session) {
        if let Some(token) = session.profile.identity.token() {
            self.state().due.insert((token.grant().expires(), session.id));
            self.began.notify_one();
        }
    }

    /// Removes a session that has ended.
    pub(super) fn forget(&self, session: &Session) {
        if let Some(token) = session.profile.identity.token() {
            let mut state = self.state();
            state.due.remove(&(token.grant().expires(), session.id));
            state.changed.remove(&session.id);
        }
    }

    /// Replaces the token of a session, and its entry.
    pub(super) fn renew(&self, session: ConnectionId, token: &LiveToken, grant: Arc<Grant>) {
        let mut state = self.state();
        let expires = grant.expires();
        let old = token.replace(grant);
        state.due.remove(&(old.expires(), session));
        state.due.insert((expires, session));
        state.changed.insert(session);
    }

    /// Returns when there is an entry.
    pub(super) async fn wait_for_any(&self) {
        while self.state().due.is_empty() {
            self.began.notified().await;
        }
    }

    /// Takes out the sessions whose token is accepted no longer, and those with a new token. `now`: seconds since 1970.
    pub(super) fn take(&self, now: u64) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
        let mut state = self.state();
        // Keeps `expires + skew > now`, for any `expires`.
        let first_kept = (now.saturating_sub(wsmb_auth::limits::TOKEN_SKEW.as_secs()) + 1, ConnectionId(0));
        let kept = state.due.split_off(&first_kept);
        let expired = std::mem::replace(&mut state.due, kept);
        let changed = std::mem::take(&mut state.changed);
        (expired.into_iter().map(|(_, id)| id).collect(), changed.into_iter().collect())
    }
}
