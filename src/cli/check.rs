//! `wsmb check`: says what the broker would serve, and every doubt about it, without serving anything.
//!
//! It changes nothing: it makes no file, takes no lock, and a running broker does not notice it.

use std::fs::OpenOptions;
use std::io;

use clap::Args;

use super::output::{self, Style, count};
use super::settings::Settings;
use super::{Failure, Outcome, open_files};
use crate::auth::{Credentials, Users, first_start};
use crate::config::{self, Config, Listener, StoreUrl};
use crate::policy::{ChannelPolicy, Dispatch};
use crate::server;
use crate::store::{self, Inspector, StoreError};

/// Read the configuration, look into the store and the password files, and say what would be served and what looks wrong
///
/// Exit code 1 if the broker would not start; doubts alone are no failure unless --strict is given.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb check --config wsmb.toml --strict")]
pub(crate) struct Check {
    /// Doubts are failures too
    #[arg(long)]
    strict: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Address to listen on, as for `wsmb serve`
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,

    #[command(flatten)]
    settings: Settings,
}

/// What was found.
#[derive(Default)]
struct Report {
    /// What would be served: a heading and what there is to say.
    facts: Vec<(&'static str, String)>,
    doubts: Vec<String>,
    errors: Vec<String>,
}

impl Check {
    pub(crate) fn run(&self) -> Outcome {
        let mut report = Report::default();
        // As `serve` does, so that what is said about it is true.
        open_files::raise_limit();
        match self.settings.load(&self.listen) {
            Ok(config) => self.look(&config, &mut report),
            Err(Failure::Failed(reason) | Failure::Misuse(reason)) => report.errors.push(reason),
            Err(Failure::Said | Failure::Nobody) => {}
        }
        self.print(&report)?;
        let failed = !report.errors.is_empty() || (self.strict && !report.doubts.is_empty());
        if failed { Err(Failure::Said) } else { Ok(()) }
    }

    fn look(&self, config: &Config, report: &mut Report) {
        let source = match &self.settings.config {
            Some(path) => path.display().to_string(),
            None => "no file; what is not set has its default".to_owned(),
        };
        report.facts.push(("configuration", source));
        let listeners = config.server.all_listeners();
        let listeners =
            listeners.iter().map(
                |Listener { address, proxy_protocol }| {
                    if *proxy_protocol { format!("{address} (PROXY protocol)") } else { address.clone() }
                },
            );
        report.facts.push(("listens on", listeners.collect::<Vec<_>>().join(", ")));
        let trusted: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
        if !trusted.is_empty() {
            report.facts.push(("trusts proxies", trusted.join(", ")));
        }
        let origins: Vec<String> = config.server.origins.iter().map(ToString::to_string).collect();
        if !origins.is_empty() {
            report.facts.push(("web pages of", origins.join(", ")));
        }
        report.doubts.extend(config::doubts(config, self.settings.config.as_deref()));
        look_at_users(&self.settings, config, report);
        look_at_store(config, report);
        for (pattern, policy) in &config.policies.named {
            report.facts.push(("channel", format!("{pattern}: {}", described(policy))));
        }
        report.facts.push(("other channels", described(&config.policies.default)));
    }

