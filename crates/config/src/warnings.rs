//! Finds settings that are valid but probably mistakes. `wsmb check` prints the warnings and `wsmb serve` logs them.
//!
//! A warning must never make a configuration invalid, and must never contain a secret.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use wildmatch::WildMatch;

use super::model::{Config, KeyText, Listener, Permission};
use super::platform::{is_world_readable, open_files};
use wsmb_core::glob;
use wsmb_core::policy::ChannelPolicy;
use wsmb_protocol::origin::Origin;

/// Returns the warnings about `config`, one sentence each. `file` is the file that it was read from. Reads the permissions of the files
/// that hold secrets. `wsmb_auth::Credentials::all_warnings` checks the content of the password files.
#[must_use]
pub fn warnings(config: &Config, file: Option<&Path>) -> Vec<String> {
    let mut warnings = Vec::new();
    let listeners = config.server.all_listeners();
    let public: Vec<&Listener> = listeners.iter().filter(|listener| is_public(&listener.address)).collect();
    for listener in public.iter().filter(|listener| !listener.tls) {
        let key = if config.server.listen.contains(&listener.address) { "server.listen" } else { "[[listener]]" };
        warnings.push(format!(
            "{key}: {} can be reached from other machines, and passwords and messages are sent unencrypted; \
             use TLS (tls = true), put a proxy with TLS in front, or listen on 127.0.0.1",
            listener.address
        ));
    }
    tls(config, &listeners, &mut warnings);
    proxies(config, &mut warnings);
    if config.server.origins.contains(&Origin::Null) {
        warnings.push(
            "server.origins: \"null\" is the origin of every local file and of frames that any web page can create; all of them can use a password that the browser has stored"
                .to_owned(),
        );
    }
    if config.auth.anonymous && !public.is_empty() {
        warnings.push(
            "auth.anonymous: every client that can reach the port can send and receive without a password".to_owned(),
        );
    }
    if config.auth.anonymous
        && !config.auth.permissions.is_empty()
        && !config.auth.permissions.iter().any(is_for_anonymous)
    {
        warnings.push(
            "auth.anonymous: no [[permission]] applies to anonymous connections (user = \"\"), so they may use no channel"
                .to_owned(),
        );
    }
    let secrets = file.filter(|_| !config.auth.users.is_empty()).into_iter();
    for path in secrets.chain(config.auth.htpasswd.iter().map(std::path::PathBuf::as_path)) {
        if is_world_readable(path) {
            warnings.push(format!(
                "{0}: every user of this machine can read the password hashes in this file; run `chmod o-r {0}`",
                path.display()
            ));
        }
    }
    store(config, file, &mut warnings);
    tokens(config, file, &mut warnings);
    patterns(config, &mut warnings);
    lifetimes(config, &mut warnings);
    gateways(config, &mut warnings);
    dead_letters(config, &mut warnings);
    webhooks(config, file, &mut warnings);
    machine(config, &mut warnings);
    if config.server.max_queue < config.server.max_message {
        warnings.push(
            "server.max_queue is below server.max_message, so a receiver is ended as slow when a second large message is queued for it"
                .to_owned(),
        );
    }
    warnings
}

/// Warns about settings beyond the limits of this process.
fn machine(config: &Config, warnings: &mut Vec<String>) {
    // No warning for the default, which is above the limit of most systems: otherwise every start would log it.
    if config.server.max_connections != Config::default().server.max_connections
        && let Some(files) = open_files()
        && u64::try_from(config.server.max_connections).is_ok_and(|wanted| wanted > files)
    {
        warnings.push(format!(
            "server.max_connections is {}, but this process may open only {files} files; \
             raise the limit (`ulimit -n`, LimitNOFILE= in a systemd unit) or lower the number",
            config.server.max_connections
        ));
    }
    if let Ok(processors) = std::thread::available_parallelism()
        && config.server.threads > processors.get()
    {
        warnings.push(format!(
            "server.threads is {}, but this process may use only {processors} processors, so further threads only wait for the others",
            config.server.threads
        ));
    }
}

