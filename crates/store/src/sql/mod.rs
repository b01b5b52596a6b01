//! Stores on MySQL, MariaDB and PostgreSQL, through sqlx.
//!
//! ```text
//! SqlStore ─► Client (reconnects) ─► Driver (sqlx) ─► the server
//!    │            └─ Session: connection, lock, MessageTable (the table as found), Statements
//!    └─ write (groups), rows (messages as rows), text and field (values as columns take them)
//! ```
//!
//! Every call waits for the server, for a bounded time; callers that must not wait use a journal. Statements are built from validated names, and
//! values are always bound. Channel names are compared byte by byte, whatever the table's collation treats as equal.

mod client;
mod connect;
mod describe;
mod driver;
mod error;
mod field;
mod inspect;
mod iso;
mod lock;
mod read;
mod refusals;
mod restamp;
mod rows;
mod schema;
mod spelling;
mod statements;
mod sweep;
mod table;
mod text;
mod write;

use std::collections::BTreeSet;
use std::time::Instant;

use super::{Backend, Background, Columns, Group, MessageStore, Page, Prefix, Restamp, StoreError, Summary, Swept};
use crate::limits;
use crate::message_store::SweptTo;
use client::{Client, Purpose};
use connect::Access;
use driver::Value;
pub(super) use inspect::inspect;
use refusals::{Cause, Refusals};
use schema::{read_note, write_note};
use statements::Names;
use write::{Nulls, WriteOptions};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A store on a database server.
#[derive(Debug)]
pub struct SqlStore {
    client: Client,
    columns: Columns,
    /// Whether the previous broker stopped in an orderly way, according to the tables.
    was_clean: bool,
    /// The highest id that is known to have been stored, and the highest id that is noted in the tables.
    highest: MessageId,
    noted: MessageId,
    /// The highest id that this store has written.
    written: MessageId,
    /// Where the next sweep continues.
    swept_to: SweptTo,
    refusals: Refusals,
}

impl SqlStore {
    /// The address of the database that a URL names, without secrets, for messages to an administrator.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`]; [`StoreError::NotBuilt`] if the program was built without this backend.
    pub fn place(backend: Backend, url: &str, prefix: &Prefix) -> Result<String, StoreError> {
        Ok(Access::parse(backend, url, None, prefix)?.place)
    }

    /// Connects; takes the table's lock; creates missing tables; clears the mark of a clean stop.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if the server cannot be reached; every other error needs an administrator.
    pub fn open(
        backend: Backend,
        url: &str,
        password: Option<&str>,
        prefix: &Prefix,
        columns: &Columns,
    ) -> Result<Self, StoreError> {
        let access = Access::parse(backend, url, password, prefix)?;
        let names = Names::new(backend, prefix);
        let client = Client::new(access, names.clone(), Purpose::Serve(columns.clone()))?;
        let mut store = Self {
            client,
            columns: columns.clone(),
            was_clean: false,
            highest: MessageId(0),
            noted: MessageId(0),
            written: MessageId(0),
            swept_to: None,
            refusals: Refusals::default(),
        };
        let (clean, noted) = store.client.run(limits::STORE_ANSWER, async |session| {
            let clean = read_note(&mut session.driver, &names, "clean").await?;
            let noted = read_note(&mut session.driver, &names, "last_id").await?;
            Ok((clean, noted))
        })?;
        // A separate step: if the step above also cleared the mark, and its answer were lost, the next attempt would find a crash.
        store.note("clean", "0")?;
        store.was_clean = clean.is_none_or(|clean| clean == "1");
        store.noted = MessageId(noted.and_then(|noted| noted.parse().ok()).unwrap_or_default());
        store.highest = store.noted;
        Ok(store)
    }

    fn note(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        let names = self.client.names.clone();
        self.client
            .run(limits::STORE_ANSWER, async |session| write_note(&mut session.driver, &names, name, value).await)
    }

    /// Notes the highest id, which may belong to a removed row: ids are never assigned twice.
    fn note_highest(&mut self) -> Result<(), StoreError> {
        if self.highest > self.noted {
            self.note("last_id", &self.highest.0.to_string())?;
            self.noted = self.highest;
        }
        Ok(())
    }

    /// Logs the values that the table has refused.
    fn log_refusals(&self, refusals: Vec<(Cause, u64)>) {
        let (table, place) = (&self.client.names.data_plain, &self.client.access.place);
        for ((index, reason), rows) in refusals {
            let column = match index.and_then(|index| self.columns.names().nth(index)) {
                Some(name) => format!("the column {name} is"),
                None => "all of store.columns are".to_owned(),
            };
            tracing::warn!(
                "{column} NULL in {rows} rows of {table} in {place}, because the table refused the values of these messages: they {reason}"
            );
        }
    }

