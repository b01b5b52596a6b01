//! How a store is named and opened: its URL, the prefix of its tables, its journal. Reads text; touches no file and no server.

use std::fmt;
use std::path::PathBuf;

use crate::columns::Columns;
use crate::error::StoreError;
use crate::limits;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreSettings {
    /// `sqlite:PATH`, `memory:`, `mysql://USER@HOST/DATABASE` or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// The password of a database server's user; goes before one in the URL.
    pub password: Option<String>,
    /// What the names of its tables begin with.
    pub prefix: String,
    /// User-defined columns. A `memory:` store has no use for them.
    pub columns: Columns,
    /// The budget of a `memory:` store, in bytes.
    pub memory: usize,
    /// What stands in front of a database server; other stores have no use for it. `None`: every commit waits for the server.
    pub journal: Option<JournalSettings>,
}

/// The local file in front of a database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Where it is.
    pub path: PathBuf,
    /// How large it may become, in bytes.
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
            memory: limits::MEMORY_STORE_BYTES,
            journal: None,
        }
    }
}

/// What is wrong with `memory:` wherever another process is to look.
pub(crate) const ONLY_THE_BROKER: &str = "is memory:, which only the broker itself can see";

/// What a store URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// This process.
    Memory,
    /// A database server.
    Server(Backend),
}

/// Which kind of database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

impl Backend {
    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::Postgres => "PostgreSQL",
        }
    }
}

impl Location {
    /// Reads a store URL. `sqlite:PATH` and `sqlite://PATH` are the same.
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
    /// Takes the prefix as it stands.
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

/// SQLite keeps names that begin so to itself.
fn reserved(prefix: &str) -> bool {
    prefix.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}
