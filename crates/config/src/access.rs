//! The second stage for `[auth]`, `[[permission]]` and `[[rate]]`: who may connect, and what they may do. Must never read a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::Problem;
use super::model::{Auth, KeyText, Permission, Rate, TokenKey, Who};
use super::raw::{Entry, Setting};
use super::section::SectionReader;
use super::values;

/// The algorithms of keys for tokens.
const ALGORITHMS: [&str; 3] = ["HS256", "ES256", "EdDSA"];

/// The id of the broker's own key for tokens.
const OWN_KEY: &str = "wsmb";

/// Reads `[auth]`, without its tables.
pub(super) fn auth(reader: &mut SectionReader<'_>, auth: &mut Auth) {
    let default = auth.htpasswd.clone();
    reader.set("auth.htpasswd", &mut auth.htpasswd, |value| {
        let list = values::list(value)?;
        if list.iter().any(String::is_empty) {
            return Err("has an empty file name".to_owned());
        }
        Ok(list.into_iter().map(PathBuf::from).collect())
    });
    reader.set("auth.users", &mut auth.users, values::list);
    reader.set("auth.admins", &mut auth.admins, values::list);
    reader.set("auth.token_key", &mut auth.token_key, values::path);
    reader.set("auth.anonymous", &mut auth.anonymous, values::boolean);
    // With other ways to log in, the default file is optional, and its absence is not reported at every start.
    if auth.htpasswd == default && (auth.anonymous || !auth.users.is_empty()) {
        auth.htpasswd.retain(|file| file.exists());
    }
}

/// Reads `[auth.groups]`: the names of groups, each with the patterns of its users.
pub(super) fn groups(groups: &BTreeMap<String, Setting>, problems: &mut Vec<Problem>) -> BTreeMap<String, Vec<String>> {
    let mut good = BTreeMap::new();
    for (name, setting) in groups {
        match values::list(&setting.value) {
            Ok(users) => drop(good.insert(name.clone(), users)),
            Err(text) => problems.push(Problem::of_key(&setting.source, &format!("auth.groups.{name}"), text)),
        }
    }
    good
}

/// Reads the entries `[[auth.key]]`.
pub(super) fn keys(entries: &[Entry], problems: &mut Vec<Problem>) -> Vec<TokenKey> {
    let mut keys: Vec<TokenKey> = Vec::new();
    for entry in entries {
        let Some(key) = key(entry, problems) else { continue };
        if keys.iter().any(|other| other.id == key.id) {
            problems
                .push(Problem::at(&entry.source, format_args!("there are two [[auth.key]] with the id {:?}", key.id)));
        }
        keys.push(key);
    }
    keys
}

fn key(entry: &Entry, problems: &mut Vec<Problem>) -> Option<TokenKey> {
    let mut reader = SectionReader { settings: &entry.settings, problems };
    let id = reader.get("auth.key.id", |value| {
        let id = values::text(value)?;
        if id == OWN_KEY {
            return Err(format!("must not be {OWN_KEY:?}, the id of the broker's own key"));
        }
        if id.is_empty() || id.len() > wsmb_core::limits::NAME_BYTES {
            return Err(format!("must have 1 to {} bytes", wsmb_core::limits::NAME_BYTES));
        }
        Ok(id)
    });
    let algorithm = reader.get("auth.key.algorithm", |value| {
        let name = values::text(value)?;
        let known = ALGORITHMS.into_iter().find(|known| *known == name);
        known.ok_or_else(|| format!("must be \"HS256\", \"ES256\" or \"EdDSA\", not {value}"))
    });
    let text = reader.get("auth.key.key", values::text).map(KeyText::Text);
    let file = reader.get("auth.key.key_file", |value| values::text(value).map(PathBuf::from)).map(KeyText::File);
    let mut name = |name: &str| {
        reader.get(name, |value| match values::text(value)? {
            text if text.is_empty() => Err("is empty; omit it".to_owned()),
            text => Ok(text),
        })
    };
    let (audience, issuer) = (name("auth.key.audience"), name("auth.key.issuer"));
    let is_set = |name: &str| entry.settings.contains_key(name);
    let mut missing = |what: &str| problems.push(Problem::at(&entry.source, format_args!("this [[auth.key]] {what}")));
    if !is_set("auth.key.id") {
        missing("has no id: write id = \"app\"");
    }
    if !is_set("auth.key.algorithm") {
        missing(
            "has no algorithm: write algorithm = \"HS256\" for a shared secret, \"ES256\" or \"EdDSA\" for a public key",
        );
    }
    match (is_set("auth.key.key"), is_set("auth.key.key_file")) {
        (false, false) => missing("has no key: write key_file = \"FILE\", or key = \"…\""),
        (true, true) => missing("has both key and key_file; remove one of them"),
        _ => {}
    }
    Some(TokenKey { id: id?, algorithm: algorithm?, text: text.or(file)?, audience, issuer })
}

/// Reads a `[[permission]]`.
pub(super) fn permission(
    entry: &Entry,
    groups: &BTreeMap<String, Vec<String>>,
    problems: &mut Vec<Problem>,
) -> Option<Permission> {
    let mut reader = SectionReader { settings: &entry.settings, problems };
    let user = reader.get("permission.user", values::text);
    let group = reader.get("permission.group", |value| {
        let name = values::text(value)?;
        match groups.get(&name) {
            Some(users) => Ok(Who::Group { name, users: users.clone() }),
            None if groups.is_empty() => Err(format!(
                "names the group {value}, but there are no groups; write them below [auth.groups], like {name} = [\"alice\", \"bob\"]"
            )),
            None => {
                let known: Vec<&str> = groups.keys().map(String::as_str).collect();
                Err(format!("names the group {value}, which is not in [auth.groups]; there are {}", known.join(", ")))
            }
        }
    });
    let send = reader.get("permission.send", values::list).unwrap_or_default();
    let receive = reader.get("permission.receive", values::list).unwrap_or_default();
    let is_set = |name: &str| entry.settings.contains_key(name);
    match (is_set("permission.user"), is_set("permission.group")) {
        (false, false) => {
            let text = "this [[permission]] has no user: write user = \"alice\" or user = \"*\", or group = \"NAME\"";
            problems.push(Problem::at(&entry.source, text));
        }
        (true, true) => {
            let text = "this [[permission]] has a user and a group; write two entries";
            problems.push(Problem::at(&entry.source, text));
        }
        _ => {}
    }
    let who = user.map(|user| Who::User([user])).or(group)?;
    Some(Permission { who, send, receive })
}

/// Reads a `[[rate]]`.
pub(super) fn rate(entry: &Entry, problems: &mut Vec<Problem>) -> Option<Rate> {
    let mut reader = SectionReader { settings: &entry.settings, problems };
    let user = reader.get("rate.user", values::text);
    let publish = reader.get("rate.publish", values::rate);
    let connect = reader.get("rate.connect", values::rate);
    if !entry.settings.contains_key("rate.user") {
        let text = "this [[rate]] has no user: write user = \"alice\" or user = \"*\"";
        problems.push(Problem::at(&entry.source, text));
    }
    Some(Rate { user: user?, publish, connect })
}
