//! Reads and validates the configuration. Environment variables take precedence over the TOML file, and flags over both.
//!
//! ```text
//! file ─► file::read ─┐
//! WSMB_…__… ──────────┼─► raw::Settings ─► build ─► Config ─► warnings
//! flags ──────────────┘   (value, origin)  (types, limits)
//! ```
//!
//! The first stage knows the keys and where each value came from. The second stage knows the meaning of the values. All problems are
//! collected and reported together, each with its file and line, variable or flag, and with a valid example.
//!
//! This crate must never ignore a value silently, show a secret in an error message, or open files other than the configuration, the
//! password file of the database and the files of secrets that it names.

mod access;
mod build;
mod error;
mod file;
pub mod import;
mod keys;
pub mod limits;
mod model;
mod platform;
mod raw;
mod section;
mod url;
mod values;
mod warnings;
mod webhook;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

pub use error::{ConfigError, Problem};
pub use keys::{KEYS, Key};
pub use model::{
    Auth, Config, Flags, KeyText, Listener, Log, Permission, Rate, Server, Store, Tls, TokenKey, Who,
    read_password_file,
};
pub use url::{DatabaseServer, StoreUrl};
pub use warnings::warnings;
pub use webhook::{Secret, Webhook, WebhookUrl};
pub use wsmb_core::duration::parse_duration;

/// The default data directory.
pub const DATA_DIR: &str = "wsmb-data";

impl Default for Config {
    /// The default configuration.
    fn default() -> Self {
        build::defaults(Path::new(DATA_DIR))
    }
}

impl Config {
    /// Reads `file` (if given), then the variables of `environment` that name keys, then `flags`. Later sources take precedence. Blocks.
    ///
    /// # Errors
    /// All problems of all sources.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => Some((path.display().to_string(), read(path)?)),
        };
        let text = text.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        Self::from_parts(text, environment, flags)
    }

    /// Like [`Self::load`], but takes the name and the text of the file.
    ///
    /// # Errors
    /// All problems of all sources.
    pub fn from_parts(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = raw::Settings::default();
        if let Some((name, text)) = file {
            file::read(name, text, &mut settings, &mut problems);
        }
        raw::add_environment(environment, &mut settings, &mut problems);
        raw::add_flags(flags, &mut settings, &mut problems);
        let defaults = build::defaults(flags.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR)));
        let config = build::build(settings, defaults, &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        // The stages do not find the problems in the order of the sources.
        problems.sort_by_key(Problem::order);
        Err(ConfigError(problems))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |text: String| ConfigError(vec![Problem::of_file(&path.display().to_string(), text)]);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::CONFIGURATION_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    if bytes.len() > limits::CONFIGURATION_BYTES {
        return Err(fail(format!("is larger than {} bytes", limits::CONFIGURATION_BYTES)));
    }
    String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text".to_owned()))
}

#[cfg(test)]
mod tests;
