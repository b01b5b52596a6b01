//! Pages and summaries of the database, put together with what the journal knows better.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::ledger::{Ledger, Names};
use crate::sqlite::row;
use crate::{ChannelSummary, MessageStore, Page, StoreError, StoredPublication, Summary};
use wsmb_core::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};

/// A page, and how far it looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) page: Page,
    /// Up to here nothing else is in the store; meaningless if the page is complete.
    pub(super) horizon: MessageId,
}

impl Ledger {
    /// Turns a page of the database into one of the store: without what is owed to be gone there, with the counts that it is owed, and with the
    /// rows that are still here. It may be empty and not complete; then the next one is to be fetched from its horizon on.
    ///
    /// To be called before anything is settled that the database did after it gave the page; else rows that were moved meanwhile are in neither.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn complete(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        mut theirs: Page,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Merged, StoreError> {
        let horizon = theirs.messages.last().map(|message| message.id);
        self.retain_unowed(&mut theirs.messages)?;
        self.correct(&mut theirs.messages);
        let ours = self.rows.load(channel, after, limit, max_bytes)?;
        Ok(merge(theirs, horizon, ours, limit, max_bytes))
    }

    /// The same for [`MessageStore::scan`].
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn complete_scan(
        &mut self,
        after: MessageId,
        mut theirs: Page,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Merged, StoreError> {
        let horizon = theirs.messages.last().map(|message| message.id);
        self.retain_unowed(&mut theirs.messages)?;
        self.correct(&mut theirs.messages);
        let ours = self.rows.scan(after, limit, max_bytes)?;
        Ok(merge(theirs, horizon, ours, limit, max_bytes))
    }

    /// Takes rows away that are owed to be gone, and sets the counts that are owed.
    pub(super) fn retain_unowed(&mut self, messages: &mut Vec<Message>) -> Result<(), StoreError> {
        let Names { owed, empty, .. } = &self.names;
        let owed = format!("SELECT deliveries FROM {owed} WHERE data_id = ?1");
        let purge = format!("SELECT up_to FROM {empty} WHERE channel = ?1");
        self.rows.run(|connection, _, _| {
            let mut bound = connection.prepare_cached(&purge)?;
            let mut statement = connection.prepare_cached(&owed)?;
            let mut kept = Vec::with_capacity(messages.len());
            for mut message in messages.drain(..) {
                let id = row::integer(message.id.0);
                let bound: Option<i64> =
                    bound.query_row([message.channel.as_str()], |found| found.get(0)).optional()?;
                if bound.is_some_and(|bound| id <= bound) {
                    continue;
                }
                let debt: Option<Option<u32>> = statement.query_row([id], |found| found.get(0)).optional()?;
                match debt {
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

    /// Which of these the database may name as swept: not those that are owed to be gone, which are settled already.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn retain_unsettled(&mut self, swept: &mut Vec<(MessageId, ChannelName)>) -> Result<(), StoreError> {
        let Names { owed, empty, .. } = &self.names;
        let settled = format!(
            "SELECT 1 FROM {owed} WHERE data_id = ?1 AND deliveries IS NULL \
             UNION ALL SELECT 1 FROM {empty} WHERE channel = ?2 AND up_to >= ?1"
        );
        self.rows.run(|connection, _, _| {
            let mut statement = connection.prepare_cached(&settled)?;
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

    /// What the store holds: what is here, and what the database holds as far as the journal knows.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let mut summary = self.rows.summary(publications_since)?;
        let mut channels: HashMap<ChannelName, ChannelSummary> =
            summary.channels.into_iter().map(|found| (found.channel.clone(), found)).collect();
        for (channel, moved) in &self.backlog {
            let line = channels.entry(channel.clone()).or_insert_with(|| ChannelSummary {
                channel: channel.clone(),
                messages: 0,
                last: MessageId(0),
            });
            line.messages += moved.messages;
            line.last = line.last.max(moved.last);
        }
        summary.channels = channels.into_values().collect();
        summary.channels.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        summary.last_id = summary.last_id.max(self.known_last_id()?);
        Ok(summary)
    }

    /// The publications of which the store holds messages: `ours` are here, `theirs` in the database, as far as they are not owed to be gone there.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn publications(
        &mut self,
        mut theirs: Vec<StoredPublication>,
        ours: Vec<StoredPublication>,
    ) -> Result<Vec<StoredPublication>, StoreError> {
        let rows =
            |found: &StoredPublication| found.rows.iter().map(|id| (*id, found.channel.clone())).collect::<Vec<_>>();
        let mut left = theirs.iter().flat_map(rows).collect();
        self.retain_unsettled(&mut left)?;
        let left: HashSet<MessageId> = left.into_iter().map(|(id, _)| id).collect();
        for found in &mut theirs {
            found.rows.retain(|id| left.contains(id));
        }
        Ok(joined(theirs, ours))
    }

    /// Takes over messages with a due time that the database holds: the journal keeps those itself, so that they come in time whatever the database does.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn pull(&mut self, mut delayed: Vec<Message>) -> Result<(), StoreError> {
        // One that was taken over before the last stop may still be there.
        let mut news = delayed.iter().map(|message| (message.id, message.channel.clone())).collect();
        self.retain_unsettled(&mut news)?;
        let news: HashSet<MessageId> = news.into_iter().map(|(id, _)| id).collect();
        delayed.retain(|message| news.contains(&message.id));
        if delayed.is_empty() {
            return Ok(());
        }
        let owe = &self.names.owe_removal;
        self.rows.run(|connection, sql, columns| {
            let transaction = super::ledger::immediate(connection)?;
            crate::sqlite::append(&transaction, sql, columns, &delayed)?;
            for message in &delayed {
                transaction.prepare_cached(owe)?.execute(params![row::integer(message.id.0)])?;
            }
            transaction.commit()
        })
    }

    /// The database is about to hold this id.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn reach(&mut self, id: MessageId) -> Result<(), StoreError> {
        let write = format!(
            "INSERT INTO {} (name, value) VALUES ('last_id', ?1) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            self.names.meta
        );
        self.rows.run(|connection, _, _| connection.execute(&write, [row::integer(id.0)]).map(drop))
    }

    /// The highest id that the database was ever known to hold.
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

/// The publications of both, each once, oldest first.
fn joined(theirs: Vec<StoredPublication>, ours: Vec<StoredPublication>) -> Vec<StoredPublication> {
    let mut known: HashMap<(ChannelName, PublicationId), StoredPublication> = HashMap::new();
    for found in theirs.into_iter().chain(ours) {
        match known.entry((found.channel.clone(), found.id.clone())) {
            Entry::Vacant(free) => drop(free.insert(found)),
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.created = known.created.min(found.created);
                known.rows.extend(found.rows);
                // A row that is being moved is in both.
                known.rows.sort_unstable();
                known.rows.dedup();
            }
        }
    }
    let mut all: Vec<StoredPublication> = known.into_values().collect();
    all.sort_unstable_by(|a, b| (a.created, &a.channel, &a.id).cmp(&(b.created, &b.channel, &b.id)));
    all
}

/// Puts two pages of one channel together. `horizon` is how far `theirs` looked, before rows were taken out of it. Of a row in both, ours counts.
fn merge(theirs: Page, horizon: Option<MessageId>, ours: Page, limit: usize, max_bytes: usize) -> Merged {
    let theirs_end = horizon.filter(|_| !theirs.complete);
    let ours_end = ours.messages.last().map(|message| message.id).filter(|_| !ours.complete);
    let end = [theirs_end, ours_end].into_iter().flatten().min();
    let mut all = ours.messages;
    all.extend(theirs.messages);
    // Stable: of two with one id, ours stays.
    all.sort_by_key(|message| message.id);
    all.dedup_by_key(|message| message.id);
    all.retain(|message| end.is_none_or(|end| message.id <= end));
    let mut bytes = 0;
    let fits = |message: &Message, count: usize, bytes: &mut usize| {
        let room = count < limit && *bytes <= max_bytes;
        *bytes += message.payload.bytes.len();
        room
    };
    let count = all.iter().enumerate().take_while(|(index, message)| fits(message, *index, &mut bytes)).count();
    let cut = count < all.len();
    all.truncate(count);
    let horizon = if cut { all.last().map(|message| message.id) } else { end };
    Merged {
        page: Page { messages: all, complete: theirs.complete && ours.complete && !cut },
        horizon: horizon.unwrap_or_default(),
    }
}
