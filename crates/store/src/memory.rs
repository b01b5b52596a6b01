//! A store in the memory of the process: for tests, demonstrations, and brokers that must never write to a disk.
//!
//! Bounded by a budget of bytes. Reads never fail.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use super::{Background, ChannelSummary, Group, MessageStore, Page, Restamp, StoreError, Summary, Swept};
use crate::limits;
use crate::message_store::SweptTo;
use crate::page::PageBuilder;
use crate::publications::FoundPublications;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// Every row.
    rows: BTreeMap<MessageId, Message>,
    /// The rows without a due time, by channel, for pages. No set is empty.
    waiting: BTreeMap<ChannelName, BTreeSet<MessageId>>,
    /// The rows that expire and have no due time, soonest first.
    expiring: BTreeSet<(Timestamp, MessageId)>,
    /// The cost of the rows, in bytes.
    bytes: usize,
    /// The maximum cost, in bytes.
    budget: usize,
    last_id: MessageId,
    /// Marks: a few, one for each tool that has used the store.
    marks: BTreeMap<String, u64>,
    /// The token of the last correction of times.
    restamped: Option<u64>,
    swept_to: SweptTo,
}

/// The bytes that a message counts towards the budget.
fn cost(message: &Message) -> usize {
    let reason = message.dead.as_ref().and_then(|dead| dead.reason.as_ref()).map_or(0, |reason| reason.len());
    message.payload.bytes.len() + reason + limits::STORE_ROW_BYTES
}

/// The lowest id above this one. No message has the highest possible id.
fn above(id: MessageId) -> MessageId {
    MessageId(id.0.saturating_add(1))
}

impl MemoryStore {
    /// An empty store of at most `budget` bytes (payloads, and [`limits::STORE_ROW_BYTES`] for each).
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            rows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            expiring: BTreeSet::new(),
            bytes: 0,
            budget,
            last_id: MessageId(0),
            marks: BTreeMap::new(),
            restamped: None,
            swept_to: None,
        }
    }

    fn insert(&mut self, message: Message) {
        self.remove(message.id);
        self.bytes += cost(&message);
        self.last_id = self.last_id.max(message.id);
        if message.due.is_none() {
            self.waiting.entry(message.channel.clone()).or_default().insert(message.id);
        }
        if let Some(expires) = message.expires.filter(|_| message.due.is_none()) {
            self.expiring.insert((expires, message.id));
        }
        self.rows.insert(message.id, message);
    }

    fn remove(&mut self, id: MessageId) -> Option<Message> {
        let message = self.rows.remove(&id)?;
        self.bytes -= cost(&message);
        if let Some(expires) = message.expires {
            self.expiring.remove(&(expires, id));
        }
        if let Some(ids) = self.waiting.get_mut(&message.channel) {
            ids.remove(&id);
            if ids.is_empty() {
                self.waiting.remove(&message.channel);
            }
        }
        Some(message)
    }

    /// Applies a change of times to rows; the closure returns whether it has changed the row.
    fn change(&mut self, change: impl Fn(&mut Message) -> bool) {
        let mut changed: Vec<Message> = self.rows.values().cloned().collect();
        changed.retain_mut(|message| change(message));
        changed.into_iter().for_each(|message| self.insert(message));
    }

    /// The expiries of the rows, by channel.
    fn expiries(&self) -> Vec<(ChannelName, Timestamp, u64)> {
        let (Some((first, _)), Some((last, _))) = (self.expiring.first(), self.expiring.last()) else {
            return Vec::new();
        };
        let span = crate::restamp::expiry_span(*first, *last);
        let mut found: BTreeMap<(ChannelName, u64), (Timestamp, u64)> = BTreeMap::new();
        for (at, id) in &self.expiring {
            let Some(message) = self.rows.get(id) else { continue };
            found.entry((message.channel.clone(), at.0 / span)).or_insert((*at, 0)).1 += 1;
        }
        found.into_iter().map(|((channel, _), (at, messages))| (channel, at, messages)).collect()
    }

    /// The cost of the rows after the group, in bytes.
    fn cost_after(&self, group: &Group) -> usize {
        let gone: HashSet<MessageId> = group.removals.iter().copied().collect();
        let added: BTreeMap<MessageId, usize> =
            group.appends.iter().map(|message| (message.id, cost(message))).collect();
        let replaced_or_gone = added.keys().chain(gone.iter().filter(|id| !added.contains_key(id)));
        let less: usize = replaced_or_gone.filter_map(|id| self.rows.get(id)).map(cost).sum();
        let more: usize = added.iter().filter(|(id, _)| !gone.contains(id)).map(|(_, cost)| cost).sum();
        (self.bytes + more).saturating_sub(less)
    }
}

