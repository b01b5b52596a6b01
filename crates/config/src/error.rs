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
pub struct Problem {
    place: Place,
    key: Option<String>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Where a value stands.
    Value(Origin),
    /// A file as a whole.
    File(String),
}

impl Problem {
    /// Wrong with the value of `key`.
    pub(super) fn of_key(origin: &Origin, key: &str, text: impl fmt::Display) -> Self {
        Self { place: Place::Value(origin.clone()), key: Some(key.to_owned()), text: text.to_string() }
    }

    /// Wrong at a place that is no value.
    pub(super) fn at(origin: &Origin, text: impl fmt::Display) -> Self {
        Self { place: Place::Value(origin.clone()), key: None, text: text.to_string() }
    }

    /// Wrong with a file as a whole.
    pub(super) fn of_file(name: &str, text: impl fmt::Display) -> Self {
        Self { place: Place::File(name.to_owned()), key: None, text: text.to_string() }
    }

    /// The file, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match &self.place {
            Place::Value(Origin::File(name, _)) | Place::File(name) => Some(name),
            Place::Value(_) => None,
        }
    }

    /// The line of the file, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match &self.place {
            Place::Value(Origin::File(_, line)) => Some(*line),
            _ => None,
        }
    }

    /// The key whose value is wrong.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// By this they are told in the order of the file, then those of the environment, then those of the flags.
    pub(super) fn order(&self) -> (u8, usize) {
        match &self.place {
            Place::File(_) => (0, 0),
            Place::Value(Origin::File(_, line)) => (1, *line),
            Place::Value(Origin::Environment(_)) => (2, 0),
            Place::Value(Origin::Flag(_)) => (3, 0),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Value(origin) => write!(f, "{origin}: ")?,
            Place::File(name) => write!(f, "{name}: ")?,
        }
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        f.write_str(&self.text)
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
