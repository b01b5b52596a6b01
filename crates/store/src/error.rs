//! The errors of a store. Each text says what happened, on which store, and what to do.
//!
//! The texts never contain the content of a message or a password.

use std::fmt;
use std::io;

use crate::limits;
use crate::platform;
use wsmb_core::broker::StoreFailure;
use wsmb_core::message::MessageId;

/// The reason why a store could not be opened or an operation failed.
///
/// `place` is the file or the address of the server, for messages to an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `store.url` names no store. The text never contains the URL, which may hold a password.
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The URL is valid, but the program was built without support for this kind of store.
    NotBuilt {
        /// The name of the database product.
        backend: &'static str,
    },
    /// `store.prefix` contains a character that is not allowed in a table name, or is too long.
    BadPrefix {
        /// The configured prefix.
        prefix: String,
    },
    /// There is no store yet.
    Missing {
        /// Where.
        place: String,
    },
    /// Another broker has the store open.
    Locked {
        /// Where.
        place: String,
        /// The other broker, if known: `process 812 on pi`.
        holder: Option<String>,
    },
    /// A newer version of this program wrote the store.
    Newer {
        /// Where.
        place: String,
        /// The version of the store's layout.
        found: i64,
        /// The highest version that this program knows.
        known: i64,
    },
    /// A table has the configured name, but is not a message table.
    Schema {
        /// Where.
        place: String,
        /// The table.
        table: String,
        /// The missing column.
        column: &'static str,
    },
    /// A user-defined column does not fit the table.
    Column {
        /// Where.
        place: String,
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The problem and the remedy, as the rest of a sentence.
        problem: String,
    },
    /// The store can never hold these rows; it can hold other rows.
    Unfit {
        /// Where.
        place: String,
        /// The ids of the rows.
        ids: Vec<MessageId>,
        /// The reason, as the rest of a sentence that begins with "they".
        reason: String,
    },
    /// The database server refuses the login of the broker's user, or an operation that the broker needs.
    Denied {
        /// Where.
        place: String,
        /// In the words of the server.
        detail: String,
    },
    /// The database server cannot be reached or does not answer. A later attempt may succeed.
    Unreachable {
        /// Where.
        place: String,
        /// The message of the operating system or the server.
        detail: String,
    },
    /// The journal belongs to another database, and is not empty.
    JournalOfAnother {
        /// The journal's file.
        place: String,
        /// The address of that database.
        other: String,
        /// The number of messages in the journal.
        messages: u64,
    },
    /// The disk is full.
    Full {
        /// Where.
        place: String,
    },
    /// The store has reached its configured limit.
    OverBudget {
        /// Where.
        place: String,
    },
    /// The disk of the store has less space than the broker leaves free.
    LowDisk {
        /// Where.
        place: String,
        /// The free bytes.
        free: u64,
    },
    /// The operating system refused an operation on the store's file.
    System {
        /// Where.
        place: String,
        /// The operation that failed, as a participle: "written".
        doing: &'static str,
        /// The error number of the operating system.
        errno: i32,
    },
    /// Another program has locked the store.
    Busy {
        /// Where.
        place: String,
    },
    /// The store can be read but not written.
    ReadOnly {
        /// Where.
        place: String,
    },
    /// The content of the store is damaged.
    Damaged {
        /// Where.
        place: String,
        /// The message of the database.
        detail: String,
    },
    /// SQLite's write-ahead log has lost committed pages, and the loss has not been logged yet. A broker starts nevertheless.
    TornJournal {
        /// Where.
        place: String,
        /// The number of readable pages.
        readable: u32,
        /// The number of committed pages.
        committed: u32,
    },
    /// Any other error that keeps the store from working.
    Unavailable {
        /// Where.
        place: String,
        /// The message of the database or the operating system.
        detail: String,
    },
    /// A broker runs on the store, and a tool needs exclusive access.
    Served {
        /// Where.
        place: String,
        /// The broker, if known.
        holder: Option<String>,
    },
    /// The store is a journal, and the operation needs its database too.
    Journal {
        /// The journal's file.
        place: String,
        /// As an administrator knows it.
        database: String,
    },
}

