//! Reads pages and counts. The amount of data that is read at a time is bounded for messages of any size.

use std::sync::Arc;

use super::super::{ChannelSummary, Page, StoredPublication, Summary};
use super::client::Session;
use super::driver::{Row, Value, number, text};
use super::rows::{channel, message, message_id, moment};
use super::table::MessageTable;
use crate::limits;
use crate::page::PageBuilder;
use crate::publications::FoundPublications;
use wsmb_core::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};

/// The contents of a table.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) summary: Summary,
    /// The number of rows with an invalid channel name.
    pub(super) foreign: u64,
}

/// Reads messages of a channel above `after`, in the order of ids, under every spelling of its name in the table.
///
/// # Errors
/// The server's error.
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

/// Merges two pages of one channel.
fn merged(first: Page, second: Page, limit: usize, max_bytes: usize) -> Page {
    // The messages after the last message of an incomplete page are unknown.
    let known = |page: &Page| match page.messages.last() {
        _ if page.complete => u64::MAX,
        Some(last) => last.id.0,
        None => 0,
    };
    let horizon = known(&first).min(known(&second));
    let mut messages = first.messages;
    messages.extend(second.messages);
    messages.sort_unstable_by_key(|message| message.id);
    let known = messages.into_iter().take_while(|message| message.id.0 <= horizon);
    let page = PageBuilder::fill(known, limit, max_bytes);
    Page { complete: page.complete && horizon == u64::MAX, ..page }
}

/// Reads messages above `after`, in the order of ids: of one channel, by its spelling in the table, or of all channels. The statement takes the
/// channel twice (if it takes one), the id, and a number of rows.
///
/// # Errors
/// The server's error.
pub(super) async fn page(
    session: &mut Session,
    statement: &Arc<str>,
    name: Option<&str>,
    mut after: MessageId,
    limit: usize,
    max_bytes: usize,
) -> sqlx::Result<Page> {
    let mut page = PageBuilder::new(limit, max_bytes);
    let mut rows_seen = 0;
    let mut wanted = limits::STORE_FIRST_ROWS;
    loop {
        // One row more than requested shows whether there are more rows.
        let asked = wanted.min(page.room()) + 1;
        let mut values: Vec<Value<'_>> = Vec::with_capacity(4);
        values.extend(name.into_iter().flat_map(|name| [Value::from(name), Value::from(name)]));
        values.extend([Value::from(after.0), Value::from(asked as u64)]);
        let rows = session.driver.fetch(statement, &values).await?;
        let is_last = rows.len() < asked;
        for row in rows {
            if page.is_full() {
                return Ok(page.finish(false));
            }
            rows_seen += 1;
            let id = row.first().and_then(|cell| message_id(cell.clone()));
            after = id.unwrap_or(after).max(after);
            if let Some(found) = message(row, &session.table) {
                page.push(found);
            }
        }
        if is_last || page.is_full() {
            return Ok(page.finish(is_last));
        }
        // The number of rows that are likely to fit.
        let usual = page.bytes() / rows_seen.max(1) + 1;
        wanted = ((max_bytes - page.bytes()) / usual).clamp(1, limits::STORE_WALK_ROWS);
    }
}

/// Reads the contents at the start, except the values that [`super::SqlStore`] keeps itself.
///
/// # Errors
/// The server's error.
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
    // A channel whose name has two spellings occurs twice.
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

/// Reads from the newest row backwards, and skips a bounded number of old rows: ids are nearly always in the order of time.
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

/// Decodes a row's id, first channel, publication and time; `None` if the id is not positive.
fn publication(row: Row, table: &MessageTable) -> Option<(u64, Option<ChannelName>, Option<String>, Timestamp)> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let id = number(next())?;
    let (name, first) = (channel(next(), table.channel), channel(next(), table.dead_channel));
    Some((id, first.or(name), text(next()), moment(next())))
}
