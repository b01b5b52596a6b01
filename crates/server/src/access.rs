//! Access control of the server: credentials, tokens, tickets and permissions.
//!
//! ```text
//! Credentials ─► login ─► Identity ─► may_send, may_receive, is_admin
//!                         (user, and the token if there is one)
//! ```
//!
//! Never here: a token or a ticket in a log line; the end of a session ([`super::enforce`], [`super::expiry`]).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use super::failed_logins::Reason;
use wsmb_auth::{
    Asker, BadToken, Grant, IssueError, IssuedToken, Key, OwnKey, Permissions, Rates, Tickets, TokenRequest, Users,
    Verdict, Verifier, issue, ticket, token,
};
use wsmb_core::message::{ChannelName, Timestamp};
use wsmb_core::network::Networks;
use wsmb_protocol::handshake::{basic_credentials, bearer_token};
use wsmb_protocol::origin::Origin;

/// The rules in force; a reload replaces them as a whole.
pub(super) struct Access {
    pub(super) logins: Arc<Logins>,
    pub(super) permissions: Permissions,
    /// The users who are administrators.
    pub(super) admins: Vec<String>,
    /// The keys of applications that sign tokens.
    pub(super) keys: Vec<Arc<Key>>,
    /// How often each user may publish and connect.
    pub(super) rates: Rates,
    /// Accept clients without credentials, as the user with the empty name.
    pub(super) anonymous: bool,
    /// The proxies whose client addresses are trusted.
    pub(super) trusted: Networks,
    /// The web pages of other hosts that may connect.
    pub(super) origins: Vec<Origin>,
}

/// The part of the access control that survives a reload.
pub(super) struct Logins {
    /// With its cache of verified passwords.
    pub(super) verifier: Verifier,
    /// The broker's own key for tokens.
    pub(super) own_key: OwnKey,
    /// Each ticket stands for an identity, which was accepted according to a list of users.
    pub(super) tickets: Mutex<Tickets<(Identity, Arc<Users>)>>,
    pub(super) clock: Arc<Clock>,
}

/// The credentials of a request, unchecked. Never printed. If there are several, the explicit ones count: a browser adds a remembered password by itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Credentials<'a> {
    /// The value of `Authorization`.
    pub(super) authorization: Option<&'a str>,
    /// The token in a WebSocket subprotocol. Counts before a ticket.
    pub(super) token: Option<&'a str>,
    /// The value of `?ticket=`. Counts before `authorization`.
    pub(super) ticket: Option<&'a str>,
    /// The user that a verified client certificate names. Counts if there is nothing else.
    pub(super) certified: Option<&'a Arc<str>>,
}

impl<'a> Credentials<'a> {
    /// The token that counts, if it does.
    fn token(&self) -> Option<&'a str> {
        self.token.or_else(|| if self.ticket.is_some() { None } else { self.authorization.and_then(bearer_token) })
    }

    /// Whether only a program or page that knows a token or a ticket can have sent the request, so that its origin need not be checked.
    pub(super) fn are_explicit(&self) -> bool {
        self.token.is_some() || self.ticket.is_some() || self.authorization.and_then(bearer_token).is_some()
    }

    /// Whether the request has no credentials.
    pub(super) fn are_missing(&self) -> bool {
        self.authorization.is_none() && self.token.is_none() && self.ticket.is_none() && self.certified.is_none()
    }
}

/// Who a request or a session comes from. What an identity may do follows from the rules in force ([`Access::may_send`]), so it never outlives a withdrawn
/// right. Clones share the token. As large as a user name, because every session has one.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// A user who has logged in with a password; empty for an anonymous client.
    User(Arc<str>),
    /// A client that has logged in with a token.
    Token(Arc<LiveToken>),
}

impl Default for Identity {
    fn default() -> Self {
        Self::User(Arc::default())
    }
}

impl Identity {
    fn of_grant(grant: Arc<Grant>) -> Self {
        Self::Token(Arc::new(LiveToken { user: grant.user().clone(), grant: Mutex::new(grant) }))
    }

    /// The user; empty for an anonymous client.
    pub(super) fn user(&self) -> &Arc<str> {
        match self {
            Self::User(user) => user,
            Self::Token(token) => &token.user,
        }
    }

