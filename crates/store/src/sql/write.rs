//! How a group gets into the table: few statements, whatever its size, and no row of anybody else overwritten.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::super::{Backend, Columns, Group, StoreError};
use super::client::Session;
use super::driver::{Driver, Value, number, text};
use super::error::{is_collision, refusal};
use super::field::is_cut;
use super::refusals::Cause;
use super::rows::{Stamp, channel, message_id, moment, push_values, values, weight};
use super::schema::write_note;
use super::statements::{Many, Names, Statements, parts};
use super::table::MessageTable;
use crate::limits;
use wsmb_core::message::{Message, MessageId};

/// New rows as values, one row behind the other, that are not too large for one statement.
#[derive(Default)]
struct Parcel<'a> {
    values: Vec<Value<'a>>,
    ids: Vec<MessageId>,
}

/// Refuses a group with rows that the table can never hold.
///
/// # Errors
/// [`StoreError::Unfit`] names them.
pub(super) fn check(
    group: &Group,
    table: &MessageTable,
    columns: &Columns,
    backend: Backend,
    place: &str,
) -> Result<(), StoreError> {
    let unfit = |ids: Vec<MessageId>, reason: String| StoreError::Unfit { place: place.to_owned(), ids, reason };
    let ids = |hit: &dyn Fn(&Message) -> bool| -> Vec<MessageId> {
        group.appends.iter().filter(|message| hit(message)).map(|message| message.id).collect()
    };
    let strange = ids(&|message| !table.channel.holds_name(message.channel.as_str()));
    if !strange.is_empty() {
        let cure = match backend {
            Backend::MySql => "the table's character set lacks; convert the table to utf8mb4",
            Backend::Postgres => "the database's character set lacks; move it to one of encoding UTF8",
        };
        return Err(unfit(strange, format!("have a channel name with characters that {cure}")));
    }
    let cut = ids(&|message| {
        let [channel, data] = table.widths;
        is_cut(message.channel.as_str(), channel) || message.payload.as_text().is_some_and(|text| is_cut(text, data))
    });
    if !cut.is_empty() {
        return Err(unfit(
            cut,
            "end in blanks that a column has no room for, and that the server would cut".to_owned(),
        ));
    }
    // Base64 and escapes make a payload up to six times as large, so that most need no second look.
    let is_large = |message: &Message| {
        message.payload.bytes.len() > table.packet / 8
            && weight(&values(message, table, columns)) + limits::STORE_ROW_BYTES > table.packet
    };
    let large = ids(&is_large);
    if !large.is_empty() {
        let bound = match backend {
            Backend::MySql => {
                format!("its max_allowed_packet of {} bytes; raise that on the server", table.packet)
            }
            Backend::Postgres => format!("the {} bytes that it can hold in a field", table.packet),
        };
        return Err(unfit(large, format!("are larger than {bound}")));
    }
    Ok(())
}

/// How rows are written.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) columns: &'a Columns,
    /// User-defined columns that are to be NULL in some rows.
    pub(super) nulls: &'a Nulls,
    /// Ids up to this one are the broker's own.
    pub(super) written: MessageId,
    /// Rows with their ids may be there: the broker's own, from an earlier attempt.
    pub(super) again: bool,
}

/// A bit for each user-defined column that is to be NULL in a row, the lowest for the first.
pub(super) type Nulls = HashMap<MessageId, u32>;

/// All of a row's user-defined columns.
const ALL: u32 = u32::MAX;
const _: () = assert!(wsmb_core::limits::STORE_COLUMNS <= u32::BITS as usize);

/// What the table refuses of a group. Nothing of the group has been written.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Rows that it takes in no form, and why: "they …".
    pub(super) rows: Vec<(MessageId, String)>,
    /// Rows that it takes if these columns are NULL.
    pub(super) nulls: Nulls,
    /// Why, with the number of rows.
    pub(super) why: BTreeMap<Cause, u64>,
}

