//! Who comes in, and what he may do: credentials and permissions as the server asks for them.

use std::net::IpAddr;
use std::sync::Arc;

use super::failed_logins::Reason;
use wsmb_auth::{Permissions, Rates, Users, Verdict, Verifier};
use wsmb_core::message::ChannelName;
use wsmb_core::network::Networks;
use wsmb_protocol::handshake::basic_credentials;
use wsmb_protocol::origin::Origin;

/// The rules in force; replaced as a whole by a reload.
pub(super) struct Access {
    /// Survives a reload, with what it has verified.
    pub(super) verifier: Arc<Verifier>,
    pub(super) permissions: Permissions,
    /// How often each user may publish and connect.
    pub(super) rates: Rates,
    /// Clients without credentials come in, as the user with the empty name.
    pub(super) anonymous: bool,
    /// The proxies that are believed when they name a client.
    pub(super) trusted: Networks,
    /// The web pages of other hosts that may connect.
    pub(super) origins: Vec<Origin>,
}

/// What became of a login.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// This user (empty: anonymous) comes in, according to this list.
    Welcome(Arc<str>, Arc<Users>),
    /// Missing, garbled or wrong credentials: whom they named, and why.
    Rejected(String, Reason),
    /// Too many passwords were wrong.
    Slowed(String),
    /// Too many logins wait already.
    Busy,
}

impl Access {
    /// Checks the value of an `Authorization` header. What is given is checked, even where nothing is needed.
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

    /// Whether `user` may send to `channel`.
    pub(super) fn may_send(&self, user: &str, channel: &ChannelName) -> bool {
        self.permissions.may_send(user, channel.as_str())
    }

    /// Whether `user` may receive from `channel`.
    pub(super) fn may_receive(&self, user: &str, channel: &ChannelName) -> bool {
        self.permissions.may_receive(user, channel.as_str())
    }
}
