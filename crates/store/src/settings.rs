//! The settings of a store: URL, table prefix, journal. Parses text; never opens a file or contacts a server.

use std::fmt;
use std::path::PathBuf;

use crate::columns::Columns;
use crate::error::StoreError;
use crate::limits;

/// The settings with which a store is opened.
#[derive(Clone)]
pub struct StoreSettings {
    /// `sqlite:PATH`, `memory:`, `mysql://USER@HOST/DATABASE` or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// The password of the database server's user; takes precedence over a password in the URL.
    pub password: Option<String>,
    /// The prefix of the table names.
    pub prefix: String,
    /// User-defined columns. A `memory:` store ignores them.
    pub columns: Columns,
    /// The maximum size of a SQLite file, in bytes. `None`: the disk keeps a reserve ([`limits::DISK_RESERVE_BYTES`]).
    pub max_size: Option<u64>,
    /// The budget of a `memory:` store, in bytes.
    pub memory: usize,
    /// The journal in front of a database server; other stores ignore it. `None`: every commit waits for the server.
    pub journal: Option<JournalSettings>,
}

/// The journal: a local file in front of a database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// The path of the file.
    pub path: PathBuf,
    /// The maximum size of the file, in bytes.
    pub bytes: u64,
}

/// Without the URL and the password.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: "sqlite:wsmb-data/wsmb.db".to_owned(),
            password: None,
            prefix: "mq_".to_owned(),
            columns: Columns::default(),
            max_size: None,
            memory: limits::MEMORY_STORE_BYTES,
            journal: None,
        }
    }
}

impl StoreSettings {
    /// Returns the limit for new rows of a SQLite file.
    pub(crate) fn limit(&self) -> SizeLimit {
        self.max_size.map_or(SizeLimit::DiskReserve, SizeLimit::Bytes)
    }
}

/// The limit for new rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeLimit {
    /// The most bytes that the pages in use of the file may take.
    Bytes(u64),
    /// The disk keeps a reserve: [`limits::DISK_RESERVE_PERCENT`] of its size, at most [`limits::DISK_RESERVE_BYTES`].
    DiskReserve,
}

/// The problem of `memory:` for every other process.
pub(crate) const ONLY_THE_BROKER: &str = "is memory:, which only the broker itself can see";

/// The kind of store that a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// The memory of this process.
    Memory,
    /// A database server.
    Server(Backend),
}

/// The kind of a database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

impl Backend {
    /// The product's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::Postgres => "PostgreSQL",
        }
    }
}

impl Location {
    /// Parses a store URL. `sqlite:PATH` and `sqlite://PATH` are the same.
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        let bad = |reason: &str| Err(StoreError::BadUrl { reason: reason.to_owned() });
        let Some((scheme, rest)) = url.split_once(':') else {
            return bad("has no scheme");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => bad("names no file after sqlite:"),
                path if path.starts_with(':') => bad("names no file after sqlite:"),
                path if path.contains('\0') => bad("has a NUL character in it"),
                path => Ok(Self::Sqlite(PathBuf::from(path))),
            },
            "memory" if rest.trim_start_matches('/').is_empty() => Ok(Self::Memory),
            "memory" => bad("has something after memory:, which takes nothing"),
            "mysql" | "mariadb" => Ok(Self::Server(Backend::MySql)),
            "postgres" | "postgresql" => Ok(Self::Server(Backend::Postgres)),
            _ => bad("has a scheme that this broker does not know"),
        }
    }
}

/// A valid table prefix: letters, digits and underscores, at most [`limits::STORE_PREFIX_CHARS`]. May be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Validates a prefix.
    ///
    /// # Errors
    /// [`StoreError::BadPrefix`].
    pub fn parse(prefix: &str) -> Result<Self, StoreError> {
        let allowed = prefix.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
        if prefix.len() > limits::STORE_PREFIX_CHARS || !allowed || reserved(prefix) {
            return Err(StoreError::BadPrefix { prefix: prefix.to_owned() });
        }
        Ok(Self(prefix.to_owned()))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SQLite reserves names with this prefix.
fn reserved(prefix: &str) -> bool {
    prefix.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}
