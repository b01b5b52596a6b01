//! The errors of the client. Each message says what happened, on which address, and what to do. A message never contains a password.

use std::fmt;
use std::io;
use std::time::Duration;

use wsmb_protocol::frame::ProtocolError;
use wsmb_protocol::handshake::BadReply;

/// Why there is no connection, or why the connection has ended.
#[derive(Debug)]
pub enum Error {
    /// The TCP connection failed.
    Unreachable {
        /// `host:port`.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The handshake did not finish in time.
    TimedOut {
        /// `host:port`.
        address: String,
        /// The timeout.
        after: Duration,
    },
    /// The server refused the handshake (for example 401 for a wrong password), or is not a WebSocket server.
    Refused {
        /// `host:port`.
        address: String,
        /// The user of the request, if there was one.
        user: Option<String>,
        /// The answer of the server.
        reply: BadReply,
    },
    /// The server's certificate cannot be trusted.
    Certificate {
        /// `host:port`.
        address: String,
        /// What is wrong with the certificate, and what to do: a sentence.
        fault: String,
    },
    /// The connection could not be encrypted.
    Tls {
        /// `host:port`.
        address: String,
        /// Why: a sentence.
        reason: String,
    },
    /// The broker violated the WebSocket protocol.
    Protocol(ProtocolError),
    /// The connection was lost: a network error, or the broker ended the connection without a close frame.
    Lost {
        /// `host:port`.
        address: String,
        /// The error of the system; `None`: the broker ended the TCP connection.
        source: Option<io::Error>,
    },
    /// The broker ended the connection with a close frame.
    Closed {
        /// The close code (RFC 6455 section 7.4).
        code: Option<u16>,
        /// The reason in the close frame; may be empty.
        reason: String,
    },
    /// The broker sent nothing for this time, not even the answer to a ping.
    Silent {
        /// `host:port`.
        address: String,
        /// The time without a frame.
        after: Duration,
    },
    /// The system provides no random numbers. The client needs them to mask frames (RFC 6455 section 5.3).
    NoRandomness(getrandom::Error),
}

impl Error {
    /// Whether the server has refused the request in a way that a retry does not change: a wrong password, a certificate that
    /// cannot be trusted, or no broker at this address. A status of 5xx
    /// does not count.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { reply: BadReply::Refused { status, .. }, .. } => *status < 500,
            Self::Refused { .. } | Self::Certificate { .. } | Self::Tls { .. } => true,
            _ => false,
        }
    }

    /// Whether a broker has answered the request, so that each retry costs the broker a handshake. A status of 502 or 504 does not count: a proxy sends it
    /// if the broker cannot be reached.
    #[must_use]
    pub fn is_broker_response(&self) -> bool {
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
                "{address} did not answer within {} seconds - check the address, and whether a firewall blocks it",
                after.as_secs()
            ),
            Self::Refused { reply: BadReply::Refused { status: 401, .. }, user: Some(user), address } => write!(
                f,
                "the broker at {address} refused the user {user} or the password (401): store the right ones with `wsmb login`, or set --user and WSMB_PASSWORD"
            ),
            Self::Refused { reply: BadReply::Refused { status: 401, body, .. }, user: None, address }
                if let Some(cause) = rejection(body) =>
            {
                write!(f, "the broker at {address} refused the token (401): {cause}")
            }
            Self::Refused { reply: BadReply::Refused { status: 401, .. }, user: None, address } => write!(
                f,
                "the broker at {address} requires a user and a password (401): store them with `wsmb login`, or set --user and WSMB_PASSWORD"
            ),
            Self::Refused { address, reply, .. } => write!(f, "cannot connect to {address}: {reply}"),
            Self::Certificate { address, fault } => write!(f, "cannot trust {address}: {fault}"),
            Self::Tls { address, reason } => write!(f, "cannot encrypt the connection to {address}: {reason}"),
            Self::Protocol(error) => write!(f, "the broker violated the WebSocket protocol: {error}"),
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
                "{address} sent nothing for {} seconds, not even the answer to a ping: the connection is lost",
                after.as_secs()
            ),
            Self::NoRandomness(error) => write!(f, "the system provides no random numbers: {error}"),
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

/// Returns the sentence with which the broker has refused a token, from the body of its answer.
fn rejection(body: &str) -> Option<String> {
    let reply: serde_json::Value = serde_json::from_str(body).ok()?;
    reply["response_text"].as_str()?.strip_prefix("Rejected: ").map(str::to_owned)
}

/// Returns the text of a system error in lower case and without its number: "connection refused", not "Connection refused (os error 111)".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    // The first letter of a sentence becomes lower case ("Connection refused"), that of an abbreviation does not ("DNS error").
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_message() {
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

    /// Returns the error number of "connection refused" on this system.
    fn libc_refused() -> i32 {
        if cfg!(windows) { 10061 } else { libc::ECONNREFUSED }
    }
}
