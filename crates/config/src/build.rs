//! The second stage: converts the values to their types, and checks their limits and combinations.

mod webhook;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use wildmatch::WildMatch;

use super::access;
use super::error::{Problem, Source};
use super::model::{Auth, Config, Listener, Log, Server, Store, Tls};
use super::raw::{Entry, Setting, Settings, Value};
use super::section::SectionReader;
use super::url::StoreUrl;
use super::values;
use crate::limits;
use wsmb_core::message::ChannelName;
use wsmb_core::network::Networks;
use wsmb_core::policy::{ChannelPolicy, Dispatch, Policies};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The default configuration of a broker whose data directory is `data_dir`.
pub(super) fn defaults(data_dir: &Path) -> Config {
    Config {
        server: Server {
            listen: vec!["127.0.0.1:8888".to_owned()],
            listeners: vec![],
            heartbeat: Duration::from_secs(25),
            max_message: wsmb_protocol::limits::MAX_MESSAGE,
            max_connections: 100_000,
            max_handshakes: limits::HANDSHAKES,
            receiver_grace: Duration::from_secs(30),
            threads: 1,
            max_queue: wsmb_core::limits::QUEUE_BYTES,
            memory_budget: None,
            confirm_timeout: Duration::from_secs(300),
            trust_fin: true,
            drain: Duration::from_secs(10),
            dedup_window: Duration::from_secs(120),
            trusted_proxies: Networks::default(),
            origins: vec![],
        },
        tls: Tls::default(),
        policies: Policies::default(),
        auth: Auth {
            htpasswd: vec![data_dir.join(".htpasswd")],
            users: vec![],
            admins: vec![],
            anonymous: false,
            groups: BTreeMap::new(),
            keys: vec![],
            token_key: Some(data_dir.join("token.key")),
            permissions: vec![],
            rates: vec![],
        },
        store: Store {
            url: StoreUrl::sqlite(&data_dir.join("wsmb.db")),
            password: None,
            password_file: None,
            has_secret_in_file: false,
            journal: Some(data_dir.join("journal.db")),
            journal_max: limits::JOURNAL_BYTES,
            max_size: None,
            set_aside_damaged: false,
            ids: Some(data_dir.join("wsmb.ids")),
            prefix: "mq_".to_owned(),
            batch: 10,
            delay: Duration::ZERO,
            write_delay: Duration::from_millis(500),
            columns: vec![],
        },
        webhooks: vec![],
        log: Log { level: tracing::Level::INFO },
    }
}

/// Overrides `defaults` with `settings`. Invalid values are reported in `problems`, and the default stays.
pub(super) fn build(settings: Settings, defaults: Config, problems: &mut Vec<Problem>) -> Config {
    let Settings { scalars, listeners, channels, keys, groups, permissions, rates, webhooks, columns } = settings;
    let mut config = defaults;
    let mut reader = SectionReader { settings: &scalars, problems };
    server(&mut reader, &mut config.server);
    for (key, file) in [
        ("tls.certificate", &mut config.tls.certificate),
        ("tls.key", &mut config.tls.key),
        ("tls.client_ca", &mut config.tls.client_ca),
    ] {
        reader.set(key, file, values::path);
    }
    let default = reader.policy("channel_defaults", &ChannelPolicy::default());
    access::auth(&mut reader, &mut config.auth);
    reader.store(&mut config.store);
    reader.set("log.level", &mut config.log.level, level);
    if !listeners.is_empty() && !scalars.contains_key("server.listen") {
        // The default address applies only if the configuration names no address at all.
        config.server.listen.clear();
    }
    config.server.listeners = listeners.iter().filter_map(|entry| listener(entry, problems)).collect();
    check_tls(&config, &scalars, &listeners, problems);
    config.policies = policies(default, &channels, problems);
    config.auth.groups = access::groups(&groups, problems);
    config.auth.keys = access::keys(&keys, problems);
    let permission = |entry| access::permission(entry, &config.auth.groups, problems);
    config.auth.permissions = permissions.iter().filter_map(permission).collect();
    config.auth.rates = rates.iter().filter_map(|entry| access::rate(entry, problems)).collect();
    config.webhooks = webhook::webhooks(&webhooks, problems);
    config.store.columns = store_columns(&columns, problems);
    config
}

