//! Where kept messages live while nobody has received them.
//!
//! ```text
//! caller ─► StoreWorker ─► Queue ─► (one thread) ─► Background: sqlite | memory | a database server, with a journal or without
//!                 ▲                                     │
//!                 └────────────── Outcome ◄─────────────┘
//! ```
//!
//! [`MessageStore`] is what every store does with rows, [`Background`] what a running broker has done beside that, [`Tools`] what an administrator does.
//! A store knows messages and nothing of receivers, connections or policies; it never decides what
//! becomes of a message, never reads a clock, and no SQL in it is ever built from what a client sent.

mod aside;
mod columns;
mod copy;
mod datetime;
mod error;
mod ids;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod journal;
pub mod limits;
mod lock;
mod look;
mod memory;
#[cfg(test)]
mod mortal;
mod publications;
mod requeue;
mod restamp;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sql;
mod sqlite;
mod system;
mod tools;
mod worker;

pub use aside::set_aside;
pub use columns::{BadColumn, ColumnValue, Columns};
pub use copy::{Copied, CopyError, CopyOptions, Progress, copy};
pub use error::{FailureKind, StoreError};
pub use ids::{FoundIds, IdFile, ids_beside};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use journal::JournaledStore;
pub use look::{Look, look, starts_without_database};
pub use memory::MemoryStore;
pub use publications::StoredPublication;
pub use requeue::{Requeue, RequeueError, Requeued, Stay};
pub use restamp::{CLOCK, Restamp};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use sql::SqlStore;
pub use sqlite::SqliteStore;
pub use tools::{ChannelInfo, StoppedStore, Tools};
pub use worker::{Outcome, StoreWorker};

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::task::Waker;
use std::time::Duration;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use journal::Direct;
use publications::FoundPublications;
use restamp::{expiry_span, shift, surplus};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What one transaction does: all of it or nothing. Its meaning is that of carrying out the lists in this order.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// New rows. One whose id is there already replaces it: a row may be written again after a failure that left its fate open.
    pub appends: Vec<Message>,
    /// Rows that go. One that is not there is no error.
    pub removals: Vec<MessageId>,
    /// How often rows have been delivered. One that is not there is no error.
    pub deliveries: Vec<(MessageId, u32)>,
    /// What a tool, or the broker, remembers in the store, by name: it replaces what was remembered before. Names are the program's own, of at most 64 ASCII
    /// characters, and begin with the tool's (`copy.…`) or `clock.`, so that they meet none of the store's own notes; values are at most `i64::MAX`.
    pub marks: Vec<(String, u64)>,
}

impl Group {
    /// There is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.removals.is_empty() && self.deliveries.is_empty() && self.marks.is_empty()
    }

    /// Takes these out of the new rows, and says which of them were there.
    pub(crate) fn without(&mut self, ids: &[MessageId]) -> Vec<MessageId> {
        let ids: HashSet<MessageId> = ids.iter().copied().collect();
        self.appends.extract_if(.., |message| ids.contains(&message.id)).map(|message| message.id).collect()
    }
}

/// What a sweep has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// These were expired, and are gone.
    pub gone: Vec<(MessageId, ChannelName)>,
    /// These are expired, and are still there. No further one is read once they, and what went between them, have more than [`wsmb_core::limits::PAGE_BYTES`].
    pub spared: Vec<Message>,
    /// There may be further ones that the next sweep finds.
    pub more: bool,
}

/// Where a sweep goes on: behind the last row that the one before it has read. `None`: it begins anew.
type SweptTo = Option<(Timestamp, MessageId)>;

/// A part of a channel's backlog, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids.
    pub messages: Vec<Message>,
    /// Nothing of what was asked for lies behind them.
    pub complete: bool,
}

/// One channel's backlog, without the messages that have a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub channel: ChannelName,
    /// How many messages.
    pub messages: u64,
    /// The highest id among them.
    pub last: MessageId,
}