/// Carries out a group, in a transaction if it takes more than one statement.
///
/// # Errors
/// Whatever the server says; then the transaction, if any, is still open.
pub(super) async fn commit(
    session: &mut Session,
    group: &Group,
    mut how: How<'_>,
    names: &Names,
) -> sqlx::Result<Option<Refused>> {
    let mut outcome = write(session, group, how, names).await;
    if outcome.as_ref().is_err_and(is_collision) {
        session.driver.run("ROLLBACK").await?;
        clear_the_way(session, group, how).await?;
        how.again = true;
        outcome = write(session, group, how, names).await;
    }
    let Err(error) = outcome else { return Ok(None) };
    if refusal(names.backend, &error).is_none() {
        return Err(error);
    }
    session.driver.run("ROLLBACK").await?;
    let refused = refused(session, &group.appends, how, names).await?;
    // If it is none of the rows, it is the group as a whole.
    if refused.rows.is_empty() && refused.nulls.is_empty() { Err(error) } else { Ok(Some(refused)) }
}

/// Finds rows that the table refuses, by themselves or beside those before them: halves what is refused until it is single rows. Leaves nothing behind.
async fn refused(session: &mut Session, appends: &[Message], how: How<'_>, names: &Names) -> sqlx::Result<Refused> {
    let how = How { again: true, ..how };
    let mut found = Refused::default();
    let mut left = vec![appends];
    let begun = Instant::now();
    session.driver.run("BEGIN").await?;
    while let Some(part) = left.pop() {
        let Some(reason) = attempt(session, part, how, names).await? else { continue };
        if let [message] = part {
            match refused_columns(session, message, how, names, &reason, &mut found.why).await? {
                Some(nulls) => drop(found.nulls.insert(message.id, nulls)),
                None => found.rows.push((message.id, reason)),
            }
            // On a slow line the next attempt finds the others: each of them must end in time.
            if found.rows.len() + found.nulls.len() == limits::STORE_REFUSALS
                || begun.elapsed() > limits::STORE_ANSWER / 4
            {
                break;
            }
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            left.extend([second, first]);
        }
    }
    session.driver.run("ROLLBACK").await?;
    Ok(found)
}

/// Writes rows within a transaction; says why the table refuses them, if it does, and then they are not there.
async fn attempt(session: &mut Session, rows: &[Message], how: How<'_>, names: &Names) -> sqlx::Result<Option<String>> {
    let Session { driver, table, statements, .. } = session;
    driver.run("SAVEPOINT part").await?;
    let Err(error) = insert(driver, statements, &parcels(rows, table, how), how).await else { return Ok(None) };
    let Some(reason) = refusal(names.backend, &error) else { return Err(error) };
    driver.run("ROLLBACK TO SAVEPOINT part").await?;
    Ok(Some(reason))
}

/// Which user-defined columns must be NULL for the table to take a row that it has refused; leaves the row written so. `None` if it does not take the row
/// without them either.
async fn refused_columns(
    session: &mut Session,
    message: &Message,
    how: How<'_>,
    names: &Names,
    reason: &str,
    why: &mut BTreeMap<Cause, u64>,
) -> sqlx::Result<Option<u32>> {
    let fields = session.table.fields.len();
    let known = how.nulls.get(&message.id).copied().unwrap_or_default();
    if fields == 0 || known == ALL {
        return Ok(None);
    }
    let row = std::slice::from_ref(message);
    let mut refused = known;
    for index in (0..fields).filter(|index| known & (1 << index) == 0) {
        let nulls = Nulls::from([(message.id, ALL & !(1 << index))]);
        session.driver.run("SAVEPOINT field").await?;
        if let Some(reason) = attempt(session, row, How { nulls: &nulls, ..how }, names).await? {
            refused |= 1 << index;
            *why.entry((Some(index), reason)).or_default() += 1;
        }
        session.driver.run("ROLLBACK TO SAVEPOINT field").await?;
    }
    for nulls in [refused, ALL] {
        let nulls_of = Nulls::from([(message.id, nulls)]);
        if attempt(session, row, How { nulls: &nulls_of, ..how }, names).await?.is_none() {
            if nulls == ALL {
                *why.entry((None, reason.to_owned())).or_default() += 1;
            }
            return Ok(Some(nulls));
        }
    }
    Ok(None)
}

