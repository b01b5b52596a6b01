//! Why a request has no answer, as the log and dead letters show it. Never shows a URL, which may have a secret in its query.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Problem {
    /// The name of the host has no address.
    Unknown,
    /// The address is not reachable from the internet.
    Private(IpAddr),
    Connect(io::Error),
    /// There is no encrypted connection: a part of a sentence.
    Tls(String),
    /// The connection ended before the answer, or the answer is not HTTP.
    Broken(hyper::Error),
    /// There is no answer within this time.
    Slow(Duration),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the name of its host cannot be resolved"),
            Self::Private(address) => write!(
                f,
                "the address {address} of its host is not reachable from the internet; set allow_private = true if it is meant"
            ),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(reason) => write!(f, "there is no encrypted connection: {reason}"),
            Self::Broken(error) => write!(f, "there is no valid answer: {error}"),
            Self::Slow(time) => write!(f, "no answer within {time:?} (timeout)"),
        }
    }
}