    /// The token with which the client has logged in.
    pub(super) fn token(&self) -> Option<&LiveToken> {
        match self {
            Self::User(_) => None,
            Self::Token(token) => Some(token),
        }
    }

    /// A copy with a token of its own, for another session.
    fn detached(&self) -> Self {
        match self {
            Self::User(_) => self.clone(),
            Self::Token(token) => Self::of_grant(token.grant()),
        }
    }
}

/// The token of a client, which the client may replace by a newer one of the same user.
#[derive(Debug)]
pub(super) struct LiveToken {
    user: Arc<str>,
    grant: Mutex<Arc<Grant>>,
}

impl LiveToken {
    pub(super) fn grant(&self) -> Arc<Grant> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the token. Returns the old one.
    pub(super) fn replace(&self, grant: Arc<Grant>) -> Arc<Grant> {
        std::mem::replace(&mut *self.grant.lock().unwrap_or_else(PoisonError::into_inner), grant)
    }
}

/// The result of a login.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// The client is accepted according to this list of users. After the registration of a session, the list must be checked again
    /// ([`Access::is_still_accepted`]).
    Welcome(Identity, Arc<Users>),
    /// Missing, malformed or wrong credentials: the user that they name, and the reason.
    Rejected(String, Reason),
    /// Too many logins from this address have failed before. A password was not checked; a token or a ticket was wrong. Names the user.
    Slowed(String),
    /// Too many logins are waiting.
    Busy,
}

/// Why a token does not replace the token of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRefresh {
    /// The client has not logged in with a token.
    NoToken,
    /// The token is of another user.
    OtherUser,
    /// The token is refused.
    Token(BadToken),
}

impl Logins {
    fn tickets(&self) -> MutexGuard<'_, Tickets<(Identity, Arc<Users>)>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock's time, in seconds since 1970.
    fn seconds(&self) -> u64 {
        self.clock.on_the_wall(self.clock.now()).0 / 1_000
    }

    fn since_start(&self) -> std::time::Duration {
        self.clock.now().since(Timestamp(0))
    }
}

impl Access {
    /// Checks the credentials of a request, even if anonymous clients are accepted. `from`: the client's address.
    pub(super) async fn login(&self, credentials: Credentials<'_>, from: IpAddr) -> Login {
        if let Some(token) = credentials.token() {
            return match self.verify_token(token) {
                Ok(grant) => Login::Welcome(Identity::of_grant(grant), self.logins.verifier.users()),
                Err(bad) => self.refuse(Reason::Token(bad), from),
            };
        }
        if let Some(ticket) = credentials.ticket {
            return self.redeem(ticket, from);
        }
        let Some(authorization) = credentials.authorization else {
            return if let Some(user) = credentials.certified {
                Login::Welcome(Identity::User(user.clone()), self.logins.verifier.users())
            } else if self.anonymous {
                Login::Welcome(Identity::default(), self.logins.verifier.users())
            } else {
                Login::Rejected(String::new(), Reason::NoCredentials)
            };
        };
        let Some((user, password)) = basic_credentials(authorization) else {
            return Login::Rejected(String::new(), Reason::Malformed);
        };
        let (verdict, users) = self.logins.verifier.verify(&user, password.as_bytes(), from).await;
        match verdict {
            Verdict::Accepted => {
                let user = users.name(&user).unwrap_or_else(|| Arc::from(user));
                Login::Welcome(Identity::User(user), users)
            }
            Verdict::Rejected => {
                let is_known = users.name(&user).is_some();
                Login::Rejected(user, if is_known { Reason::WrongPassword } else { Reason::UnknownUser })
            }
            Verdict::Slowed => Login::Slowed(user),
            Verdict::Busy => Login::Busy,
        }
    }

    /// Uses a ticket up.
    fn redeem(&self, ticket: &str, from: IpAddr) -> Login {
        let found = self.logins.tickets().redeem(ticket, self.logins.since_start());
        match found {
            // A ticket gives no more than its user has by now.
            Some((identity, users)) if self.is_still_accepted(&identity, &users) => Login::Welcome(identity, users),
            _ => self.refuse(Reason::Ticket, from),
        }
    }

