//! Enforces changes of users and rights on open sessions (SPEC section 9.2): a session ends if its user, its password or a right that it uses was withdrawn.
//!
//! The session is not only unsubscribed: the client connects again, and the answer to its own request says what is forbidden now.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use super::access::Identity;
use super::hub::Hub;
use super::request::Request;
use super::session::{Closing, Profile, Session};
use crate::limits;
use wsmb_core::broker::Broker;

impl Hub {
    /// Ends the sessions of users in `revoked`, and those that use a withdrawn right. A second round, [`limits::ENFORCE_AGAIN`] later, covers sessions that
    /// began or subscribed during the first.
    pub(super) async fn enforce(&self, revoked: HashSet<Arc<str>>) {
        let first = self.enforce_once(&revoked);
        // Frames that were read before the change may still subscribe under the old rights.
        tokio::time::sleep(limits::ENFORCE_AGAIN).await;
        // Not `revoked` again: a user may have logged in with a new password meanwhile.
        let ended = first + self.enforce_once(&HashSet::new());
        if ended > 0 {
            info!(connections = ended, "ended connections whose user, password or right has been withdrawn");
        }
    }

    fn enforce_once(&self, revoked: &HashSet<Arc<str>>) -> usize {
        let all = self.sessions();
        all.chunks(limits::ENFORCE_AT_ONCE).map(|some| self.enforce_on(some, revoked)).sum()
    }

    /// Ends those of some sessions that have lost their login or a right in use. Returns how many.
    pub(super) fn enforce_on(&self, some: &[Arc<Session>], revoked: &HashSet<Arc<str>>) -> usize {
        let access = self.access();
        let users = access.logins.verifier.users();
        let has_lost_login = |identity: &Identity| match identity {
            Identity::Token(_) => !access.is_still_accepted(identity, &users),
            Identity::User(user) => revoked.contains(user) || (user.is_empty() && !access.anonymous),
        };
        let (mut lost, kept): (Vec<_>, Vec<_>) = some
            .iter()
            .filter(|session| !session.is_forgotten() && !session.profile.internal)
            .map(|session| (session, has_lost_login(&session.profile.identity)))
            .partition(|(_, has_lost)| *has_lost);
        let has_lost_right = |session: &Session, broker: &Broker| {
            let Profile { identity, topic, .. } = &session.profile;
            let is_withdrawn = broker.channels_of(session.id).any(|channel| !access.may_receive(identity, channel));
            is_withdrawn
                || topic.as_ref().is_some_and(|channel| {
                    !access.may_send(identity, channel) && !access.may_receive(identity, channel)
                })
        };
        lost.extend(self.with_broker(|broker| {
            kept.into_iter().filter(|(session, _)| has_lost_right(session, broker)).collect::<Vec<_>>()
        }));
        for (session, has_lost_login) in &lost {
            let reason = if *has_lost_login { "credentials withdrawn" } else { "right withdrawn" };
            // Queued frames are dropped: the user may not receive them any more.
            let closing = Closing { code: 1008, reason, invited: false, flush: false };
            self.apply(session, Request::End(closing));
        }
        lost.len()
    }
}
