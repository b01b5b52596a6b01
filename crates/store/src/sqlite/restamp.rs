//! Corrections and counts of stored times.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::row::{Sql, integer};
use crate::limits;
use crate::restamp::{LAST_RESTAMP, expiry_span, future_excess};
use crate::{Restamp, datetime};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};

/// Carries out a correction; false if the correction was carried out before.
pub(crate) fn restamp(transaction: &Transaction<'_>, sql: &Sql, restamp: &Restamp) -> rusqlite::Result<bool> {
    let token = integer(restamp.token);
    let last: Option<i64> = transaction.query_row(&sql.read_mark, [LAST_RESTAMP], |row| row.get(0)).optional()?;
    if last == Some(token) {
        return Ok(false);
    }
    let seconds = format!("{:+} seconds", restamp.seconds());
    let after = integer(restamp.after.0);
    transaction.execute(&sql.times.restamp, params![seconds, restamp.by, after, restamp.all])?;
    transaction.execute(&sql.write_mark, params![LAST_RESTAMP, token])?;
    Ok(true)
}

/// Corrects rows that were created in the future. The newest rows show whether there are any, because the rows of a wrong clock are the newest.
pub(super) fn clamp_future_rows(
    connection: &mut Connection,
    sql: &Sql,
    now: Timestamp,
    up_to: MessageId,
) -> rusqlite::Result<()> {
    let text = datetime::to_text(now);
    let newest = params![integer(up_to.0), integer(limits::CLOCK_NEWEST_ROWS)];
    let newest: Option<String> = connection.query_row(&sql.times.newest_created, newest, |row| row.get(0))?;
    if newest.is_none_or(|newest| newest <= text) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut young = Vec::new();
    {
        let mut statement = transaction.prepare(&sql.times.from_the_future)?;
        let mut rows = statement.query(params![text, integer(up_to.0)])?;
        while let Some(row) = rows.next()? {
            let created = super::row::moment(row, 1)?;
            young.extend(super::row::id(row, 0)?.map(|id| (id, future_excess(created, now))));
        }
    }
    for (id, less) in young {
        transaction.prepare_cached(&sql.times.clamp_future_rows)?.execute(params![
            text,
            integer(less),
            integer(id.0)
        ])?;
    }
    transaction.commit()
}

/// The expiries of the rows without a due time, by channel.
pub(super) fn expiries(connection: &Connection, sql: &Sql) -> rusqlite::Result<Vec<(ChannelName, Timestamp, u64)>> {
    let (first, last): (Option<i64>, Option<i64>) =
        connection.query_row(&sql.times.expiry_bounds, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((first, last)) = first.zip(last) else { return Ok(Vec::new()) };
    let timestamp = |moment: i64| Timestamp(u64::try_from(moment).unwrap_or_default());
    let span = expiry_span(timestamp(first), timestamp(last));
    let mut statement = connection.prepare(&sql.times.expiries)?;
    let mut rows = statement.query([integer(span)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, messages): (i64, i64) = (row.get(1)?, row.get(2)?);
        found.extend(super::row::channel(row, 0)?.map(|channel| (channel, timestamp(at), messages.unsigned_abs())));
    }
    Ok(found)
}
