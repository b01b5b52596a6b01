//! The settings with which a server starts, and the part that a running server can take over. Plain values; the command line makes them from the
//! configuration.
//!
//! Never here: reading a file, the name of a configuration key, a default value that users see.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wsmb_auth::{Key, Permissions, RateRules};
use wsmb_core::broker;
use wsmb_core::message::ChannelName;
use wsmb_core::network::Networks;
use wsmb_core::policy::Policies;
use wsmb_protocol::origin::Origin;
use wsmb_store::StoreSettings;

/// Everything that a server needs to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The addresses to listen on; at least one.
    pub listeners: Vec<Listener>,
    /// The certificate of the listeners with TLS.
    pub tls: Option<TlsFiles>,
    /// How many loops, each on its own thread, serve sockets; at least 1.
    pub threads: u16,
    /// Limits for connections.
    pub limits: ConnectionLimits,
    /// How long an orderly stop may take.
    pub drain: Duration,
    /// Settings of the core, including the policies of channels.
    pub broker: broker::Settings,
    /// Who may connect and what they may do.
    pub access: AccessSettings,
    /// Where messages are kept.
    pub store: StoreChoice,
    /// Where the broker posts messages itself.
    pub webhooks: Vec<Webhook>,
}

/// Limits for each connection, and for the number of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Silence after which a client is pinged; zero: never.
    pub heartbeat: Duration,
    /// The largest frame payload of a client, in bytes.
    pub max_message: usize,
    /// Bytes queued for one connection at which it is ended as slow.
    pub max_queue: usize,
    /// The orderly end of a legacy connection may confirm the only message that it was given.
    pub trust_fin: bool,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Connections at the same time that are not authenticated yet.
    pub max_handshakes: usize,
    /// How long a named HTTP receiver keeps its place between two requests.
    pub receiver_grace: Duration,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `host:port`. Port 0 takes any free one.
    pub address: String,
    /// Every connection is encrypted. Needs [`Settings::tls`].
    pub tls: bool,
    /// Every connection begins with a PROXY protocol header, before its encryption.
    pub proxy_protocol: bool,
}

/// The files of TLS (PEM). They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of its issuers.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities that issue client certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// Who may connect, and what they may do.
#[derive(Clone)]
pub struct AccessSettings {
    /// htpasswd files, in the order in which they are searched.
    pub htpasswd: Vec<PathBuf>,
    /// Inline entries, `user:hash`, unchecked.
    pub users: Vec<String>,
    /// The users who are administrators.
    pub admins: Vec<String>,
    /// Clients without credentials are accepted, as the user with the empty name.
    pub anonymous: bool,
    /// The keys of applications that sign tokens.
    pub keys: Vec<Arc<Key>>,
    /// The file of the broker's own key for tokens. `None`: the broker issues no tokens.
    pub token_key: Option<PathBuf>,
    /// Who may use which channels.
    pub permissions: Permissions,
    /// How often users may publish and connect.
    pub rates: RateRules,
    /// The proxies whose client addresses are trusted.
    pub trusted_proxies: Networks,
    /// The origins of other hosts whose web pages may connect.
    pub origins: Vec<Origin>,
}

/// Shows the number of inline entries, not their hashes.
impl fmt::Debug for AccessSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessSettings")
            .field("htpasswd", &self.htpasswd)
            .field("users", &self.users.len())
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}

/// A URL to which the messages of channels are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The name in log lines. No two webhooks have the same.
    pub name: String,
    /// The channels.
    pub channels: Vec<ChannelName>,
    /// The host of the URL: a name, or an address without brackets.
    pub host: String,
    /// The port of the URL.
    pub port: u16,
    /// The path and the query of the URL.
    pub target: String,
    /// The URL is `https://`.
    pub is_encrypted: bool,
    /// A PEM file with the only certificates that are trusted; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// The keys of the signatures, the newest first.
    pub secrets: Vec<Vec<u8>>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Requests at the same time, at least 1.
    pub concurrency: usize,
    /// Addresses that are not reachable from the internet are allowed.
    pub allow_private: bool,
}

/// Hides the keys, and the path and the query of the URL.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).field("channels", &self.channels).finish_non_exhaustive()
    }
}

/// Where messages are kept.
#[derive(Clone, Debug)]
pub struct StoreChoice {
    /// How the store is opened.
    pub settings: StoreSettings,
    /// The store's URL as the log shows it, without secrets.
    pub name: String,
    /// The file of the ids of accepted publications; `None`: a restart forgets them.
    pub ids: Option<PathBuf>,
    /// A damaged store is renamed, and an empty store is created.
    pub set_aside_damaged: bool,
}

/// The settings that a running server can take over. All others need a restart.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The policy of each channel.
    pub policies: Policies,
    /// Who may connect and what they may do. Password files are read again.
    pub access: AccessSettings,
    /// The certificate. Without a listener with TLS it has no effect.
    pub tls: Option<TlsFiles>,
    /// Where the broker posts messages itself.
    pub webhooks: Vec<Webhook>,
    /// The keys that have also changed and need a restart, as the log names them.
    pub needs_restart: Vec<&'static str>,
}