    /// Whether the table can hold rows of this channel; a query for other channels may be an error.
    fn can_hold(&mut self, channel: &ChannelName) -> Result<bool, StoreError> {
        Ok(self.client.table()?.channel.holds_name(channel.as_str()))
    }
}

/// Logs the refusals that the log has not mentioned yet.
impl Drop for SqlStore {
    fn drop(&mut self) {
        let rest = self.refusals.rest();
        self.log_refusals(rest);
    }
}

impl MessageStore for SqlStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if group.is_empty() {
            return Ok(());
        }
        let Self { client, columns, written, refusals, .. } = self;
        let (backend, place) = (client.access.backend, client.access.place.clone());
        write::check(group, client.table()?, columns, backend, &place)?;
        let names = client.names.clone();
        // A message is never refused because of its user-defined fields.
        let mut nulls = Nulls::new();
        while let Some(refused) = client.run(limits::STORE_ANSWER, async |session| {
            let options = WriteOptions { columns, nulls: &nulls, written: *written, replace: false };
            write::commit(session, group, options, &names).await
        })? {
            if !refused.rows.is_empty() {
                let ids = refused.rows.iter().map(|(id, _)| *id).collect();
                let reasons: BTreeSet<&str> = refused.rows.iter().map(|(_, reason)| &**reason).collect();
                let reason = reasons.into_iter().collect::<Vec<_>>().join(" or ");
                return Err(StoreError::Unfit { place, ids, reason });
            }
            nulls.extend(refused.nulls);
            refusals.add(refused.why);
        }
        let due = refusals.due(Instant::now());
        self.log_refusals(due);
        let added = group.appends.iter().map(|message| message.id).max().unwrap_or_default();
        self.written = self.written.max(added);
        self.highest = self.highest.max(added);
        Ok(())
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        if !self.can_hold(channel)? {
            return Ok(Page { messages: Vec::new(), complete: true });
        }
        self.client.run(limits::STORE_ANSWER, async |session| {
            let statement = session.statements.load.clone();
            read::page_of(session, &statement, channel, after, limit, max_bytes).await
        })
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.client.run(limits::STORE_ANSWER, async |session| {
            let statement = session.statements.scan.clone();
            read::page(session, &statement, None, after, limit, max_bytes).await
        })
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        let names = self.client.names.clone();
        let note = self
            .client
            .run(limits::STORE_ANSWER, async |session| read_note(&mut session.driver, &names, name).await)?;
        Ok(note.and_then(|note| note.parse().ok()))
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        if !self.can_hold(channel)? {
            return Ok(0);
        }
        self.client.run(limits::STORE_ANSWER, async |session| {
            session.driver.run("BEGIN").await?;
            let mut ids: Vec<MessageId> = Vec::new();
            for name in session.table.channel.spellings(channel.as_str()) {
                let name = || Value::from(&*name);
                let values = [name(), name(), Value::from(up_to.0), Value::from((limit - ids.len()) as u64)];
                let rows = session.driver.fetch(&session.statements.purge, &values).await?;
                ids.extend(rows.into_iter().filter_map(|row| rows::message_id(row.into_iter().next().flatten())));
            }
            write::delete(&mut session.driver, &mut session.statements, ids.iter().copied()).await?;
            session.driver.run("COMMIT").await?;
            Ok(ids.len() as u64)
        })
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let found = self
            .client
            .run(limits::STORE_COUNT_TIME, async |session| read::summary(session, publications_since).await)?;
        if found.foreign > 0 {
            let (table, place) = (&self.client.names.data_plain, &self.client.access.place);
            let foreign = found.foreign;
            tracing::warn!(
                "{foreign} rows of {table} in {place} have no channel, or an invalid channel name; they are ignored"
            );
        }
        self.highest = self.highest.max(found.summary.last_id);
        Ok(Summary { last_id: self.highest, clean: self.was_clean, ..found.summary })
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.note_highest()?;
        self.note("clean", "1")
    }
}

impl Background for SqlStore {
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        if !self.client.table()?.has("expires") {
            return Ok(Swept::default());
        }
        let from = self.swept_to;
        let (swept, to) = self.client.run(limits::STORE_ANSWER, async |session| {
            session.driver.run("BEGIN").await?;
            let found = if spare.is_empty() {
                (sweep::all(session, now, limit).await?, None)
            } else {
                sweep::some(session, now, limit, spare, from).await?
            };
            session.driver.run("COMMIT").await?;
            Ok(found)
        })?;
        self.swept_to = to;
        Ok(swept)
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        let names = self.client.names.clone();
        self.client.run(limits::STORE_COUNT_TIME, async |session| restamp::restamp(session, &names, restamp).await)
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        let names = self.client.names.clone();
        self.client.run(limits::STORE_COUNT_TIME, async |session| {
            restamp::clamp_future_rows(session, &names, now, up_to).await
        })
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.note("probe", "")
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.note_highest()
    }
}
