//! The first stage: values as they were written, by key, each with the place it came from. Later layers replace earlier ones.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::{Origin, Problem};
use super::keys;
use super::model::Flags;

/// A value as it was written.
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
    /// From the environment or a flag: what it is, the key decides.
    Untyped(String),
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub value: Value,
    pub origin: Origin,
}

/// The values of one section of a list, by the path of their key; and where the section begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub settings: BTreeMap<&'static str, Setting>,
    pub origin: Origin,
}

/// Everything that was written anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// By the path of the key.
    pub scalars: BTreeMap<&'static str, Setting>,
    /// `[[listener]]`
    pub listeners: Vec<Entry>,
    /// `[[channel]]`
    pub channels: Vec<Entry>,
    /// `[[permission]]`
    pub permissions: Vec<Entry>,
    /// `[store.columns]`
    pub columns: BTreeMap<String, Setting>,
}

/// What every variable that sets a key begins with.
const PREFIX: &str = "WSMB_";

/// Adds the variables that are called like a key: `WSMB_SERVER__LISTEN`. One with a double underscore that is called like none is a
/// mistake; any other is somebody else's (`WSMB_URL`, the fields of `wsmb receive --exec`).
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
        let origin = Origin::Environment(name.clone());
        if let Some(key) = key.filter(|key| key.scalar) {
            match value.into_string() {
                Ok(value) => {
                    settings.scalars.insert(key.path, Setting { value: Value::Untyped(value), origin });
                }
                Err(_) => problems.push(Problem::at(&origin, "is not UTF-8 text")),
            }
        } else if key.is_some() {
            problems.push(Problem::at(&origin, format_args!("{path} can be set in the file only")));
        } else if rest.contains("__") {
            let nearest = keys::nearest(&path, true).map(|key| format!("; the nearest is {}", variable(key)));
            let advice = nearest.unwrap_or_else(|| keys::advice(&path));
            problems.push(Problem::at(&origin, format_args!("there is no such setting{advice}")));
        } else if let Some(key) = keys::KEYS.iter().find(|key| key.path.replace('.', "_") == path) {
            let meant = variable(key.path);
            problems.push(Problem::at(&origin, format_args!("is written with two underscores: {meant}")));
        }
    }
}

fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Adds what the command line sets.
pub(super) fn add_flags(flags: &Flags, settings: &mut Settings, problems: &mut Vec<Problem>) {
    if !flags.listen.is_empty() {
        let value = Value::List(flags.listen.clone());
        settings.scalars.insert("server.listen", Setting { value, origin: Origin::Flag("--listen".to_owned()) });
    }
    if let Some(url) = &flags.store {
        let value = Value::Text(url.clone());
        settings.scalars.insert("store.url", Setting { value, origin: Origin::Flag("--store".to_owned()) });
    }
    for set in &flags.set {
        let Some((path, value)) = set.split_once('=') else {
            let origin = Origin::Flag("--set".to_owned());
            problems.push(Problem::at(&origin, "is written like --set server.heartbeat=30s"));
            continue;
        };
        let path = path.trim();
        let origin = Origin::Flag(format!("--set {path}"));
        match keys::find(path) {
            Some(key) if key.scalar => {
                settings.scalars.insert(key.path, Setting { value: Value::Untyped(value.to_owned()), origin });
            }
            Some(key) => {
                problems.push(Problem::at(&origin, format_args!("{} can be set in the file only", key.path)));
            }
            None => {
                let nearest = keys::nearest(path, true).map(|key| format!("; the nearest is {key}"));
                let advice = nearest.unwrap_or_else(|| keys::advice(path));
                problems.push(Problem::at(&origin, format_args!("there is no such key{advice}")));
            }
        }
    }
}
