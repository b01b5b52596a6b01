//! The valid configuration as plain data: one structure for each section, and the flags of the command line.
//!
//! This module must never parse or validate a value of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wsmb_core::network::Networks;
use wsmb_core::policy::Policies;
use wsmb_protocol::origin::Origin;

use crate::error::{ConfigError, Problem};
use crate::limits;
use crate::url::StoreUrl;
use crate::webhook::Webhook;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[tls]`
    pub tls: Tls,
    /// `[channel_defaults]` and `[[channel]]`
    pub policies: Policies,
    /// `[auth]` and `[[permission]]`
    pub auth: Auth,
    /// `[store]`
    pub store: Store,
    /// `[[webhook]]`
    pub webhooks: Vec<Webhook>,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Addresses to listen on, `host:port` or, with TLS, `tls://host:port`. Port 0 takes any free port. Empty if only `listeners` are configured.
    pub listen: Vec<String>,
    /// `[[listener]]`: further addresses with their own settings.
    pub listeners: Vec<Listener>,
    /// A connection without traffic for this long is sent a ping.
    pub heartbeat: Duration,
    /// The largest frame payload a client may send, in bytes.
    pub max_message: usize,
    /// The maximum number of concurrent connections.
    pub max_connections: usize,
    /// The maximum number of concurrent connections that are not authenticated yet.
    pub max_handshakes: usize,
    /// How long a named HTTP receiver keeps its place between two requests.
    pub receiver_grace: Duration,
    /// The number of threads that serve sockets.
    pub threads: usize,
    /// A connection with this many queued bytes is ended as slow.
    pub max_queue: usize,
    /// The memory that the broker may use, in bytes. `None`: a part of the machine's memory.
    pub memory_budget: Option<usize>,
    /// A receiver whose deliveries are unconfirmed for this long is ended.
    pub confirm_timeout: Duration,
    /// Whether the orderly end of a legacy connection may confirm its delivery, if it had only one.
    pub trust_fin: bool,
    /// The maximum duration of an orderly stop.
    pub drain: Duration,
    /// How long the `id` of a publication is remembered.
    pub dedup_window: Duration,
    /// The proxies whose statements about client addresses are trusted.
    pub trusted_proxies: Networks,
    /// The origins of web pages of other hosts that may connect.
    pub origins: Vec<Origin>,
}

impl Server {
    /// All addresses to listen on, those of `listen` first; at least one.
    #[must_use]
    pub fn all_listeners(&self) -> Vec<Listener> {
        let short = self.listen.iter().map(|text| {
            let (address, tls) =
                text.strip_prefix(TLS_PREFIX).map_or((text.as_str(), false), |address| (address, true));
            Listener { address: address.to_owned(), tls, proxy_protocol: false }
        });
        short.chain(self.listeners.iter().cloned()).collect()
    }
}

/// `[[listener]]`, or one address of `server.listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `host:port`.
    pub address: String,
    /// Whether every connection is encrypted, with the certificate of `[tls]`.
    pub tls: bool,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// What begins an address of `server.listen` with TLS.
pub(super) const TLS_PREFIX: &str = "tls://";

/// `[tls]`: PEM files. If a listener has TLS, certificate and key are present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, followed by those of its issuers.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
    /// The authorities that issue client certificates.
    pub client_ca: Option<PathBuf>,
}

/// `[auth]`, `[[permission]]` and `[[rate]]`
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// htpasswd files, in the order in which they are searched.
    pub htpasswd: Vec<PathBuf>,
    /// Inline entries, `user:hash`, not validated.
    pub users: Vec<String>,
    /// The users who are administrators.
    pub admins: Vec<String>,
    /// Whether connections without credentials are accepted.
    pub anonymous: bool,
    /// `[auth.groups]`: the names of groups, each with the patterns of its users.
    pub groups: BTreeMap<String, Vec<String>>,
    /// `[[auth.key]]`: the keys of applications that sign tokens.
    pub keys: Vec<TokenKey>,
    /// The file of the broker's own key for tokens. `None`: the broker issues no tokens.
    pub token_key: Option<PathBuf>,
    /// Which users may use which channels. If empty, all users may use all channels.
    pub permissions: Vec<Permission>,
    /// How often users may publish and connect. If empty, there are no limits.
    pub rates: Vec<Rate>,
}