impl SectionReader<'_> {
    /// Returns the policy of `section`. Keys that are not set keep the value of `base`.
    fn policy(&mut self, section: &str, base: &ChannelPolicy) -> ChannelPolicy {
        let mut policy = base.clone();
        let key = |name: &str| format!("{section}.{name}");
        let small =
            |value: &Value| values::integer(value, &(0..=1_000_000)).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self.set(&key("receivers"), &mut policy.receivers, small);
        self.set(&key("keep"), &mut policy.keep, values::boolean);
        self.set(&key("dispatch"), &mut policy.dispatch, dispatch);
        self.set_duration(&key("ttl"), &mut policy.ttl, Duration::ZERO, 3_650 * DAY);
        self.set(&key("max_backlog"), &mut policy.max_backlog, |value| {
            values::integer(value, &(1..=1_000_000_000_000))
        });
        self.set(&key("max_deliveries"), &mut policy.max_deliveries, small);
        self.set_duration(&key("ack_timeout"), &mut policy.ack_timeout, SECOND, DAY);
        self.set_duration(&key("confirm_within"), &mut policy.confirm_within, Duration::ZERO, DAY);
        self.set(&key("dead_letter"), &mut policy.dead_letter, dead_letter);
        self.set(&key("dead_letter_expired"), &mut policy.dead_letter_expired, values::boolean);
        policy
    }

    fn store(&mut self, store: &mut Store) {
        self.set("store.url", &mut store.url, |value| StoreUrl::parse(&values::text(value)?));
        self.set("store.password", &mut store.password, |value| values::text(value).map(values::some_text));
        self.set("store.password_file", &mut store.password_file, values::path);
        store.has_secret_in_file = self.is_in_file("store.password") && store.password.is_some()
            || self.is_in_file("store.url") && store.url.has_password();
        self.set("store.journal", &mut store.journal, values::path);
        self.set("store.journal_max", &mut store.journal_max, |value| {
            values::size(value, &(limits::JOURNAL_BYTES_MIN..=limits::JOURNAL_BYTES_MAX))
        });
        self.set("store.max_size", &mut store.max_size, |value| {
            if values::size(value, &(0..=0)) == Ok(0) {
                return Ok(None);
            }
            let bytes = values::size(value, &(limits::STORE_BYTES_MIN..=limits::STORE_BYTES_MAX));
            bytes.map(Some).map_err(|problem| problem.replace("must be from", "must be \"0\", or from"))
        });
        self.set("store.ids", &mut store.ids, values::path);
        self.set("store.prefix", &mut store.prefix, |value| {
            let text = values::text(value)?;
            if values::is_identifier(&text, 32) {
                Ok(text)
            } else {
                Err("must be at most 32 letters, digits and underscores".to_owned())
            }
        });
        self.set_number("store.batch", &mut store.batch, 1, 10_000);
        self.set_duration("store.delay", &mut store.delay, Duration::ZERO, MINUTE);
        self.set_duration("store.write_delay", &mut store.write_delay, Duration::ZERO, MINUTE);
    }
}

fn server(reader: &mut SectionReader<'_>, server: &mut Server) {
    reader.set("server.listen", &mut server.listen, values::addresses);
    reader.set_duration("server.heartbeat", &mut server.heartbeat, SECOND, 60 * MINUTE);
    reader.set_size("server.max_message", &mut server.max_message, 1 << 10, 64 << 20);
    reader.set_number("server.max_connections", &mut server.max_connections, 1, 10_000_000);
    reader.set_number("server.max_handshakes", &mut server.max_handshakes, 1, 1_000_000);
    reader.set_duration("server.receiver_grace", &mut server.receiver_grace, SECOND, DAY);
    reader.set_number("server.threads", &mut server.threads, 1, limits::THREADS as u64);
    reader.set_size("server.max_queue", &mut server.max_queue, 64 << 10, 1 << 30);
    memory_budget(reader, server);
    reader.set_duration("server.confirm_timeout", &mut server.confirm_timeout, SECOND, DAY);
    reader.set("server.trust_fin", &mut server.trust_fin, values::boolean);
    reader.set_duration("server.drain", &mut server.drain, Duration::ZERO, 60 * MINUTE);
    reader.set_duration("server.dedup_window", &mut server.dedup_window, Duration::ZERO, DAY);
    reader.set("server.trusted_proxies", &mut server.trusted_proxies, values::networks);
    reader.set("server.origins", &mut server.origins, values::origins);
}

