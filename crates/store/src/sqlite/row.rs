//! The SQL statements, and the conversion between rows and messages.
//!
//! Reading is lenient, because other programs write the table too: missing values and values of another type are interpreted as far as possible, and
//! no row makes a page fail.

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Row};

use super::schema::Tables;
use crate::limits;
use crate::{ColumnValue, Columns, datetime};
use wsmb_core::message::{ChannelName, DeadLetter, Kind, Message, MessageId, Payload, PublicationId, Timestamp, Why};

/// The columns of a message, in the order in which [`message`] reads them.
pub(crate) const SELECTED: &str = "data_id, channel, data, created, expires, due, receivers, publication, deliveries, dead_why, dead_channel, dead_attempts, dead_reason";

/// The rows in the index on `expires`.
const EXPIRING: &str = "expires IS NOT NULL AND due IS NULL";

/// The text in [`SELECTED`] with which the columns of dead letters begin.
const DEAD: &str = ", dead_why";

/// Every statement, built once from validated names; values are always bound.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(super) insert: Insert,
    /// For [`limits::STORE_ROWS_AT_ONCE`] rows, none of them a dead letter.
    pub(super) insert_batch: Insert,
    pub(super) insert_dead: Insert,
    /// Removes one row; used by the journal in front of a database server only.
    #[cfg_attr(not(any(feature = "mysql", feature = "postgres")), allow(dead_code))]
    pub(crate) delete: String,
    pub(super) delete_run: String,
    pub(crate) deliveries: String,
    pub(crate) load: String,
    pub(super) scan: String,
    pub(crate) sweep: String,
    pub(crate) expired: String,
    pub(crate) purge: String,
    pub(super) channels: String,
    pub(super) delayed: String,
    pub(super) newest: String,
    pub(super) last_id: String,
    /// The highest id that was ever assigned, which SQLite keeps for a table that the broker has created.
    pub(super) last_given: String,
    pub(super) read_clean: String,
    pub(super) write_clean: String,
    pub(super) write_probe: String,
    pub(super) times: Times,
    pub(super) read_mark: String,
    pub(crate) write_mark: String,
}

/// The statements for the times of rows.
#[derive(Debug)]
pub(crate) struct Times {
    pub(super) expiry_bounds: String,
    pub(super) expiries: String,
    pub(super) restamp: String,
    pub(super) newest_created: String,
    pub(super) from_the_future: String,
    pub(super) clamp_future_rows: String,
}

impl Times {
    /// `data` is the table's name, quoted.
    fn new(data: &str) -> Self {
        Self {
            expiry_bounds: format!(
                "SELECT (SELECT expires FROM {data} WHERE {EXPIRING} ORDER BY expires LIMIT 1), \
                 (SELECT expires FROM {data} WHERE {EXPIRING} ORDER BY expires DESC LIMIT 1)"
            ),
            expiries: format!(
                "SELECT channel, min(expires), count(*) FROM {data} WHERE {EXPIRING} AND data_id > 0 GROUP BY channel, expires / ?1"
            ),
            restamp: format!(
                "UPDATE {data} SET created = coalesce(strftime('%Y-%m-%d %H:%M:%S', created, ?1), created), \
                 expires = max(0, expires + ?2), due = max(0, due + ?2) \
                 WHERE data_id > ?3 OR (?4 AND (expires IS NOT NULL OR due IS NOT NULL))"
            ),
            newest_created: format!(
                "SELECT max(created) FROM (SELECT created FROM {data} WHERE data_id <= ?1 AND typeof(created) = 'text' \
                 ORDER BY data_id DESC LIMIT ?2)"
            ),
            from_the_future: format!(
                "SELECT data_id, created FROM {data} WHERE created > ?1 AND typeof(created) = 'text' AND data_id <= ?2 \
                 AND (expires IS NOT NULL OR due IS NOT NULL)"
            ),
            clamp_future_rows: format!(
                "UPDATE {data} SET created = ?1, expires = max(0, expires - ?2), due = max(0, due - ?2) WHERE data_id = ?3"
            ),
        }
    }
}

