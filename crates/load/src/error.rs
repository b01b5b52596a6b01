//! Why a measurement came to nothing: what happened, to what, and what to do about it. No password in it, ever.

use std::fmt;
use std::time::Duration;

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    /// A connection could not be made, or broke.
    Connection(wsmb_client::Error),
    /// What was asked for cannot be measured in this way: a sentence.
    Misuse(String),
    /// The broker refused something, or broke the protocol that is spoken on the connection: a sentence of the [`super::Session`].
    Refused(String),
    /// The broker sent something that its protocol does not have: what was wrong.
    NotUnderstood(String),
    /// A connection was not ready, or a message neither delivered nor answered for, in this time: what was waited for.
    Stalled {
        /// What did not happen.
        what: String,
        /// For so long.
        after: Duration,
    },
    /// The system refused something, in a sentence.
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
            Self::NotUnderstood(wrong) => write!(f, "the broker sent something that makes no sense here: {wrong}"),
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
