//! Pages and counts. What is read at a time is bounded, however large the messages are.

use std::sync::Arc;

use super::super::{ChannelSummary, Page, StoredPublication, Summary};
use super::client::Session;
use super::driver::{Row, Value, number, text};
use super::rows::{channel, message, message_id, moment};
use super::table::MessageTable;
use crate::limits;
use crate::publications::FoundPublications;
use wsmb_core::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};

/// What a table holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) summary: Summary,
    /// Rows that no channel can have.
    pub(super) foreign: u64,
}

/// Messages of a channel above `after`, in the order of ids, however its name is spelled in the table.
///
/// # Errors
/// Whatever the server says.
pub(super) async fn page_of(
    session: &mut Session,
    statement: &Arc<str>,
    channel: &ChannelName,
    after: MessageId,
    limit: usize,
    max_bytes: usize,
) -> sqlx::Result<Page> {
    let mut whole: Option<Page> = None;
    for spelling in session.table.channel.spellings(channel.as_str()) {
        let further = page(session, statement, Some(&spelling), after, limit, max_bytes).await?;
        whole = Some(match whole {
            None => further,
            Some(first) => merged(first, further, limit, max_bytes),
        });
    }
    Ok(whole.unwrap_or_default())
}

/// Two pages of one channel as one.
fn merged(first: Page, second: Page, limit: usize, max_bytes: usize) -> Page {
    // What lies behind the last message of a page that is not complete is not known.
    let known = |page: &Page| match page.messages.last() {
        _ if page.complete => u64::MAX,
        Some(last) => last.id.0,
        None => 0,
    };
    let horizon = known(&first).min(known(&second));
    let mut messages = first.messages;
    messages.extend(second.messages);
    messages.sort_unstable_by_key(|message| message.id);
    let mut bytes = 0;
    let mut count = 0;
    for message in &messages {
        if count >= limit || bytes > max_bytes || message.id.0 > horizon {
            break;
        }
        bytes += message.payload.bytes.len();
        count += 1;
    }
    let complete = horizon == u64::MAX && count == messages.len();
    messages.truncate(count);
    Page { messages, complete }
}

/// Messages above `after`, in the order of ids, of one channel as it is spelled in the table, or of all. The statement takes the channel twice (if it takes
/// one), the id, and a number of rows.
///
/// # Errors
/// Whatever the server says.
pub(super) async fn page(
    session: &mut Session,
    statement: &Arc<str>,
    name: Option<&str>,
    mut after: MessageId,
    limit: usize,
    max_bytes: usize,
) -> sqlx::Result<Page> {
    let mut page = Page { messages: Vec::new(), complete: false };
    let (mut bytes, mut rows_seen) = (0, 0);
    let mut wanted = limits::STORE_FIRST_ROWS;
    loop {
        // One row more than wanted tells whether there is more.
        let asked = wanted.min(limit - page.messages.len()) + 1;
        let mut values: Vec<Value<'_>> = Vec::with_capacity(4);
        values.extend(name.into_iter().flat_map(|name| [Value::from(name), Value::from(name)]));
        values.extend([Value::from(after.0), Value::from(asked as u64)]);
        let rows = session.driver.fetch(statement, &values).await?;
        let is_last = rows.len() < asked;
        for row in rows {
            if page.messages.len() >= limit || bytes > max_bytes {
                return Ok(page);
            }
            rows_seen += 1;
            let id = row.first().and_then(|cell| message_id(cell.clone()));
            after = id.unwrap_or(after).max(after);
            if let Some(found) = message(row, &session.table) {
                bytes += found.payload.bytes.len();
                page.messages.push(found);
            }
        }
        if is_last {
            page.complete = true;
            return Ok(page);
        }
        if page.messages.len() >= limit || bytes > max_bytes {
            return Ok(page);
        }
        // As many as are likely to fit.
        let usual = bytes / rows_seen.max(1) + 1;
        wanted = ((max_bytes - bytes) / usual).clamp(1, limits::STORE_WALK_ROWS);
    }
}

