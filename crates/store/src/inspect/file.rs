//! One file of SQLite, seen from outside: a store, or a journal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{ANSWER_POLL, ChannelInfo, Purged};
use crate::limits;
use crate::lock::StoreLock;
use crate::sqlite::{Sql, Tables, classify, exists, row, settle, torn, wal};
use crate::{Columns, PURGE, Page, Prefix, StoreError};
use wsmb_core::message::{ChannelName, MessageId};

/// What a journal knows better than the database behind it.
#[cfg(any(feature = "mysql", feature = "postgres"))]
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// Messages that are gone.
    pub(super) gone: std::collections::HashSet<MessageId>,
    /// How often messages were delivered.
    pub(super) counts: std::collections::HashMap<MessageId, u32>,
    /// Channels that are empty up to an id.
    pub(super) emptied: std::collections::HashMap<ChannelName, MessageId>,
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
impl FileView {
    /// Of a journal: what the database is still to forget or to correct.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn debts(&self) -> Result<Debts, StoreError> {
        let prefix = self.tables.data.strip_suffix("data").unwrap_or_default();
        let read = || -> rusqlite::Result<Debts> {
            let mut debts = Debts::default();
            let mut statement =
                self.connection.prepare(&format!("SELECT data_id, deliveries FROM \"{prefix}owed\""))?;
            let mut rows = statement.query([])?;
            while let Some(found) = rows.next()? {
                let Some(id) = row::id(found, 0)? else { continue };
                match found.get::<_, Option<u32>>(1)? {
                    None => drop(debts.gone.insert(id)),
                    Some(count) => drop(debts.counts.insert(id, count)),
                }
            }
            let mut statement = self.connection.prepare(&format!("SELECT channel, up_to FROM \"{prefix}empty\""))?;
            let mut rows = statement.query([])?;
            while let Some(found) = rows.next()? {
                debts.emptied.extend(row::channel(found, 0)?.zip(row::id(found, 1)?));
            }
            Ok(debts)
        };
        read().map_err(|error| classify(&self.place, &error))
    }

    /// Every message's id.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn ids(&self) -> Result<Vec<MessageId>, StoreError> {
        let query = format!("SELECT data_id FROM \"{}\" WHERE data_id > 0 ORDER BY data_id", self.tables.data);
        let read = || -> rusqlite::Result<Vec<MessageId>> {
            let mut statement = self.connection.prepare(&query)?;
            let found = statement.query_map([], |found| row::id(found, 0))?;
            Ok(found.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        read().map_err(|error| classify(&self.place, &error))
    }
}

fn connect(path: &Path, place: &str, flags: OpenFlags) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        // A tool has more patience than a broker.
        connection.busy_timeout(4 * limits::STORE_BUSY)?;
        connection.pragma_update(None, "cache_size", -limits::STORE_CACHE_KIB)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| classify(place, &error))
}

/// A file that is looked into.
#[derive(Debug)]
pub(super) struct FileView {
    path: PathBuf,
    place: String,
    tables: Tables,
    sql: Sql,
    /// Read-only.
    connection: Connection,
}

impl FileView {
    /// Opens the file for a look.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none or it is no store, [`StoreError::Newer`], or whatever keeps it from being read.
    pub(super) fn open(path: &Path, prefix: &Prefix) -> Result<Self, StoreError> {
        let missing = StoreError::Missing { place: path.display().to_string() };
        let path = settle(path).ok().filter(|path| path.exists()).ok_or_else(|| missing.clone())?;
        let tables = Tables::new(prefix);
        let place = path.display().to_string();
        // To look is to have SQLite tidy up, and then nobody can tell any more. Whether a broker's journal is whole, the broker knows.
        if StoreLock::holder(&path).is_none()
            && let Ok(Some(loss)) = wal::loss(&path)
        {
            return Err(torn(&path, loss));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(&path, &place, flags)?;
        tables.check_layout(&connection, &place)?;
        if !exists(&connection, &tables.meta).map_err(|error| classify(&place, &error))? {
            return Err(missing);
        }
        let sql = Sql::new(&tables, &Columns::default());
        Ok(Self { path, place, tables, sql, connection })
    }

    /// The file, as an administrator knows it.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Which database the file is a journal of.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn database(&self) -> Result<Option<String>, StoreError> {
        let query = format!("SELECT value FROM \"{}\" WHERE name = 'database'", self.tables.meta);
        let found = self.connection.query_row(&query, [], |found| Ok(row::text(found.get_ref(0)?))).optional();
        found.map(Option::flatten).map_err(|error| classify(&self.place, &error))
    }

    /// Which broker runs on the store.
    pub(super) fn holder(&self) -> Option<String> {
        StoreLock::holder(&self.path)
    }

