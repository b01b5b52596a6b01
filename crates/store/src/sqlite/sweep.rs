//! Sweeps of expired rows: rows are removed, or, if their channels are spared, read and kept.
//!
//! Never removes a row without returning its id, except rows with an invalid channel name.

use rusqlite::{Transaction, params};

use super::row::{self, Sql};
use super::write::remove;
use crate::Swept;
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// The expiry and the id of a row, as stored in the table: the next sweep continues after this row.
pub(super) type SweptTo = Option<(i64, i64)>;

/// The index of `expires` among the selected columns of a message.
const EXPIRES: usize = 4;

/// Removes or reads expired rows, and returns where the next sweep continues.
pub(super) fn sweep(
    transaction: &Transaction<'_>,
    sql: &Sql,
    (now, limit): (Timestamp, usize),
    spare: &Spare,
    from: SweptTo,
) -> rusqlite::Result<(Swept, SweptTo)> {
    if spare.is_empty() {
        Ok((sweep_all(transaction, sql, now, limit)?, None))
    } else {
        sweep_some(transaction, sql, (now, limit), spare, from)
    }
}

/// Removes expired rows, and returns their ids.
fn sweep_all(transaction: &Transaction<'_>, sql: &Sql, now: Timestamp, limit: usize) -> rusqlite::Result<Swept> {
    let mut statement = transaction.prepare_cached(&sql.sweep)?;
    let mut rows = statement.query(params![row::integer(now.0), row::integer(limit as u64)])?;
    let mut swept = Swept::default();
    let mut seen = 0;
    while let Some(found) = rows.next()? {
        seen += 1;
        swept.gone.extend(row::id(found, 0)?.zip(row::channel(found, 1)?));
    }
    swept.more = seen >= limit;
    Ok(swept)
}

/// As [`sweep_all`], with some spared channels. Rows with an invalid channel name stay too.
fn sweep_some(
    transaction: &Transaction<'_>,
    sql: &Sql,
    (now, limit): (Timestamp, usize),
    spare: &Spare,
    from: SweptTo,
) -> rusqlite::Result<(Swept, SweptTo)> {
    let (at, id) = from.unwrap_or((i64::MIN, i64::MIN));
    let mut statement = transaction.prepare_cached(&sql.expired)?;
    let mut rows = statement.query(params![row::integer(now.0), at, id])?;
    let (mut swept, mut to, mut seen, mut bytes) = (Swept::default(), from, 0, 0);
    while let Some(found) = rows.next()? {
        if seen >= limit || bytes > wsmb_core::limits::PAGE_BYTES {
            swept.more = true;
            break;
        }
        seen += 1;
        let at = |index| found.get_ref(index).ok()?.as_i64().ok();
        to = at(EXPIRES).zip(at(0)).or(to);
        let Some(message) = row::message(found)? else { continue };
        bytes += message.payload.bytes.len();
        swept.add(message, spare);
    }
    let mut gone: Vec<MessageId> = swept.gone.iter().map(|(id, _)| *id).collect();
    gone.sort_unstable();
    remove(transaction, sql, &gone)?;
    let to = to.filter(|_| swept.more);
    Ok((swept, to))
}
