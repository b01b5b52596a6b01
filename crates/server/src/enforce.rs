//! Enforces changes of users and rights on open sessions (SPEC section 9.2): a session ends if its user, its password or a right that it uses was withdrawn.
//!
//! The session is not only unsubscribed: the client connects again, and the answer to its own request says what is forbidden now.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use super::hub::Hub;
use super::request::Request;
use super::session::{Closing, Profile, Session};
use crate::limits;

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
        let access = self.access();
        let mut ended = 0;
        for some in self.sessions().chunks(limits::ENFORCE_AT_ONCE) {
            let lost: Vec<_> = self.with_broker(|broker| {
                let lost = |session: &Arc<Session>| {
                    let Profile { identity, topic, .. } = &session.profile;
                    if revoked.contains(&identity.user) || (identity.user.is_empty() && !access.anonymous) {
                        return Some("credentials withdrawn");
                    }
                    let is_withdrawn =
                        broker.channels_of(session.id).any(|channel| !access.may_receive(identity, channel));
                    let is_idle = topic.as_ref().is_some_and(|channel| {
                        !access.may_send(identity, channel) && !access.may_receive(identity, channel)
                    });
                    (is_withdrawn || is_idle).then_some("right withdrawn")
                };
                some.iter()
                    .filter(|session| !session.is_forgotten() && !session.profile.internal)
                    .filter_map(|session| lost(session).map(|reason| (session, reason)))
                    .collect()
            });
            for (session, reason) in &lost {
                // Queued frames are dropped: the user may not receive them any more.
                let closing = Closing { code: 1008, reason, invited: false, flush: false };
                self.apply(session, Request::End(closing));
            }
            ended += lost.len();
        }
        ended
    }
}
