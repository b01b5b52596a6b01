//! Writes and removes rows within the caller's transaction.

use rusqlite::Transaction;

use super::link;
use super::row::{self, Sql};
use crate::columns::Columns;
use crate::{datetime, limits};
use wsmb_core::message::{Message, MessageId};

/// Writes new rows, and reserves disk space for them in the main file.
pub(crate) fn append(
    transaction: &Transaction<'_>,
    sql: &Sql,
    columns: &Columns,
    messages: &[Message],
) -> rusqlite::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let (batches, rest) = messages.as_chunks::<{ limits::STORE_ROWS_AT_ONCE }>();
    for batch in batches {
        let bytes: usize = batch.iter().map(|message| message.payload.bytes.len()).sum();
        if bytes <= limits::STORE_BYTES_AT_ONCE && batch.iter().all(|message| message.dead.is_none()) {
            insert(transaction, &sql.insert_batch, columns, batch.chunks(batch.len()))?;
        } else {
            append_singly(transaction, sql, columns, batch)?;
        }
    }
    append_singly(transaction, sql, columns, rest)?;
    link::reserve_space(transaction)
}

fn append_singly(
    transaction: &Transaction<'_>,
    sql: &Sql,
    columns: &Columns,
    messages: &[Message],
) -> rusqlite::Result<()> {
    for alike in messages.chunk_by(|before, after| before.dead.is_some() == after.dead.is_some()) {
        let dead = alike.first().is_some_and(|message| message.dead.is_some());
        insert(transaction, if dead { &sql.insert_dead } else { &sql.insert }, columns, alike.chunks(1))?;
    }
    Ok(())
}

/// Writes rows with a statement whose number of rows is the length of each part.
fn insert<'a>(
    transaction: &Transaction<'_>,
    statement: &row::Insert,
    columns: &Columns,
    parts: impl Iterator<Item = &'a [Message]>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(&statement.text)?;
    let mut texts = datetime::Texts::default();
    for part in parts {
        for (index, message) in part.iter().enumerate() {
            row::bind(&mut insert, index * statement.width, message, texts.of(message.created), columns)?;
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// Removes rows. One statement removes a run of consecutive ids: messages that are received together are often stored together.
pub(super) fn remove(transaction: &Transaction<'_>, sql: &Sql, ids: &[MessageId]) -> rusqlite::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut delete = transaction.prepare_cached(&sql.delete_run)?;
    for run in ids.chunk_by(|before, after| before.0.checked_add(1) == Some(after.0)) {
        if let [first, .., last] | [first @ last] = run {
            delete.execute([row::integer(first.0), row::integer(last.0)])?;
        }
    }
    Ok(())
}
