//! Merges pages and summaries of the database with the journal's rows and pending changes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::ledger::Ledger;
use super::names::Names;
use crate::page::PageBuilder;
use crate::sqlite::row;
use crate::{ChannelSummary, MessageStore, Page, StoreError, StoredPublication, Summary};
use wsmb_core::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};

/// A merged page, and how far it was searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) page: Page,
    /// Up to this id the page is complete; without meaning if the whole page is complete.
    pub(super) horizon: MessageId,
}

impl Ledger {
    /// Turns a page of the database into a page of the store: without rows whose removal is pending, with pending counts, and with the journal's
    /// rows. The page may be empty and not complete; then fetch the next page from its horizon on.
    ///
    /// Must be called before the results of later tasks of the database are recorded; otherwise rows that were moved meanwhile are in neither page.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn merge_page(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        mut theirs: Page,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Merged, StoreError> {
        let horizon = theirs.messages.last().map(|message| message.id);
        self.apply_pending_changes(&mut theirs.messages)?;
        self.correct(&mut theirs.messages);
        let ours = self.rows.load(channel, after, limit, max_bytes)?;
        Ok(merge(theirs, horizon, ours, limit, max_bytes))
    }

    /// As [`Self::merge_page`], for [`MessageStore::scan`].
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn merge_scan(
        &mut self,
        after: MessageId,
        mut theirs: Page,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Merged, StoreError> {
        let horizon = theirs.messages.last().map(|message| message.id);
        self.apply_pending_changes(&mut theirs.messages)?;
        self.correct(&mut theirs.messages);
        let ours = self.rows.scan(after, limit, max_bytes)?;
        Ok(merge(theirs, horizon, ours, limit, max_bytes))
    }

    /// Removes messages whose removal is pending, and sets pending counts.
    pub(super) fn apply_pending_changes(&mut self, messages: &mut Vec<Message>) -> Result<(), StoreError> {
        let Names { owed, empty, .. } = &self.names;
        let pending = format!("SELECT deliveries FROM {owed} WHERE data_id = ?1");
        let purge = format!("SELECT up_to FROM {empty} WHERE channel = ?1");
        self.rows.run(|connection, _, _| {
            let mut bound = connection.prepare_cached(&purge)?;
            let mut statement = connection.prepare_cached(&pending)?;
            let mut kept = Vec::with_capacity(messages.len());
            for mut message in messages.drain(..) {
                let id = row::integer(message.id.0);
                let bound: Option<i64> =
                    bound.query_row([message.channel.as_str()], |found| found.get(0)).optional()?;
                if bound.is_some_and(|bound| id <= bound) {
                    continue;
                }
                let change: Option<Option<u32>> = statement.query_row([id], |found| found.get(0)).optional()?;
                match change {
                    Some(None) => continue,
                    Some(Some(count)) => message.deliveries = count,
                    None => {}
                }
                kept.push(message);
            }
            *messages = kept;
            Ok(())
        })
    }

    /// Keeps the rows whose removal is not pending: the other rows are already removed for every caller.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn retain_not_removed(&mut self, swept: &mut Vec<(MessageId, ChannelName)>) -> Result<(), StoreError> {
        let Names { owed, empty, .. } = &self.names;
        let removed = format!(
            "SELECT 1 FROM {owed} WHERE data_id = ?1 AND deliveries IS NULL \
             UNION ALL SELECT 1 FROM {empty} WHERE channel = ?2 AND up_to >= ?1"
        );
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare_cached(&removed)?;
            let mut kept = Vec::with_capacity(swept.len());
            for (id, channel) in swept.drain(..) {
                if !statement.exists(params![row::integer(id.0), channel.as_str()])? {
                    kept.push((id, channel));
                }
            }
            *swept = kept;
            Ok(())
        })
    }

    /// Returns the contents of the store: the journal's rows, and the database's rows as far as the journal knows them.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let mut summary = self.rows.summary(publications_since)?;
        let mut channels: HashMap<ChannelName, ChannelSummary> =
            summary.channels.into_iter().map(|found| (found.channel.clone(), found)).collect();
        for (channel, moved) in &self.backlog {
            let entry = channels.entry(channel.clone()).or_insert_with(|| ChannelSummary {
                channel: channel.clone(),
                messages: 0,
                last: MessageId(0),
            });
            entry.messages += moved.messages;
            entry.last = entry.last.max(moved.last);
        }
        summary.channels = channels.into_values().collect();
        summary.channels.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        summary.last_id = summary.last_id.max(self.known_last_id()?);
        Ok(summary)
    }

    /// Returns the contents of the journal together with those of the database (`theirs`), except messages with a due time of the database.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn summary_with(
        &mut self,
        theirs: Summary,
        publications_since: Timestamp,
    ) -> Result<Summary, StoreError> {
        let mut summary = self.summary(publications_since)?;
        summary.expiries.extend(theirs.expiries);
        summary.publications = self.publications(theirs.publications, summary.publications)?;
        summary.clean &= theirs.clean;
        Ok(summary)
    }

    /// Merges the publications of the journal (`ours`) and of the database (`theirs`), without rows whose removal is pending.
    ///
    /// # Errors
    /// If the file can't be read.
    fn publications(
        &mut self,
        mut theirs: Vec<StoredPublication>,
        ours: Vec<StoredPublication>,
    ) -> Result<Vec<StoredPublication>, StoreError> {
        let rows =
            |found: &StoredPublication| found.rows.iter().map(|id| (*id, found.channel.clone())).collect::<Vec<_>>();
        let mut left = theirs.iter().flat_map(rows).collect();
        self.retain_not_removed(&mut left)?;
        let left: HashSet<MessageId> = left.into_iter().map(|(id, _)| id).collect();
        for found in &mut theirs {
            found.rows.retain(|id| left.contains(id));
        }
        Ok(joined(theirs, ours))
    }

    /// Copies messages with a due time from the database to the journal, which keeps such messages itself, so that an outage does not delay them.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn take_over_delayed(&mut self, mut delayed: Vec<Message>) -> Result<(), StoreError> {
        // A message that was copied before the last stop may still be in the database.
        let mut new = delayed.iter().map(|message| (message.id, message.channel.clone())).collect();
        self.retain_not_removed(&mut new)?;
        let new: HashSet<MessageId> = new.into_iter().map(|(id, _)| id).collect();
        delayed.retain(|message| new.contains(&message.id));
        if delayed.is_empty() {
            return Ok(());
        }
        let add_removal = &self.names.add_removal;
        self.rows.run(|connection, sql, columns| {
            let transaction = super::ledger::immediate(connection)?;
            crate::sqlite::append(&transaction, sql, columns, &delayed)?;
            for message in &delayed {
                transaction.prepare_cached(add_removal)?.execute(params![row::integer(message.id.0)])?;
            }
            transaction.commit()
        })
    }

    /// Records that the database is about to hold this id.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn raise_last_id(&mut self, id: MessageId) -> Result<(), StoreError> {
        let write = format!(
            "INSERT INTO {} (name, value) VALUES ('last_id', ?1) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            self.names.meta
        );
        self.rows.run(|connection, _, _| connection.execute(&write, [row::integer(id.0)]).map(drop))
    }

    /// The highest id that the database is known to have held.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn known_last_id(&mut self) -> Result<MessageId, StoreError> {
        let query = format!("SELECT value FROM {} WHERE name = 'last_id'", self.names.meta);
        let found = self.rows.run(|connection, _, _| {
            connection.query_row(&query, [], |found| row::id(found, 0)).optional().map(Option::flatten)
        })?;
        let moved = self.backlog.values().map(|moved| moved.last).max();
        Ok(found.unwrap_or_default().max(moved.unwrap_or_default()))
    }
}