/// Shows the number of inline entries instead of their hashes.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("htpasswd", &self.htpasswd)
            .field("users", &self.users.len())
            .field("admins", &self.admins)
            .field("anonymous", &self.anonymous)
            .field("groups", &self.groups)
            .field("keys", &self.keys)
            .field("token_key", &self.token_key)
            .field("permissions", &self.permissions)
            .field("rates", &self.rates)
            .finish()
    }
}

/// One `[[permission]]`. `send` and `receive` are patterns with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The users to whom the entry applies.
    pub who: Who,
    /// The channels that the users may send to.
    pub send: Vec<String>,
    /// The channels that the users may receive from.
    pub receive: Vec<String>,
}

/// The users to whom a `[[permission]]` applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// `user`, a pattern.
    User([String; 1]),
    /// `group`, with the patterns of its users.
    Group {
        /// The name of the group.
        name: String,
        /// Its users.
        users: Vec<String>,
    },
}

impl Who {
    /// The patterns of the users.
    #[must_use]
    pub fn users(&self) -> &[String] {
        match self {
            Self::User(user) => user,
            Self::Group { users, .. } => users,
        }
    }
}

/// The user or the group, as a message names it.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User([user]) => write!(f, "{user:?}"),
            Self::Group { name, .. } => write!(f, "the group {name:?}"),
        }
    }
}

/// One `[[auth.key]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The id that tokens name as `kid`.
    pub id: String,
    /// `HS256`, `ES256` or `EdDSA`.
    pub algorithm: &'static str,
    /// The secret or the public key.
    pub text: KeyText,
    /// The audience that tokens must name as `aud`.
    pub audience: Option<String>,
    /// The issuer that tokens must name as `iss`.
    pub issuer: Option<String>,
}

/// Where the text of a key is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyText {
    /// In the configuration.
    Text(String),
    /// In a file.
    File(PathBuf),
}

/// Hides the key.
impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(file) => write!(f, "File({})", file.display()),
        }
    }
}

impl TokenKey {
    /// Returns the text of the key. Blocks: the text may be in a file.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or is larger than [`limits::KEY_BYTES`].
    pub fn read(&self) -> Result<String, String> {
        let file = match &self.text {
            KeyText::Text(text) => return Ok(text.clone()),
            KeyText::File(file) => file,
        };
        let fail = |what: &dyn fmt::Display| format!("the key file {} {what}", file.display());
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .and_then(|file| file.take(limits::KEY_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| fail(&format_args!("cannot be read: {error}")))?;
        if bytes.len() as u64 > limits::KEY_BYTES {
            return Err(fail(&format_args!("is larger than {} bytes", limits::KEY_BYTES)));
        }
        String::from_utf8(bytes).map_err(|_| fail(&"is not UTF-8 text"))
    }
}

/// One `[[rate]]`: so many events in a period; `None`: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The users to whom the entry applies, a pattern with `*` and `?`.
    pub user: String,
    /// Messages that a user may publish.
    pub publish: Option<(u32, Duration)>,
    /// Connections that a user may make.
    pub connect: Option<(u32, Duration)>,
}

/// `[store]`
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    /// Where messages are kept.
    pub url: StoreUrl,
    /// The password of the database user. Takes precedence over `password_file`, and that over the password in the URL.
    pub password: Option<String>,
    /// The file whose first line is the password of the database user.
    pub password_file: Option<PathBuf>,
    /// Whether the configuration file itself contains a password, as a key or in the URL.
    pub has_secret_in_file: bool,
    /// The local journal in front of a database server; `None`: no journal.
    pub journal: Option<PathBuf>,
    /// The maximum size of the journal, in bytes.
    pub journal_max: u64,
    /// The maximum size of a SQLite file, in bytes. `None`: the disk keeps a reserve.
    pub max_size: Option<u64>,
    /// The file for the ids of accepted publications, used with a database server without a journal. `None`: ids are not stored.
    pub ids: Option<PathBuf>,
    /// The prefix of table names.
    pub prefix: String,
    /// Messages in one backlog frame.
    pub batch: usize,
    /// Pause between backlog frames.
    pub delay: Duration,
    /// How long a message in flight may stay in memory before it is written to the store.
    pub write_delay: Duration,
    /// User-defined columns: name and JSON pointer, in the order of the names.
    pub columns: Vec<(String, String)>,
    /// Whether a damaged store is renamed and a new one created. Has no key, only a flag, because it should apply to one start.
    pub set_aside_damaged: bool,
}