    /// Looks several times at the file as it is at one moment: a broker that moves rows meanwhile is not seen half way.
    ///
    /// # Errors
    /// Those of `look`, or if the file can't be read.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn at_once<T>(&self, look: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let moment = self.connection.unchecked_transaction().map_err(|error| classify(&self.place, &error))?;
        let seen = look(self);
        // It has only read: there is nothing to keep.
        drop(moment);
        seen
    }

    /// Every channel with a backlog, by name. Reads the whole table.
    ///
    /// # Errors
    /// If the store can't be read.
    pub(super) fn channels(&self) -> Result<Vec<ChannelInfo>, StoreError> {
        let query = format!(
            "SELECT channel, count(*), coalesce(sum(octet_length(data)), 0), min(created) FROM \"{}\" \
             GROUP BY channel ORDER BY channel",
            self.tables.data
        );
        let read = || -> rusqlite::Result<Vec<ChannelInfo>> {
            let mut statement = self.connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            let mut channels = Vec::new();
            while let Some(found) = rows.next()? {
                let (messages, bytes): (i64, i64) = (found.get(1)?, found.get(2)?);
                let Some(channel) = row::channel(found, 0)? else {
                    continue;
                };
                let (messages, bytes) = (messages.unsigned_abs(), bytes.unsigned_abs());
                channels.push(ChannelInfo { channel, messages, bytes, oldest: row::moment(found, 3)? });
            }
            Ok(channels)
        };
        read().map_err(|error| classify(&self.place, &error))
    }

    /// The messages of a channel with ids above `after`, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub(super) fn peek(&self, channel: &ChannelName, after: MessageId, limit: usize) -> Result<Page, StoreError> {
        let wanted = row::integer(limit as u64).saturating_add(1);
        let read = || -> rusqlite::Result<Page> {
            let mut messages = Vec::new();
            for query in [&self.sql.load, &self.sql.load_due] {
                let mut statement = self.connection.prepare_cached(query)?;
                let mut rows = statement.query(params![channel.as_str(), row::integer(after.0), wanted])?;
                while let Some(found) = rows.next()? {
                    messages.extend(row::message(found)?);
                }
            }
            messages.sort_unstable_by_key(|message| message.id);
            let complete = messages.len() <= limit;
            messages.truncate(limit);
            Ok(Page { messages, complete })
        };
        read().map_err(|error| classify(&self.place, &error))
    }

    /// Empties a channel: by asking the broker that runs on the store, or here if none does. Waits `patience` for the broker's answer.
    ///
    /// # Errors
    /// [`StoreError::NoAnswer`] (the request is withdrawn then), or whatever keeps the store from being written.
    pub(super) fn purge(&self, channel: &ChannelName, patience: Duration) -> Result<Purged, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(&self.path, &self.place, flags)?;
        // Before anything is locked here: a broker may run although the file that says so was removed.
        let is_served = StoreLock::holder(&self.path).is_some();
        match StoreLock::take(&self.path) {
            Ok(_) if is_served => self.request(&connection, channel, patience).map(|()| Purged::ByBroker),
            Ok(lock) => {
                let removed = self.remove(connection, channel);
                drop(lock);
                removed.map(Purged::Removed)
            }
            Err(StoreError::Locked { .. }) => self.request(&connection, channel, patience).map(|()| Purged::ByBroker),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, mut connection: Connection, channel: &ChannelName) -> Result<u64, StoreError> {
        let mut step = || -> rusqlite::Result<usize> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let limit = row::integer(wsmb_core::limits::STORE_GROUP as u64);
            let removed = transaction.execute(&self.sql.purge, params![channel.as_str(), i64::MAX, limit])?;
            transaction.commit()?;
            Ok(removed)
        };
        let mut total = 0;
        loop {
            let removed = step().map_err(|error| classify(&self.place, &error))?;
            total += removed as u64;
            if removed < wsmb_core::limits::STORE_GROUP {
                return Ok(total);
            }
        }
    }

    fn request(&self, connection: &Connection, channel: &ChannelName, patience: Duration) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| classify(&self.place, &error);
        let table = &self.tables.request;
        let ask = format!("INSERT INTO \"{table}\" (kind, channel, created) VALUES (?1, ?2, CURRENT_TIMESTAMP)");
        connection.execute(&ask, params![PURGE, channel.as_str()]).map_err(failed)?;
        let id = connection.last_insert_rowid();
        let look = format!("SELECT answered IS NOT NULL FROM \"{table}\" WHERE request_id = ?1");
        let withdraw = format!("DELETE FROM \"{table}\" WHERE request_id = ?1");
        let deadline = Instant::now() + patience;
        loop {
            let answered: Option<bool> =
                connection.query_row(&look, [id], |found| found.get(0)).optional().map_err(failed)?;
            // A row that is gone was dropped by a broker that has just started: it will not be answered.
            if answered != Some(false) || Instant::now() >= deadline {
                connection.execute(&withdraw, [id]).map_err(failed)?;
                return answered
                    .filter(|answered| *answered)
                    .map(drop)
                    .ok_or_else(|| StoreError::NoAnswer { place: self.place.clone() });
            }
            std::thread::sleep(ANSWER_POLL);
        }
    }
}

#[cfg(test)]
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod tests {
    use super::*;
    use crate::{Columns, Group, MessageStore, SqliteStore};
    use wsmb_core::message::{Message, Payload, Timestamp};

    #[test]
    fn several_looks_at_once_see_one_moment() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, prefix) = (directory.path().join("journal.db"), Prefix::parse("mq_").expect("a valid prefix"));
        let mut store = SqliteStore::open(&path, &prefix, &Columns::default()).expect("opens");
        let message = Message {
            id: MessageId(1),
            channel: ChannelName::parse("sms").expect("a valid name"),
            payload: Payload::text("1"),
            created: Timestamp(0),
            expires: None,
            due: None,
            receivers: None,
            publication: None,
            deliveries: 0,
            dead: None,
        };
        store.commit(&Group { appends: vec![message], ..Group::default() }).expect("commits");
        let view = FileView::open(&path, &prefix).expect("opens");
        let seen = view.at_once(|view| {
            let channels = view.channels()?;
            // The broker moves the row away between the two looks.
            store.commit(&Group { removals: vec![MessageId(1)], ..Group::default() })?;
            Ok((channels.len(), view.ids()?))
        });
        assert_eq!(seen, Ok((1, vec![MessageId(1)])));
        assert_eq!(view.ids(), Ok(vec![]), "and afterwards the next one");
    }
}