/// What a store holds when the broker starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every channel with a backlog, in the order of their names.
    pub channels: Vec<ChannelSummary>,
    /// When the messages of these backlogs expire, and how many then, each moment standing for a span from it on; a bounded number for each channel.
    pub expiries: Vec<(ChannelName, Timestamp, u64)>,
    /// The messages with a due time, past or future, in the order of their ids; at most [`wsmb_core::limits::DELAYED`].
    pub delayed: Vec<Message>,
    /// The publications with ids of stored messages created since the time asked for, oldest first, each once in its channel; at most
    /// [`wsmb_core::limits::DEDUP_IDS`].
    pub publications: Vec<StoredPublication>,
    /// The highest id ever stored.
    pub last_id: MessageId,
    /// The broker before this one stopped in an orderly way ([`MessageStore::mark_clean`]), or there was none.
    pub clean: bool,
}

/// A place where messages survive. Called from one thread only, and may block it.
///
/// Whatever it returns an error for has not happened, or not wholly, and may be asked for again. An implementation recovers by itself: when the
/// cause of a failure is gone (room on the disk, a lock released, a server back), the next call works.
pub trait MessageStore: Send {
    /// What is there at start-up; ids of publications only from rows created at `publications_since` or later.
    ///
    /// # Errors
    /// If the store can't be read.
    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError>;

    /// Carries out a group and makes it durable.
    ///
    /// # Errors
    /// Then nothing of the group is in the store.
    fn commit(&mut self, group: &Group) -> Result<(), StoreError>;

    /// The messages of `channel` without a due time and with an id above `after`, in the order of ids: at most `limit` of them, and no further one
    /// once they have more than `max_bytes` of payload.
    ///
    /// # Errors
    /// If the store can't be read.
    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError>;

    /// Every message, of whatever channel, due or not, with an id above `after`, in the order of ids: at most `limit` of them, and no further one
    /// once they have more than `max_bytes` of payload.
    ///
    /// # Errors
    /// If the store can't be read.
    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError>;

    /// What [`Group::marks`] last said under this name.
    ///
    /// # Errors
    /// If the store can't be read.
    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Removes at most `limit` messages of `channel`, due or not, with ids up to `up_to`, and says how many; fewer than `limit` means that none
    /// is left.
    ///
    /// # Errors
    /// Then none is removed.
    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError>;

    /// The last call of an orderly stop: everything is in the store and every `deliveries` in it is true. Opening takes the mark away.
    ///
    /// # Errors
    /// If the mark could not be written; the next start then takes the stop for a crash, which costs marks of redelivery and nothing else.
    fn mark_clean(&mut self) -> Result<(), StoreError>;
}

