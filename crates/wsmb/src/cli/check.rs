//! `wsmb check`: prints what the broker would serve, every warning about the configuration, and every error that would stop the start.
//!
//! Never changes anything: creates no file, takes no lock, listens on no address, and does not disturb a running broker.

#[cfg(feature = "tls")]
mod certificate;
mod files;
mod report;

use clap::Args;
use wildmatch::WildMatch;

use self::report::Report;
use super::output::count;
use super::settings::Settings;
use super::{Failure, Outcome, build};
use wsmb_auth::{Credentials, OwnKey, Users, first_start};
use wsmb_config::{Config, Listener, StoreUrl};
use wsmb_core::message::ChannelName;
use wsmb_core::policy::{ChannelPolicy, Dispatch};
use wsmb_store::{Inspection, StoreError, StoreSettings};

/// Check the configuration, the store and the password files without starting the broker
///
/// Prints what the broker would serve, warnings, and errors. The exit code is 1 if there is an error: the broker would not start. With --strict the exit
/// code is 1 if there is a warning, too.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb check --config wsmb.toml --strict")]
pub(crate) struct Check {
    /// Exit with code 1 if there are warnings
    #[arg(long)]
    strict: bool,

    /// Print one JSON object per line: facts, warnings and errors, each with its `kind`
    #[arg(long)]
    json: bool,

    /// Address to listen on, as for `wsmb serve`
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,

    #[command(flatten)]
    settings: Settings,
}

impl Check {
    pub(crate) fn run(&self) -> Outcome {
        let mut report = Report::default();
        // `serve` raises the limit, too. The warning about open files must compare with the raised limit.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        match Config::load(self.settings.config.as_deref(), std::env::vars_os(), &self.settings.flags(&self.listen)) {
            Ok(config) => self.inspect(&config, &mut report),
            Err(problems) => report.problems(&problems),
        }
        report.print(self.json)?;
        if report.is_failure(self.strict) { Err(Failure::Reported) } else { Ok(()) }
    }

    fn inspect(&self, config: &Config, report: &mut Report) {
        let source = match &self.settings.config {
            Some(path) => path.display().to_string(),
            None => "no file; settings have their defaults".to_owned(),
        };
        report.fact("configuration", source);
        let listeners = config.server.all_listeners();
        let describe = |Listener { address, tls, proxy_protocol }: &Listener| match (tls, proxy_protocol) {
            (false, false) => address.clone(),
            (true, false) => format!("{address} (TLS)"),
            (false, true) => format!("{address} (PROXY protocol)"),
            (true, true) => format!("{address} (PROXY protocol, TLS)"),
        };
        report.fact("listens on", listeners.iter().map(describe).collect::<Vec<_>>().join(", "));
        check_certificate(config, report);
        let trusted: Vec<String> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
        if !trusted.is_empty() {
            report.fact("trusts proxies", trusted.join(", "));
        }
        let origins: Vec<String> = config.server.origins.iter().map(ToString::to_string).collect();
        if !origins.is_empty() {
            report.fact("web pages of", origins.join(", "));
        }
        for webhook in &config.webhooks {
            let channels: Vec<&str> = webhook.channels.iter().map(ChannelName::as_str).collect();
            report.fact("webhook", format!("{}: {}", webhook.name, channels.join(", ")));
        }
        report.warnings(build::warnings(config, self.settings.config.as_deref()));
        check_users(&self.settings, config, report);
        check_keys(config, report);
        let holder = check_store(config, report);
        check_listeners(&build::listeners(config), holder.as_deref(), report);
        report.errors(files::write_errors(&self.settings, config));
        for (pattern, policy) in &config.policies.named {
            report.fact("channel", format!("{pattern}: {}", describe_policy(policy)));
        }
        report.fact("other channels", describe_policy(&config.policies.default));
    }
}

#[cfg(feature = "tls")]
use certificate::check as check_certificate;

#[cfg(not(feature = "tls"))]
fn check_certificate(config: &Config, report: &mut Report) {
    if config.server.all_listeners().iter().any(|listener| listener.tls) {
        report.error("this build has no TLS; use a build with it, or remove the TLS listeners from the configuration");
    }
}

/// Reports each address that cannot be listened on. `holder` is the broker that runs on the store: if its address is in use, that is no error.
fn check_listeners(listeners: &[wsmb_server::Listener], holder: Option<&str>, report: &mut Report) {
    for obstacle in wsmb_server::obstacles(listeners) {
        match holder {
            Some(holder) if obstacle.cause.kind() == std::io::ErrorKind::AddrInUse => {
                report.fact(
                    "running",
                    format!("the broker of this configuration runs ({holder}), and {} is in use", obstacle.address),
                );
            }
            _ => report.error(obstacle.to_string()),
        }
    }
}

fn check_users(settings: &Settings, config: &Config, report: &mut Report) {
    let anonymous = if config.auth.anonymous { ", and connections without a password" } else { "" };
    let first = settings.makes_first_user(config) && config.auth.htpasswd.iter().all(|file| !file.exists());
    if first {
        report.fact("users", "none yet: the first start makes a user and shows the password");
        check_admins(settings, config, None, report);
        check_permissions(config, &[first_start::USER], report);
        return;
    }
    let credentials = Credentials::load(&config.auth.htpasswd, &config.auth.users);
    let users = credentials.users();
    report.fact("users", format!("{}{anonymous}", count(users.len() as u64, "user")));
    report.warnings(credentials.all_warnings(config.auth.anonymous));
    check_admins(settings, config, Some(&users), report);
    check_permissions(config, &users.names().collect::<Vec<_>>(), report);
}

