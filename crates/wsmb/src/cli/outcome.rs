//! What a subcommand came to, and the exit code that follows from it.

use std::fmt;

/// Why a subcommand did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be done: a sentence. Exit code 1.
    Failed(String),
    /// What was asked for makes no sense: a sentence. Exit code 2.
    Misuse(String),
    /// Everything has been said already. Exit code 1.
    Said,
    /// It was done, and reached nobody, as has been said already. Exit code 3.
    Nobody,
}

impl Failure {
    /// It could not be done, for this reason.
    pub(crate) fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// What was asked for makes no sense, for this reason.
    pub(crate) fn misuse(reason: impl fmt::Display) -> Self {
        Self::Misuse(reason.to_string())
    }
}

impl From<wsmb_client::Error> for Failure {
    fn from(error: wsmb_client::Error) -> Self {
        Self::failed(error)
    }
}

/// What a subcommand came to.
pub(crate) type Outcome = Result<(), Failure>;