/// What a running broker has its store do beside reading and writing messages.
pub trait Background: MessageStore {
    /// Whether [`MessageStore::load`], asked the same, would answer without waiting for another machine. If not, it is being fetched from there, and the
    /// waker of [`Self::advance`] is called when asking again may say yes.
    fn prepare(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> bool {
        let _ = (channel, after, limit, max_bytes);
        true
    }

    /// Goes on with what a store does in the background (a journal that moves its rows to a database), for a bounded time. `waker` is called, from any
    /// thread, when there is more to do; the answer says after what time at the latest. A store without a background has nothing to do.
    fn advance(&mut self, waker: &Waker) -> Option<Duration> {
        let _ = waker;
        None
    }

    /// Looks at messages without a due time that are expired at `now` (`expires <= now`), at most `limit`, those first that expired first: removes and names
    /// them, but reads those whose channels are spared, and leaves them. Each call goes on behind what the last one has read, until one has come to
    /// the end (`!more`); the next one begins anew.
    ///
    /// # Errors
    /// Then none is removed.
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError>;

    /// Moves the times of rows that a wrong clock has made. A second call with the same token does nothing, so that one whose answer was lost may be
    /// made again.
    ///
    /// # Errors
    /// Then none is moved.
    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError>;

    /// Takes rows up to the id `up_to` that expire or are due, and whose `created` lies in the future, as created `now`: what is left of their time is
    /// what they had of it in all. For the start, before anything else is asked for.
    ///
    /// # Errors
    /// Then none is changed.
    fn rejuvenate(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError>;

    /// Whether it can be written now, by writing something small that leaves no trace.
    ///
    /// # Errors
    /// It can't, and this is why.
    fn check(&mut self) -> Result<(), StoreError>;

    /// Called about once a second: housekeeping of bounded length.
    ///
    /// # Errors
    /// If the store can't be used; nothing is lost by it.
    fn tend(&mut self) -> Result<(), StoreError>;
}

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

/// Opens the store that the settings name; makes it if there is none.
///
/// # Errors
/// [`StoreError`] says what is wrong and what to do.
pub fn open(settings: &StoreSettings) -> Result<Box<dyn Background>, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Place::parse(&settings.url)? {
        Place::Sqlite(path) => Ok(Box::new(SqliteStore::open(&path, &prefix, &settings.columns)?)),
        Place::Memory => Ok(Box::new(MemoryStore::new(settings.memory))),
        Place::Server(backend) => open_server(backend, settings, &prefix),
    }
}

/// Opens a store for a tool that needs it for itself: nothing happens in the background, and what stands in a journal stands in the database at once, as
/// far as it can.
///
/// # Errors
/// As [`open`]; a `memory:` store is only the broker's own.
fn open_for_tool(settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    match Place::parse(&settings.url)? {
        Place::Memory => Err(StoreError::BadUrl { reason: ONLY_THE_BROKER.to_owned() }),
        Place::Sqlite(_) => Ok(open(settings)?),
        Place::Server(backend) => open_server_for_tool(backend, settings),
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn open_server_for_tool(backend: Backend, settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    let place = server_place(backend, &settings.url, &prefix)?;
    let server = open(&StoreSettings { journal: None, ..settings.clone() })?;
    Direct::open(server, settings.journal.as_ref(), &prefix, &place)
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
fn open_server_for_tool(backend: Backend, _settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn open_server(backend: Backend, settings: &StoreSettings, prefix: &Prefix) -> Result<Box<dyn Background>, StoreError> {
    let StoreSettings { url, password, columns, .. } = settings.clone();
    let place = server_place(backend, &url, prefix)?;
    let prefix_of_tables = prefix.clone();
    let open = move || -> Result<Box<dyn Background>, StoreError> {
        Ok(Box::new(SqlStore::open(backend, &url, password.as_deref(), &prefix_of_tables, &columns)?))
    };
    match &settings.journal {
        None => open(),
        Some(journal) => Ok(Box::new(JournaledStore::open(journal, prefix, &place, Box::new(open))?)),
    }
}

/// The database that a URL names, without secrets, as an administrator knows it.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn server_place(backend: Backend, url: &str, prefix: &Prefix) -> Result<String, StoreError> {
    SqlStore::place(backend, url, prefix)
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
fn open_server(
    backend: Backend,
    _settings: &StoreSettings,
    _prefix: &Prefix,
) -> Result<Box<dyn Background>, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
fn server_place(backend: Backend, _url: &str, _prefix: &Prefix) -> Result<String, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}

/// What is wrong with `memory:` wherever another process is to look.
const ONLY_THE_BROKER: &str = "is memory:, which only the broker itself can see";

/// What a store URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
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

impl Place {
    /// Reads a store URL. `sqlite:PATH` and `sqlite://PATH` are the same.
    fn parse(url: &str) -> Result<Self, StoreError> {
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

/// The path of the file beside another one whose name ends like this: `wsmb.db` and `.ids` are `wsmb.db.ids`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the name of a new or renamed file or directory durable: a power cut can't take it back. Where a directory can't be opened, the system does without.
fn sync_directory(path: &Path) {
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
}

/// SQLite keeps names that begin so to itself.
fn reserved(prefix: &str) -> bool {
    prefix.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}

#[cfg(test)]
mod tests;