/// What is there at start-up, but for what the store itself remembers.
///
/// # Errors
/// Whatever the server says.
pub(super) async fn summary(session: &mut Session, since: Timestamp) -> sqlx::Result<Found> {
    let mut found = Found::default();
    for row in session.driver.fetch(&session.statements.channels, &[]).await? {
        let mut cells = row.into_iter();
        let name = channel(cells.next().flatten(), session.table.channel);
        let messages = number(cells.next().flatten()).unwrap_or_default();
        match name.zip(message_id(cells.next().flatten())) {
            Some((channel, last)) => found.summary.channels.push(ChannelSummary { channel, messages, last }),
            None => found.foreign += messages,
        }
    }
    found.summary.channels.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
    // One whose name is spelled in two ways has come twice.
    found.summary.channels.dedup_by(|twin, first| {
        let is_same = twin.channel == first.channel;
        if is_same {
            first.messages += twin.messages;
            first.last = first.last.max(twin.last);
        }
        is_same
    });
    found.summary.expiries = expiries(session).await?;
    found.summary.delayed = delayed(session).await?;
    found.summary.publications = publications(session, since).await?;
    let rows = session.driver.fetch(&session.statements.last_id, &[]).await?;
    let last = rows.into_iter().next().and_then(|row| message_id(row.into_iter().next().flatten()));
    found.summary.last_id = last.unwrap_or_default();
    Ok(found)
}

async fn expiries(session: &mut Session) -> sqlx::Result<Vec<(ChannelName, Timestamp, u64)>> {
    let Some(bounds) = session.statements.expiry_bounds.clone() else { return Ok(Vec::new()) };
    let bounds = session.driver.fetch(&bounds, &[]).await?.into_iter().next().unwrap_or_default();
    let mut bounds = bounds.into_iter().map(|cell| number(cell).map(Timestamp));
    let (Some(Some(first)), Some(Some(last))) = (bounds.next(), bounds.next()) else { return Ok(Vec::new()) };
    let span = crate::restamp::expiry_span(first, last);
    let rows = session.driver.fetch(&session.statements.expiries, &[Value::from(span)]).await?;
    let charset = session.table.channel;
    let found = rows.into_iter().filter_map(|row| {
        let mut cells = row.into_iter();
        let channel = channel(cells.next().flatten(), charset)?;
        Some((channel, Timestamp(number(cells.next().flatten())?), number(cells.next().flatten())?))
    });
    Ok(found.collect())
}

async fn delayed(session: &mut Session) -> sqlx::Result<Vec<Message>> {
    if !session.table.has("due") {
        return Ok(Vec::new());
    }
    let mut delayed = Vec::new();
    let mut after = MessageId(0);
    while delayed.len() < wsmb_core::limits::DELAYED {
        let statement = session.statements.delayed.clone();
        let page =
            page(session, &statement, None, after, limits::STORE_WALK_ROWS, wsmb_core::limits::PAGE_BYTES).await?;
        after = page.messages.last().map_or(after, |message| message.id);
        delayed.extend(page.messages);
        if page.complete {
            break;
        }
    }
    delayed.truncate(wsmb_core::limits::DELAYED);
    Ok(delayed)
}

/// Walks back from the newest row, past a bounded number of rows that are too old: nearly always ids are in the order of time.
async fn publications(session: &mut Session, since: Timestamp) -> sqlx::Result<Vec<StoredPublication>> {
    let mut found = FoundPublications::default();
    if !session.table.has("publication") || since == Timestamp(u64::MAX) {
        return Ok(Vec::new());
    }
    // The column holds whole seconds.
    let since = Timestamp(since.0 / 1_000 * 1_000);
    let mut before = u64::MAX;
    let (mut walked, mut old) = (0, 0);
    while walked < 4 * wsmb_core::limits::DEDUP_IDS {
        let values = [Value::from(before), Value::from(limits::STORE_WALK_ROWS as u64)];
        let rows = session.driver.fetch(&session.statements.newest, &values).await?;
        let is_last = rows.len() < limits::STORE_WALK_ROWS;
        walked += rows.len();
        for row in rows {
            let Some((id, channel, publication, created)) = publication(row, &session.table) else { continue };
            before = id;
            if old >= limits::IDS_OLD_ROWS || found.len() >= wsmb_core::limits::DEDUP_IDS {
                return Ok(found.oldest_first());
            }
            if created < since {
                old += 1;
                continue;
            }
            let publication = publication.map(|text| PublicationId::from_stored(&text));
            if let Some((channel, publication)) = channel.zip(publication) {
                found.add(channel, publication, created, MessageId(id));
            }
        }
        if is_last {
            break;
        }
    }
    Ok(found.oldest_first())
}

/// A row's id, the channel that it was sent to, publication and time; `None` if its id is not positive.
fn publication(row: Row, table: &MessageTable) -> Option<(u64, Option<ChannelName>, Option<String>, Timestamp)> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let id = number(next())?;
    let (name, first) = (channel(next(), table.channel), channel(next(), table.dead_channel));
    Some((id, first.or(name), text(next()), moment(next())))
}
