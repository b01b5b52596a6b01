//! The journal's file: the rows that are not in the database yet, and what is owed to it.
//!
//! ```text
//! data     rows that wait to be moved (a store's usual table, so that `wsmb queue` can show it)
//! owed     rows of the database that must go, or get a delivery count
//! empty    channels of the database to be emptied up to an id
//! restamp  corrections of times that the database has not carried out
//! backlog  how many rows of each channel the database holds; never less than there are
//! ```
//!
//! How pages and summaries are put together with the database's is in `merge`. A row that was ever sent to the database may be there, whatever became of the answer: its removal is owed, too. Nothing here talks to the
//! database.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::limits;
use crate::sqlite::{self, SqliteStore, Tables, row};
use crate::{ChannelSummary, Columns, Group, Prefix, Restamp, StoreError, Swept};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What the database holds of one channel, at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// How many rows.
    pub(super) messages: u64,
    /// The highest id among them.
    pub(super) last: MessageId,
}

/// What is to be done on the database next, in one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// New rows, and what is owed.
    pub(super) group: Group,
    /// There is more.
    pub(super) more: bool,
}

/// The file, open and locked.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The store of the rows, for what it does as any other.
    pub(super) rows: SqliteStore,
    pub(super) names: Names,
    /// Bytes that the file may hold.
    budget: u64,
    /// Rows up to this id may be in the database.
    sent_up_to: MessageId,
    /// Rows up to this id have been taken up to be moved, or can't be moved.
    cursor: MessageId,
    /// A copy of the table `backlog`. A line for each channel with a backlog in the database.
    pub(super) backlog: HashMap<ChannelName, Moved>,
    /// A copy of the table `restamp`, oldest first.
    pub(super) restamps: Vec<Restamp>,
}

/// The journal's own tables, quoted.
#[derive(Debug)]
pub(super) struct Names {
    data: String,
    pub(super) meta: String,
    pub(super) owed: String,
    pub(super) empty: String,
    pub(super) restamp: String,
    backlog: String,
    /// Notes that a row must go, whatever was owed before.
    pub(super) owe_removal: String,
    /// Notes a row's delivery count, unless it must go.
    owe_count: String,
}

impl Names {
    fn new(prefix: &Prefix) -> Self {
        let name = |table: &str| format!("\"{}{table}\"", prefix.as_str());
        let owed = name("owed");
        let owe_removal = format!("INSERT OR REPLACE INTO {owed} (data_id, deliveries) VALUES (?1, NULL)");
        let owe_count = format!(
            "INSERT INTO {owed} (data_id, deliveries) VALUES (?1, ?2) \
             ON CONFLICT DO UPDATE SET deliveries = excluded.deliveries WHERE deliveries IS NOT NULL"
        );
        let (data, meta, empty, backlog) = (name("data"), name("meta"), name("empty"), name("backlog"));
        Self { data, meta, owed, empty, restamp: name("restamp"), backlog, owe_removal, owe_count }
    }

    fn create(&self) -> String {
        let Self { owed, empty, restamp, backlog, .. } = self;
        format!(
            "CREATE TABLE IF NOT EXISTS {owed} (data_id INTEGER PRIMARY KEY, deliveries INTEGER);
            CREATE TABLE IF NOT EXISTS {empty} (channel TEXT PRIMARY KEY, up_to INTEGER NOT NULL) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS {restamp} (
                number INTEGER PRIMARY KEY AUTOINCREMENT, token INTEGER NOT NULL, above INTEGER NOT NULL, of_all INTEGER NOT NULL, by INTEGER NOT NULL
            );
            CREATE TABLE IF NOT EXISTS {backlog} (channel TEXT PRIMARY KEY, messages INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;"
        )
    }
}

impl Ledger {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub(super) fn open(path: &Path, budget: u64, prefix: &Prefix) -> Result<Self, StoreError> {
        let names = Names::new(prefix);
        let tables = Tables::new(prefix).with(names.create());
        let rows = SqliteStore::open_tables(path, tables, &Columns::default())?;
        let mut ledger = Self {
            rows,
            names,
            budget,
            sent_up_to: MessageId(0),
            cursor: MessageId(0),
            backlog: HashMap::new(),
            restamps: Vec::new(),
        };
        // What the broker before this one sent, and whether it arrived, is not known.
        ledger.sent_up_to = ledger.highest()?;
        ledger.backlog = ledger.read_backlog()?;
        ledger.restamps = ledger.read_restamps()?;
        Ok(ledger)
    }

