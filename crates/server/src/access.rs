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
    /// The users who are administrators.
    pub(super) admins: Vec<String>,
    /// How often each user may publish and connect.
    pub(super) rates: Rates,
    /// Accept clients without credentials, as the user with the empty name.
    pub(super) anonymous: bool,
    /// The proxies whose client addresses are trusted.
    pub(super) trusted: Networks,
    /// The web pages of other hosts that may connect.
    pub(super) origins: Vec<Origin>,
}

/// The credentials of a request, unchecked. Never printed.
#[derive(Clone, Copy, Default)]
pub(super) struct Credentials<'a> {
    /// The value of `Authorization`.
    pub(super) authorization: Option<&'a str>,
}

/// Who a request or a session comes from. What an identity may do follows from the rules in force ([`Access::may_send`]), so it never outlives a withdrawn
/// right.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// The user; empty for an anonymous client.
    pub(super) user: Arc<str>,
}

/// The result of a login.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// The client is accepted according to this list of users. After the registration of a session, the list must be checked again
    /// ([`Access::is_still_accepted`]).
    Welcome(Identity, Arc<Users>),
    /// Missing, malformed or wrong credentials: the user that they name, and the reason.
    Rejected(String, Reason),
    /// Too many passwords were wrong before; this one was not checked. Names the user.
    Slowed(String),
    /// Too many logins are waiting.
    Busy,
}

impl Access {
    /// Checks the credentials of a request, even if anonymous clients are accepted. `from`: the client's address.
    pub(super) async fn login(&self, credentials: Credentials<'_>, from: IpAddr) -> Login {
        let Some(authorization) = credentials.authorization else {
            let rejected = || Login::Rejected(String::new(), Reason::NoCredentials);
            return if self.anonymous {
                Login::Welcome(Identity::default(), self.verifier.users())
            } else {
                rejected()
            };
        };
        let Some((user, password)) = basic_credentials(authorization) else {
            return Login::Rejected(String::new(), Reason::Malformed);
        };
        let (verdict, users) = self.verifier.verify(&user, password.as_bytes(), from).await;
        match verdict {
            Verdict::Accepted => {
                Login::Welcome(Identity { user: users.name(&user).unwrap_or_else(|| Arc::from(user)) }, users)
            }
            Verdict::Rejected => {
                let is_known = users.name(&user).is_some();
                Login::Rejected(user, if is_known { Reason::WrongPassword } else { Reason::UnknownUser })
            }
            Verdict::Slowed => Login::Slowed(user),
            Verdict::Busy => Login::Busy,
        }
    }

    /// Whether an identity that was accepted according to `users` would still be accepted.
    pub(super) fn is_still_accepted(&self, identity: &Identity, users: &Users) -> bool {
        let user = &*identity.user;
        if user.is_empty() { self.anonymous } else { self.verifier.users().has_same(users, user) }
    }

    /// Whether the identity is an administrator (`auth.admins`).
    pub(super) fn is_admin(&self, identity: &Identity) -> bool {
        self.admins.iter().any(|admin| !admin.is_empty() && **admin == *identity.user)
    }

    pub(super) fn may_send(&self, identity: &Identity, channel: &ChannelName) -> bool {
        self.permissions.may_send(&identity.user, channel.as_str())
    }

    pub(super) fn may_receive(&self, identity: &Identity, channel: &ChannelName) -> bool {
        self.permissions.may_receive(&identity.user, channel.as_str())
    }
}
