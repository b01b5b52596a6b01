//! Stored times: put right when the clock that made them was wrong, and counted.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::row::{Sql, integer};
use crate::limits;
use crate::restamp::{expiry_span, surplus};
use crate::{Restamp, datetime};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};

/// The name of the note that says which correction was the last.
const LAST: &str = "restamped";

/// Carries out a correction, unless it was the last one already; then the answer is false.
pub(crate) fn restamp(transaction: &Transaction<'_>, sql: &Sql, restamp: &Restamp) -> rusqlite::Result<bool> {
    let token = integer(restamp.token);
    let last: Option<i64> = transaction.query_row(&sql.read_mark, [LAST], |row| row.get(0)).optional()?;
    if last == Some(token) {
        return Ok(false);
    }
    let seconds = format!("{:+} seconds", restamp.seconds());
    let after = integer(restamp.after.0);
    transaction.execute(&sql.times.restamp, params![seconds, restamp.by, after, restamp.all])?;
    transaction.execute(&sql.write_mark, params![LAST, token])?;
    Ok(true)
}

/// Takes rows from the future as created now. Whether there are any is told by the newest rows: whatever a wrong clock made was made last.
pub(super) fn rejuvenate(
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
            young.extend(super::row::id(row, 0)?.map(|id| (id, surplus(created, now))));
        }
    }
    for (id, less) in young {
        transaction.prepare_cached(&sql.times.rejuvenate)?.execute(params![text, integer(less), integer(id.0)])?;
    }
    transaction.commit()
}

/// When the rows without a due time expire, by channel.
pub(super) fn expiries(connection: &Connection, sql: &Sql) -> rusqlite::Result<Vec<(ChannelName, Timestamp, u64)>> {
    let (first, last): (Option<i64>, Option<i64>) =
        connection.query_row(&sql.times.expiry_bounds, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((first, last)) = first.zip(last) else { return Ok(Vec::new()) };
    let stamp = |moment: i64| Timestamp(u64::try_from(moment).unwrap_or_default());
    let span = expiry_span(stamp(first), stamp(last));
    let mut statement = connection.prepare(&sql.times.expiries)?;
    let mut rows = statement.query([integer(span)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, messages): (i64, i64) = (row.get(1)?, row.get(2)?);
        found.extend(super::row::channel(row, 0)?.map(|channel| (channel, stamp(at), messages.unsigned_abs())));
    }
    Ok(found)
}