/// `server.max_message` must have been read.
fn memory_budget(reader: &mut SectionReader<'_>, server: &mut Server) {
    let least = limits::MEMORY_MESSAGES.saturating_mul(server.max_message);
    reader.set("server.memory_budget", &mut server.memory_budget, |value| {
        if values::text(value).as_deref() == Ok("auto") {
            return Ok(None);
        }
        let bytes = values::size(value, &(limits::MEMORY_BYTES_MIN..=limits::MEMORY_BYTES_MAX))
            .map_err(|problem| problem.replace("must be from", "must be \"auto\", or from"))?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes < least {
            let times = limits::MEMORY_MESSAGES;
            return Err(format!("must be at least {times} times server.max_message, not {value}"));
        }
        Ok(Some(bytes))
    });
}

fn listener(entry: &Entry, problems: &mut Vec<Problem>) -> Option<Listener> {
    let mut reader = SectionReader { settings: &entry.settings, problems };
    let address = reader.get("listener.address", values::address);
    let tls = reader.get("listener.tls", values::boolean).unwrap_or(false);
    let proxy_protocol = reader.get("listener.proxy_protocol", values::boolean).unwrap_or(false);
    if !entry.settings.contains_key("listener.address") {
        let text = "this [[listener]] has no address: write address = \"127.0.0.1:8889\"";
        problems.push(Problem::at(&entry.source, text));
    }
    Some(Listener { address: address?, tls, proxy_protocol })
}

/// Reports a listener with TLS without a certificate, and half of a pair.
fn check_tls(
    config: &Config,
    scalars: &BTreeMap<&'static str, Setting>,
    listeners: &[Entry],
    problems: &mut Vec<Problem>,
) {
    let Tls { certificate, key, .. } = &config.tls;
    for (set, missing, other) in [
        ("tls.certificate", key, "tls.key, the private key of the certificate"),
        ("tls.key", certificate, "tls.certificate"),
    ] {
        if let (Some(setting), None) = (scalars.get(set), missing) {
            problems.push(Problem::of_key(&setting.source, set, format_args!("needs {other}, too")));
        }
    }
    if certificate.is_some() || key.is_some() || !config.server.all_listeners().iter().any(|listener| listener.tls) {
        return;
    }
    let entry = listeners.iter().find_map(|entry| entry.settings.get("listener.tls")).or(scalars.get("server.listen"));
    if let Some(setting) = entry {
        let text = "there is TLS, but no certificate: set tls.certificate and tls.key; `wsmb cert` makes both for a network without names of its own";
        problems.push(Problem::at(&setting.source, text));
    }
}

fn dispatch(value: &Value) -> Result<Dispatch, String> {
    match values::text(value).as_deref() {
        Ok("first") => Ok(Dispatch::First),
        Ok("rotate") => Ok(Dispatch::Rotate),
        _ => Err(format!("must be \"first\" or \"rotate\", not {value}")),
    }
}

fn level(value: &Value) -> Result<tracing::Level, String> {
    match values::text(value).as_deref() {
        Ok("error") => Ok(tracing::Level::ERROR),
        Ok("warn") => Ok(tracing::Level::WARN),
        Ok("info") => Ok(tracing::Level::INFO),
        Ok("debug") => Ok(tracing::Level::DEBUG),
        Ok("trace") => Ok(tracing::Level::TRACE),
        _ => Err(format!("must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\", not {value}")),
    }
}

/// An empty text means no channel: undeliverable messages are dropped.
fn dead_letter(value: &Value) -> Result<Option<ChannelName>, String> {
    let text = values::text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains(['*', '?']) {
        return Err(format!("must be the name of one channel, without * and ?, not {value}"));
    }
    ChannelName::parse(&text).map(Some).map_err(|bad| format!("is not a valid channel name: {bad}"))
}