async fn write(session: &mut Session, group: &Group, how: How<'_>, names: &Names) -> sqlx::Result<()> {
    let Session { driver, table, statements, .. } = session;
    let parcels = parcels(&group.appends, table, how);
    // Of two counts for one row, the last one counts.
    let deliveries: BTreeMap<MessageId, u32> =
        if table.has("deliveries") { group.deliveries.iter().copied().collect() } else { BTreeMap::new() };
    let rows =
        parcels.iter().map(|parcel| parts(parcel.ids.len(), limits::STORE_STATEMENT_ROWS).count()).sum::<usize>();
    let ids = parts(group.removals.len(), limits::STORE_STATEMENT_IDS).count();
    let counts = parts(deliveries.len(), limits::STORE_STATEMENT_ROWS).count();
    // One statement is a transaction by itself.
    let alone = rows + ids + counts + group.marks.len() <= 1 && !how.again;
    if !alone {
        driver.run("BEGIN").await?;
    }
    insert(driver, statements, &parcels, how).await?;
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

/// Writes new rows.
async fn insert(
    driver: &mut Driver,
    statements: &mut Statements,
    parcels: &[Parcel<'_>],
    how: How<'_>,
) -> sqlx::Result<()> {
    if how.again {
        // Not one statement that does both: it would also replace a row that another unique index of the table stands for.
        let ids: Vec<MessageId> = parcels.iter().flat_map(|parcel| parcel.ids.iter().copied()).collect();
        delete(driver, statements, ids.into_iter()).await?;
    }
    for Parcel { values, ids } in parcels {
        let mut rest = &values[..];
        for size in parts(ids.len(), limits::STORE_STATEMENT_ROWS) {
            let (part, behind) = rest.split_at(size * statements.width());
            driver.execute(&statements.many(Many::Insert, size), part).await?;
            rest = behind;
        }
    }
    Ok(())
}

/// Removes rows.
///
/// # Errors
/// Whatever the server says.
pub(super) async fn delete(
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

fn parcels<'a>(appends: &'a [Message], table: &MessageTable, how: How<'_>) -> Vec<Parcel<'a>> {
    // One statement can't write a row twice; the last one counts. Ids nearly always rise.
    let is_rising = appends.is_sorted_by(|before, behind| before.id < behind.id);
    let ids = appends.iter().enumerate().map(|(index, message)| (message.id, index));
    let last: Option<HashMap<MessageId, usize>> = (!is_rising).then(|| ids.collect());
    let mut stamp = Stamp::default();
    let most = limits::STORE_STATEMENT_BYTES.min(table.packet / 2);
    let mut parcels: Vec<Parcel<'a>> = Vec::new();
    let mut parcel = Parcel::default();
    let mut bytes = 0;
    for (index, message) in appends.iter().enumerate() {
        if last.as_ref().is_some_and(|last| last.get(&message.id) != Some(&index)) {
            continue;
        }
        let start = parcel.values.len();
        let nulls = how.nulls.get(&message.id).copied().unwrap_or_default();
        push_values(&mut parcel.values, message, table, how.columns, nulls, &mut stamp);
        let weight = weight(&parcel.values[start..]);
        if !parcel.ids.is_empty() && bytes + weight > most {
            let row = parcel.values.split_off(start);
            parcels.push(std::mem::replace(&mut parcel, Parcel { values: row, ids: Vec::new() }));
            bytes = 0;
        }
        parcel.ids.push(message.id);
        bytes += weight;
    }
    parcels.extend(Some(parcel).filter(|parcel| !parcel.ids.is_empty()));
    parcels
}

/// Some of the ids are there already: from an earlier attempt whose answer was lost, or because another program writes the table, too. Rows of the latter
/// get ids far behind, and will be delivered after the next start.
async fn clear_the_way(session: &mut Session, group: &Group, how: How<'_>) -> sqlx::Result<()> {
    let Session { driver, table, statements, .. } = session;
    let ours: HashMap<MessageId, &Message> = group.appends.iter().map(|message| (message.id, message)).collect();
    let mut foreign = Vec::new();
    let mut left = ours.keys();
    for size in parts(ours.len(), limits::STORE_STATEMENT_ROWS) {
        let ids: Vec<Value<'_>> = left.by_ref().take(size).map(|id| Value::from(id.0)).collect();
        for row in driver.fetch(&statements.many(Many::Same, size), &ids).await? {
            let mut cells = row.into_iter();
            let mut next = || cells.next().flatten();
            let Some(id) = message_id(next()) else { continue };
            let (name, data, created) = (channel(next(), table.channel), text(next()), moment(next()));
            let is_ours = ours.get(&id).is_some_and(|message| {
                let written = values(message, table, how.columns);
                let stored = Value::Text(data.map(Cow::Owned));
                name.as_ref() == Some(&message.channel)
                    && written.get(2) == Some(&stored)
                    && created.0 / 1_000 == message.created.0 / 1_000
            });
            if id > how.written && !is_ours {
                foreign.push(id);
            }
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
