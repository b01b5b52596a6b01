//! What is wrong with a certificate or a key, as one sentence each.

use std::fmt;

/// The kind of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The files cannot be used: missing, unreadable, malformed, or they do not belong together.
    Files,
    /// The files can be used, but the certificate is not valid at this time.
    Time,
}

/// What is wrong with a certificate or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of fault.
    pub kind: Kind,
    sentence: String,
}

impl Fault {
    pub(crate) fn files(sentence: String) -> Self {
        Self { kind: Kind::Files, sentence }
    }

    pub(crate) fn time(sentence: String) -> Self {
        Self { kind: Kind::Time, sentence }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Fault {}
