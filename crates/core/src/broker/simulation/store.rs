//! The simulated store: rows that survive a crash, a queue that does not, and failures that the seed chooses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::{Bounds, ChannelSummary, Event, Restored, StoreEffect, StoreEvent, StoreFailure};
use crate::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};
use crate::policy::Spare;

/// A request that the store has not carried out yet.
#[derive(Debug)]
enum Read {
    Load { channel: ChannelName, after: MessageId, limit: usize },
    Sweep { now: Timestamp, spare: Spare },
}

#[derive(Debug, Default)]
pub(super) struct SimStore {
    /// The stored messages. They survive a crash.
    pub rows: BTreeMap<MessageId, Message>,
    pub last_id: MessageId,
    /// The last id at the last crash, as the server remembers it.
    suspect_up_to: MessageId,
    appends: BTreeMap<MessageId, Message>,
    /// The older rows that are removed when an append is written.
    replaced: BTreeMap<MessageId, Vec<MessageId>>,
    removals: BTreeSet<MessageId>,
    counts: BTreeMap<MessageId, u32>,
    reads: VecDeque<Read>,
    /// The position of the last sweep.
    swept_to: (Option<Timestamp>, MessageId),
    /// Answers that the broker has not got yet, in order.
    pub events: VecDeque<Event<'static>>,
    pub failing: bool,
    /// While the store fails: it writes the rows and reports a failure, as if its answer were lost.
    pub loses_answers: bool,
    /// Rows that are stored although a failure was reported.
    pub hidden_rows: BTreeSet<MessageId>,
    /// Such rows that the broker has asked to write again.
    again: BTreeSet<MessageId>,
}

impl SimStore {
    pub fn ask(&mut self, effect: StoreEffect) {
        match effect {
            StoreEffect::Append(messages) => {
                for message in messages {
                    let id = message.id;
                    let is_hidden = self.hidden_rows.remove(&id);
                    let is_new = !self.rows.contains_key(&id) || is_hidden;
                    self.again.extend(is_hidden.then_some(id));
                    assert!(is_new, "{id:?} is written twice");
                    assert!(self.appends.insert(id, message).is_none(), "{id:?} is queued twice");
                }
            }
            StoreEffect::Replace { message, old } => {
                self.replaced.insert(message.id, old.to_vec());
                self.ask(StoreEffect::Append(vec![*message]));
            }
            StoreEffect::Remove(ids) => {
                for id in ids {
                    self.replaced.remove(&id);
                    if self.appends.remove(&id).is_none() || self.again.remove(&id) {
                        self.removals.insert(id);
                    }
                    self.counts.remove(&id);
                }
            }
            StoreEffect::Disown(ids) => {
                self.removals.extend(ids.into_iter().filter(|id| self.hidden_rows.contains(id)))
            }
            StoreEffect::Deliveries(counts) => self.counts.extend(counts),
            StoreEffect::Load { channel, after, limit, .. } => {
                self.reads.push_back(Read::Load { channel, after, limit })
            }
            StoreEffect::Sweep { now, spare } => self.reads.push_back(Read::Sweep { now, spare }),
            StoreEffect::Purge { channel, up_to } => {
                self.appends.retain(|id, message| message.channel != channel || *id > up_to);
                let purged = self.rows.iter().filter(|(id, row)| row.channel == channel && **id <= up_to);
                self.removals.extend(purged.map(|(id, _)| *id));
            }
        }
    }

    /// Whether a queued append replaces this row.
    pub fn is_superseded(&self, id: MessageId) -> bool {
        self.replaced.values().flatten().any(|old| *old == id)
    }

    /// Carries out one group commit and the reads after it.
    pub fn work(&mut self) {
        let ids: Vec<MessageId> = self.appends.keys().copied().collect();
        let again = std::mem::take(&mut self.again);
        if self.failing {
            self.hidden_rows.extend(again);
            if self.loses_answers {
                self.hidden_rows.extend(&ids);
                self.rows.append(&mut self.appends);
                for old in std::mem::take(&mut self.replaced).into_values().flatten() {
                    self.rows.remove(&old);
                }
            }
            self.appends.clear();
            self.replaced.clear();
            if !ids.is_empty() {
                self.events.push_back(Event::Store(StoreEvent::StoreFailed(ids, StoreFailure::Unavailable)));
            }
        } else {
            self.last_id = self.last_id.max(ids.last().copied().unwrap_or_default());
            for id in self.appends.keys() {
                self.removals.extend(self.replaced.remove(id).unwrap_or_default());
            }
            self.rows.append(&mut self.appends);
            for (id, deliveries) in std::mem::take(&mut self.counts) {
                if let Some(row) = self.rows.get_mut(&id) {
                    row.deliveries = deliveries;
                }
            }
            for id in std::mem::take(&mut self.removals) {
                self.rows.remove(&id);
            }
            if !ids.is_empty() {
                self.events.push_back(Event::Store(StoreEvent::Stored(ids)));
            }
        }
        while let Some(read) = self.reads.pop_front() {
            self.read(read);
        }
    }

