//! What can be wrong with a configuration, as sentences that name the place.

use std::fmt;

use crate::limits;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file and its line, counted from 1.
    File(String, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag, as it was given up to the value.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// Wrong with the value of `key`.
    pub(super) fn of_key(origin: &Origin, key: &str, text: impl fmt::Display) -> Self {
        Self(format!("{origin}: {key} {text}"))
    }

    /// Wrong at a place that is no value.
    pub(super) fn at(origin: &Origin, text: impl fmt::Display) -> Self {
        Self(format!("{origin}: {text}"))
    }

    /// Wrong with a file as a whole.
    pub(super) fn of_file(name: &str, text: impl fmt::Display) -> Self {
        Self(format!("{name}: {text}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is wrong with a configuration; at least one thing. Printed one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().min(limits::CONFIGURATION_PROBLEMS);
        for (number, problem) in self.0[..shown].iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        if shown < self.0.len() {
            write!(f, "\nand {} more", self.0.len() - shown)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