    /// The file, as an administrator knows it.
    pub(super) fn place(&self) -> String {
        self.rows.place()
    }

    /// Which database the journal belongs to; `None` if it is new.
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
    pub(super) fn adopt(&mut self, database: &str) -> Result<(), StoreError> {
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

    /// Whether one of these rows is here.
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

    /// How much waits to be moved: rows, and debts.
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

    fn read_backlog(&mut self) -> Result<HashMap<ChannelName, Moved>, StoreError> {
        let query = format!("SELECT channel, messages, last FROM {}", self.names.backlog);
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            let mut backlog = HashMap::new();
            while let Some(found) = rows.next()? {
                let messages = found.get::<_, i64>(1)?.unsigned_abs();
                if let Some((channel, last)) = row::channel(found, 0)?.zip(row::id(found, 2)?) {
                    backlog.insert(channel, Moved { messages, last });
                }
            }
            Ok(backlog)
        })
    }

    /// The file holds as much as it may; `more` bytes would be too much.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn is_full(&mut self, more: usize) -> Result<bool, StoreError> {
        let used = self.rows.run(|connection, _, _| {
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
        })?;
        Ok(used.unsigned_abs() + more as u64 > self.budget)
    }

    /// The database may hold rows of `channel` above `after`.
    pub(super) fn is_moved(&self, channel: &ChannelName, after: MessageId) -> bool {
        self.backlog.get(channel).is_some_and(|moved| moved.last > after)
    }

    /// The database holds nothing, as far as is known.
    pub(super) fn is_database_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Carries out a group: here, and as a debt to the database where the row is, or may be, there.
    ///
    /// # Errors
    /// [`StoreError::OverBudget`] if there is no room for its appends, or whatever keeps the file from being written; then nothing has happened.
    pub(super) fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let more = group.appends.iter().map(|message| message.payload.bytes.len() + limits::STORE_ROW_BYTES).sum();
        if !group.appends.is_empty() && self.is_full(more)? {
            return Err(StoreError::OverBudget { place: self.place() });
        }
        let Names { owe_removal, owe_count, .. } = &self.names;
        let sent_up_to = self.sent_up_to;
        self.rows.run(|connection, sql, columns| {
            let transaction = immediate(connection)?;
            sqlite::append(&transaction, sql, columns, &group.appends)?;
            for id in &group.removals {
                let here = transaction.prepare_cached(&sql.delete)?.execute([row::integer(id.0)])? > 0;
                if !here || *id <= sent_up_to {
                    transaction.prepare_cached(owe_removal)?.execute([row::integer(id.0)])?;
                }
            }
            for (id, count) in &group.deliveries {
                let counted = params![row::integer(id.0), count];
                let here = transaction.prepare_cached(&sql.deliveries)?.execute(counted)? > 0;
                if !here || *id <= sent_up_to {
                    transaction.prepare_cached(owe_count)?.execute(counted)?;
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

    /// Removes expired rows that are here, and names them; reads those of spared channels.
    ///
    /// # Errors
    /// Then none is removed.
    pub(super) fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        let owe_removal = &self.names.owe_removal;
        let sent_up_to = self.sent_up_to;
        self.rows.sweep_with(now, limit, spare, |transaction, swept| {
            for (id, _) in swept.gone.iter().filter(|(id, _)| *id <= sent_up_to) {
                transaction.prepare_cached(owe_removal)?.execute([row::integer(id.0)])?;
            }
            Ok(())
        })
    }

    /// Removes rows of a channel that are here, and owes the database the same.
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

    /// The channel that is to be emptied next.
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

    /// The database has emptied this channel up to this id.
    ///
    /// # Errors
    /// If the file can't be written; then it will be emptied again.
    pub(super) fn purged(&mut self, channel: &ChannelName, up_to: MessageId) -> Result<(), StoreError> {
        let done = format!("DELETE FROM {} WHERE channel = ?1 AND up_to <= ?2", self.names.empty);
        self.rows.run(|connection, _, _| {
            connection.execute(&done, params![channel.as_str(), row::integer(up_to.0)]).map(drop)
        })
    }

    /// Cuts what the database is to do next. From now on the rows of it may be there.
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
        let debts =
            format!("SELECT data_id, deliveries FROM {owed} ORDER BY data_id LIMIT {}", wsmb_core::limits::STORE_GROUP);
        let cursor = self.cursor;
        let batch = self.rows.run(|connection, _, _| {
            let mut group = Group::default();
            let mut bytes = 0;
            let mut statement = connection.prepare_cached(&rows)?;
            let mut found = statement.query([row::integer(cursor.0)])?;
            while bytes < limits::STORE_GROUP_BYTES
                && let Some(line) = found.next()?
            {
                if let Some(message) = row::message(line)? {
                    bytes += message.payload.bytes.len();
                    group.appends.push(message);
                }
            }
            let mut statement = connection.prepare_cached(&debts)?;
            let mut found = statement.query([])?;
            while let Some(line) = found.next()? {
                let Some(id) = row::id(line, 0)? else { continue };
                match line.get::<_, Option<u32>>(1)? {
                    None => group.removals.push(id),
                    Some(count) => group.deliveries.push((id, count)),
                }
            }
            let owed = group.removals.len() + group.deliveries.len();
            let more = bytes >= limits::STORE_GROUP_BYTES
                || group.appends.len() >= wsmb_core::limits::STORE_GROUP
                || owed >= wsmb_core::limits::STORE_GROUP;
            Ok(Batch { group, more })
        })?;
        if let Some(last) = batch.group.appends.last() {
            self.cursor = last.id;
            self.sent_up_to = self.sent_up_to.max(last.id);
        }
        Ok(batch)
    }

    /// The rows from `id` on are to be taken up again.
    pub(super) fn rewind(&mut self, id: MessageId) {
        self.cursor = self.cursor.min(MessageId(id.0.saturating_sub(1)));
    }

    /// The database has carried out this group. What has changed here meanwhile stays owed.
    ///
    /// # Errors
    /// If the file can't be written; then the group will be sent again, which does no harm.
    pub(super) fn settle(&mut self, group: &Group) -> Result<(), StoreError> {
        let mut moved: HashMap<ChannelName, Moved> = HashMap::new();
        for message in &group.appends {
            let known = self.backlog.get(&message.channel).copied();
            let line = moved.entry(message.channel.clone()).or_insert(known.unwrap_or(Moved::NOTHING));
            *line = Moved { messages: line.messages + 1, last: line.last.max(message.id) };
        }
        let Names { owed, backlog, .. } = &self.names;
        let paid = format!("DELETE FROM {owed} WHERE data_id = ?1 AND deliveries IS ?2");
        let holds = format!("INSERT OR REPLACE INTO {backlog} (channel, messages, last) VALUES (?1, ?2, ?3)");
        self.rows.run(|connection, sql, _| {
            let transaction = immediate(connection)?;
            for message in &group.appends {
                transaction.prepare_cached(&sql.delete)?.execute([row::integer(message.id.0)])?;
            }
            for id in &group.removals {
                transaction.prepare_cached(&paid)?.execute(params![row::integer(id.0), None::<u32>])?;
            }
            for (id, count) in &group.deliveries {
                transaction.prepare_cached(&paid)?.execute(params![row::integer(id.0), count])?;
            }
            for (channel, line) in &moved {
                write_moved(&transaction, &holds, channel, *line)?;
            }
            transaction.commit()
        })?;
        self.backlog.extend(moved);
        Ok(())
    }

    /// What the database holds, as it says itself.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn recount(&mut self, channels: &[ChannelSummary], last_id: MessageId) -> Result<(), StoreError> {
        let lines = channels.iter().map(|found| (&found.channel, Moved { messages: found.messages, last: found.last }));
        let lines: HashMap<ChannelName, Moved> = lines.map(|(channel, line)| (channel.clone(), line)).collect();
        let Names { backlog, meta, .. } = &self.names;
        let forget = format!("DELETE FROM {backlog}");
        let holds = format!("INSERT INTO {backlog} (channel, messages, last) VALUES (?1, ?2, ?3)");
        let highest = format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES ('last_id', ?1)");
        self.rows.run(|connection, _, _| {
            let transaction = immediate(connection)?;
            transaction.execute(&forget, [])?;
            for (channel, line) in &lines {
                write_moved(&transaction, &holds, channel, *line)?;
            }
            transaction.execute(&highest, [row::integer(last_id.0)])?;
            transaction.commit()
        })?;
        self.backlog = lines;
        Ok(())
    }
}

impl Moved {
    const NOTHING: Self = Self { messages: 0, last: MessageId(0) };
}

fn write_moved(
    transaction: &Transaction<'_>,
    statement: &str,
    channel: &ChannelName,
    line: Moved,
) -> rusqlite::Result<()> {
    let parameters = params![channel.as_str(), row::integer(line.messages), row::integer(line.last.0)];
    transaction.prepare_cached(statement)?.execute(parameters).map(drop)
}

pub(super) fn immediate(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}