impl MessageStore for MemoryStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let after = self.cost_after(group);
        // A group that makes room is accepted even if the store stays above its budget.
        if after > self.budget && after > self.bytes {
            return Err(StoreError::OverBudget { place: "memory:".to_owned() });
        }
        for message in &group.appends {
            self.insert(message.clone());
        }
        for id in &group.removals {
            self.remove(*id);
        }
        for (id, deliveries) in &group.deliveries {
            if let Some(message) = self.rows.get_mut(id) {
                message.deliveries = *deliveries;
            }
        }
        self.marks.extend(group.marks.iter().cloned());
        Ok(())
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let Some(ids) = self.waiting.get(channel) else {
            return Ok(Page { messages: Vec::new(), complete: true });
        };
        Ok(PageBuilder::fill(ids.range(above(after)..).filter_map(|id| self.rows.get(id)).cloned(), limit, max_bytes))
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        Ok(PageBuilder::fill(self.rows.range(above(after)..).map(|(_, message)| message.clone()), limit, max_bytes))
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.marks.get(name).copied())
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        let of_channel = self.rows.range(..=up_to).filter(|(_, message)| message.channel == *channel);
        let gone: Vec<MessageId> = of_channel.map(|(id, _)| *id).take(limit).collect();
        Ok(gone.into_iter().filter_map(|id| self.remove(id)).count() as u64)
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let channels = self.waiting.iter().filter_map(|(channel, ids)| {
            let last = *ids.last()?;
            Some(ChannelSummary { channel: channel.clone(), messages: ids.len() as u64, last })
        });
        let mut publications = FoundPublications::default();
        for message in self.rows.values().rev().filter(|message| message.created >= publications_since) {
            if let Some(publication) = &message.publication
                && publications.len() < wsmb_core::limits::DEDUP_IDS
            {
                publications.add(message.first_channel().clone(), publication.clone(), message.created, message.id);
            }
        }
        Ok(Summary {
            channels: channels.collect(),
            expiries: self.expiries(),
            delayed: self
                .rows
                .values()
                .filter(|row| row.due.is_some())
                .take(wsmb_core::limits::DELAYED)
                .cloned()
                .collect(),
            publications: publications.oldest_first(),
            last_id: self.last_id,
            // Nothing outlives the process, so no start finds the rows of a crashed broker.
            clean: true,
        })
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Background for MemoryStore {
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        let from = self.swept_to.map_or(Bound::Unbounded, Bound::Excluded);
        let expired = self.expiring.range((from, Bound::Unbounded)).take_while(|(expires, _)| *expires <= now);
        let mut swept = Swept::default();
        let mut bytes = 0;
        let mut seen = Vec::new();
        for (number, at) in expired.enumerate() {
            if number >= limit || bytes > wsmb_core::limits::PAGE_BYTES {
                swept.more = true;
                break;
            }
            let Some(row) = self.rows.get(&at.1) else { continue };
            seen.push(*at);
            if spare.has(&row.channel) {
                bytes += row.payload.bytes.len();
                swept.spared.push(row.clone());
            } else {
                swept.gone.push((row.id, row.channel.clone()));
            }
        }
        self.swept_to = seen.last().copied().filter(|_| swept.more);
        for (id, _) in &swept.gone {
            self.remove(*id);
        }
        Ok(swept)
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        if self.restamped != Some(restamp.token) {
            self.change(|message| {
                restamp.apply(message);
                restamp.applies_to(message)
            });
            self.restamped = Some(restamp.token);
        }
        Ok(())
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.change(|message| {
            let ends = message.expires.is_some() || message.due.is_some();
            let young = ends && message.id <= up_to && message.created > now;
            if young {
                let future_excess = crate::restamp::future_excess(message.created, now);
                crate::restamp::shift(message, -i64::try_from(future_excess).unwrap_or(i64::MAX));
                message.created = now;
            }
            young
        });
        Ok(())
    }

    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
