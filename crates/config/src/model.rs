//! The valid configuration: one structure for each section, and what the command line sets.
//!
//! Plain values. Never here: how a value is read, or which problems there are with it.

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

/// Everything that can be configured, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[channel_defaults]` and `[[channel]]`
    pub policies: Policies,
    /// `[auth]` and `[[permission]]`
    pub auth: Auth,
    /// `[store]`
    pub store: Store,
    /// `[log]`
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Addresses to listen on, `host:port`. Port 0 takes any free one. Empty if there are `listeners` only.
    pub listen: Vec<String>,
    /// `[[listener]]`: further addresses, with what holds for each.
    pub listeners: Vec<Listener>,
    /// Silence after which a connection is asked whether it still lives.
    pub heartbeat: Duration,
    /// The largest frame payload a client may send, in bytes.
    pub max_message: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once that are not authenticated yet.
    pub max_handshakes: usize,
    /// How many threads serve sockets.
    pub threads: usize,
    /// Bytes queued for one connection at which it is ended as slow.
    pub max_queue: usize,
    /// A receiver whose deliveries are unconfirmed for so long is ended.
    pub confirm_timeout: Duration,
    /// The orderly end of a legacy connection may confirm the only delivery that it ever had.
    pub trust_fin: bool,
    /// How long an orderly stop may take.
    pub drain: Duration,
    /// How long the `id` of a publication is remembered.
    pub dedup_window: Duration,
    /// The proxies that are believed when they name a client.
    pub trusted_proxies: Networks,
    /// The web pages of other hosts that may connect.
    pub origins: Vec<Origin>,
}

impl Server {
    /// Every address to listen on, those of `listen` first; at least one.
    #[must_use]
    pub fn all_listeners(&self) -> Vec<Listener> {
        let plain = self.listen.iter().map(|address| Listener { address: address.clone(), proxy_protocol: false });
        plain.chain(self.listeners.iter().cloned()).collect()
    }
}

/// `[[listener]]`, or one address of `server.listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `host:port`.
    pub address: String,
    /// Every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// `[auth]` and `[[permission]]`
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// htpasswd files, in the order in which they are searched.
    pub htpasswd: Vec<PathBuf>,
    /// Inline entries, `user:hash`, unchecked.
    pub users: Vec<String>,
    /// The users who are administrators.
    pub admins: Vec<String>,
    /// Whether connections without credentials are taken.
    pub anonymous: bool,
    /// Who may use which channels; empty = everybody all.
    pub permissions: Vec<Permission>,
}

/// The number of inline entries, not their hashes.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("htpasswd", &self.htpasswd)
            .field("users", &self.users.len())
            .field("admins", &self.admins)
            .field("anonymous", &self.anonymous)
            .field("permissions", &self.permissions)
            .finish()
    }
}

/// One `[[permission]]`; all are patterns with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The users it is for.
    pub user: String,
    /// The channels they may send to.
    pub send: Vec<String>,
    /// The channels they may receive from.
    pub receive: Vec<String>,
}

/// `[store]`
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    /// Where messages are kept.
    pub url: StoreUrl,
    /// The password of the database server's user; goes before the file and before one in the URL.
    pub password: Option<String>,
    /// The file whose first line is that password.
    pub password_file: Option<PathBuf>,
    /// A password stands in the configuration file itself, as a key or in the URL.
    pub has_secret_in_file: bool,
    /// The local file in front of a database server; `None` = none.
    pub journal: Option<PathBuf>,
    /// How large the journal may become, in bytes.
    pub journal_max: u64,
    /// The file of the ids of accepted publications, if the store is a database server without a journal; `None`: none is kept.
    pub ids: Option<PathBuf>,
    /// In front of the names of tables.
    pub prefix: String,
    /// Messages in one backlog frame.
    pub batch: usize,
    /// Pause between backlog frames.
    pub delay: Duration,
    /// How long a message in flight may stay unwritten.
    pub write_delay: Duration,
    /// User-defined fields: column and JSON pointer, in the order of the column names.
    pub columns: Vec<(String, String)>,
    /// A damaged store gets another name and a new one is made. No key: asked for on the command line, once.
    pub set_aside_damaged: bool,
}

/// Whether there is a password, not which.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url)
            .field("password", &self.password.is_some())
            .field("password_file", &self.password_file)
            .field("journal", &self.journal)
            .field("journal_max", &self.journal_max)
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
    /// The password of the database server's user, as far as it does not stand in the URL: `store.password`, else the first line of
    /// `store.password_file`. A store that is no server has none. Blocks.
    ///
    /// # Errors
    /// If there is such a file and it can't be read, or its first line is empty.
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

/// The first line of the file, without its end. Blocks.
///
/// # Errors
/// If the file can't be read, is too long, no text, or its first line is empty.
pub fn read_password_file(path: &Path) -> Result<String, ConfigError> {
    let fail =
        |text: String| ConfigError(vec![Problem::of_file(&format!("the password file {}", path.display()), text)]);
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(limits::PASSWORD_LINE + 1).read_to_end(&mut bytes)).map_err(
        |error| fail(format!("cannot be read: {error}; write the password of the database user in its first line")),
    )?;
    let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    if line.len() as u64 > limits::PASSWORD_LINE {
        return Err(fail(format!("has a first line of more than {} bytes", limits::PASSWORD_LINE)));
    }
    match std::str::from_utf8(line) {
        Ok("") => Err(fail("has an empty first line, where the password of the database user belongs".to_owned())),
        Ok(line) => Ok(line.to_owned()),
        Err(_) => Err(fail("is not UTF-8 text".to_owned())),
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is logged.
    pub level: tracing::Level,
}

/// What the command line sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--listen`, as often as given.
    pub listen: Vec<String>,
    /// `--store`, a store URL.
    pub store: Option<String>,
    /// `--set section.key=value`, as often as given; the last of two for one key counts.
    pub set: Vec<String>,
    /// `--data-dir`: in place of `wsmb-data` in the defaults.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// The keys in which `new` differs and which only a restart takes over. All others can be taken over while the broker runs:
    /// channel policies, users, permissions, administrators, trusted proxies, origins, the log level.
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
            ("server.threads", a.threads != b.threads),
            ("server.max_queue", a.max_queue != b.max_queue),
            ("server.confirm_timeout", a.confirm_timeout != b.confirm_timeout),
            ("server.trust_fin", a.trust_fin != b.trust_fin),
            ("server.drain", a.drain != b.drain),
            ("server.dedup_window", a.dedup_window != b.dedup_window),
            ("store.url", c.url != d.url),
            ("store.password", c.password != d.password),
            ("store.password_file", c.password_file != d.password_file),
            ("store.journal", c.journal != d.journal),
            ("store.journal_max", c.journal_max != d.journal_max),
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
