//! Issues the broker's own tokens: to a user who has logged in with a password, with at most the rights of that user.
//!
//! A token names its asker and carries a mark of the asker's password. So it gives no right that the asker has lost since, and ends when the asker is removed
//! or gets another password. This module must never read a clock.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::claims::{ASKER, MARK, RECEIVE, SEND};
use super::files::Users;
use super::permission::{Patterns, Permissions};
use super::token::{Key, sign};
use crate::limits;

/// Who asks for a token.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user; empty: an anonymous client.
    pub user: &'a str,
    /// The user is an administrator, who may name another user.
    pub is_admin: bool,
    /// The client has logged in with a token itself.
    pub has_token: bool,
}

/// The wanted token.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// The user of the token; `None`: the asker.
    pub user: Option<String>,
    /// Patterns of the channels to send to.
    pub send: Vec<String>,
    /// Patterns of the channels to receive from.
    pub receive: Vec<String>,
    /// How long the token is valid; `None`: [`limits::TOKEN_TTL`].
    pub ttl: Option<Duration>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token. Secret.
    pub token: String,
    /// Its user.
    pub user: String,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

/// Hides the token.
impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedToken({:?}, {})", self.user, self.expires)
    }
}

/// Why no token is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// The asker has logged in with a token: a chain of tokens would never expire.
    HasToken,
    /// The asker is not a user with a password.
    NoPassword,
    /// Only an administrator may name another user.
    OtherUser,
    /// The user name is empty, too long, or has control characters.
    UserName,
    /// The request names no channels.
    NoChannels,
    /// A list has more than [`limits::TOKEN_PATTERNS`] patterns, or the token would be longer than [`limits::TOKEN_BYTES`].
    TooLong,
    /// The asker may not use all channels that this pattern matches. The first text is `send` or `receive`.
    Right(&'static str, String),
    /// The time is below a second or above [`limits::TOKEN_TTL_MAX`].
    Ttl,
    /// The broker has no key of its own, for this reason.
    NoKey(String),
}

impl IssueError {
    /// Whether the request is valid, but this asker may not make it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::HasToken | Self::NoPassword | Self::OtherUser | Self::Right(..))
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasToken => f.write_str("a token cannot ask for a token; log in with a password"),
            Self::NoPassword => f.write_str("only a user with a password can ask for a token"),
            Self::OtherUser => f.write_str("only an administrator (auth.admins) can ask for a token of another user"),
            Self::UserName => {
                write!(f, "the user must have 1 to {} bytes and no control characters", wsmb_core::limits::NAME_BYTES)
            }
            Self::NoChannels => f.write_str(
                "the token would allow nothing; name channels in \"send\" or \"receive\", for example [\"sms\"]",
            ),
            Self::TooLong => write!(
                f,
                "the token would be too long: at most {} patterns in a list, and {} bytes in all",
                limits::TOKEN_PATTERNS,
                limits::TOKEN_BYTES
            ),
            Self::Right(right, pattern) => {
                let verb = if *right == "send" { "send to" } else { "receive from" };
                write!(
                    f,
                    "you may not {verb} every channel that \"{pattern}\" matches, so you cannot give this right to a token"
                )
            }
            Self::Ttl => write!(f, "\"ttl\" must be from 1s to {}h", limits::TOKEN_TTL_MAX.as_secs() / 3_600),
            Self::NoKey(reason) => write!(f, "this broker issues no tokens: {reason}"),
        }
    }
}

impl std::error::Error for IssueError {}

/// Issues a token that `own` signs. `permissions` and `users`: those in force; `now`: seconds since 1970.
///
/// # Errors
/// [`IssueError`]; then nothing was issued.
pub fn issue(
    own: &Key,
    asker: Asker<'_>,
    permissions: &Permissions,
    users: &Users,
    request: &TokenRequest,
    now: u64,
) -> Result<IssuedToken, IssueError> {
    if asker.has_token {
        return Err(IssueError::HasToken);
    }
    let mark = own.mark(users, asker.user).ok_or(IssueError::NoPassword)?;
    let user = request.user.as_deref().unwrap_or(asker.user);
    if user != asker.user && !asker.is_admin {
        return Err(IssueError::OtherUser);
    }
    if user.is_empty() || user.len() > wsmb_core::limits::NAME_BYTES || user.contains(char::is_control) {
        return Err(IssueError::UserName);
    }
    let rights = permissions.rights(asker.user);
    check("send", &request.send, &rights.send)?;
    check("receive", &request.receive, &rights.receive)?;
    if request.send.is_empty() && request.receive.is_empty() {
        return Err(IssueError::NoChannels);
    }
    let ttl = request.ttl.unwrap_or(limits::TOKEN_TTL);
    if ttl < Duration::from_secs(1) || ttl > limits::TOKEN_TTL_MAX {
        return Err(IssueError::Ttl);
    }
    let expires = now + ttl.as_secs();
    let claims: Map<String, Value> = [
        ("sub", Value::from(user)),
        ("iat", now.into()),
        ("exp", expires.into()),
        (SEND, request.send.clone().into()),
        (RECEIVE, request.receive.clone().into()),
        (ASKER, asker.user.into()),
        (MARK, mark.into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let token = own.to_signing().and_then(|signing| sign(own.id(), &claims, &signing)).ok_or(IssueError::TooLong)?;
    if token.len() > limits::TOKEN_BYTES {
        return Err(IssueError::TooLong);
    }
    Ok(IssuedToken { token, user: user.to_owned(), expires })
}

fn check(right: &'static str, wanted: &[String], rights: &Patterns) -> Result<(), IssueError> {
    if wanted.len() > limits::TOKEN_PATTERNS {
        return Err(IssueError::TooLong);
    }
    match wanted.iter().find(|pattern| !rights.covers(pattern)) {
        Some(pattern) => {
            Err(IssueError::Right(right, pattern.chars().take(wsmb_core::limits::CHANNEL_NAME_CHARS).collect()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "issue_tests.rs"]
mod tests;
