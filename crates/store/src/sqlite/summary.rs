//! Reads what a broker needs of the store at its start.

use rusqlite::{Connection, OptionalExtension};

use super::row::{self, Sql};
use super::schema::exists;
use crate::limits;
use crate::publications::FoundPublications;
use crate::{ChannelSummary, StoredPublication};
use wsmb_core::message::{Message, MessageId, PublicationId, Timestamp};

/// Returns every channel, and the number of rows that other programs wrote under invalid channel names, which no receiver can get.
pub(super) fn channels(connection: &Connection, sql: &Sql) -> rusqlite::Result<(Vec<ChannelSummary>, u64)> {
    let mut statement = connection.prepare(&sql.channels)?;
    let mut rows = statement.query([])?;
    let (mut channels, mut foreign) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let messages = row.get::<_, i64>(1)?.unsigned_abs();
        match row::channel(row, 0)?.zip(row::id(row, 2)?) {
            Some((channel, last)) => channels.push(ChannelSummary { channel, messages, last }),
            None => foreign += messages,
        }
    }
    Ok((channels, foreign))
}

/// The highest id that was ever assigned, as far as the file knows.
pub(super) fn last_id(connection: &Connection, sql: &Sql) -> rusqlite::Result<MessageId> {
    let there = connection.query_row(&sql.last_id, [], |row| row::id(row, 0))?.unwrap_or_default();
    // SQLite creates this table with the first table that has `AUTOINCREMENT`.
    if !exists(connection, "sqlite_sequence")? {
        return Ok(there);
    }
    let given = connection.query_row(&sql.last_given, [], |row| row::id(row, 0)).optional()?.flatten();
    Ok(there.max(given.unwrap_or_default()))
}

pub(super) fn delayed(connection: &Connection, sql: &Sql) -> rusqlite::Result<Vec<Message>> {
    let mut statement = connection.prepare(&sql.delayed)?;
    let mut rows = statement.query([row::integer(wsmb_core::limits::DELAYED as u64)])?;
    let mut delayed = Vec::new();
    while let Some(row) = rows.next()? {
        delayed.extend(row::message(row)?);
    }
    delayed.sort_unstable_by_key(|message| message.id);
    Ok(delayed)
}

/// Reads from the newest row backwards, and skips a bounded number of old rows (imported rows, dead letters). Ids are nearly always in the order of
/// time, so no index is needed, which would slow every insertion.
pub(super) fn publications(
    connection: &Connection,
    sql: &Sql,
    since: Timestamp,
) -> rusqlite::Result<Vec<StoredPublication>> {
    if since == Timestamp(u64::MAX) {
        return Ok(Vec::new());
    }
    // The column holds whole seconds.
    let since = Timestamp(since.0 / 1_000 * 1_000);
    let mut statement = connection.prepare(&sql.newest)?;
    let mut rows = statement.query([row::integer(4 * wsmb_core::limits::DEDUP_IDS as u64)])?;
    let (mut found, mut old) = (FoundPublications::default(), 0);
    while let Some(row) = rows.next()? {
        let created = row::moment(row, 2)?;
        if old >= limits::IDS_OLD_ROWS || found.len() >= wsmb_core::limits::DEDUP_IDS {
            break;
        }
        if created < since {
            old += 1;
            continue;
        }
        let publication = row::text(row.get_ref(1)?).map(|text| PublicationId::from_stored(&text));
        if let Some(((channel, publication), id)) = row::channel(row, 0)?.zip(publication).zip(row::id(row, 3)?) {
            found.add(channel, publication, created, id);
        }
    }
    Ok(found.oldest_first())
}
