//! Writes a group to the table: with few statements, whatever the size of the group, and without overwriting rows of other programs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::super::{Backend, Columns, Group, StoreError};
use super::client::Session;
use super::driver::{Driver, Value, number, text};
use super::error::{is_collision, refusal};
use super::field::is_cut;
use super::refusals::Cause;
use super::rows::{channel, message_id, moment, push_values, values, weight};
use super::schema::write_note;
use super::statements::{Batch, Names, Statements, batch_sizes};
use super::table::MessageTable;
use crate::datetime::Texts;
use crate::limits;
use wsmb_core::message::{Message, MessageId};

/// The values of new rows, one row after the other, small enough for one statement.
#[derive(Default)]
struct RowBatch<'a> {
    values: Vec<Value<'a>>,
    ids: Vec<MessageId>,
}

/// Refuses a group with rows that the table can never hold.
///
/// # Errors
/// [`StoreError::Unfit`] names the rows.
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
    let unspellable = ids(&|message| !table.channel.holds_name(message.channel.as_str()));
    if !unspellable.is_empty() {
        let remedy = match backend {
            Backend::MySql => "the table's character set does not have; convert the table to utf8mb4",
            Backend::Postgres => {
                "the database's character set does not have; move it to a database with the encoding UTF8"
            }
        };
        return Err(unfit(unspellable, format!("have a channel name with characters that {remedy}")));
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
    // Base64 and escapes make a payload up to six times as large, so that most payloads need no exact computation.
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

/// Options for writing rows.
#[derive(Clone, Copy)]
pub(super) struct WriteOptions<'a> {
    pub(super) columns: &'a Columns,
    /// User-defined columns that are written as NULL in some rows.
    pub(super) nulls: &'a Nulls,
    /// Rows with ids up to this one are the broker's own.
    pub(super) written: MessageId,
    /// Rows with these ids may exist from an earlier attempt, and are replaced.
    pub(super) replace: bool,
}

/// A bit for each user-defined column that is written as NULL in a row; the lowest bit is the first column.
pub(super) type Nulls = HashMap<MessageId, u32>;

/// All user-defined columns of a row.
const ALL: u32 = u32::MAX;
const _: () = assert!(wsmb_core::limits::STORE_COLUMNS <= u32::BITS as usize);

/// The rows and values of a group that the table refuses. Nothing of the group has been written.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Rows that the table accepts in no form, and the reason, as the rest of a sentence that begins with "they".
    pub(super) rows: Vec<(MessageId, String)>,
    /// Rows that the table accepts if these columns are NULL.
    pub(super) nulls: Nulls,
    /// The reasons, with the number of rows.
    pub(super) why: BTreeMap<Cause, u64>,
}

/// Carries out a group, in a transaction if it needs more than one statement.
///
/// # Errors
/// The server's error; the transaction, if any, is still open.
pub(super) async fn commit(
    session: &mut Session,
    group: &Group,
    mut options: WriteOptions<'_>,
    names: &Names,
) -> sqlx::Result<Option<Refused>> {
    let mut outcome = write(session, group, options, names).await;
    if outcome.as_ref().is_err_and(is_collision) {
        session.driver.run("ROLLBACK").await?;
        resolve_collisions(session, group, options).await?;
        options.replace = true;
        outcome = write(session, group, options, names).await;
    }
    let Err(error) = outcome else { return Ok(None) };
    if refusal(names.backend, &error).is_none() {
        return Err(error);
    }
    session.driver.run("ROLLBACK").await?;
    let refused = refused(session, &group.appends, options, names).await?;
    // If no single row is refused, the server refuses the group as a whole.
    if refused.rows.is_empty() && refused.nulls.is_empty() { Err(error) } else { Ok(Some(refused)) }
}

