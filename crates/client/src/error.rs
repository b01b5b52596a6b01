//! Why the client could not do what it was asked for: what happened, on what, and what to do about it. No password in it, ever.

use std::fmt;
use std::io;
use std::time::Duration;

use wsmb_protocol::frame::ProtocolError;
use wsmb_protocol::handshake::BadReply;

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub enum Error {
    /// No TCP connection could be made.
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection was not ready in time.
    TimedOut {
        /// `host:port`.
        address: String,
        /// After so long.
        after: Duration,
    },
    /// Something answered, but not with a WebSocket connection: a wrong password (401), or no broker at all.
    Refused {
        /// `host:port`.
        address: String,
        /// Who asked, if anybody was named.
        user: Option<String>,
        /// What it answered.
        reply: BadReply,
    },
    /// The broker broke the WebSocket protocol.
    Protocol(ProtocolError),
    /// The connection broke, or the broker ended it without a close frame, as it does when it goes down.
    Lost {
        /// `host:port`.
        address: String,
        /// What the system says; `None`: the other side just ended it.
        source: Option<io::Error>,
    },
    /// The broker ended the connection with a close frame.
    Closed {
        /// RFC 6455 section 7.4.
        code: Option<u16>,
        /// Its reason, perhaps empty.
        reason: String,
    },
    /// Nothing came from the broker for so long, not even the answer to a ping.
    Silent {
        /// `host:port`.
        address: String,
        /// For so long.
        after: Duration,
    },
    /// The system gives no random numbers, and without them no frame may be sent (RFC 6455 section 5.3).
    NoRandomness(getrandom::Error),
}

impl Error {
    /// Something answered, and its answer will be the same if asked again: a wrong password, or no broker at that address. A server
    /// that says that it can't now (5xx) is not meant.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { reply: BadReply::Refused { status, .. }, .. } => *status < 500,
            Self::Refused { .. } => true,
            _ => false,
        }
    }

    /// A server answered, and not for want of a broker behind it: asking again costs it something each time. (502 and 504 are how a proxy says
    /// that there is no broker.)
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { reply: BadReply::Refused { status, .. }, .. } => !matches!(status, 502 | 504),
            Self::Refused { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, source } => {
                write!(f, "cannot reach {address}: {}", reason(source))?;
                match source.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        f.write_str(" - is the broker running? start it with `wsmb serve`")
                    }
                    _ => f.write_str(" - check the address given with --url or WSMB_URL"),
                }
            }
            Self::TimedOut { address, after } => write!(
                f,
                "{address} did not answer within {} seconds - is it a broker, and does a firewall stand between?",
                after.as_secs()
            ),
            Self::Refused { reply: BadReply::Refused { status: 401, .. }, user: Some(user), address } => write!(
                f,
                "the broker at {address} refused the user {user} or the password (401): store the right ones with `wsmb login`, or set --user and WSMB_PASSWORD"
            ),
            Self::Refused { reply: BadReply::Refused { status: 401, .. }, user: None, address } => write!(
                f,
                "the broker at {address} wants a user and a password (401): store them with `wsmb login`, or set --user and WSMB_PASSWORD"
            ),
            Self::Refused { address, reply, .. } => write!(f, "no connection to {address}: {reply}"),
            Self::Protocol(error) => write!(f, "the broker broke the WebSocket protocol: {error}"),
            Self::Lost { address, source: None } => write!(f, "the broker at {address} ended the connection"),
            Self::Lost { address, source: Some(source) } => {
                write!(f, "the connection to {address} was lost: {}", reason(source))
            }
            Self::Closed { code, reason } => {
                f.write_str("the broker ended the connection")?;
                match (code, reason.as_str()) {
                    (None, _) => Ok(()),
                    (Some(code), "") => write!(f, " ({code})"),
                    (Some(code), reason) => write!(f, ": {reason} ({code})"),
                }
            }
            Self::Silent { address, after } => write!(
                f,
                "nothing came from {address} for {} seconds, not even the answer to a ping: the connection is dead",
                after.as_secs()
            ),
            Self::NoRandomness(error) => write!(f, "the system gives no random numbers: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::Lost { source: Some(source), .. } => Some(source),
            _ => None,
        }
    }
}

/// What the system says, without its number: "connection refused", not "Connection refused (os error 111)".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    // Only the first letter of a sentence, not that of a name: "Connection refused", but "DNS error".
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let address = || "127.0.0.1:8888".to_owned();
        let refused = io::Error::from_raw_os_error(libc_refused());
        let error = Error::Unreachable { address: address(), source: refused };
        assert_eq!(
            error.to_string(),
            "cannot reach 127.0.0.1:8888: connection refused - is the broker running? start it with `wsmb serve`"
        );
        let error = Error::Closed { code: Some(1008), reason: "replaced".into() };
        assert_eq!(error.to_string(), "the broker ended the connection: replaced (1008)");
        let error = Error::Lost { address: address(), source: None };
        assert_eq!(error.to_string(), "the broker at 127.0.0.1:8888 ended the connection");
    }

    /// The number of "connection refused" on this system.
    fn libc_refused() -> i32 {
        if cfg!(windows) { 10061 } else { libc::ECONNREFUSED }
    }
}
