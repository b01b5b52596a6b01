//! The problems of a configuration, each with its location. An error must never contain a secret.

use std::fmt;

use crate::limits;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file and its line, counted from 1.
    File(String, usize),
    /// An environment variable.
    Environment(String),
    /// A flag as given on the command line, without its value.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One problem of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    location: Location,
    key: Option<String>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    /// The source of a value or section.
    Value(Source),
    /// A file as a whole.
    File(String),
}

impl Problem {
    /// A problem with the value of `key`.
    pub(super) fn of_key(source: &Source, key: &str, text: impl fmt::Display) -> Self {
        Self { location: Location::Value(source.clone()), key: Some(key.to_owned()), text: text.to_string() }
    }

    /// A problem at a location without a key.
    pub(super) fn at(source: &Source, text: impl fmt::Display) -> Self {
        Self { location: Location::Value(source.clone()), key: None, text: text.to_string() }
    }

    /// A problem with a whole file.
    pub(super) fn of_file(name: &str, text: impl fmt::Display) -> Self {
        Self { location: Location::File(name.to_owned()), key: None, text: text.to_string() }
    }

    /// The name of the file, if the problem is in a file.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match &self.location {
            Location::Value(Source::File(name, _)) | Location::File(name) => Some(name),
            Location::Value(_) => None,
        }
    }

    /// The line in the file, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match &self.location {
            Location::Value(Source::File(_, line)) => Some(*line),
            _ => None,
        }
    }

    /// The key whose value is wrong.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The sort key: whole files first, then the file in the order of its lines, then environment variables, then flags.
    pub(super) fn order(&self) -> (u8, usize) {
        match &self.location {
            Location::File(_) => (0, 0),
            Location::Value(Source::File(_, line)) => (1, *line),
            Location::Value(Source::Environment(_)) => (2, 0),
            Location::Value(Source::Flag(_)) => (3, 0),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Value(source) => write!(f, "{source}: ")?,
            Location::File(name) => write!(f, "{name}: ")?,
        }
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        f.write_str(&self.text)
    }
}

/// All problems of a configuration; at least one. Displayed as one line each, at most [`limits::CONFIGURATION_PROBLEMS`] and the count of
/// the rest.
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
