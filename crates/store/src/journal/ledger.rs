//! The journal's file: the rows that are not in the database yet, and the changes that the database has not carried out.
//!
//! ```text
//! data     rows that wait to be moved (a store's usual table, so that `wsmb queue` can show it)
//! owed     pending removals and delivery counts of rows of the database
//! empty    pending purges: channels of the database, each up to an id
//! restamp  pending corrections of times
//! backlog  number of rows of each channel in the database; never too low
//! ```
//!
//! Module `merge` merges pages and summaries with those of the database. A row that was ever sent to the database may be there, even if no answer
//! arrived: its removal is pending too. Never talks to the database.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::names::Names;
use crate::limits;
use crate::settings::SizeLimit;
use crate::sqlite::{self, SqliteStore, Tables, row};
use crate::{ChannelSummary, Columns, Group, Prefix, Restamp, StoreError, Swept};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// An upper bound of a channel's rows in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InDatabase {
    /// The number of rows.
    pub(super) messages: u64,
    /// The highest id.
    pub(super) last: MessageId,
}

/// The next transaction of the database.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// New rows, and pending removals and counts.
    pub(super) group: Group,
    /// Whether there is more to move.
    pub(super) more: bool,
}

/// The journal's file, open and locked.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The store of the journal's rows.
    pub(super) rows: SqliteStore,
    pub(super) names: Names,
    /// Rows up to this id may be in the database.
    sent_up_to: MessageId,
    /// Rows up to this id have been sent to the database thread, or cannot be moved.
    cursor: MessageId,
    /// A copy of the table `backlog`: one entry for each channel with rows in the database.
    pub(super) backlog: HashMap<ChannelName, InDatabase>,
    /// A copy of the table `restamp`, oldest first.
    pub(super) restamps: Vec<Restamp>,
}

impl Ledger {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub(super) fn open(path: &Path, budget: u64, prefix: &Prefix) -> Result<Self, StoreError> {
        let names = Names::new(prefix);
        let tables = Tables::new(prefix).with(names.create());
        let rows = SqliteStore::open_tables(path, tables, &Columns::default(), SizeLimit::Bytes(budget))?;
        let mut ledger = Self {
            rows,
            names,
            sent_up_to: MessageId(0),
            cursor: MessageId(0),
            backlog: HashMap::new(),
            restamps: Vec::new(),
        };
        // It is not known which rows the previous broker sent, and whether they arrived.
        ledger.sent_up_to = ledger.highest()?;
        ledger.backlog = ledger.read_backlog()?;
        ledger.restamps = ledger.read_restamps()?;
        Ok(ledger)
    }

    /// The path of the file, for messages to an administrator.
    pub(super) fn place(&self) -> String {
        self.rows.place()
    }