/// Hides the password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url)
            .field("password", &self.password.is_some())
            .field("password_file", &self.password_file)
            .field("journal", &self.journal)
            .field("journal_max", &self.journal_max)
            .field("max_size", &self.max_size)
            .field("ids", &self.ids)
            .field("prefix", &self.prefix)
            .field("batch", &self.batch)
            .field("delay", &self.delay)
            .field("write_delay", &self.write_delay)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Returns the password of the database user, unless it is in the URL: `store.password`, otherwise the first line of
    /// `store.password_file`. `None` for a store that is not a database server. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, its first line is longer than [`limits::PASSWORD_LINE_BYTES`], not UTF-8 or empty.
    pub fn read_password(&self) -> Result<Option<String>, ConfigError> {
        if self.url.server().is_none() {
            return Ok(None);
        }
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(file)) => read_password_file(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Returns the first line of the file, without its line end. Blocks.
///
/// # Errors
/// The file cannot be read, its first line is longer than [`limits::PASSWORD_LINE_BYTES`], not UTF-8 or empty.
pub fn read_password_file(path: &Path) -> Result<String, ConfigError> {
    let fail =
        |text: String| ConfigError(vec![Problem::of_file(&format!("the password file {}", path.display()), text)]);
    let written = |problem| fail(format!("{problem}; write the password of the database user in its first line"));
    match read_line(path).map_err(written)? {
        line if line.is_empty() => {
            Err(fail("has an empty first line; write the password of the database user there".to_owned()))
        }
        line => Ok(line),
    }
}

/// Returns the first line of a file that holds a secret, without its line end. An error is the end of a sentence about the file. Blocks.
pub(super) fn read_line(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::PASSWORD_LINE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    if line.len() as u64 > limits::PASSWORD_LINE_BYTES {
        return Err(format!("has a first line of more than {} bytes", limits::PASSWORD_LINE_BYTES));
    }
    String::from_utf8(line.to_vec()).map_err(|_| "is not UTF-8 text".to_owned())
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is logged.
    pub level: tracing::Level,
}

/// The flags of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`; may be given several times.
    pub listen: Vec<String>,
    /// `--store`, a store URL.
    pub store: Option<String>,
    /// `--set section.key=value`; may be given several times. The last value of a key is used.
    pub set: Vec<String>,
    /// `--data-dir`: replaces `wsmb-data` in the defaults.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Returns the keys with a different value in `new` that need a restart. All others can change while the broker runs: channel policies,
    /// users, groups, keys for tokens, permissions, rates, administrators, trusted proxies, origins, certificates, webhooks, the log level.
    #[must_use]
    pub fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        let (a, b) = (&self.server, &new.server);
        let (c, d) = (&self.store, &new.store);
        [
            ("server.listen", a.listen != b.listen),
            ("[[listener]]", a.listeners != b.listeners),
            ("server.heartbeat", a.heartbeat != b.heartbeat),
            ("server.max_message", a.max_message != b.max_message),
            ("server.max_connections", a.max_connections != b.max_connections),
            ("server.max_handshakes", a.max_handshakes != b.max_handshakes),
            ("server.receiver_grace", a.receiver_grace != b.receiver_grace),
            ("server.threads", a.threads != b.threads),
            ("server.max_queue", a.max_queue != b.max_queue),
            ("server.memory_budget", a.memory_budget != b.memory_budget),
            ("server.confirm_timeout", a.confirm_timeout != b.confirm_timeout),
            ("server.trust_fin", a.trust_fin != b.trust_fin),
            ("server.drain", a.drain != b.drain),
            ("server.dedup_window", a.dedup_window != b.dedup_window),
            ("auth.token_key", self.auth.token_key != new.auth.token_key),
            ("store.url", c.url != d.url),
            ("store.password", c.password != d.password),
            ("store.password_file", c.password_file != d.password_file),
            ("store.journal", c.journal != d.journal),
            ("store.journal_max", c.journal_max != d.journal_max),
            ("store.max_size", c.max_size != d.max_size),
            ("store.ids", c.ids != d.ids),
            ("store.prefix", c.prefix != d.prefix),
            ("store.batch", c.batch != d.batch),
            ("store.delay", c.delay != d.delay),
            ("store.write_delay", c.write_delay != d.write_delay),
            ("store.columns", c.columns != d.columns),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}