/// Warns about a certificate that no listener uses, and a key that everyone can read.
fn tls(config: &Config, listeners: &[Listener], warnings: &mut Vec<String>) {
    if config.tls.certificate.is_some() && !listeners.iter().any(|listener| listener.tls) {
        warnings.push(
            "[tls]: no listener uses the certificate; write tls:// before an address in server.listen, or tls = true in a [[listener]]"
                .to_owned(),
        );
    }
    if let Some(key) = config.tls.key.as_deref().filter(|key| is_world_readable(key)) {
        warnings.push(format!(
            "{0}: every user of this machine can read the private key in this file; run `chmod o-r {0}`",
            key.display()
        ));
    }
}

/// Warns about networks that let any client claim any address, and about proxies that are not trusted.
fn proxies(config: &Config, warnings: &mut Vec<String>) {
    let trusted = &config.server.trusted_proxies;
    for network in trusted.iter().filter(|network| network.is_everything()) {
        warnings.push(format!(
            "server.trusted_proxies: {network} contains every address, so every client can claim any address; \
             name the addresses of your proxies"
        ));
    }
    for listener in config.server.listeners.iter().filter(|listener| listener.proxy_protocol && trusted.is_empty()) {
        warnings.push(format!(
            "[[listener]] {}: no proxy is trusted, so the addresses in the PROXY protocol headers are ignored; \
             add the address of your proxy to server.trusted_proxies",
            listener.address
        ));
    }
}

/// Parts of the names of channels whose messages soon become useless: replies, and one-time passwords.
const SHORT_LIVED: [&str; 4] = ["callback", "reply", "response", "otp"];

/// A time to live up to which a person probably waits for the message.
const SHORT_TTL: Duration = Duration::from_secs(300);

/// Warns about messages that are kept for ever without use, and about messages that would expire at a frozen receiver.
fn lifetimes(config: &Config, warnings: &mut Vec<String>) {
    for (pattern, policy) in config.policies.named.iter().filter(|(_, policy)| policy.keep) {
        let name = pattern.to_string().to_lowercase();
        if policy.ttl.is_zero() && SHORT_LIVED.iter().any(|part| name.contains(part)) {
            warnings.push(format!(
                "[[channel]] \"{pattern}\": its messages never expire (ttl is 0), but by its name it carries callbacks or one-time passwords, \
                 which nobody needs after a while; set a ttl"
            ));
        }
        if policy.receivers == 1 && !policy.ttl.is_zero() && policy.ttl <= SHORT_TTL && policy.confirm_within.is_zero()
        {
            warnings.push(format!(
                "[[channel]] \"{pattern}\": a message expires after {:?} and goes to one receiver; if that receiver is frozen, the message expires there although another \
                 receiver may be ready; set confirm_within, for example to \"{}s\"",
                policy.ttl,
                (policy.ttl.as_secs() / 3).max(1)
            ));
        }
        detection(config, &pattern.to_string(), policy, warnings);
    }
}

/// Warns about messages that expire before the broker notices that their receiver is dead.
fn detection(config: &Config, pattern: &str, policy: &ChannelPolicy, warnings: &mut Vec<String>) {
    let (ttl, within) = (policy.ttl, policy.confirm_within);
    if policy.receivers == 0 || ttl.is_zero() {
        return;
    }
    let third = (ttl.as_secs() / 3).max(1);
    if !within.is_zero() && within >= ttl {
        warnings.push(format!(
            "[[channel]] \"{pattern}\": a message expires after {ttl:?}, before confirm_within ({within:?}) would give it to another receiver; \
             set confirm_within below the ttl, for example to \"{third}s\""
        ));
    }
    // A heartbeat interval without traffic, and two unanswered pings.
    let heartbeat = config.server.heartbeat * 3;
    if policy.ack_timeout.min(heartbeat) >= ttl {
        warnings.push(format!(
            "[[channel]] \"{pattern}\": the broker notices a dead receiver with manual acknowledgement (wsmb receive --exec) only after \
             {:?}, but a message expires after {ttl:?}; set ack_timeout, for example to \"{third}s\", or a longer ttl",
            policy.ack_timeout.min(heartbeat)
        ));
    }
}

