//! The result of a subcommand, which decides the exit code.

use std::fmt;

/// Why a subcommand did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command failed, with this message. Exit code 1.
    Failed(String),
    /// The arguments make no sense, with this message. Exit code 2.
    Misuse(String),
    /// The command failed, and has printed the reason already. Exit code 1.
    Reported,
    /// A message reached no receiver and is not kept; the command has printed that already. Exit code 3.
    NoReceiver,
}

impl Failure {
    /// Returns [`Self::Failed`] with the text of `reason`.
    pub(crate) fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// Returns [`Self::Misuse`] with the text of `reason`.
    pub(crate) fn misuse(reason: impl fmt::Display) -> Self {
        Self::Misuse(reason.to_string())
    }
}

impl From<wsmb_client::Error> for Failure {
    fn from(error: wsmb_client::Error) -> Self {
        Self::failed(error)
    }
}

/// The result of a subcommand.
pub(crate) type Outcome = Result<(), Failure>;