    fn read(&mut self, read: Read) {
        match read {
            Read::Load { channel, .. } if self.failing => {
                self.events.push_back(Event::Store(StoreEvent::LoadFailed { channel }))
            }
            Read::Load { channel, after, limit } => {
                let mut found = self.rows.values().filter(|row| {
                    row.channel == channel && row.id > after && row.due.is_none() && !self.removals.contains(&row.id)
                });
                let messages: Vec<Message> = found.by_ref().take(limit).cloned().collect();
                let complete = found.next().is_none();
                self.events.push_back(Event::Store(StoreEvent::Loaded { channel, messages, complete }));
            }
            Read::Sweep { .. } if self.failing => {
                self.events.push_back(Event::Store(StoreEvent::Swept {
                    gone: Vec::new(),
                    spared: Vec::new(),
                    more: false,
                }));
            }
            Read::Sweep { now, spare } => {
                let key = |row: &Message| (row.expires, row.id);
                let is_expired = |row: &&Message| {
                    row.due.is_none() && row.expires.is_some_and(|expires| expires <= now) && key(row) > self.swept_to
                };
                let mut expired: Vec<Message> = self.rows.values().filter(is_expired).cloned().collect();
                expired.sort_by_key(key);
                let more = expired.len() > Bounds::TIGHT_SWEEP_ROWS;
                expired.truncate(Bounds::TIGHT_SWEEP_ROWS);
                self.swept_to = expired.last().filter(|_| more).map_or((None, MessageId(0)), key);
                let (spared, gone): (Vec<_>, Vec<_>) = expired.into_iter().partition(|row| spare.has(&row.channel));
                for row in &gone {
                    self.rows.remove(&row.id);
                }
                let gone = gone.into_iter().map(|row| (row.id, row.channel)).collect();
                self.events.push_back(Event::Store(StoreEvent::Swept { gone, spared, more }));
            }
        }
    }

    /// Returns the rows that no queued operation removes or rewrites, without those whose write was reported as failed.
    pub fn kept(&self) -> impl Iterator<Item = &Message> {
        let goes = |id: &MessageId| {
            self.removals.contains(id)
                || self.hidden_rows.contains(id)
                || self.appends.contains_key(id)
                || self.replaced.values().flatten().any(|old| old == id)
        };
        self.rows.values().filter(move |row| !goes(&row.id))
    }

    /// Whether the next round may remove rows.
    pub fn removes_something(&self) -> bool {
        let sweeps = self.reads.iter().any(|read| matches!(read, Read::Sweep { .. }));
        !self.removals.is_empty() || !self.replaced.is_empty() || sweeps
    }

    pub fn is_idle(&self) -> bool {
        self.appends.is_empty()
            && self.removals.is_empty()
            && self.counts.is_empty()
            && self.reads.is_empty()
            && self.events.is_empty()
    }

    /// Applies a step of the wall clock to the rows up to this id. (The broker gets an event in order with all other answers.)
    pub fn advance(&mut self, up_to: MessageId, by: u64) {
        for row in self.rows.range_mut(..=up_to).map(|(_, row)| row) {
            row.created = row.created.shifted(-i64::try_from(by).unwrap_or(i64::MAX));
            for moment in [&mut row.expires, &mut row.due].into_iter().flatten() {
                moment.0 = moment.0.saturating_sub(by);
            }
        }
    }

    /// At a start, rows whose write was reported as failed are like all other rows.
    pub fn find_hidden_rows(&mut self) {
        self.last_id = self.rows.keys().next_back().copied().unwrap_or_default().max(self.last_id);
        self.hidden_rows.clear();
    }

    /// Keeps only what survives a crash.
    pub fn crash(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let last_id = rows.keys().next_back().copied().unwrap_or_default().max(self.last_id);
        let (failing, loses_answers) = (self.failing, self.loses_answers);
        *self = Self { rows, last_id, suspect_up_to: last_id, failing, loses_answers, ..Self::default() };
    }

    /// Returns the contents of the store for a new broker.
    pub fn restored(&self) -> Restored {
        type Counted = (u64, MessageId, Vec<(Timestamp, u64)>);
        let mut channels: BTreeMap<ChannelName, Counted> = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.due.is_none()) {
            let (count, last, expiries) = channels.entry(row.channel.clone()).or_default();
            *count += 1;
            *last = (*last).max(row.id);
            expiries.extend(row.expires.map(|expires| (expires, 1)));
        }
        let mut publications: BTreeMap<(ChannelName, PublicationId), (Timestamp, u32)> = BTreeMap::new();
        for row in self.rows.values() {
            if let Some(id) = &row.publication {
                let key = (row.first_channel().clone(), id.clone());
                publications.entry(key).or_insert((row.created, 0)).1 += 1;
            }
        }
        let publications = publications.into_iter().map(|((channel, id), (at, rows))| (channel, id, at, rows));
        Restored {
            channels: channels
                .into_iter()
                .map(|(channel, (messages, last, expiries))| ChannelSummary { channel, messages, last, expiries })
                .collect(),
            delayed: self.rows.values().filter(|row| row.due.is_some()).cloned().collect(),
            publications: publications.collect(),
            ids: Vec::new(),
            id_seed: [0; 2],
            id_bound: None,
            last_id: self.last_id,
            suspect_up_to: self.suspect_up_to,
        }
    }
}
