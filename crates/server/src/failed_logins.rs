//! The log lines of failed logins. Their form is fixed, so that fail2ban can read them (filter: docs/deploying.md), and their rate is limited, so that they
//! do not fill the disk.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use crate::limits;
use wsmb_auth::BadToken;
use wsmb_core::network;

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request has no credentials.
    NoCredentials,
    /// The header does not follow RFC 7617.
    Malformed,
    /// The user does not exist.
    UnknownUser,
    /// The password is wrong.
    WrongPassword,
    /// The token is refused.
    Token(BadToken),
    /// There is no such ticket, it was used, or it has expired.
    Ticket,
    /// Too many logins have failed before; a password was not checked.
    TooMany,
}

impl Reason {
    /// The cause of a refused token or ticket, for the client. `None`: the client learns nothing about a wrong password.
    pub(super) fn sentence(self) -> Option<String> {
        match self {
            Self::Token(bad) => Some(bad.to_string()),
            Self::Ticket => Some("the ticket is wrong, was used already, or has expired".to_owned()),
            _ => None,
        }
    }
}

/// The documented filter contains these words.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCredentials => "no credentials",
            Self::Malformed => "malformed credentials",
            Self::UnknownUser => "unknown user",
            Self::WrongPassword => "wrong password",
            // Not a guess: the documented filter ignores it.
            Self::Token(bad) if bad.is_signed() => "unacceptable token",
            Self::Token(_) => "invalid token",
            Self::Ticket => "invalid ticket",
            Self::TooMany => "too many failures",
        })
    }
}

/// The rate limit: the lines written in the current [`limits::LOGIN_LINES_TIME`].
#[derive(Debug, Default)]
pub(super) struct FailedLogins(Mutex<LineLimit>);

#[derive(Debug, Default)]
struct LineLimit {
    since: Option<Instant>,
    written: usize,
    /// Lines of each address; at most as many entries as lines.
    by_address: HashMap<IpAddr, u32>,
    withheld: u64,
}

impl FailedLogins {
    /// Logs a failed login, unless the limit is reached.
    pub(super) fn log(&self, client: IpAddr, user: &str, reason: Reason) {
        let client = client.to_canonical();
        let withheld = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(client, Instant::now());
        if let Some(withheld) = withheld {
            warn!("{}", line(client, user, reason, withheld));
        }
    }
}

fn line(client: IpAddr, user: &str, reason: Reason, withheld: u64) -> String {
    let shown: String = user.chars().take(limits::LOGIN_LINE_USER).flat_map(char::escape_debug).collect();
    let rest = if user.chars().nth(limits::LOGIN_LINE_USER).is_some() { "…" } else { "" };
    format!("login failed: client={client} user=\"{shown}{rest}\" reason=\"{reason}\" withheld={withheld}")
}

impl LineLimit {
    /// `Some(n)`: write a line; `n` were withheld since the last one.
    fn admit(&mut self, client: IpAddr, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= limits::LOGIN_LINES_TIME) {
            self.since = Some(now);
            self.written = 0;
            self.by_address.clear();
        }
        let of_address = self.by_address.get(&network::client_network(client)).copied().unwrap_or_default();
        if self.written >= limits::LOGIN_LINES || of_address >= limits::LOGIN_LINES_PER_ADDRESS {
            self.withheld += 1;
            return None;
        }
        self.written += 1;
        self.by_address.insert(network::client_network(client), of_address + 1);
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([198, 51, high, low])
    }

    #[test]
    fn any_user_name_gives_a_single_line() {
        let user = "a\" reason=\"wrong password\"\nWARN login failed: client=192.0.2.9\u{1b}[31m";
        assert_eq!(
            line(address(1), user, Reason::UnknownUser, 7),
            "login failed: client=198.51.0.1 user=\"a\\\" reason=\\\"wrong password\\\"\\nWARN login failed: client=192.0.2.9\\u{1b}[…\" \
             reason=\"unknown user\" withheld=7"
        );
        let v6 = line("2001:db8::1".parse().unwrap(), "é", Reason::TooMany, 0);
        assert_eq!(v6, "login failed: client=2001:db8::1 user=\"é\" reason=\"too many failures\" withheld=0");
    }

    #[test]
    fn lines_are_bounded_for_one_address_and_for_all_and_the_rest_is_counted() {
        let (mut lines, start) = (LineLimit::default(), Instant::now());
        let one = (0..1_000).filter(|_| lines.admit(address(0), start).is_some()).count();
        assert_eq!(one, limits::LOGIN_LINES_PER_ADDRESS as usize);
        assert_eq!(lines.admit(address(1), start), Some(1_000 - one as u64));
        let others = (2..1_000).filter(|number| lines.admit(address(*number), start).is_some()).count();
        assert_eq!(one + 1 + others, limits::LOGIN_LINES);
        assert!(lines.by_address.len() <= limits::LOGIN_LINES);
        let withheld = 998 - others as u64;
        assert_eq!(lines.admit(address(0), start + limits::LOGIN_LINES_TIME), Some(withheld));
        assert_eq!(lines.admit(address(0), start + limits::LOGIN_LINES_TIME), Some(0));
    }
}
