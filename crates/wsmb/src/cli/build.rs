//! Converts the configuration into the settings of the server and of the store. No other file imports both.
//!
//! Never validates a value: the crate `config` does. Never decides anything: the crate `server` does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::memory;
use wsmb_auth::{Algorithm, Key, Permissions, Rate, RateRules};
use wsmb_config::{Config, ConfigError, TokenKey};
use wsmb_core::broker;
use wsmb_server::{AccessSettings, ConnectionLimits, Listener, Reload, Settings, StoreChoice, TlsFiles, Webhook};
use wsmb_store::{BadColumn, Columns, JournalSettings, StoreSettings, ids_beside};

/// Why the configuration gives no settings.
#[derive(Debug)]
pub(crate) enum BadSettings {
    /// A key for tokens is unusable: the text names it.
    Key(String),
    /// An entry of `[store.columns]` is wrong.
    Column(BadColumn),
    /// The file with the password of the database server cannot be read.
    Password(ConfigError),
}

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => f.write_str(error),
            Self::Column(error) => error.fmt(f),
            Self::Password(error) => error.fmt(f),
        }
    }
}

/// Returns the warnings about a configuration, also about sections that this build cannot use.
pub(crate) fn warnings(config: &Config, file: Option<&Path>) -> Vec<String> {
    let mut warnings = wsmb_config::warnings(config, file);
    if !cfg!(feature = "webhooks") && !config.webhooks.is_empty() {
        warnings
            .push("[[webhook]]: this program was built without the feature webhooks, so nothing is posted".to_owned());
    }
    warnings
}

/// Returns the settings with which the server starts. Blocks: keys and the store's password may be in files.
///
/// # Errors
/// [`BadSettings`].
pub(crate) fn server_settings(config: &Config) -> Result<Settings, BadSettings> {
    Ok(Settings {
        listeners: listeners(config),
        tls: tls(config),
        limits: ConnectionLimits {
            heartbeat: config.server.heartbeat,
            max_message: config.server.max_message,
            max_queue: config.server.max_queue,
            trust_fin: config.server.trust_fin,
            max_connections: config.server.max_connections,
            max_handshakes: config.server.max_handshakes,
            receiver_grace: config.server.receiver_grace,
        },
        threads: u16::try_from(config.server.threads).unwrap_or(u16::MAX),
        drain: config.server.drain,
        broker: broker::Settings {
            policies: config.policies.clone(),
            batch: config.store.batch,
            delay: config.store.delay,
            write_delay: config.store.write_delay,
            confirm_timeout: config.server.confirm_timeout,
            dedup_window: config.server.dedup_window,
            memory_budget: memory::budget(&config.server),
            bounds: broker::Bounds::default(),
        },
        access: access(config)?,
        store: StoreChoice {
            settings: store_settings(config)?,
            name: config.store.url.to_string(),
            ids: ids(config),
            set_aside_damaged: config.store.set_aside_damaged,
        },
        webhooks: webhooks(config),
    })
}

/// Returns the part of `new` that a server that runs with `running` takes over without a restart, and the names of the settings that need a restart. Blocks:
/// keys may be in files.
///
/// # Errors
/// [`BadSettings::Key`].
pub(crate) fn reload(running: &Config, new: &Config) -> Result<Reload, BadSettings> {
    let needs_restart = running.changes_needing_restart(new);
    Ok(Reload {
        policies: new.policies.clone(),
        access: access(new)?,
        tls: tls(new),
        webhooks: webhooks(new),
        needs_restart,
    })
}

/// Returns the keys of `[[auth.key]]`. Blocks: they may be in files.
///
/// # Errors
/// The first key that cannot be read or used.
pub(crate) fn keys(config: &Config) -> Result<Vec<Arc<Key>>, BadSettings> {
    config.auth.keys.iter().map(|key| self::key(key).map(Arc::new)).collect()
}

