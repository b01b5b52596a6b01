//! Who comes in, and what he may do: credentials and permissions as the server asks for them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::{Permissions, Verdict, Verifier};
use crate::message::ChannelName;
use crate::network::Networks;
use crate::protocol::handshake::basic_credentials;

/// The rules in force; replaced as a whole by a reload.
pub(super) struct Access {
    /// Survives a reload, with what it has verified.
    pub(super) verifier: Arc<Verifier>,
    pub(super) permissions: Permissions,
    /// Clients without credentials come in, as the user with the empty name.
    pub(super) anonymous: bool,
    /// The proxies that are believed when they name a client.
    pub(super) trusted: Networks,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// This user (empty: anonymous) comes in.
    Welcome(Arc<str>),
    /// Missing, garbled or wrong credentials.
    Rejected,
    /// Too many logins wait already.
    Busy,
}

impl Access {
    /// Checks the value of an `Authorization` header. What is given is checked, even where nothing is needed.
    pub(super) async fn login(&self, authorization: Option<&str>, from: IpAddr) -> Login {
        let Some(authorization) = authorization else {
            return if self.anonymous { Login::Welcome(Arc::default()) } else { Login::Rejected };
        };
        let Some((user, password)) = basic_credentials(authorization) else { return Login::Rejected };
        match self.verifier.verify(&user, password.as_bytes(), from).await {
            Verdict::Accepted => {
                // The list may have changed since, and the user be gone from it.
                Login::Welcome(self.verifier.users().name(&user).unwrap_or_else(|| Arc::from(user)))
            }
            Verdict::Rejected => Login::Rejected,
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
