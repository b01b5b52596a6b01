//! How a group gets into the table: few statements, whatever its size, and no row of anybody else overwritten.

use std::collections::{BTreeMap, HashMap};

use super::super::{Columns, Group, StoreError};
use super::client::Session;
use super::driver::{Driver, Value, number, text};
use super::error::{is_about_a_value, is_collision};
use super::rows::{push_values, values, weight};
use super::schema::{Shape, write_note};
use super::statements::{Many, Names, Statements, parts};
use crate::limits;
use crate::message::{Message, MessageId};

/// New rows as values, one row behind the other, that are not too large for one statement.
#[derive(Default)]
struct Parcel<'a> {
    values: Vec<Value<'a>>,
    rows: usize,
}

/// Refuses a group with rows that the table can never hold.
///
/// # Errors
/// [`StoreError::Unfit`] names them.
pub(super) fn check(group: &Group, shape: &Shape, columns: &Columns, place: &str) -> Result<(), StoreError> {
    let unfit = |ids: Vec<MessageId>, reason: String| StoreError::Unfit { place: place.to_owned(), ids, reason };
    let ids = |hit: &dyn Fn(&Message) -> bool| -> Vec<MessageId> {
        group.appends.iter().filter(|message| hit(message)).map(|message| message.id).collect()
    };
    let strange = ids(&|message| !shape.channel.holds(message.channel.as_str()));
    if !strange.is_empty() {
        let reason =
            "have a channel name with characters that the table's character set lacks; convert the table to utf8mb4";
        return Err(unfit(strange, reason.to_owned()));
    }
    // Base64 and escapes make a payload up to six times as large, so that most need no second look.
    let is_large = |message: &Message| {
        message.payload.bytes.len() > shape.packet / 8
            && weight(&values(message, shape, columns)) + limits::STORE_ROW_BYTES > shape.packet
    };
    let large = ids(&is_large);
    if !large.is_empty() {
        let reason =
            format!("are larger than its max_allowed_packet of {} bytes; raise that on the server", shape.packet);
        return Err(unfit(large, reason));
    }
    Ok(())
}

/// How a group is written.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// Rows of these ids may be there: they go first.
    anew: bool,
    /// The user-defined fields; `None` leaves them NULL.
    columns: Option<&'a Columns>,
}

/// Carries out a group, in a transaction if it takes more than one statement.
///
/// # Errors
/// Whatever the server says; then the transaction, if any, is still open.
pub(super) async fn commit(session: &mut Session, group: &Group, columns: &Columns, names: &Names) -> sqlx::Result<()> {
    let usual = Manner { anew: false, columns: Some(columns) };
    let mut outcome = write(session, group, names, usual).await;
    if outcome.as_ref().is_err_and(is_collision) {
        session.driver.run("ROLLBACK").await?;
        clear_the_way(session, group, columns).await?;
        outcome = write(session, group, names, Manner { anew: true, ..usual }).await;
    }
    match outcome {
        // A rule of the table that is known to nobody here. No message is lost for a field.
        Err(error) if is_about_a_value(names.backend, &error) && !session.shape.fields.is_empty() => {
            session.driver.run("ROLLBACK").await?;
            let rows = group.appends.len();
            tracing::warn!(
                "the message table does not take a value of a column of store.columns; of {rows} messages these columns are NULL"
            );
            write(session, group, names, Manner { anew: true, columns: None }).await
        }
        outcome => outcome,
    }
}

async fn write(session: &mut Session, group: &Group, names: &Names, manner: Manner<'_>) -> sqlx::Result<()> {
    let Session { driver, shape, statements } = session;
    let parcels = parcels(&group.appends, shape, manner.columns);
    // Of two counts for one row, the last one counts.
    let deliveries: BTreeMap<MessageId, u32> =
        if shape.has("deliveries") { group.deliveries.iter().copied().collect() } else { BTreeMap::new() };
    let rows = parcels.iter().map(|parcel| parts(parcel.rows, limits::STORE_STATEMENT_ROWS).count()).sum::<usize>();
    let ids = parts(group.removals.len(), limits::STORE_STATEMENT_IDS).count();
    let counts = parts(deliveries.len(), limits::STORE_STATEMENT_ROWS).count();
    // One statement is a transaction by itself.
    let alone = !manner.anew && rows + ids + counts + group.marks.len() <= 1;
    if !alone {
        driver.run("BEGIN").await?;
    }
    if manner.anew {
        delete(driver, statements, group.appends.iter().map(|message| message.id)).await?;
    }
    for Parcel { values, rows } in &parcels {
        let mut rest = &values[..];
        for size in parts(*rows, limits::STORE_STATEMENT_ROWS) {
            let (part, behind) = rest.split_at(size * statements.width());
            driver.execute(&statements.many(Many::Insert, size), part).await?;
            rest = behind;
        }
    }
    delete(driver, statements, group.removals.iter().copied()).await?;
    let mut left = deliveries.iter();
    for size in parts(deliveries.len(), limits::STORE_STATEMENT_ROWS) {
        let part: Vec<(&MessageId, &u32)> = left.by_ref().take(size).collect();
        let pairs = part.iter().flat_map(|(id, count)| [Value::from(id.0), Value::from(u64::from(**count))]);
        let values: Vec<Value<'_>> = pairs.chain(part.iter().map(|(id, _)| Value::from(id.0))).collect();
        driver.execute(&statements.many(Many::Count, size), &values).await?;
    }
    for (name, value) in &group.marks {
        write_note(driver, names, name, &value.to_string()).await?;
    }
    if alone { Ok(()) } else { driver.run("COMMIT").await }
}