fn policies(default: ChannelPolicy, entries: &[Entry], problems: &mut Vec<Problem>) -> Policies {
    let mut policies = Policies { named: vec![], default };
    for entry in entries {
        let mut reader = SectionReader { settings: &entry.settings, problems };
        let name = reader.get("channel.name", pattern);
        let mut policy = reader.policy("channel", &policies.default);
        if !entry.settings.contains_key("channel.name") {
            problems.push(Problem::at(
                &entry.source,
                "this [[channel]] has no name: write name = \"sms\" or name = \"sms.*\"",
            ));
        }
        let Some(name) = name else { continue };
        if policy.dead_letter.as_ref().is_some_and(|dead| dead.as_str() == name) {
            match entry.settings.get("channel.dead_letter") {
                Some(setting) => {
                    let text = format_args!("is the channel {name:?} itself; name another channel");
                    problems.push(Problem::of_key(&setting.source, "channel.dead_letter", text));
                }
                None => policy.dead_letter = None,
            }
        }
        policies.named.push((WildMatch::new(&name), policy));
    }
    stop_at_dead_letter_channels(&mut policies);
    check_cycles(&policies, entries, problems);
    policies
}

/// Prevents that a dead-letter channel is its own dead-letter channel through a pattern or the defaults (`dead_letter = "dead"` in the
/// defaults). Undeliverable messages of such a channel are dropped.
fn stop_at_dead_letter_channels(policies: &mut Policies) {
    let all = policies.named.iter().map(|(_, policy)| policy).chain([&policies.default]);
    let mut targets: Vec<ChannelName> = all.filter_map(|policy| policy.dead_letter.clone()).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        let policy = policies.of(&target);
        if policy.dead_letter.as_ref() == Some(&target) {
            let last = ChannelPolicy { dead_letter: None, ..policy.clone() };
            policies.named.insert(0, (WildMatch::new(target.as_str()), last));
        }
    }
}

/// Reports dead-letter channels that form a cycle, in which dead letters would move for ever.
fn check_cycles(policies: &Policies, entries: &[Entry], problems: &mut Vec<Problem>) {
    for entry in entries {
        let Some(setting) = entry.settings.get("channel.dead_letter") else { continue };
        let Ok(Some(start)) = dead_letter(&setting.value) else { continue };
        let mut at = Some(&start);
        let mut steps = 0;
        while let Some(name) = at {
            at = policies.of(name).dead_letter.as_ref();
            steps += 1;
            if steps > policies.named.len() + 1 {
                let text = "is part of a cycle, in which dead letters would move for ever";
                problems.push(Problem::of_key(&setting.source, "channel.dead_letter", text));
                break;
            }
        }
    }
}

fn pattern(value: &Value) -> Result<String, String> {
    let text = values::text(value)?;
    if text.is_empty() { Err("is empty: write a name or a pattern like \"sms.*\"".to_owned()) } else { Ok(text) }
}

fn is_column(name: &str) -> bool {
    values::is_identifier(name, wsmb_core::limits::STORE_COLUMN_CHARS)
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

fn store_columns(columns: &BTreeMap<String, Setting>, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let mut good = Vec::new();
    for (column, setting) in columns {
        let key = format!("store.columns.{column}");
        let problem = match values::text(&setting.value) {
            _ if !is_column(column) => {
                "is not a valid column name: a letter or underscore, then letters, digits and underscores, at most 63 characters"
            }
            _ if wsmb_core::limits::STORE_OWN_COLUMNS.contains(&column.to_ascii_lowercase().as_str()) => {
                "is the name of one of the broker's own columns; choose another name"
            }
            Ok(pointer) if pointer.starts_with('/') => {
                good.push((column.clone(), pointer));
                continue;
            }
            _ => "must be a JSON pointer beginning with a slash, like \"/receiver\"",
        };
        problems.push(Problem::of_key(&setting.source, &key, problem));
    }
    if good.len() > wsmb_core::limits::STORE_COLUMNS {
        let source =
            columns.values().next().map_or(Source::Flag("store.columns".to_owned()), |setting| setting.source.clone());
        problems.push(Problem::at(
            &source,
            format_args!("store.columns has more than {} columns", wsmb_core::limits::STORE_COLUMNS),
        ));
    }
    good
}
