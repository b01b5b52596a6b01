//! The first stage: collects the values as written, by key, each with its source. Later sources replace earlier ones. This module must
//! never interpret a value.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::{Problem, Source};
use super::keys;
use super::model::Flags;

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// From the environment or a flag. The key determines the type.
    Untyped(String),
}

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub value: Value,
    pub source: Source,
}

/// The values of one entry of a list of sections, by the path of their keys; and the location of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub settings: BTreeMap<&'static str, Setting>,
    pub source: Source,
}

/// The values of all sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// By the path of the key.
    pub scalars: BTreeMap<&'static str, Setting>,
    /// `[[listener]]`
    pub listeners: Vec<Entry>,
    /// `[[channel]]`
    pub channels: Vec<Entry>,
    /// `[[auth.key]]`
    pub keys: Vec<Entry>,
    /// `[auth.groups]`
    pub groups: BTreeMap<String, Setting>,
    /// `[[permission]]`
    pub permissions: Vec<Entry>,
    /// `[[rate]]`
    pub rates: Vec<Entry>,
    /// `[[webhook]]`
    pub webhooks: Vec<Entry>,
    /// `[store.columns]`
    pub columns: BTreeMap<String, Setting>,
}

/// The prefix of the variables that set keys.
const PREFIX: &str = "WSMB_";

/// Adds the variables that name a key, such as `WSMB_SERVER__LISTEN`. A variable with a double underscore that names no key is a problem.
/// Other variables are ignored: they have other uses (`WSMB_URL`, the fields of `wsmb receive --exec`).
pub(super) fn add_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    settings: &mut Settings,
    problems: &mut Vec<Problem>,
) {
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if rest.chars().any(|c| c.is_ascii_lowercase()) {
            continue;
        }
        let path = rest.to_ascii_lowercase().replacen("__", ".", 1);
        let key = keys::find(&path);
        let source = Source::Environment(name.clone());
        if let Some(key) = key.filter(|key| key.scalar) {
            match value.into_string() {
                Ok(value) => {
                    settings.scalars.insert(key.path, Setting { value: Value::Untyped(value), source });
                }
                Err(_) => problems.push(Problem::at(&source, "is not UTF-8 text")),
            }
        } else if key.is_some() {
            problems.push(Problem::at(&source, format_args!("{path} can only be set in the file")));
        } else if rest.contains("__") {
            let nearest = keys::nearest(&path, true).map(|key| format!("; the nearest is {}", variable(key)));
            let advice = nearest.unwrap_or_else(|| keys::advice(&path));
            problems.push(Problem::at(&source, format_args!("there is no such key{advice}")));
        } else if let Some(key) = keys::KEYS.iter().find(|key| key.path.replace('.', "_") == path) {
            let meant = variable(key.path);
            problems.push(Problem::at(&source, format_args!("must be written with two underscores: {meant}")));
        }
    }
}

fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Adds the flags of the command line.
pub(super) fn add_flags(flags: &Flags, settings: &mut Settings, problems: &mut Vec<Problem>) {
    if !flags.listen.is_empty() {
        let value = Value::List(flags.listen.clone());
        settings.scalars.insert("server.listen", Setting { value, source: Source::Flag("--listen".to_owned()) });
    }
    if let Some(url) = &flags.store {
        let value = Value::Text(url.clone());
        settings.scalars.insert("store.url", Setting { value, source: Source::Flag("--store".to_owned()) });
    }
    for set in &flags.set {
        let Some((path, value)) = set.split_once('=') else {
            let source = Source::Flag("--set".to_owned());
            problems.push(Problem::at(&source, "must be written like --set server.heartbeat=30s"));
            continue;
        };
        let path = path.trim();
        let source = Source::Flag(format!("--set {path}"));
        match keys::find(path) {
            Some(key) if key.scalar => {
                settings.scalars.insert(key.path, Setting { value: Value::Untyped(value.to_owned()), source });
            }
            Some(key) => {
                problems.push(Problem::at(&source, format_args!("{} can only be set in the file", key.path)));
            }
            None => {
                let nearest = keys::nearest(path, true).map(|key| format!("; the nearest is {key}"));
                let advice = nearest.unwrap_or_else(|| keys::advice(path));
                problems.push(Problem::at(&source, format_args!("there is no such key{advice}")));
            }
        }
    }
}
