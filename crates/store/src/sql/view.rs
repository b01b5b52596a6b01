//! A look into a store on a database server from outside the broker, whether one runs on it or not. Takes no lock and makes nothing.

use super::super::inspect::ChannelInfo;
use super::super::{Backend, Columns, PURGE, Page, Prefix, StoreError};
use super::client::{Client, Purpose};
use super::connect::Access;
use super::driver::{Value, number};
use super::rows::{channel, message_id, moment};
use super::statements::{Many, Names, parts, place};
use super::{read, schema};
use crate::limits;
use wsmb_core::message::{ChannelName, MessageId};

/// A store seen from outside.
#[derive(Debug)]
pub(crate) struct SqlView {
    client: Client,
}

impl SqlView {
    /// Connects.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no message table, what would keep a broker with these columns from starting on it, and whatever keeps it from
    /// being seen.
    pub(crate) fn open(
        backend: Backend,
        url: &str,
        password: Option<&str>,
        prefix: &Prefix,
        columns: &Columns,
    ) -> Result<Self, StoreError> {
        let access = Access::parse(backend, url, password, prefix)?;
        let mut client = Client::new(access, Names::new(backend, prefix), Purpose::Look(columns.clone()))?;
        client.shape()?;
        Ok(Self { client })
    }

    /// The database, as an administrator knows it.
    pub(crate) fn place(&self) -> &str {
        &self.client.access.place
    }

    /// What the message table does not keep, in sentences.
    ///
    /// # Errors
    /// If it can't be seen.
    pub(crate) fn lacks(&mut self) -> Result<Vec<String>, StoreError> {
        let (names, place) = (self.client.names.clone(), self.client.access.place.clone());
        Ok(self.client.shape()?.lacks(&names, &place))
    }

    /// The tables beside it that the next start makes.
    ///
    /// # Errors
    /// If it can't be seen.
    pub(crate) fn missing(&mut self) -> Result<Vec<String>, StoreError> {
        let names = self.client.names.clone();
        self.client.run(limits::STORE_ANSWER, async |session| schema::missing(&mut session.driver, &names).await)
    }

    /// Those of these messages that are in the table, with their channels and sizes.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn among(&mut self, ids: &[MessageId]) -> Result<Vec<(MessageId, ChannelName, u64)>, StoreError> {
        let charset = self.client.shape()?.channel;
        let mut found = Vec::new();
        let mut left = ids;
        for size in parts(ids.len(), limits::STORE_STATEMENT_IDS) {
            let (now, later) = left.split_at(size);
            left = later;
            let rows = self.client.run(limits::STORE_ANSWER, async |session| {
                let values: Vec<Value<'_>> = now.iter().map(|id| Value::from(id.0)).collect();
                let statement = session.statements.many(Many::Among, size);
                session.driver.fetch(&statement, &values).await
            })?;
            found.extend(rows.into_iter().filter_map(|row| {
                let mut cells = row.into_iter();
                let mut next = || cells.next().flatten();
                Some((message_id(next())?, channel(next(), charset)?, number(next())?))
            }));
        }
        Ok(found)
    }

    /// Which broker has the table; `None` if none has.
    ///
    /// # Errors
    /// If it can't be seen.
    pub(crate) fn holder(&mut self) -> Result<Option<String>, StoreError> {
        self.client.holder()
    }

    /// Every channel with a backlog, by name. Reads the whole table.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError> {
        let charset = self.client.shape()?.channel;
        let rows = self.client.run(limits::STORE_COUNT_TIME, async |session| {
            session.driver.fetch(&session.statements.sizes, &[]).await
        })?;
        let mut channels: Vec<ChannelInfo> = rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter();
                let mut next = || cells.next().flatten();
                let (name, messages, bytes, oldest) = (next(), next(), next(), next());
                Some(ChannelInfo {
                    channel: channel(name, charset)?,
                    messages: number(messages)?,
                    bytes: number(bytes)?,
                    oldest: moment(oldest),
                })
            })
            .collect();
        channels.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        // One whose name is spelled in two ways has come twice.
        channels.dedup_by(|twin, first| {
            let is_same = twin.channel == first.channel;
            if is_same {
                first.messages += twin.messages;
                first.bytes += twin.bytes;
                first.oldest = first.oldest.min(twin.oldest);
            }
            is_same
        });
        Ok(channels)
    }

    /// The messages of a channel with ids above `after`, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If they can't be read.
    pub(crate) fn peek(&mut self, channel: &ChannelName, after: MessageId, limit: usize) -> Result<Page, StoreError> {
        if !self.client.shape()?.channel.holds_name(channel.as_str()) {
            return Ok(Page { messages: Vec::new(), complete: true });
        }
        self.client.run(limits::STORE_ANSWER, async |session| {
            let statement = session.statements.peek.clone();
            read::page_of(session, &statement, channel, after, limit, wsmb_core::limits::PAGE_BYTES).await
        })
    }

    /// Asks the broker that runs on the table to empty a channel; gives the request's number.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) fn request_purge(&mut self, channel: &ChannelName) -> Result<i64, StoreError> {
        let (backend, request) = (self.client.access.backend, self.client.names.request.clone());
        let values = [place(backend, 1, "text"), place(backend, 2, "text")].join(", ");
        let ask = format!("INSERT INTO {request} (kind, channel, created) VALUES ({values}, CURRENT_TIMESTAMP)");
        let id = match backend {
            Backend::MySql => "SELECT CAST(LAST_INSERT_ID() AS CHAR)",
            Backend::Postgres => "SELECT lastval()::text",
        };
        let id = self.client.run(limits::STORE_ANSWER, async |session| {
            let values = [Value::from(PURGE), Value::from(channel.as_str())];
            session.driver.execute(&ask.as_str().into(), &values).await?;
            session.driver.value(id, &[]).await
        })?;
        let place = self.client.access.place.clone();
        id.and_then(|id| id.parse().ok()).ok_or(StoreError::NoAnswer { place })
    }

    /// Whether a request has been answered; `None` if it is gone.
    ///
    /// # Errors
    /// If that can't be seen.
    pub(crate) fn answered(&mut self, request: i64) -> Result<Option<bool>, StoreError> {
        let backend = self.client.access.backend;
        let is_answered = match backend {
            Backend::MySql => "CAST(answered IS NOT NULL AS CHAR)",
            Backend::Postgres => "(answered IS NOT NULL)::int::text",
        };
        let at = place(backend, 1, "bigint");
        let look = format!("SELECT {is_answered} FROM {} WHERE request_id = {at}", self.client.names.request);
        let found = self.client.run(limits::STORE_ANSWER, async |session| {
            session.driver.value(&look, &[Value::Integer(Some(request))]).await
        })?;
        Ok(found.map(|found| found == "1"))
    }

    /// Takes a request back.
    ///
    /// # Errors
    /// If that can't be done.
    pub(crate) fn withdraw(&mut self, request: i64) -> Result<(), StoreError> {
        let at = place(self.client.access.backend, 1, "bigint");
        let withdraw = format!("DELETE FROM {} WHERE request_id = {at}", self.client.names.request);
        self.client.run(limits::STORE_ANSWER, async |session| {
            let id = Value::Integer(Some(request));
            session.driver.execute(&withdraw.as_str().into(), &[id]).await.map(drop)
        })
    }
}