/// Reports the keys for tokens, and an error for each one that cannot be used.
fn check_keys(config: &Config, report: &mut Report) {
    let mut good = Vec::new();
    for key in &config.auth.keys {
        match build::key(key) {
            Ok(_) => good.push(format!("{} ({})", key.id, key.algorithm)),
            Err(problem) => report.error(problem.to_string()),
        }
    }
    if !good.is_empty() {
        report.fact("keys for tokens", good.join(", "));
    }
    report.warnings(OwnKey::load(config.auth.token_key.clone()).1);
}

/// Reports the number of permission rules, and warns about each rule that matches no user.
fn check_permissions(config: &Config, users: &[&str], report: &mut Report) {
    let permissions = &config.auth.permissions;
    if permissions.is_empty() {
        return;
    }
    report.fact("permissions", count(permissions.len() as u64, "rule"));
    for permission in permissions {
        let patterns: Vec<_> = permission.who.users().iter().map(|user| WildMatch::new(user)).collect();
        let matches = |user: &str| patterns.iter().any(|pattern| pattern.matches(user));
        let is_for_anonymous = config.auth.anonymous && matches("");
        // The users of tokens need no password, so they are not known.
        if config.auth.keys.is_empty() && !is_for_anonymous && !users.iter().any(|user| matches(user)) {
            report.warning(format!("[[permission]] for {} matches no user, so the rule has no effect", permission.who));
        }
    }
}

/// Reports the administrators, and warns about each one that does not exist. `users` is `None` if the first start has yet to make the only user.
fn check_admins(settings: &Settings, config: &Config, users: Option<&Users>, report: &mut Report) {
    let mut admins = config.auth.admins.clone();
    for admin in &admins {
        let is_known = match users {
            Some(users) => users.name(admin).is_some(),
            None => admin == first_start::USER,
        };
        if !is_known {
            report.warning(format!("auth.admins: there is no user {admin:?}; correct the name or make the user"));
        }
    }
    let is_made_here =
        settings.makes_first_user(config) && users.is_none_or(|users| users.name(first_start::USER).is_some());
    if is_made_here && !admins.iter().any(|admin| admin == first_start::USER) {
        admins.push(first_start::USER.to_owned());
    }
    if !admins.is_empty() {
        report.fact("administrators", admins.join(", "));
    }
}

/// Reports the state of the store. Returns a description of the broker that runs on the store.
fn check_store(config: &Config, report: &mut Report) -> Option<String> {
    let url = &config.store.url;
    let settings = match build::store_settings(config) {
        Ok(settings) => settings,
        Err(error) => {
            report.error(error.to_string());
            return None;
        }
    };
    if url.is_memory() {
        report.fact("store", "memory:");
        report.warning("store.url is memory: - messages that are not yet received are lost when the broker stops");
        return None;
    }
    if url.server().is_some() {
        let journal = match &settings.journal {
            Some(journal) => format!("{}, at most {} MiB", journal.path.display(), journal.bytes >> 20),
            None => "none: every message waits for the database's own commit".to_owned(),
        };
        report.fact("journal", journal);
    }
    let error = match wsmb_store::inspect(&settings) {
        Ok(seen) => return report_store(seen, url, report),
        Err(error) => error,
    };
    match error {
        StoreError::Missing { .. } => report.fact("store", format!("{url}: does not exist; the first start makes it")),
        StoreError::Unreachable { .. } if wsmb_store::starts_without_database(&settings) => {
            report.fact("store", url.to_string());
            report.warning(format!(
                "{error}; the broker would start nevertheless, because its journal belongs to this database, and deliver the messages in the journal"
            ));
            return journal_holder(&settings);
        }
        StoreError::TornJournal { .. } => {
            report.fact("store", url.to_string());
            report.warning(error.to_string());
        }
        _ => report.error(error.to_string()),
    }
    None
}

/// Returns the broker that runs on the journal, for a database that cannot be reached.
fn journal_holder(settings: &StoreSettings) -> Option<String> {
    let url = format!("sqlite:{}", settings.journal.as_ref()?.path.display());
    wsmb_store::inspect(&StoreSettings { url, ..StoreSettings::default() }).ok()?.holder
}

fn report_store(seen: Inspection, url: &StoreUrl, report: &mut Report) -> Option<String> {
    let state = match &seen.holder {
        Some(holder) => format!("a broker is running on it ({holder})"),
        None => "no broker is running on it".to_owned(),
    };
    report.fact("store", format!("{url}: {state}"));
    if !seen.missing.is_empty() {
        report.fact("first start", format!("makes {} next to the table of messages", seen.missing.join(" and ")));
    }
    report.warnings(seen.warnings);
    seen.holder
}

/// Describes the policy of a channel in words.
fn describe_policy(policy: &ChannelPolicy) -> String {
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
        parts.push(format!(
            "{end} after {} without acknowledgement",
            count(u64::from(policy.max_deliveries), "delivery attempt")
        ));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_core::message::ChannelName;

    #[test]
    fn a_policy_is_described_in_words() {
        let policy = ChannelPolicy::default();
        assert_eq!(describe_policy(&policy), "to all receivers, kept until received (at most 1000000), never expires");
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
            describe_policy(&policy),
            "to one receiver, in turn, not kept, expires after 300s, moved to lost after 3 delivery attempts without acknowledgement"
        );
    }
}