/// Parts of the names of channels whose messages are jobs to be done once.
const JOBS: [&str; 6] = ["sms", "otp", "mail", "print", "job", "task"];

/// Warns about jobs that every receiver gets, so that two receivers do them twice.
fn gateways(config: &Config, warnings: &mut Vec<String>) {
    let policies = config.policies.named.iter().filter(|(_, policy)| policy.receivers == 0);
    for (pattern, _) in policies {
        let name = pattern.to_string();
        if JOBS.iter().any(|part| name.to_lowercase().contains(part)) {
            warnings.push(format!(
                "[[channel]] \"{name}\": every receiver gets every message (receivers is 0), so two gateways that share no group do the same work twice, for example send one SMS twice; \
                 set receivers = 1"
            ));
        }
    }
}

/// Warns about `dead_letter_expired` without effect.
fn dead_letters(config: &Config, warnings: &mut Vec<String>) {
    let policies = || config.policies.named.iter().map(|(_, policy)| policy).chain([&config.policies.default]);
    let targets: Vec<_> = policies().filter_map(|policy| policy.dead_letter.as_ref()).collect();
    // A dead-letter channel that inherits the setting from the defaults gets no warning: its messages do not become dead letters again.
    let sends = |pattern: &WildMatch| !targets.iter().any(|target| pattern.matches(target.as_str()));
    let named = config.policies.named.iter().filter(|(pattern, _)| sends(pattern));
    let named = named.map(|(pattern, policy)| (format!("[[channel]] \"{pattern}\""), policy));
    let default = std::iter::once(("[channel_defaults]".to_owned(), &config.policies.default));
    for (section, policy) in default.chain(named).filter(|(_, policy)| policy.dead_letter_expired) {
        if policy.dead_letter.is_none() {
            warnings.push(format!(
                "{section}: dead_letter_expired is set, but there is no dead-letter channel, so expired messages are lost; name one with dead_letter"
            ));
        } else if !policy.keep {
            warnings.push(format!(
                "{section}: dead_letter_expired is set, but the channel keeps no messages (keep = false), and only kept messages expire"
            ));
        }
    }
}

/// Warns about an unencrypted connection to the database, and about files that let others read its password.
fn store(config: &Config, file: Option<&Path>, warnings: &mut Vec<String>) {
    let store = &config.store;
    let Some(server) = store.url.server() else { return };
    if !server.is_local() && !server.is_encrypted() {
        warnings.push(format!(
            "store.url: the connection to {} may be unencrypted, and it carries the database's password and the messages; \
             add ?ssl-mode={} to the address",
            server.host(),
            server.encrypting_mode()
        ));
    }
    if let Some(path) = file.filter(|path| store.has_secret_in_file && is_world_readable(path)) {
        warnings.push(format!(
            "{0}: every user of this machine can read the database's password in this file; run `chmod o-r {0}`, or use store.password_file",
            path.display()
        ));
    }
    if let Some(path) = store.password_file.as_deref().filter(|path| is_world_readable(path)) {
        warnings.push(format!(
            "{0}: every user of this machine can read the database's password in this file; run `chmod o-r {0}`",
            path.display()
        ));
    }
}

fn is_for_anonymous(permission: &Permission) -> bool {
    permission.who.users().iter().any(|user| user.chars().all(|character| character == '*'))
}