    /// The address of the database that the journal belongs to; `None` if the journal is new.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn database(&mut self) -> Result<Option<String>, StoreError> {
        let query = format!("SELECT value FROM {} WHERE name = 'database'", self.names.meta);
        self.rows.run(|connection, _, _| connection.query_row(&query, [], |row| row.get(0)).optional())
    }

    /// Binds the journal to a database.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn bind_to(&mut self, database: &str) -> Result<(), StoreError> {
        let Names { meta, backlog, .. } = &self.names;
        let write = format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES ('database', ?1)");
        let forget = format!("DELETE FROM {backlog}");
        self.rows.run(|connection, _, _| {
            let transaction = immediate(connection)?;
            transaction.execute(&write, [database])?;
            transaction.execute(&forget, [])?;
            transaction.commit()
        })?;
        self.backlog.clear();
        Ok(())
    }

    /// Whether the journal holds one of these rows.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn has_any(&mut self, ids: &[MessageId]) -> Result<bool, StoreError> {
        let query = format!("SELECT 1 FROM {} WHERE data_id = ?1", self.names.data);
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare_cached(&query)?;
            for id in ids {
                if statement.exists([row::integer(id.0)])? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// The number of rows that wait to be moved, and of pending changes.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn waiting(&mut self) -> Result<(u64, u64), StoreError> {
        let Names { data, owed, empty, restamp, .. } = &self.names;
        let query = format!(
            "SELECT (SELECT count(*) FROM {data}), (SELECT count(*) FROM {owed}) + (SELECT count(*) FROM {empty}) \
             + (SELECT count(*) FROM {restamp})"
        );
        self.rows.run(|connection, _, _| {
            connection.query_row(&query, [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
        })
    }

    fn highest(&mut self) -> Result<MessageId, StoreError> {
        let query = format!("SELECT max(data_id) FROM {}", self.names.data);
        let found = self.rows.run(|connection, _, _| connection.query_row(&query, [], |found| row::id(found, 0)))?;
        Ok(found.unwrap_or_default())
    }

    fn read_backlog(&mut self) -> Result<HashMap<ChannelName, InDatabase>, StoreError> {
        let query = format!("SELECT channel, messages, last FROM {}", self.names.backlog);
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            let mut backlog = HashMap::new();
            while let Some(found) = rows.next()? {
                let messages = found.get::<_, i64>(1)?.unsigned_abs();
                if let Some((channel, last)) = row::channel(found, 0)?.zip(row::id(found, 2)?) {
                    backlog.insert(channel, InDatabase { messages, last });
                }
            }
            Ok(backlog)
        })
    }

    /// Whether the database may hold rows of `channel` above `after`.
    pub(super) fn may_be_in_database(&self, channel: &ChannelName, after: MessageId) -> bool {
        self.backlog.get(channel).is_some_and(|moved| moved.last > after)
    }

    /// Whether the database holds no rows, as far as known.
    pub(super) fn is_database_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Carries out a group in the journal, and records removals and counts as pending if the row is, or may be, in the database.
    ///
    /// # Errors
    /// [`StoreError::OverBudget`] if there is no room for new rows, or any error that keeps the file from being written; no change has been made.
    pub(super) fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if !group.appends.is_empty() {
            self.rows.check_room(group.bytes())?;
        }
        let Names { add_removal, add_count, .. } = &self.names;
        let sent_up_to = self.sent_up_to;
        self.rows.run(|connection, sql, columns| {
            let transaction = immediate(connection)?;
            sqlite::append(&transaction, sql, columns, &group.appends)?;
            for id in &group.removals {
                let here = transaction.prepare_cached(&sql.delete)?.execute([row::integer(id.0)])? > 0;
                if !here || *id <= sent_up_to {
                    transaction.prepare_cached(add_removal)?.execute([row::integer(id.0)])?;
                }
            }
            for (id, count) in &group.deliveries {
                let counted = params![row::integer(id.0), count];
                let here = transaction.prepare_cached(&sql.deliveries)?.execute(counted)? > 0;
                if !here || *id <= sent_up_to {
                    transaction.prepare_cached(add_count)?.execute(counted)?;
                }
            }
            for (name, value) in &group.marks {
                transaction.prepare_cached(&sql.write_mark)?.execute(params![name, row::integer(*value)])?;
            }
            transaction.commit()
        })?;
        if let Some(lowest) = group.appends.iter().map(|message| message.id).min() {
            self.cursor = self.cursor.min(MessageId(lowest.0.saturating_sub(1)));
        }
        Ok(())
    }

    /// Removes expired rows of the journal, and returns their ids; reads those of spared channels.
    ///
    /// # Errors
    /// Then none is removed.
    pub(super) fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        let add_removal = &self.names.add_removal;
        let sent_up_to = self.sent_up_to;
        self.rows.sweep_with(now, limit, spare, |transaction, swept| {
            for (id, _) in swept.gone.iter().filter(|(id, _)| *id <= sent_up_to) {
                transaction.prepare_cached(add_removal)?.execute([row::integer(id.0)])?;
            }
            Ok(())
        })
    }

    /// Removes rows of a channel from the journal, and records the same purge as pending for the database.
    ///
    /// # Errors
    /// Then none is removed.
    pub(super) fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        let empty = &self.names.empty;
        let note = format!(
            "INSERT INTO {empty} (channel, up_to) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET up_to = max(up_to, excluded.up_to)"
        );
        self.rows.run(|connection, sql, _| {
            let transaction = immediate(connection)?;
            let parameters = params![channel.as_str(), row::integer(up_to.0), row::integer(limit as u64)];
            let gone = transaction.prepare_cached(&sql.purge)?.execute(parameters)?;
            transaction.execute(&note, params![channel.as_str(), row::integer(up_to.0)])?;
            transaction.commit()?;
            Ok(gone as u64)
        })
    }

    /// The next pending purge.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn next_purge(&mut self) -> Result<Option<(ChannelName, MessageId)>, StoreError> {
        let query = format!("SELECT channel, up_to FROM {} LIMIT 1", self.names.empty);
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query([])?;
            let Some(found) = rows.next()? else { return Ok(None) };
            Ok(row::channel(found, 0)?.zip(row::id(found, 1)?))
        })
    }

    /// Removes a pending purge that the database has carried out.
    ///
    /// # Errors
    /// If the file cannot be written; then the channel is purged again.
    pub(super) fn purged(&mut self, channel: &ChannelName, up_to: MessageId) -> Result<(), StoreError> {
        let done = format!("DELETE FROM {} WHERE channel = ?1 AND up_to <= ?2", self.names.empty);
        self.rows.run(|connection, _, _| {
            connection.execute(&done, params![channel.as_str(), row::integer(up_to.0)]).map(drop)
        })
    }

    /// Returns the next transaction of the database. From now on, its rows may be in the database.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn next_batch(&mut self) -> Result<Batch, StoreError> {
        let Names { data, owed, .. } = &self.names;
        let selected = row::SELECTED;
        let rows = format!(
            "SELECT {selected} FROM {data} WHERE due IS NULL AND data_id > ?1 ORDER BY data_id LIMIT {}",
            wsmb_core::limits::STORE_GROUP
        );
        let pending =
            format!("SELECT data_id, deliveries FROM {owed} ORDER BY data_id LIMIT {}", wsmb_core::limits::STORE_GROUP);
        let cursor = self.cursor;
        let batch = self.rows.run(|connection, _, _| {
            let mut group = Group::default();
            let mut bytes = 0;
            let mut statement = connection.prepare_cached(&rows)?;
            let mut found = statement.query([row::integer(cursor.0)])?;
            while bytes < limits::STORE_GROUP_BYTES
                && let Some(entry) = found.next()?
            {
                if let Some(message) = row::message(entry)? {
                    bytes += message.payload.bytes.len();
                    group.appends.push(message);
                }
            }
            let mut statement = connection.prepare_cached(&pending)?;
            let mut found = statement.query([])?;
            while let Some(entry) = found.next()? {
                let Some(id) = row::id(entry, 0)? else { continue };
                match entry.get::<_, Option<u32>>(1)? {
                    None => group.removals.push(id),
                    Some(count) => group.deliveries.push((id, count)),
                }
            }
            let changes = group.removals.len() + group.deliveries.len();
            let more = bytes >= limits::STORE_GROUP_BYTES
                || group.appends.len() >= wsmb_core::limits::STORE_GROUP
                || changes >= wsmb_core::limits::STORE_GROUP;
            Ok(Batch { group, more })
        })?;
        if let Some(last) = batch.group.appends.last() {
            self.cursor = last.id;
            self.sent_up_to = self.sent_up_to.max(last.id);
        }
        Ok(batch)
    }

    /// Marks the rows from `id` on to be moved again.
    pub(super) fn rewind(&mut self, id: MessageId) {
        self.cursor = self.cursor.min(MessageId(id.0.saturating_sub(1)));
    }

    /// Records that the database has carried out this group. Changes that were made in the journal meanwhile stay pending.
    ///
    /// # Errors
    /// If the file cannot be written; then the group is sent again, which is harmless.
    pub(super) fn acknowledge(&mut self, group: &Group) -> Result<(), StoreError> {
        let mut moved: HashMap<ChannelName, InDatabase> = HashMap::new();
        for message in &group.appends {
            let known = self.backlog.get(&message.channel).copied();
            let entry = moved.entry(message.channel.clone()).or_insert(known.unwrap_or(InDatabase::NOTHING));
            *entry = InDatabase { messages: entry.messages + 1, last: entry.last.max(message.id) };
        }
        let Names { owed, backlog, .. } = &self.names;
        let delete = format!("DELETE FROM {owed} WHERE data_id = ?1 AND deliveries IS ?2");
        let holds = format!("INSERT OR REPLACE INTO {backlog} (channel, messages, last) VALUES (?1, ?2, ?3)");
        self.rows.run(|connection, sql, _| {
            let transaction = immediate(connection)?;
            for message in &group.appends {
                transaction.prepare_cached(&sql.delete)?.execute([row::integer(message.id.0)])?;
            }
            for id in &group.removals {
                transaction.prepare_cached(&delete)?.execute(params![row::integer(id.0), None::<u32>])?;
            }
            for (id, count) in &group.deliveries {
                transaction.prepare_cached(&delete)?.execute(params![row::integer(id.0), count])?;
            }
            for (channel, entry) in &moved {
                write_backlog(&transaction, &holds, channel, *entry)?;
            }
            transaction.commit()
        })?;
        self.backlog.extend(moved);
        Ok(())
    }

    /// Stores the counts that the database returned.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn recount(&mut self, channels: &[ChannelSummary], last_id: MessageId) -> Result<(), StoreError> {
        let lines =
            channels.iter().map(|found| (&found.channel, InDatabase { messages: found.messages, last: found.last }));
        let lines: HashMap<ChannelName, InDatabase> = lines.map(|(channel, entry)| (channel.clone(), entry)).collect();
        let Names { backlog, meta, .. } = &self.names;
        let forget = format!("DELETE FROM {backlog}");
        let holds = format!("INSERT INTO {backlog} (channel, messages, last) VALUES (?1, ?2, ?3)");
        let highest = format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES ('last_id', ?1)");
        self.rows.run(|connection, _, _| {
            let transaction = immediate(connection)?;
            transaction.execute(&forget, [])?;
            for (channel, entry) in &lines {
                write_backlog(&transaction, &holds, channel, *entry)?;
            }
            transaction.execute(&highest, [row::integer(last_id.0)])?;
            transaction.commit()
        })?;
        self.backlog = lines;
        Ok(())
    }
}

impl InDatabase {
    const NOTHING: Self = Self { messages: 0, last: MessageId(0) };
}

fn write_backlog(
    transaction: &Transaction<'_>,
    statement: &str,
    channel: &ChannelName,
    entry: InDatabase,
) -> rusqlite::Result<()> {
    let parameters = params![channel.as_str(), row::integer(entry.messages), row::integer(entry.last.0)];
    transaction.prepare_cached(statement)?.execute(parameters).map(drop)
}

pub(super) fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}
