//! Sweeps of expired rows: rows are removed, or, if their channels are spared, read and kept. Both run within the caller's transaction.

use super::super::Swept;
use super::client::Session;
use super::driver::{Value, number};
use super::rows::{channel, message, message_id};
use super::write;
use crate::limits;
use crate::message_store::SweptTo;
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// Removes expired rows of all channels.
///
/// # Errors
/// The server's error.
pub(super) async fn all(session: &mut Session, now: Timestamp, limit: usize) -> sqlx::Result<Swept> {
    let values = [Value::from(now.0), Value::from(limit as u64)];
    let rows = session.driver.fetch(&session.statements.expired, &values).await?;
    let mut swept = Swept { more: rows.len() >= limit, ..Swept::default() };
    let mut ids = Vec::new();
    for row in rows {
        let mut cells = row.into_iter();
        let Some(id) = message_id(cells.next().flatten()) else { continue };
        ids.push(id);
        swept.gone.extend(channel(cells.next().flatten(), session.table.channel).map(|channel| (id, channel)));
    }
    write::delete(&mut session.driver, &mut session.statements, ids.into_iter()).await?;
    Ok(swept)
}

/// Removes expired rows after `from`; reads the rows of spared channels. Rows with an invalid channel name stay.
///
/// # Errors
/// The server's error.
pub(super) async fn some(
    session: &mut Session,
    now: Timestamp,
    limit: usize,
    spare: &Spare,
    from: SweptTo,
) -> sqlx::Result<(Swept, SweptTo)> {
    let statement = session.statements.spared.clone();
    let mut swept = Swept { more: true, ..Swept::default() };
    let (mut to, mut seen, mut bytes) = (from.unwrap_or((Timestamp(0), MessageId(0))), 0, 0);
    let mut wanted = limits::STORE_FIRST_ROWS;
    while seen < limit && bytes <= wsmb_core::limits::PAGE_BYTES {
        let asked = wanted.min(limit - seen);
        let at = [to.0.0, to.0.0, to.1.0].map(Value::from);
        let values: Vec<_> = std::iter::once(Value::from(now.0)).chain(at).chain([Value::from(asked as u64)]).collect();
        let rows = session.driver.fetch(&statement, &values).await?;
        swept.more = rows.len() >= asked;
        for row in rows {
            if bytes > wsmb_core::limits::PAGE_BYTES {
                swept.more = true;
                break;
            }
            seen += 1;
            let cell = |index: usize| row.get(index).cloned().flatten();
            let (expires, id) = (number(cell(EXPIRES)), message_id(cell(0)));
            to = expires.map(Timestamp).zip(id).unwrap_or(to);
            let Some(found) = message(row, &session.table) else { continue };
            bytes += found.payload.bytes.len();
            swept.add(found, spare);
        }
        if !swept.more {
            break;
        }
        // The number of rows that are likely to fit.
        let usual = bytes / seen.max(1) + 1;
        wanted = (wsmb_core::limits::PAGE_BYTES.saturating_sub(bytes) / usual).clamp(1, limits::STORE_WALK_ROWS);
    }
    let gone = swept.gone.iter().map(|(id, _)| *id);
    write::delete(&mut session.driver, &mut session.statements, gone).await?;
    let to = swept.more.then_some(to);
    Ok((swept, to))
}

/// The index of `expires` among the selected columns of a message.
const EXPIRES: usize = 4;