/// Warns about webhooks that lose messages, cannot reach their address, or whose secret others can read.
fn webhooks(config: &Config, file: Option<&Path>, warnings: &mut Vec<String>) {
    for webhook in &config.webhooks {
        for channel in webhook.channels.iter().filter(|channel| !config.policies.of(channel).keep) {
            warnings.push(format!(
                "[[webhook]] \"{}\": the channel \"{channel}\" keeps no messages (keep = false), so a message whose request fails is lost",
                webhook.name
            ));
        }
        let is_local = webhook.url.host == "localhost"
            || webhook.url.address().is_some_and(|address| address.to_canonical().is_loopback());
        if is_local && !webhook.allow_private {
            warnings.push(format!(
                "[[webhook]] \"{}\": its URL leads to this machine, and requests to private addresses are refused; set allow_private = true",
                webhook.name
            ));
        }
        if !is_local && !webhook.allow_private && !webhook.url.is_encrypted {
            warnings.push(format!(
                "[[webhook]] \"{}\": its messages are sent unencrypted; the signature keeps others from changing them, not from reading them",
                webhook.name
            ));
        }
        let with_secrets = file.filter(|_| webhook.has_secret_in_file).into_iter();
        let with_secrets = with_secrets.chain(webhook.secret_files.iter().map(std::path::PathBuf::as_path));
        for path in with_secrets.filter(|path| is_world_readable(path)) {
            warnings.push(format!(
                "{0}: every user of this machine can read the secret of the webhook \"{1}\" in this file; run `chmod o-r {0}`",
                path.display(),
                webhook.name
            ));
        }
    }
}

/// Warns about channel and permission patterns that never apply.
fn patterns(config: &Config, warnings: &mut Vec<String>) {
    let patterns: Vec<String> = config.policies.named.iter().map(|(pattern, _)| pattern.to_string()).collect();
    for (at, pattern) in patterns.iter().enumerate() {
        if glob::shortest_match(pattern) > wsmb_core::limits::CHANNEL_NAME_CHARS || pattern.contains(char::is_control) {
            warnings.push(format!("[[channel]] {pattern:?} matches no valid channel name"));
        } else if let Some(earlier) = patterns[..at].iter().find(|earlier| glob::covers(earlier, pattern)) {
            warnings.push(format!(
                "[[channel]] {pattern:?} is never used: {earlier:?} comes first and matches all of its names"
            ));
        }
    }
    let permissions = &config.auth.permissions;
    for (at, permission) in permissions.iter().enumerate() {
        let covers =
            |earlier: &Permission, user: &String| earlier.who.users().iter().any(|earlier| glob::covers(earlier, user));
        let users = permission.who.users();
        let is_covered = |earlier: &&Permission| !users.is_empty() && users.iter().all(|user| covers(earlier, user));
        if let Some(earlier) = permissions[..at].iter().find(is_covered) {
            warnings.push(format!(
                "[[permission]] for {} is never used: the entry for {} comes first and matches all of its users",
                permission.who, earlier.who
            ));
        }
    }
}

/// Warns about keys for tokens that others can read, and about tokens that may do everything.
fn tokens(config: &Config, file: Option<&Path>, warnings: &mut Vec<String>) {
    let auth = &config.auth;
    let mut exposed = Vec::new();
    for key in auth.keys.iter().filter(|key| key.algorithm == "HS256") {
        exposed.extend(match &key.text {
            KeyText::Text(_) => file,
            KeyText::File(file) => Some(file.as_path()),
        });
    }
    exposed.dedup();
    for path in exposed.into_iter().filter(|path| is_world_readable(path)) {
        warnings.push(format!(
            "{0}: every user of this machine can read the secret of a key for tokens in this file; run `chmod o-r {0}`",
            path.display()
        ));
    }
    if !auth.keys.is_empty() && auth.permissions.is_empty() {
        warnings.push(
            "[[auth.key]]: there is no [[permission]], so a token without the claims wsmb.send and wsmb.receive may use every channel; \
             add a [[permission]], for example with user = \"*\" and without channels"
                .to_owned(),
        );
    }
}

/// Whether other machines can reach the address. Assumed for host names other than `localhost`.
fn is_public(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_) => !host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests;