    /// Refuses a token or a ticket, and counts a guess as a wrong password is counted. It was checked even after many failures: nobody can guess one, and a check
    /// costs less than the request. So failures of others behind the same address never keep out a client with a right token.
    fn refuse(&self, reason: Reason, from: IpAddr) -> Login {
        let is_guess = !matches!(reason, Reason::Token(bad) if bad.is_signed());
        let is_slowed = is_guess && self.logins.verifier.count_failure(from);
        if is_slowed { Login::Slowed(String::new()) } else { Login::Rejected(String::new(), reason) }
    }

    fn verify_token(&self, text: &str) -> Result<Arc<Grant>, BadToken> {
        token::verify(text, &self.all_keys(), &self.logins.verifier.users(), self.logins.seconds()).map(Arc::new)
    }

    /// The keys of applications and the broker's own.
    fn all_keys(&self) -> Vec<Arc<Key>> {
        self.keys.iter().cloned().chain(self.logins.own_key.get()).collect()
    }

    /// Verifies a token that replaces the token of a client.
    ///
    /// # Errors
    /// The token is not accepted for this client.
    pub(super) fn verify_refresh(&self, identity: &Identity, text: &str) -> Result<Arc<Grant>, BadRefresh> {
        if identity.token().is_none() {
            return Err(BadRefresh::NoToken);
        }
        let grant = self.verify_token(text).map_err(BadRefresh::Token)?;
        if grant.user() == identity.user() { Ok(grant) } else { Err(BadRefresh::OtherUser) }
    }

    /// Issues a token of the broker to the user of an identity. The first one takes the time of writing a file.
    ///
    /// # Errors
    /// [`IssueError`].
    pub(super) async fn issue_token(
        &self,
        identity: &Identity,
        request: &TokenRequest,
    ) -> Result<IssuedToken, IssueError> {
        let own_key = match self.logins.own_key.get() {
            Some(key) => key,
            None => {
                let logins = self.logins.clone();
                let made = tokio::task::spawn_blocking(move || logins.own_key.get_or_make()).await;
                made.unwrap_or_else(|error| Err(error.to_string())).map_err(IssueError::NoKey)?
            }
        };
        let asker =
            Asker { user: identity.user(), is_admin: self.is_admin(identity), has_token: identity.token().is_some() };
        let users = self.logins.verifier.users();
        issue::issue(&own_key, asker, &self.permissions, &users, request, self.logins.seconds())
    }

    /// Issues a ticket to an identity that was accepted according to `users`. `None`: there are too many tickets, or the system gives no random numbers.
    pub(super) fn issue_ticket(&self, identity: &Identity, users: Arc<Users>) -> Option<String> {
        let mut random = [0; ticket::TICKET_BYTES];
        getrandom::fill(&mut random).ok()?;
        let login = (identity.detached(), users);
        self.logins.tickets().issue(random, identity.user(), login, self.logins.since_start())
    }

    /// Whether an identity that was accepted according to `users` would still be accepted.
    pub(super) fn is_still_accepted(&self, identity: &Identity, users: &Users) -> bool {
        let now = self.logins.verifier.users();
        match identity {
            Identity::Token(token) => {
                let grant = token.grant();
                grant.is_still_accepted(&self.all_keys(), &now) && !grant.has_expired(self.logins.seconds())
            }
            Identity::User(user) if user.is_empty() => self.anonymous,
            Identity::User(user) => now.has_same(users, user),
        }
    }

    /// Whether the identity is an administrator (`auth.admins`). A token never is: it may be on a web page, or in an application's log.
    pub(super) fn is_admin(&self, identity: &Identity) -> bool {
        matches!(identity, Identity::User(user) if self.admins.iter().any(|admin| !admin.is_empty() && **admin == **user))
    }

    pub(super) fn may_send(&self, identity: &Identity, channel: &ChannelName) -> bool {
        match identity {
            Identity::User(user) => self.permissions.may_send(user, channel.as_str()),
            Identity::Token(token) => token.grant().may_send(&self.permissions, channel.as_str()),
        }
    }

    pub(super) fn may_receive(&self, identity: &Identity, channel: &ChannelName) -> bool {
        match identity {
            Identity::User(user) => self.permissions.may_receive(user, channel.as_str()),
            Identity::Token(token) => token.grant().may_receive(&self.permissions, channel.as_str()),
        }
    }
}