async fn delete(
    driver: &mut Driver,
    statements: &mut Statements,
    mut ids: impl ExactSizeIterator<Item = MessageId>,
) -> sqlx::Result<()> {
    for size in parts(ids.len(), limits::STORE_STATEMENT_IDS) {
        let values: Vec<Value<'_>> = ids.by_ref().take(size).map(|id| Value::from(id.0)).collect();
        driver.execute(&statements.many(Many::Delete, size), &values).await?;
    }
    Ok(())
}

fn parcels<'a>(appends: &'a [Message], shape: &Shape, columns: Option<&Columns>) -> Vec<Parcel<'a>> {
    // One statement can't write a row twice; the last one counts.
    let last: HashMap<MessageId, usize> =
        appends.iter().enumerate().map(|(index, message)| (message.id, index)).collect();
    let most = limits::STORE_STATEMENT_BYTES.min(shape.packet / 2);
    let mut parcels: Vec<Parcel<'a>> = Vec::new();
    let mut parcel = Parcel::default();
    let mut bytes = 0;
    for (index, message) in appends.iter().enumerate() {
        if last.get(&message.id) != Some(&index) {
            continue;
        }
        let start = parcel.values.len();
        push_values(&mut parcel.values, message, shape, columns);
        let weight = weight(&parcel.values[start..]);
        if parcel.rows > 0 && bytes + weight > most {
            let row = parcel.values.split_off(start);
            parcels.push(std::mem::replace(&mut parcel, Parcel { values: row, rows: 0 }));
            bytes = 0;
        }
        parcel.rows += 1;
        bytes += weight;
    }
    parcels.extend(Some(parcel).filter(|parcel| parcel.rows > 0));
    parcels
}

/// Some of the ids are there already: from an earlier attempt whose answer was lost, or because another program writes the table, too. Rows of the latter
/// get ids far behind, and will be delivered after the next start.
async fn clear_the_way(session: &mut Session, group: &Group, columns: &Columns) -> sqlx::Result<()> {
    let Session { driver, shape, statements } = session;
    let mut foreign = Vec::new();
    for message in &group.appends {
        let rows = driver.fetch(&statements.same, &[Value::from(message.id.0)]).await?;
        let Some(row) = rows.into_iter().next() else { continue };
        let mut cells = row.into_iter().skip(1);
        let (data, created) = (text(cells.next().flatten()), text(cells.next().flatten()));
        let ours = values(message, shape, columns);
        let same = |value: &Value<'_>, stored: &Option<String>| match value {
            Value::Text(text) => text.as_deref() == stored.as_deref(),
            Value::Integer(_) => false,
        };
        if !(same(&ours[2], &data) && same(&ours[3], &created)) {
            foreign.push(message.id);
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let rows = driver.fetch(&statements.last_id, &[]).await?;
    let highest = rows.into_iter().next().and_then(|row| number(row.into_iter().next().flatten())).unwrap_or_default();
    let count = foreign.len();
    for (id, place) in foreign.into_iter().zip(1..) {
        let new = highest.saturating_add(limits::STORE_FOREIGN_GAP).saturating_add(place);
        driver.execute(&statements.move_away, &[Value::from(new), Value::from(id.0)]).await?;
    }
    tracing::warn!(
        "another program writes to the message table while the broker uses it: {count} of its rows had ids that the broker had given to messages; \
         they have new ids and will be delivered after the next start; let applications send through the broker instead"
    );
    Ok(())
}
