//! The settings of the servers in tests.

use std::time::Duration;

use crate::settings::{AccessSettings, ConnectionLimits, Listener, Settings, StoreChoice};
use wsmb_auth::{Permissions, RateRules};
use wsmb_core::broker;
use wsmb_core::network::Networks;
use wsmb_store::StoreSettings;

/// Settings of a server on a free port that keeps messages in memory and accepts anonymous clients.
pub(super) fn settings() -> Settings {
    Settings {
        listeners: vec![Listener { address: "127.0.0.1:0".to_owned(), tls: false, proxy_protocol: false }],
        tls: None,
        threads: 1,
        limits: ConnectionLimits {
            heartbeat: Duration::from_secs(25),
            max_message: wsmb_protocol::limits::MAX_MESSAGE,
            max_queue: wsmb_core::limits::QUEUE_BYTES,
            trust_fin: true,
            max_connections: 1_000,
            max_handshakes: 1_000,
            receiver_grace: Duration::from_secs(30),
        },
        drain: Duration::from_secs(10),
        broker: broker::Settings::default(),
        access: AccessSettings {
            admins: vec![],
            keys: vec![],
            token_key: None,
            htpasswd: vec![],
            users: vec![],
            anonymous: true,
            permissions: Permissions::default(),
            rates: RateRules::default(),
            trusted_proxies: Networks::default(),
            origins: vec![],
        },
        store: StoreChoice {
            settings: StoreSettings { url: "memory:".to_owned(), ..StoreSettings::default() },
            name: "memory:".to_owned(),
            ids: None,
            set_aside_damaged: false,
        },
        webhooks: vec![],
    }
}
