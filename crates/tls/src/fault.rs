//! What is wrong with a certificate or a key.

use std::fmt;

/// What is wrong with a certificate or a key, and what to do: one sentence, which names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub(crate) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