/// Finds the rows that the table refuses, alone or after the rows before them: halves a refused part until single rows are left. Leaves no row
/// behind.
async fn refused(
    session: &mut Session,
    appends: &[Message],
    options: WriteOptions<'_>,
    names: &Names,
) -> sqlx::Result<Refused> {
    let options = WriteOptions { replace: true, ..options };
    let mut found = Refused::default();
    let mut left = vec![appends];
    let begun = Instant::now();
    session.driver.run("BEGIN").await?;
    while let Some(part) = left.pop() {
        let Some(reason) = attempt(session, part, options, names).await? else { continue };
        if let [message] = part {
            match refused_columns(session, message, options, names, &reason, &mut found.why).await? {
                Some(nulls) => drop(found.nulls.insert(message.id, nulls)),
                None => found.rows.push((message.id, reason)),
            }
            // On a slow connection the next attempt finds the other rows: each attempt must end in time.
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

/// Writes rows within a transaction. If the table refuses them, undoes the write and returns the reason.
async fn attempt(
    session: &mut Session,
    rows: &[Message],
    options: WriteOptions<'_>,
    names: &Names,
) -> sqlx::Result<Option<String>> {
    let Session { driver, table, statements, .. } = session;
    driver.run("SAVEPOINT part").await?;
    let Err(error) = insert(driver, statements, &batches(rows, table, options), options).await else { return Ok(None) };
    let Some(reason) = refusal(names.backend, &error) else { return Err(error) };
    driver.run("ROLLBACK TO SAVEPOINT part").await?;
    Ok(Some(reason))
}

/// Finds the user-defined columns that must be NULL for the table to accept a row that it has refused; leaves the row written in this form. `None` if
/// the table refuses the row even without the columns.
async fn refused_columns(
    session: &mut Session,
    message: &Message,
    options: WriteOptions<'_>,
    names: &Names,
    reason: &str,
    why: &mut BTreeMap<Cause, u64>,
) -> sqlx::Result<Option<u32>> {
    let fields = session.table.fields.len();
    let known = options.nulls.get(&message.id).copied().unwrap_or_default();
    if fields == 0 || known == ALL {
        return Ok(None);
    }
    let row = std::slice::from_ref(message);
    let mut refused = known;
    for index in (0..fields).filter(|index| known & (1 << index) == 0) {
        let nulls = Nulls::from([(message.id, ALL & !(1 << index))]);
        session.driver.run("SAVEPOINT field").await?;
        if let Some(reason) = attempt(session, row, WriteOptions { nulls: &nulls, ..options }, names).await? {
            refused |= 1 << index;
            *why.entry((Some(index), reason)).or_default() += 1;
        }
        session.driver.run("ROLLBACK TO SAVEPOINT field").await?;
    }
    for nulls in [refused, ALL] {
        let nulls_of = Nulls::from([(message.id, nulls)]);
        if attempt(session, row, WriteOptions { nulls: &nulls_of, ..options }, names).await?.is_none() {
            if nulls == ALL {
                *why.entry((None, reason.to_owned())).or_default() += 1;
            }
            return Ok(Some(nulls));
        }
    }
    Ok(None)
}

async fn write(session: &mut Session, group: &Group, options: WriteOptions<'_>, names: &Names) -> sqlx::Result<()> {
    let Session { driver, table, statements, .. } = session;
    let batches = batches(&group.appends, table, options);
    // Of two counts for one row, the last one is used.
    let deliveries: BTreeMap<MessageId, u32> =
        if table.has("deliveries") { group.deliveries.iter().copied().collect() } else { BTreeMap::new() };
    let rows = batches
        .iter()
        .map(|row_batch| batch_sizes(row_batch.ids.len(), limits::STORE_STATEMENT_ROWS).count())
        .sum::<usize>();
    let ids = batch_sizes(group.removals.len(), limits::STORE_STATEMENT_IDS).count();
    let counts = batch_sizes(deliveries.len(), limits::STORE_STATEMENT_ROWS).count();
    // A single statement is a transaction by itself.
    let is_single = rows + ids + counts + group.marks.len() <= 1 && !options.replace;
    if !is_single {
        driver.run("BEGIN").await?;
    }
    insert(driver, statements, &batches, options).await?;
    delete(driver, statements, group.removals.iter().copied()).await?;
    let mut left = deliveries.iter();
    for size in batch_sizes(deliveries.len(), limits::STORE_STATEMENT_ROWS) {
        let part: Vec<(&MessageId, &u32)> = left.by_ref().take(size).collect();
        let pairs = part.iter().flat_map(|(id, count)| [Value::from(id.0), Value::from(u64::from(**count))]);
        let values: Vec<Value<'_>> = pairs.chain(part.iter().map(|(id, _)| Value::from(id.0))).collect();
        driver.execute(&statements.batch(Batch::Count, size), &values).await?;
    }
    for (name, value) in &group.marks {
        write_note(driver, names, name, &value.to_string()).await?;
    }
    if is_single { Ok(()) } else { driver.run("COMMIT").await }
}

/// Writes new rows.
async fn insert(
    driver: &mut Driver,
    statements: &mut Statements,
    batches: &[RowBatch<'_>],
    options: WriteOptions<'_>,
) -> sqlx::Result<()> {
    if options.replace {
        // An upsert statement would also replace a row that collides in another unique index of the table.
        let ids: Vec<MessageId> = batches.iter().flat_map(|row_batch| row_batch.ids.iter().copied()).collect();
        delete(driver, statements, ids.into_iter()).await?;
    }
    for RowBatch { values, ids } in batches {
        let mut rest = &values[..];
        for size in batch_sizes(ids.len(), limits::STORE_STATEMENT_ROWS) {
            let (part, behind) = rest.split_at(size * statements.width());
            driver.execute(&statements.batch(Batch::Insert, size), part).await?;
            rest = behind;
        }
    }
    Ok(())
}

/// Removes rows.
///
/// # Errors
/// The server's error.
pub(super) async fn delete(
    driver: &mut Driver,
    statements: &mut Statements,
    mut ids: impl ExactSizeIterator<Item = MessageId>,
) -> sqlx::Result<()> {
    for size in batch_sizes(ids.len(), limits::STORE_STATEMENT_IDS) {
        let values: Vec<Value<'_>> = ids.by_ref().take(size).map(|id| Value::from(id.0)).collect();
        driver.execute(&statements.batch(Batch::Delete, size), &values).await?;
    }
    Ok(())
}

fn batches<'a>(appends: &'a [Message], table: &MessageTable, options: WriteOptions<'_>) -> Vec<RowBatch<'a>> {
    // A statement cannot write a row twice; the last version is used. Ids nearly always rise.
    let is_rising = appends.is_sorted_by(|before, behind| before.id < behind.id);
    let ids = appends.iter().enumerate().map(|(index, message)| (message.id, index));
    let last: Option<HashMap<MessageId, usize>> = (!is_rising).then(|| ids.collect());
    let mut texts = Texts::default();
    let most = limits::STORE_STATEMENT_BYTES.min(table.packet / 2);
    let mut batches: Vec<RowBatch<'a>> = Vec::new();
    let mut row_batch = RowBatch::default();
    let mut bytes = 0;
    for (index, message) in appends.iter().enumerate() {
        if last.as_ref().is_some_and(|last| last.get(&message.id) != Some(&index)) {
            continue;
        }
        let start = row_batch.values.len();
        let nulls = options.nulls.get(&message.id).copied().unwrap_or_default();
        push_values(&mut row_batch.values, message, table, options.columns, nulls, &mut texts);
        let weight = weight(&row_batch.values[start..]);
        if !row_batch.ids.is_empty() && bytes + weight > most {
            let row = row_batch.values.split_off(start);
            batches.push(std::mem::replace(&mut row_batch, RowBatch { values: row, ids: Vec::new() }));
            bytes = 0;
        }
        row_batch.ids.push(message.id);
        bytes += weight;
    }
    batches.extend(Some(row_batch).filter(|row_batch| !row_batch.ids.is_empty()));
    batches
}

/// Handles ids that already exist: from an earlier attempt whose answer was lost, or because another program writes to the table. Rows of another
/// program get ids far above, and are delivered after the next start.
async fn resolve_collisions(session: &mut Session, group: &Group, options: WriteOptions<'_>) -> sqlx::Result<()> {
    let Session { driver, table, statements, .. } = session;
    let ours: HashMap<MessageId, &Message> = group.appends.iter().map(|message| (message.id, message)).collect();
    let mut foreign = Vec::new();
    let mut left = ours.keys();
    for size in batch_sizes(ours.len(), limits::STORE_STATEMENT_ROWS) {
        let ids: Vec<Value<'_>> = left.by_ref().take(size).map(|id| Value::from(id.0)).collect();
        for row in driver.fetch(&statements.batch(Batch::Contents, size), &ids).await? {
            let mut cells = row.into_iter();
            let mut next = || cells.next().flatten();
            let Some(id) = message_id(next()) else { continue };
            let (name, data, created) = (channel(next(), table.channel), text(next()), moment(next()));
            let is_ours = ours.get(&id).is_some_and(|message| {
                let written = values(message, table, options.columns);
                let stored = Value::Text(data.map(Cow::Owned));
                name.as_ref() == Some(&message.channel)
                    && written.get(2) == Some(&stored)
                    && created.0 / 1_000 == message.created.0 / 1_000
            });
            if id > options.written && !is_ours {
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
    for (id, offset) in foreign.into_iter().zip(1..) {
        let new = highest.saturating_add(limits::STORE_FOREIGN_GAP).saturating_add(offset);
        driver.execute(&statements.move_away, &[Value::from(new), Value::from(id.0)]).await?;
    }
    tracing::warn!(
        "another program writes to the message table while the broker uses it: {count} of its rows had ids that the broker had given to messages; \
         they have new ids and will be delivered after the next start; let applications send through the broker instead"
    );
    Ok(())
}