/// Merges two lists of publications: each publication once, oldest first.
fn joined(theirs: Vec<StoredPublication>, ours: Vec<StoredPublication>) -> Vec<StoredPublication> {
    let mut known: HashMap<(ChannelName, PublicationId), StoredPublication> = HashMap::new();
    for found in theirs.into_iter().chain(ours) {
        match known.entry((found.channel.clone(), found.id.clone())) {
            Entry::Vacant(free) => drop(free.insert(found)),
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.created = known.created.min(found.created);
                known.rows.extend(found.rows);
                // A row that is being moved is in both lists.
                known.rows.sort_unstable();
                known.rows.dedup();
            }
        }
    }
    let mut all: Vec<StoredPublication> = known.into_values().collect();
    all.sort_unstable_by(|a, b| (a.created, &a.channel, &a.id).cmp(&(b.created, &b.channel, &b.id)));
    all
}

/// Merges two pages of one channel. `horizon` is the last id of `theirs` before rows were taken out of it. Of two messages with one id, the journal's
/// counts.
fn merge(theirs: Page, horizon: Option<MessageId>, ours: Page, limit: usize, max_bytes: usize) -> Merged {
    let theirs_end = horizon.filter(|_| !theirs.complete);
    let ours_end = ours.messages.last().map(|message| message.id).filter(|_| !ours.complete);
    let end = [theirs_end, ours_end].into_iter().flatten().min();
    let mut all = ours.messages;
    all.extend(theirs.messages);
    // The sort is stable: of two messages with one id, the journal's message stays.
    all.sort_by_key(|message| message.id);
    all.dedup_by_key(|message| message.id);
    all.retain(|message| end.is_none_or(|end| message.id <= end));
    let page = PageBuilder::fill(all, limit, max_bytes);
    // The bounds of the page cut messages off.
    let is_cut = !page.complete;
    let horizon = if is_cut { page.messages.last().map(|message| message.id) } else { end };
    Merged {
        page: Page { complete: theirs.complete && ours.complete && !is_cut, ..page },
        horizon: horizon.unwrap_or_default(),
    }
}