impl Sql {
    pub(crate) fn new(tables: &Tables, columns: &Columns) -> Self {
        let (data, meta) = (format!("\"{}\"", tables.data), format!("\"{}\"", tables.meta));
        let by_channel = format!("INDEXED BY \"{}_channel\"", tables.data);
        Self {
            insert: Insert::new(&data, columns, 1, false),
            insert_batch: Insert::new(&data, columns, limits::STORE_ROWS_AT_ONCE, false),
            insert_dead: Insert::new(&data, columns, 1, true),
            delete: format!("DELETE FROM {data} WHERE data_id = ?1"),
            delete_run: format!("DELETE FROM {data} WHERE data_id BETWEEN ?1 AND ?2"),
            deliveries: format!("UPDATE {data} SET deliveries = ?2 WHERE data_id = ?1"),
            load: format!(
                "SELECT {SELECTED} FROM {data} {by_channel} WHERE channel = ?1 AND due IS NULL AND data_id > ?2 \
                 ORDER BY data_id LIMIT ?3"
            ),
            scan: format!("SELECT {SELECTED} FROM {data} WHERE data_id > ?1 ORDER BY data_id"),
            sweep: format!(
                "DELETE FROM {data} WHERE data_id IN (SELECT data_id FROM {data} WHERE expires IS NOT NULL AND due IS NULL AND expires <= ?1 \
                 ORDER BY expires LIMIT ?2) RETURNING data_id, channel"
            ),
            // No limit: SQLite does not read rows that are not requested.
            expired: format!(
                "SELECT {SELECTED} FROM {data} WHERE expires IS NOT NULL AND due IS NULL AND expires <= ?1 \
                 AND (expires, data_id) > (?2, ?3) ORDER BY expires, data_id"
            ),
            purge: format!(
                "DELETE FROM {data} WHERE data_id IN (SELECT data_id FROM {data} {by_channel} \
                 WHERE channel = ?1 AND data_id <= ?2 LIMIT ?3)"
            ),
            channels: format!(
                "SELECT channel, count(*), max(data_id) FROM {data} {by_channel} WHERE due IS NULL AND data_id > 0 \
                 GROUP BY channel ORDER BY channel"
            ),
            delayed: format!("SELECT {SELECTED} FROM {data} WHERE due IS NOT NULL ORDER BY due LIMIT ?1"),
            newest: format!(
                "SELECT coalesce(dead_channel, channel), publication, created, data_id FROM {data} ORDER BY data_id DESC LIMIT ?1"
            ),
            last_id: format!("SELECT max(data_id) FROM {data}"),
            last_given: format!("SELECT seq FROM sqlite_sequence WHERE name = '{}'", tables.data),
            read_clean: format!("SELECT value FROM {meta} WHERE name = 'clean'"),
            write_clean: format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES ('clean', ?1)"),
            write_probe: format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES ('probe', zeroblob(?1))"),
            times: Times::new(&data),
            read_mark: format!("SELECT value FROM {meta} WHERE name = ?1"),
            write_mark: format!("INSERT OR REPLACE INTO {meta} (name, value) VALUES (?1, ?2)"),
        }
    }
}

/// A number as SQLite stores it: signed. Numbers out of range become the largest number.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A statement that writes rows.
#[derive(Debug)]
pub(super) struct Insert {
    pub(super) text: String,
    /// The number of columns of each row. The user-defined columns come first, because their number varies; the columns of dead letters come last.
    pub(super) width: usize,
}

impl Insert {
    /// A statement for `rows` rows. `dead`: with the columns of dead letters. Other rows omit these columns, because a named column costs time even
    /// if its value is NULL.
    fn new(data: &str, columns: &Columns, rows: usize, dead: bool) -> Self {
        let named = if dead { SELECTED } else { SELECTED.split(DEAD).next().unwrap_or(SELECTED) };
        let names: String = columns.names().map(|name| format!("\"{name}\", ")).collect::<String>() + named;
        let width = columns.names().count() + named.split(", ").count();
        let row = format!("({})", vec!["?"; width].join(", "));
        let text = format!("INSERT OR REPLACE INTO {data} ({names}) VALUES {}", vec![row; rows].join(", "));
        Self { text, width }
    }
}