/// Returns one key of `[[auth.key]]`. Blocks: it may be in a file.
///
/// # Errors
/// The key cannot be read or used.
pub(crate) fn key(key: &TokenKey) -> Result<Key, BadSettings> {
    let bad = |problem: &dyn fmt::Display| BadSettings::Key(format!("[[auth.key]] {:?}: {problem}", key.id));
    let text = key.read().map_err(|problem| bad(&problem))?;
    let algorithm = Algorithm::parse(key.algorithm).ok_or_else(|| bad(&"unknown algorithm"))?;
    Key::new(&key.id, algorithm, &text, key.audience.clone(), key.issuer.clone()).map_err(|problem| bad(&problem))
}

/// Returns a listener for each address of the configuration.
pub(crate) fn listeners(config: &Config) -> Vec<Listener> {
    let all = config.server.all_listeners().into_iter();
    all.map(|wsmb_config::Listener { address, tls, proxy_protocol }| Listener { address, tls, proxy_protocol })
        .collect()
}

/// Returns the files of the certificate, if one is configured.
pub(crate) fn tls(config: &Config) -> Option<TlsFiles> {
    let wsmb_config::Tls { certificate, key, client_ca } = config.tls.clone();
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca })
}

fn access(config: &Config) -> Result<AccessSettings, BadSettings> {
    let permissions = config.auth.permissions.iter().fold(Permissions::default(), |permissions, permission| {
        permissions.with(permission.who.users(), &permission.send, &permission.receive)
    });
    let rate = |rate: Option<(u32, Duration)>| rate.and_then(|(count, period)| Rate::new(count, period));
    let rates =
        config.auth.rates.iter().fold(RateRules::default(), |rules, entry| {
            rules.with(&entry.user, rate(entry.publish), rate(entry.connect))
        });
    Ok(AccessSettings {
        htpasswd: config.auth.htpasswd.clone(),
        users: config.auth.users.clone(),
        admins: config.auth.admins.clone(),
        anonymous: config.auth.anonymous,
        keys: keys(config)?,
        token_key: config.auth.token_key.clone(),
        permissions,
        rates,
        trusted_proxies: config.server.trusted_proxies.clone(),
        origins: config.server.origins.clone(),
    })
}

fn webhooks(config: &Config) -> Vec<Webhook> {
    let webhook = |webhook: &wsmb_config::Webhook| Webhook {
        name: webhook.name.clone(),
        channels: webhook.channels.clone(),
        host: webhook.url.host.clone(),
        port: webhook.url.port,
        target: webhook.url.target.clone(),
        is_encrypted: webhook.url.is_encrypted,
        ca: webhook.ca.clone(),
        secrets: webhook.secrets.iter().map(|secret| secret.bytes().to_vec()).collect(),
        timeout: webhook.timeout,
        concurrency: webhook.concurrency,
        allow_private: webhook.allow_private,
    };
    config.webhooks.iter().map(webhook).collect()
}

/// Returns the file that keeps the ids of publications. Returns `None` if the store is `memory:` or no file is configured.
fn ids(config: &Config) -> Option<PathBuf> {
    let store = &config.store;
    if let Some(file) = store.url.path() {
        return Some(ids_beside(file));
    }
    store.url.server()?;
    store.journal.as_deref().map(ids_beside).or_else(|| store.ids.clone())
}

/// Returns the settings with which the store is opened. Blocks: the password may be in a file.
///
/// # Errors
/// [`BadSettings`].
pub(crate) fn store_settings(config: &Config) -> Result<StoreSettings, BadSettings> {
    let store = &config.store;
    let columns = store.columns.iter().map(|(column, pointer)| (column.as_str(), pointer.as_str()));
    let journal = store.journal.as_ref().filter(|_| store.url.server().is_some());
    Ok(StoreSettings {
        url: store.url.with_secrets().to_owned(),
        password: store.read_password().map_err(BadSettings::Password)?,
        prefix: store.prefix.clone(),
        columns: Columns::parse(columns).map_err(BadSettings::Column)?,
        max_size: store.max_size,
        journal: journal.map(|path| JournalSettings { path: path.clone(), bytes: store.journal_max }),
        ..StoreSettings::default()
    })
}
