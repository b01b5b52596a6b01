//! The errors of a measurement: what happened, on what, and what to do. An error must never contain a password.

use std::fmt;
use std::time::Duration;

/// Why a measurement failed.
#[derive(Debug)]
pub enum Error {
    /// A connection could not be made, or it broke.
    Connection(wsmb_client::Error),
    /// The options cannot be measured: a sentence.
    Misuse(String),
    /// The broker refused a request or violated the protocol: a sentence from the [`super::Session`].
    Refused(String),
    /// The broker sent an unexpected frame or message: a description.
    NotUnderstood(String),
    /// A connection was not ready, or a send was not confirmed, within this time.
    Stalled {
        /// What did not happen, as the start of a sentence.
        what: String,
        /// The time waited.
        after: Duration,
    },
    /// The system refused a request: a sentence.
    System(String),
}

impl From<wsmb_client::Error> for Error {
    fn from(error: wsmb_client::Error) -> Self {
        Self::Connection(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Misuse(sentence) | Self::Refused(sentence) | Self::System(sentence) => f.write_str(sentence),
            Self::NotUnderstood(wrong) => write!(f, "the broker sent an unexpected frame or message: {wrong}"),
            Self::Stalled { what, after } => write!(f, "{what} for {} seconds", after.as_secs()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            _ => None,
        }
    }
}