/// Binds a row to the parameters after the first `before` parameters.
pub(super) fn bind(
    insert: &mut CachedStatement<'_>,
    before: usize,
    message: &Message,
    created: &str,
    columns: &Columns,
) -> rusqlite::Result<()> {
    let bytes = &message.payload.bytes[..];
    let mut last = before;
    let mut next = || {
        last += 1;
        last
    };
    for value in columns.values(bytes) {
        let value = match value {
            ColumnValue::Null => Value::Null,
            ColumnValue::Boolean(truth) => Value::Integer(i64::from(truth)),
            ColumnValue::Integer(whole) => Value::Integer(whole),
            ColumnValue::Real(real) => Value::Real(real),
            ColumnValue::Text(text) | ColumnValue::Json(text) => Value::Text(text),
        };
        insert.raw_bind_parameter(next(), value)?;
    }
    let data = match message.payload.kind {
        Kind::Text => ValueRef::Text(bytes),
        Kind::Binary => ValueRef::Blob(bytes),
    };
    insert.raw_bind_parameter(next(), integer(message.id.0))?;
    insert.raw_bind_parameter(next(), message.channel.as_str())?;
    insert.raw_bind_parameter(next(), ToSqlOutput::Borrowed(data))?;
    insert.raw_bind_parameter(next(), created)?;
    insert.raw_bind_parameter(next(), message.expires.map(|moment| integer(moment.0)))?;
    insert.raw_bind_parameter(next(), message.due.map(|moment| integer(moment.0)))?;
    insert.raw_bind_parameter(next(), message.receivers)?;
    insert.raw_bind_parameter(next(), message.publication.as_ref().map(PublicationId::as_str))?;
    // NULL means 0 and needs no space.
    insert.raw_bind_parameter(next(), (message.deliveries > 0).then_some(message.deliveries))?;
    if let Some(dead) = message.dead.as_deref() {
        insert.raw_bind_parameter(next(), dead.why.as_str())?;
        insert.raw_bind_parameter(next(), dead.channel.as_str())?;
        insert.raw_bind_parameter(next(), dead.attempts)?;
        insert.raw_bind_parameter(next(), dead.reason.as_deref())?;
    }
    Ok(())
}

/// Decodes a row of [`SELECTED`]; `None` if the id is not positive or the channel name is invalid.
pub(crate) fn message(row: &Row<'_>) -> rusqlite::Result<Option<Message>> {
    let Some((id, channel)) = id(row, 0)?.zip(channel(row, 1)?) else {
        return Ok(None);
    };
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some(Message {
        id,
        channel,
        payload: payload(row.get_ref(2)?),
        created: moment(row, 3)?,
        expires: number(row.get_ref(4)?).map(Timestamp),
        due: number(row.get_ref(5)?).map(Timestamp),
        receivers: number(row.get_ref(6)?).map(count),
        publication: text(row.get_ref(7)?).map(|stored| PublicationId::from_stored(&stored)),
        deliveries: number(row.get_ref(8)?).map_or(0, count),
        dead: dead_letter(row, 9)?,
    }))
}

/// Decodes the columns of a dead letter, from `first` on; `None` if the row is not a dead letter, or if its first channel is unknown.
fn dead_letter(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Box<DeadLetter>>> {
    let Some(why) = text(row.get_ref(first)?).and_then(|why| Why::parse(&why)) else { return Ok(None) };
    let Some(channel) = channel(row, first + 1)? else { return Ok(None) };
    let attempts = number(row.get_ref(first + 2)?).unwrap_or_default();
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    let reason = text(row.get_ref(first + 3)?).map(String::into_boxed_str);
    Ok(Some(Box::new(DeadLetter { why, channel, attempts, reason })))
}

/// Decodes a payload. NULL is `null`, as the PHP broker sends it; a number that another program stored becomes its text.
fn payload(value: ValueRef<'_>) -> Payload {
    match value {
        ValueRef::Null => Payload::text("null"),
        ValueRef::Integer(whole) => Payload::text(whole.to_string()),
        ValueRef::Real(real) => Payload::text(real.to_string()),
        ValueRef::Text(bytes) => {
            let kind = if std::str::from_utf8(bytes).is_ok() { Kind::Text } else { Kind::Binary };
            Payload { bytes: Bytes::copy_from_slice(bytes), kind }
        }
        ValueRef::Blob(bytes) => Payload { bytes: Bytes::copy_from_slice(bytes), kind: Kind::Binary },
    }
}

/// A message's id; `None` if it is not positive.
pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<MessageId>> {
    Ok(number(row.get_ref(column)?).filter(|id| *id > 0).map(MessageId))
}

/// A channel; `None` if the name is invalid.
pub(crate) fn channel(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ChannelName>> {
    Ok(text(row.get_ref(column)?).and_then(|name| ChannelName::parse(&name).ok()))
}

/// The time of `created`; 1970 if it is missing or not a date.
pub(crate) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(text(row.get_ref(column)?).and_then(|text| datetime::from_text(&text)).unwrap_or_default())
}

/// A text, or a number as text; `None` for NULL and for invalid UTF-8.
pub(crate) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        ValueRef::Integer(whole) => Some(whole.to_string()),
        ValueRef::Real(_) | ValueRef::Null => None,
    }
}

/// A number; `None` if it is negative.
fn number(value: ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Integer(whole) => u64::try_from(whole).ok(),
        _ => None,
    }
}
