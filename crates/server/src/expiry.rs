//! Ends the sessions whose token has expired (SPEC section 9.2), and those that a new token gives fewer rights.
//!
//! The wall clock decides, as it does for the token, so a step of the clock needs no care. Never here: whether a token is valid ([`super::access`]).

use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use super::access::BadRefresh;
#[cfg(feature = "http")]
use super::access::Identity;
use super::failed_logins::Reason;
use super::hub::Hub;
use super::request::Request;
use super::session::{Closing, Session};
use crate::limits;

impl Hub {
    /// Replaces the token of a session. The new rights apply to all later requests; a subscription that they do not allow ends within
    /// [`limits::EXPIRY_LOOK`].
    ///
    /// # Errors
    /// The token is not accepted for this session; the old one stays.
    pub(super) fn refresh(&self, session: &Session, text: &str) -> Result<(), BadRefresh> {
        let access = self.access();
        let identity = &session.profile.identity;
        let renewed = access.verify_refresh(identity, text).and_then(|grant| {
            let token = identity.token().ok_or(BadRefresh::NoToken)?;
            self.expiries.renew(session.id, token, grant);
            Ok(())
        });
        if let Err(BadRefresh::Token(bad)) = renewed {
            let from = session.profile.peer.ip();
            if !bad.is_signed() {
                // The client is answered in any case; the count slows further logins from its address.
                access.logins.verifier.count_failure(from);
            }
            self.failed_logins.log(from, identity.user(), Reason::Token(bad));
        }
        renewed
    }

    /// Gives a session the token of a newer request of the same user. Returns false if only one of them has a token.
    #[cfg(feature = "http")]
    pub(super) fn adopt(&self, session: &Session, identity: &Identity) -> bool {
        match (session.profile.identity.token(), identity.token()) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                self.expiries.renew(session.id, old, new.grant());
                if session.is_forgotten() {
                    self.expiries.forget(session);
                }
                true
            }
            _ => false,
        }
    }

    /// Ends sessions whose token has expired, once a second while there are sessions with tokens.
    pub(super) async fn run_expiries(self: Arc<Self>) {
        loop {
            self.expiries.wait_for_any().await;
            tokio::time::sleep(limits::EXPIRY_LOOK).await;
            self.end_expired();
        }
    }

    fn end_expired(&self) {
        let now = self.wall_now().0 / 1_000;
        let (expired, changed) = self.expiries.take(now);
        let closing = Closing { code: 4001, reason: "token expired", invited: false, flush: true };
        let mut ended = 0;
        for session in self.find(&expired) {
            // A newer token may have come since.
            if session.profile.identity.token().is_some_and(|token| token.grant().has_expired(now)) {
                self.apply(&session, Request::End(closing));
                ended += 1;
            }
        }
        if ended > 0 {
            info!(connections = ended, "ended connections whose token has expired");
        }
        self.enforce_on(&self.find(&changed), &HashSet::new());
    }
}
