//! Access control of the server: credentials and permissions.

use std::net::IpAddr;
use std::sync::Arc;

use super::failed_logins::Reason;
use wsmb_auth::{Permissions, Rates, Users, Verdict, Verifier};
use wsmb_core::message::ChannelName;
use wsmb_core::network::Networks;
use wsmb_protocol::handshake::basic_credentials;
use wsmb_protocol::origin::Origin;

/// The rules in force; a reload replaces them as a whole.
pub(super) struct Access {
    /// Survives a reload, with its cache of verified passwords.
    pub(super) verifier: Arc<Verifier>,
    pub(super) permissions: Permissions,
    /// How often each user may publish and connect.
    pub(super) rates: Rates,
    /// Accept clients without credentials, as the user with the empty name.
    pub(super) anonymous: bool,
    /// The proxies whose client addresses are trusted.
    pub(super) trusted: Networks,
    /// The web pages of other hosts that may connect.
    pub(super) origins: Vec<Origin>,
}

/// The result of a login.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// The user (empty: anonymous) is accepted according to this list.
    Welcome(Arc<str>, Arc<Users>),
    /// Missing, malformed or wrong credentials: the user that they name, and the reason.
    Rejected(String, Reason),
    /// Too many passwords were wrong before; this one was not checked. Names the user.
    Slowed(String),
    /// Too many logins are waiting.
    Busy,
}

impl Access {
    /// Checks the value of an `Authorization` header, even if anonymous clients are accepted.
    pub(super) async fn login(&self, authorization: Option<&str>, from: IpAddr) -> Login {
        let Some(authorization) = authorization else {
            let rejected = || Login::Rejected(String::new(), Reason::NoCredentials);
            return if self.anonymous { Login::Welcome(Arc::default(), self.verifier.users()) } else { rejected() };
        };
        let Some((user, password)) = basic_credentials(authorization) else {
            return Login::Rejected(String::new(), Reason::Malformed);
        };
        let (verdict, users) = self.verifier.verify(&user, password.as_bytes(), from).await;
        match verdict {
            Verdict::Accepted => Login::Welcome(users.name(&user).unwrap_or_else(|| Arc::from(user)), users),
            Verdict::Rejected => {
                let is_known = users.name(&user).is_some();
                Login::Rejected(user, if is_known { Reason::WrongPassword } else { Reason::UnknownUser })
            }
            Verdict::Slowed => Login::Slowed(user),
            Verdict::Busy => Login::Busy,
        }
    }

    pub(super) fn may_send(&self, user: &str, channel: &ChannelName) -> bool {
        self.permissions.may_send(user, channel.as_str())
    }

    pub(super) fn may_receive(&self, user: &str, channel: &ChannelName) -> bool {
        self.permissions.may_receive(user, channel.as_str())
    }
}