impl StoreError {
    /// The error for a failed operation on a file. `doing` is the operation as a participle: "opened", "written".
    pub(crate) fn of_io(place: &str, doing: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::of_errno(place, doing, errno),
            None => Self::Unavailable { place: place.to_owned(), detail: error.to_string() },
        }
    }

    /// As [`Self::of_io`], for an error number of the operating system.
    pub(crate) fn of_errno(place: &str, doing: &'static str, errno: i32) -> Self {
        let place = place.to_owned();
        match platform::cause(errno) {
            Some(platform::Cause { name: "ENOSPC", .. }) => Self::Full { place },
            _ => Self::System { place, doing, errno },
        }
    }

    /// Whether a file is damaged, and not a table on a database server.
    #[must_use]
    pub fn is_damaged_file(&self) -> bool {
        matches!(self, Self::Damaged { place, .. } if !is_server(place))
    }

    /// The meaning of the error to the sender of a message.
    #[must_use]
    pub fn kind(&self) -> StoreFailure {
        match self {
            Self::OverBudget { .. } | Self::LowDisk { .. } => StoreFailure::Full,
            _ => StoreFailure::Unavailable,
        }
    }

    /// Whether the database is only unreachable, so that waiting may help. Other errors need an administrator.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// Whether the store is full. Then removals may succeed where new rows fail, and a small row that is written proves nothing.
    #[must_use]
    pub fn is_out_of_room(&self) -> bool {
        match self {
            Self::Full { .. } | Self::OverBudget { .. } | Self::LowDisk { .. } => true,
            Self::System { errno, .. } => platform::is_lack_of_room(*errno),
            _ => false,
        }
    }
}

impl StoreError {
    /// Formats errors that only occur on a database server, or that have a different remedy there.
    fn fmt_of_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { place, table, column, problem } => {
                write!(f, "the column {column} in the table {table} of {place} {problem}")
            }
            Self::Unfit { place, ids, reason } => {
                let count = ids.len();
                let messages = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
                write!(f, "{place} can't hold {messages}: they {reason}")
            }
            Self::Denied { place, detail } => write!(
                f,
                "the database {place} refuses the broker ({detail}); check user, password and rights in store.url and store.password_file"
            ),
            Self::Unreachable { place, detail } => {
                write!(
                    f,
                    "the database {place} can't be reached ({detail}); check that it runs and that store.url is right"
                )
            }
            Self::JournalOfAnother { place, other, messages } => write!(
                f,
                "the journal {place} still holds messages ({messages}) for {other}; start once with that store.url so that they are moved, \
                 or set another store.journal"
            ),
            Self::ReadOnly { place } => write!(
                f,
                "the database {place} is read-only; set store.url to a server that accepts writes, or end the read-only mode"
            ),
            Self::Damaged { place, detail } => {
                write!(f, "a table of {place} is damaged ({detail}); repair it, or restore a backup")
            }
            _ => Ok(()),
        }
    }
}