    fn print(&self, report: &Report) -> Outcome {
        if self.json {
            let facts: Vec<_> =
                report.facts.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect();
            let object = serde_json::json!({ "facts": facts, "doubts": report.doubts, "errors": report.errors });
            return output::line(&object.to_string());
        }
        let style = Style::stdout();
        for (name, value) in &report.facts {
            output::line(&format!("{}  {value}", style.dim(format_args!("{name:14}"))))?;
        }
        for doubt in &report.doubts {
            output::line(&format!("{} {doubt}", style.doubt("doubt:")))?;
        }
        for error in &report.errors {
            output::line(&format!("{} {error}", style.bad("error:")))?;
        }
        let total = match (report.errors.len() as u64, report.doubts.len() as u64) {
            (0, 0) => style.good("all is well"),
            (0, doubts) => format!("the broker would start; {}", count(doubts, "doubt")),
            (errors, doubts) => {
                format!("the broker would not start: {}, {}", count(errors, "error"), count(doubts, "doubt"))
            }
        };
        output::line(&total)
    }
}

fn look_at_users(settings: &Settings, config: &Config, report: &mut Report) {
    let anonymous = if config.auth.anonymous { ", and connections without a password" } else { "" };
    let first = settings.makes_first_user(config) && config.auth.htpasswd.iter().all(|file| !file.exists());
    if first {
        report.facts.push(("users", "none yet: the first start makes one and shows his password".to_owned()));
        look_at_admins(settings, config, None, report);
        return;
    }
    let credentials = Credentials::load(&config.auth.htpasswd, &config.auth.users);
    report.facts.push(("users", format!("{}{anonymous}", count(credentials.users().len() as u64, "user"))));
    report.doubts.extend(credentials.doubts(config.auth.anonymous));
    look_at_admins(settings, config, Some(&credentials.users()), report);
    if !config.auth.permissions.is_empty() {
        report.facts.push(("permissions", count(config.auth.permissions.len() as u64, "rule")));
    }
}

/// `users`: `None` if the first start is still to make the only one.
fn look_at_admins(settings: &Settings, config: &Config, users: Option<&Users>, report: &mut Report) {
    let mut admins = config.auth.admins.clone();
    for admin in &admins {
        let is_known = match users {
            Some(users) => users.name(admin).is_some(),
            None => admin == first_start::USER,
        };
        if !is_known {
            report.doubts.push(format!("auth.admins: there is no user {admin:?}, so nobody is that administrator"));
        }
    }
    let is_made_here =
        settings.makes_first_user(config) && users.is_none_or(|users| users.name(first_start::USER).is_some());
    if is_made_here && !admins.iter().any(|admin| admin == first_start::USER) {
        admins.push(first_start::USER.to_owned());
    }
    if !admins.is_empty() {
        report.facts.push(("administrators", admins.join(", ")));
    }
}

fn look_at_store(config: &Config, report: &mut Report) {
    let url = &config.store.url;
    let settings = match server::store_settings(config) {
        Ok(settings) => settings,
        Err(error) => {
            report.errors.push(error.to_string());
            return;
        }
    };
    if url.is_memory() {
        report.facts.push(("store", "memory:".to_owned()));
        report.doubts.push("store.url is memory: - what nobody has received is lost when the broker stops".to_owned());
        return;
    }
    if url.server().is_some() {
        report.facts.push((
            "journal",
            match &settings.journal {
                Some(journal) => format!("{}, at most {} MiB", journal.path.display(), journal.bytes >> 20),
                None => "none: every message waits for the database's own commit".to_owned(),
            },
        ));
    }
    match store::inspect(&settings).and_then(|inspector| look_into(inspector, url, report)) {
        Ok(()) => report.errors.extend(unwritable(url)),
        Err(StoreError::Missing { .. }) => {
            report.facts.push(("store", format!("{url}: not there yet; the first start makes it")));
        }
        Err(error @ StoreError::Unreachable { .. }) if store::starts_without_database(&settings) => {
            report.facts.push(("store", url.to_string()));
            report.doubts.push(format!(
                "{error}; the broker would start all the same, because its journal is known there, and deliver what the journal holds"
            ));
        }
        Err(error @ StoreError::TornJournal { .. }) => {
            report.facts.push(("store", url.to_string()));
            report.doubts.push(error.to_string());
        }
        Err(error) => report.errors.push(error.to_string()),
    }
}

fn look_into(mut inspector: Inspector, url: &StoreUrl, report: &mut Report) -> Result<(), StoreError> {
    let state = match inspector.holder()? {
        Some(holder) => format!("a broker is running on it ({holder})"),
        None => "no broker is running on it".to_owned(),
    };
    let channels = inspector.channels()?;
    let messages = channels.iter().map(|info| info.messages).sum();
    let (messages, channels) = (count(messages, "message"), count(channels.len() as u64, "channel"));
    report.facts.push(("store", format!("{url}: {messages} in {channels}; {state}")));
    let missing = inspector.missing()?;
    if !missing.is_empty() {
        report.facts.push(("first start", format!("makes {} beside the table of the messages", missing.join(" and "))));
    }
    report.doubts.extend(inspector.lacks()?);
    Ok(())
}

/// Why the store's file cannot be written, if so. Opens it, and writes nothing.
fn unwritable(url: &StoreUrl) -> Option<String> {
    let path = url.path()?;
    match OpenOptions::new().append(true).open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Some(StoreError::ReadOnly { place: path.display().to_string() }.to_string())
        }
        _ => None,
    }
}

/// A channel's policy in words.
fn described(policy: &ChannelPolicy) -> String {
    let mut parts = vec![match (policy.receivers, policy.dispatch) {
        (0, _) => "to all receivers".to_owned(),
        (1, Dispatch::First) => "to one receiver, the first".to_owned(),
        (1, Dispatch::Rotate) => "to one receiver, in turn".to_owned(),
        (number, Dispatch::First) => format!("to {number} receivers, the first"),
        (number, Dispatch::Rotate) => format!("to {number} receivers, in turn"),
    }];
    if policy.keep {
        parts.push(format!("kept until received (at most {})", policy.max_backlog));
    } else {
        parts.push("not kept".to_owned());
    }
    if policy.ttl.is_zero() {
        parts.push("never expires".to_owned());
    } else {
        parts.push(format!("expires after {:?}", policy.ttl));
    }
    if let Some(channel) = policy.dead_letter.as_ref().filter(|_| policy.dead_letter_expired) {
        parts.push(format!("moved to {channel} when expired"));
    }
    if policy.max_deliveries > 0 {
        let end =
            policy.dead_letter.as_ref().map_or_else(|| "dropped".to_owned(), |channel| format!("moved to {channel}"));
        parts.push(format!("{end} when delivered {} in vain", count(u64::from(policy.max_deliveries), "time")));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ChannelName;

    #[test]
    fn a_policy_is_described_in_words() {
        let policy = ChannelPolicy::default();
        assert_eq!(described(&policy), "to all receivers, kept until received (at most 1000000), never expires");
        let policy = ChannelPolicy {
            receivers: 1,
            keep: false,
            dispatch: Dispatch::Rotate,
            ttl: std::time::Duration::from_secs(300),
            max_deliveries: 3,
            dead_letter: Some(ChannelName::parse("lost").unwrap()),
            ..policy
        };
        assert_eq!(
            described(&policy),
            "to one receiver, in turn, not kept, expires after 300s, moved to lost when delivered 3 times in vain"
        );
    }
}