impl StoreError {
    /// Formats errors of a file.
    fn fmt_of_file(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { place } => write!(f, "the store {place} is full; free space there, or give it a larger place"),
            Self::OverBudget { place } => {
                write!(
                    f,
                    "the store {place} has reached its size limit; let receivers confirm messages, or raise store.max_size \
                     (of a journal store.journal_max; memory: has a fixed limit)"
                )
            }
            Self::LowDisk { place, free } => write!(
                f,
                "the disk of the store {place} has {} MiB left, a reserve that the broker leaves free; free space there, let receivers confirm messages, or \
                 set store.max_size",
                free >> 20
            ),
            Self::System { place, doing, errno } => match platform::cause(*errno) {
                Some(platform::Cause { name, meaning, remedy }) => {
                    write!(f, "the store {place} could not be {doing}: {meaning} ({name}); {remedy}")
                }
                None => {
                    let cause = std::io::Error::from_raw_os_error(*errno);
                    write!(
                        f,
                        "the store {place} could not be {doing}: {cause}; check that place and the rights of the broker's user"
                    )
                }
            },
            Self::Busy { place } => {
                write!(
                    f,
                    "another program has locked the store {place}; stop that program, or wait until it has finished"
                )
            }
            Self::ReadOnly { place } => write!(
                f,
                "the store {place} can't be written; make the file, its directory and its file system writable for the broker's user"
            ),
            Self::Damaged { place, detail } => write!(
                f,
                "the store {place} is damaged ({detail}); restore a backup, or start once with `wsmb serve --set-aside-damaged`, \
                 which renames its files and creates a new store"
            ),
            Self::TornJournal { place, readable, committed } => write!(
                f,
                "the journal {place}-wal is damaged: {committed} pages were committed to it and {readable} can be read, so the last accepted messages \
                 may be lost, and confirmed messages may be delivered again; check the disk and which programs change these files; \
                 the start of the broker keeps a copy of the journal and continues with the rest"
            ),
            Self::Unavailable { place, detail } => {
                write!(
                    f,
                    "the store {place} can't be used ({detail}); check that place and the rights of the broker's user"
                )
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl { reason } => {
                write!(f, "store.url {reason}; set it to sqlite:PATH, mysql://…, postgres://… or memory:")
            }
            Self::NotBuilt { backend } => {
                write!(f, "this build has no {backend} support; set store.url to sqlite:PATH")
            }
            Self::BadPrefix { prefix } => write!(
                f,
                "store.prefix {prefix:?} can't begin a table name; use at most {} letters, digits and underscores",
                limits::STORE_PREFIX_CHARS
            ),
            Self::Missing { place } => {
                write!(f, "there is no store at {place}; check store.url, or start the broker once to make it")
            }
            Self::Locked { place, holder } => {
                write!(f, "the store {place} is in use by another broker")?;
                if let Some(holder) = holder {
                    write!(f, " ({holder})")?;
                }
                f.write_str("; stop that broker, or set another store.url")
            }
            Self::Newer { place, found, known } => write!(
                f,
                "the store {place} has layout {found}, and this version knows layouts up to {known}; \
                 start a newer version, or set another store.url"
            ),
            Self::Schema { place, table, column } => write!(
                f,
                "the table {table} in {place} has no column {column}, so it is not a message table; change store.prefix or store.url"
            ),
            Self::Column { .. }
            | Self::Unfit { .. }
            | Self::Denied { .. }
            | Self::Unreachable { .. }
            | Self::JournalOfAnother { .. } => self.fmt_of_server(f),
            Self::ReadOnly { place } | Self::Damaged { place, .. } if is_server(place) => self.fmt_of_server(f),
            Self::Served { place, holder } => {
                write!(f, "the store {place} is in use by a broker")?;
                if let Some(holder) = holder {
                    write!(f, " ({holder})")?;
                }
                f.write_str("; stop the broker first, because this command needs the store for itself")
            }
            Self::Journal { place, database } => write!(
                f,
                "{place} is the journal in front of {database}; use the database as the store, and name the journal with store.journal"
            ),
            _ => self.fmt_of_file(f),
        }
    }
}

/// Whether the place is the address of a database server.
fn is_server(place: &str) -> bool {
    place.contains("://")
}

impl std::error::Error for StoreError {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_system_has_its_own_sentence() {
        let numbers = [
            libc::EIO,
            libc::EROFS,
            libc::EACCES,
            libc::EMFILE,
            libc::ENFILE,
            libc::EDQUOT,
            libc::EFBIG,
            libc::ENOENT,
            libc::EEXIST,
            libc::EISDIR,
            libc::ENOMEM,
            libc::ESTALE,
            libc::ENODEV,
            libc::ENOSPC,
        ];
        let of_errno = |errno| StoreError::of_errno("a.db", "written", errno);
        let said: std::collections::BTreeSet<String> =
            numbers.iter().map(|errno| of_errno(*errno).to_string()).collect();
        assert_eq!(said.len(), numbers.len());
        assert!(said.iter().all(|said| said.contains("a.db")));
        let dying = of_errno(libc::EIO).to_string();
        assert!(dying.contains("EIO") && dying.contains("dmesg") && !dying.contains("full"), "{dying}");
        let unknown = of_errno(libc::ELOOP).to_string();
        assert!(unknown.contains(&format!("os error {}", libc::ELOOP)), "{unknown}");
        assert!(matches!(of_errno(libc::ENOSPC), StoreError::Full { .. }));
    }

    #[test]
    fn lack_of_room_is_told_from_other_trouble() {
        for (errno, expected) in [(libc::EDQUOT, true), (libc::EFBIG, true), (libc::EIO, false), (libc::EACCES, false)]
        {
            assert_eq!(StoreError::of_errno("a.db", "written", errno).is_out_of_room(), expected, "{errno}");
        }
    }
}
