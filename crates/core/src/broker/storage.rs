//! The core's side of the store: which messages are written at which time, and how the store's answers are handled.

use super::counters::Metric;
use super::entry::{Entry, Location, WriteState};
use super::holdings::Owner;
use super::next_page::FinishedLoad;
use super::pending::Fate;
use super::stage::{Cause, Stage};
use super::{Broker, Delayed, Effect, Restored, StoreEffect, Turn};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Message, MessageId, Timestamp};

impl Broker {
    /// Takes over the contents of the store at the start.
    pub(super) fn restore(&mut self, restored: Restored) {
        for summary in restored.channels {
            // The bound on channels limits what clients create. Stored channels are always restored.
            let key = self.make_channel(&summary.channel, Owner::NOBODY);
            let channel = &mut self.channels[key];
            channel.paged = summary.messages;
            channel.unsettled = summary.messages;
            channel.last_paged = summary.last;
            for (expires, messages) in summary.expiries {
                let expiries = &mut channel.expiring.get_or_insert_default().restored;
                expiries.add(expires, messages, self.settings.bounds.expiry_buckets);
            }
            self.count(key, Metric::Accepted, summary.messages);
        }
        for message in restored.delayed {
            let Some(due) = message.due else { continue };
            let known = self.channel_keys.get(&message.channel).copied();
            let key = known.unwrap_or_else(|| self.make_channel(&message.channel, Owner::NOBODY));
            let id = message.id;
            self.count_in(key, id, message.expires);
            self.count(key, Metric::Accepted, 1);
            let mut entry = self.stored_entry(message, None);
            self.transition(key, &mut entry, Location::Delayed(due), Cause::Restored);
            self.insert_delayed((due, id), Delayed::Kept(key, entry));
        }
        self.dedup.restore(restored.publications, restored.ids);
        if !self.channels.is_empty() {
            // The first sweep runs at the first tick.
            self.deadlines.sweep = Some(Timestamp(0));
        }
    }

    /// Makes the entry of a message that was read from the store, and counts its bytes.
    pub(super) fn stored_entry(&mut self, message: Message, origin: Option<ConnectionId>) -> Box<Entry> {
        let remembered = message.publication.as_ref().map(|id| self.dedup.key(message.first_channel(), id));
        // The message may have been delivered before the crash without a count; a delayed one that came due even under a new id.
        let suspect = message.id <= self.suspect_up_to;
        let (owner, stage) = (self.holdings.owner_of(&message), Stage::Paged);
        let written = true;
        let entry = Box::new(Entry { message, remembered, origin, owner, written, suspect, stage, failures: None });
        self.charge(&entry);
        entry
    }

    /// Asks the store to write a message, unless it was asked before.
    pub(super) fn append_unrequested(&mut self, id: MessageId) {
        if self.unstored.get(id).is_some_and(|unstored| unstored.write_state == WriteState::NotRequested) {
            self.append(id);
        }
    }

    /// Asks the store to write a message, unless a write is running.
    pub(super) fn append(&mut self, id: MessageId) {
        let Some(unstored) = self.unstored.get(id).filter(|unstored| unstored.write_state != WriteState::Writing)
        else {
            return;
        };
        let channel = self.channels.get(unstored.channel);
        let entry = match unstored.location {
            Location::Waiting => channel.and_then(|channel| channel.waiting.get(&id)),
            Location::Parked => channel.and_then(|channel| channel.parked.get(&id)),
            Location::Flight(key) => {
                self.flights.get(key).and_then(|flight| flight.entries.iter().find(|entry| entry.message.id == id))
            }
            Location::Delayed(due) => match self.delayed.get(&(due, id)) {
                Some(Delayed::Kept(_, entry)) => Some(entry),
                _ => None,
            },
            Location::Held(until) => self.held.get(&(until, id)).map(|held| &held.entry),
            Location::Paged => None,
        };
        if let Some(message) = entry.map(|entry| entry.message.clone()) {
            let (owner, payload) = (unstored.owner, message.payload.bytes.len());
            if unstored.replaces.is_empty() {
                self.appends.push(message);
            } else {
                self.replacements.push((message, unstored.replaces.clone()));
            }
            let writing = self.charge_write(owner, payload);
            if let Some(unstored) = self.unstored.get_mut(id) {
                unstored.writing = writing;
                if std::mem::replace(&mut unstored.write_state, WriteState::Writing) == WriteState::Failed {
                    self.failed.remove(&id);
                }
            }
        }
    }

    /// Whether operations for the store were collected.
    #[inline]
    pub(super) fn has_store_requests(&self) -> bool {
        !(self.appends.is_empty() && self.replacements.is_empty() && self.counts.is_empty() && self.removals.is_empty())
    }

    /// Passes the collected operations to the store.
    pub(super) fn flush_store(&mut self, turn: &mut Turn<'_>) {
        let list = &mut turn.effects.list;
        if !self.appends.is_empty() {
            list.push(Effect::Store(StoreEffect::Append(std::mem::take(&mut self.appends))));
        }
        let replacements = self.replacements.drain(..);
        list.extend(replacements.map(|(message, old)| {
            let message = Box::new(message);
            Effect::Store(StoreEffect::Replace { message, old })
        }));
        if !self.counts.is_empty() {
            list.push(Effect::Store(StoreEffect::Deliveries(std::mem::take(&mut self.counts))));
        }
        if !self.removals.is_empty() {
            list.push(Effect::Store(StoreEffect::Remove(std::mem::take(&mut self.removals))));
        }
    }

    /// Handles [`super::StoreEvent::Stored`]: the messages are in the store.
    pub(super) fn stored(&mut self, ids: &[MessageId], turn: &mut Turn<'_>) {
        for id in ids {
            let late = self.unstored.get(*id).is_some_and(|unstored| unstored.expired(turn.now));
            let fate = if late { Fate::StoredLate } else { Fate::Stored };
            let Some(unstored) = self.resolve(*id, fate, turn) else { continue };
            let Some(channel) = self.channels.get_mut(unstored.channel) else { continue };
            match unstored.location {
                Location::Waiting => {
                    if let Some(entry) = channel.waiting.get_mut(id) {
                        entry.written = true;
                    }
                    if channel.members.is_empty() {
                        self.to_pump.push(unstored.channel);
                    }
                }
                Location::Parked => {
                    self.unpark_stored(unstored.channel, *id, turn);
                }
                Location::Flight(key) => {
                    let entries = self.flights.get_mut(key).map(|flight| &mut flight.entries);
                    if let Some(entry) = entries.into_iter().flatten().find(|entry| entry.message.id == *id) {
                        entry.written = true;
                    }
                }
                Location::Delayed(due) => {
                    if let Some(Delayed::Kept(_, entry)) = self.delayed.get_mut(&(due, *id)) {
                        entry.written = true;
                    }
                }
                Location::Held(until) => {
                    if let Some(held) = self.held.get_mut(&(until, *id)) {
                        held.entry.written = true;
                    }
                }
                Location::Paged => {}
            }
        }
    }

    /// Handles a parked message that was written. It leaves `parked` after the parked messages before it, so that the order is kept.
    fn unpark_stored(&mut self, key: usize, id: MessageId, turn: &mut Turn<'_>) {
        if let Some(entry) = self.channels[key].parked.get_mut(&id) {
            entry.written = true;
        }
        while let Some(channel) = self.channels.get_mut(key)
            && let Some(entry) = channel.unpark_written()
        {
            self.place_stored(key, entry, turn);
        }
    }

    /// Places a written message that was parked. It becomes paged if earlier messages are paged or fill the memory, else it waits in memory.
    fn place_stored(&mut self, key: usize, mut entry: Box<Entry>, turn: &mut Turn<'_>) {
        let (page, bytes) = (self.settings.bounds.page(self.is_memory_short()), self.burst_bytes());
        let (channel, id) = (&mut self.channels[key], entry.message.id);
        self.to_pump.push(key);
        // Also while a page is being read, because the page may contain the message.
        let follows_paged = channel.paged > 0 || channel.next_page.is_loading() || channel.page_is_full(page, bytes);
        if follows_paged && id > channel.cursor {
            channel.page_out(id, entry.origin);
            self.transition(key, &mut entry, Location::Paged, Cause::PagedOut);
            self.uncharge(&entry);
            self.sweep_later(turn.now);
        } else if entry.expired(turn.now) {
            // It may have expired while it was parked and a page was being read.
            self.expire(key, entry, turn);
        } else {
            self.wait(key, entry, Cause::Unparked);
        }
    }

    /// Removes this number of paged messages from the counts, because they are gone from the store.
    fn unpage(&mut self, key: usize, count: u64) {
        let channel = &mut self.channels[key];
        let count = count.min(channel.paged);
        channel.paged -= count;
        channel.unsettled -= count;
        let left = channel.unsettled;
        self.trim_expiries(key, left);
        self.to_pump.push(key);
        self.close_if_unused(key);
    }

    pub(super) fn arm_retry(&mut self, now: Timestamp) {
        self.deadlines.retry.get_or_insert(now.after(limits::STORE_RETRY));
    }

    /// Repeats failed writes and failed loads.
    pub(super) fn retry_store(&mut self) {
        for id in std::mem::take(&mut self.failed) {
            self.append(id);
        }
        for (key, channel) in &mut self.channels {
            if channel.next_page.retry() {
                self.to_pump.push(key);
            }
        }
    }

    /// Handles a page of a channel's backlog.
    pub(super) fn loaded(&mut self, name: &ChannelName, messages: Vec<Message>, complete: bool, turn: &mut Turn<'_>) {
        let Some(key) = self.channel_keys.get(name).copied() else { return };
        let Some(FinishedLoad { cover, stale, .. }) = self.end_loading(key) else { return };
        self.to_pump.push(key);
        self.page_arrived(key);
        if stale {
            self.close_if_unused(key);
            return;
        }
        for message in messages {
            self.unpark_before(key, message.id, turn);
            let Some(channel) = self.channels.get_mut(key) else { return };
            if message.id <= channel.cursor {
                continue;
            }
            channel.cursor = message.id;
            if self.superseded.contains_key(&message.id) {
                continue;
            }
            // The row was written although the store reported a failure, and the entry in memory is written again. Or the message is parked.
            if self.unstored.contains(message.id) || channel.parked.contains_key(&message.id) {
                continue;
            }
            // The page was read before the removal of the row. The sender was told that the message is refused.
            if self.refused.contains(&message.id) {
                continue;
            }
            if channel.paged > 0 {
                channel.paged -= 1;
            } else {
                // Not counted yet: another program has written the row.
                self.count_in(key, message.id, message.expires);
                self.count(key, Metric::Accepted, 1);
            }
            let channel = &mut self.channels[key];
            let origin = channel.paged_origin(message.id);
            let entry = self.stored_entry(message, origin);
            if entry.expired(turn.now) {
                self.expire(key, entry, turn);
            } else {
                self.wait(key, entry, Cause::Loaded);
            }
            if !self.channels.contains(key) {
                return;
            }
        }
        let channel = &mut self.channels[key];
        if complete && channel.last_paged == cover && channel.paged > 0 {
            // Another program has removed rows, so the count was too high.
            let missing = channel.paged;
            self.unpage(key, missing);
        }
        self.close_if_unused(key);
    }

    /// Moves the parked messages that were accepted before this message to `waiting`, so that it does not overtake them.
    fn unpark_before(&mut self, key: usize, id: MessageId, turn: &mut Turn<'_>) {
        while let Some(entry) = self.channels.get_mut(key).and_then(|channel| channel.unpark_before(id)) {
            if entry.expired(turn.now) {
                self.expire(key, entry, turn);
            } else {
                self.wait(key, entry, Cause::Unparked);
            }
        }
    }

    /// Handles a failed load. The retry timer repeats it.
    pub(super) fn load_failed(&mut self, name: &ChannelName, turn: &mut Turn<'_>) {
        let Some(key) = self.channel_keys.get(name).copied() else { return };
        self.end_loading(key);
        self.channels[key].next_page.fail();
        self.arm_retry(turn.now);
        self.page_arrived(key);
        self.close_if_unused(key);
    }

    /// Removes all unconfirmed messages of a channel, including those in flight.
    pub(super) fn purge(&mut self, name: &ChannelName, turn: &mut Turn<'_>) {
        let Some(key) = self.channel_keys.get(name).copied() else {
            // The store may contain unknown rows: those of another program, or of refused messages.
            turn.effects.list.push(Effect::Store(StoreEffect::Purge { channel: name.clone(), up_to: self.last_id }));
            return;
        };
        self.note_purge(name, turn.now);
        let channel = &mut self.channels[key];
        let paged = std::mem::take(&mut channel.paged);
        channel.unsettled -= paged;
        channel.cursor = self.last_id;
        channel.next_page.make_stale();
        channel.waiting_bytes = 0;
        let waiting = std::mem::take(&mut channel.waiting).into_values();
        let parked = std::mem::take(&mut channel.parked).into_values();
        let mut entries: Vec<Box<Entry>> = waiting.chain(parked).collect();
        if let Some(expiring) = &mut channel.expiring {
            expiring.waiting.clear();
        }
        let held: Vec<_> = self.held.iter().filter(|(_, held)| held.channel == key).map(|(at, _)| *at).collect();
        entries.extend(held.into_iter().filter_map(|at| self.take_held(at)).map(|held| held.entry));
        self.channels[key].in_flight = 0;
        for (_, flight) in &mut self.flights {
            if flight.channel == key {
                entries.extend(std::mem::take(&mut flight.entries));
            }
        }
        let due: Vec<_> = self
            .delayed
            .iter()
            .filter(|(_, delayed)| matches!(delayed, Delayed::Kept(channel, _) if *channel == key))
            .map(|(at, _)| *at)
            .collect();
        for at in due {
            if let Some(Delayed::Kept(_, entry)) = self.take_delayed(&at) {
                entries.push(entry);
            }
        }
        let up_to = self.last_id;
        self.count(key, Metric::Purged, paged + entries.len() as u64);
        // Keeps the channel open while its entries are dropped.
        self.channels[key].unsettled += 1;
        for entry in entries {
            self.drop_entry(key, entry, (Fate::Settled, Cause::Purged), turn);
        }
        self.resolve_paged(key, turn);
        self.watches.purge(key);
        self.flush_store(turn);
        turn.effects.list.push(Effect::Store(StoreEffect::Purge { channel: name.clone(), up_to }));
        self.channels[key].unsettled -= 1;
        let left = self.channels[key].unsettled;
        self.trim_expiries(key, left);
        self.close_if_unused(key);
    }

    /// Remembers a purge for as long as a publication with purged messages may be repeated.
    fn note_purge(&mut self, name: &ChannelName, now: Timestamp) {
        let window = self.settings.dedup_window;
        self.purges.retain(|(at, other)| now.since(*at) < window && other != name);
        if self.purges.len() >= limits::PURGES_REMEMBERED {
            self.purges.pop_front();
        }
        self.purges.push_back((now, name.clone()));
    }

    /// Settles the messages of a purged channel that only the store's queue contained.
    fn resolve_paged(&mut self, key: usize, turn: &mut Turn<'_>) {
        let ids: Vec<MessageId> = self
            .unstored
            .iter()
            .filter(|(_, unstored)| unstored.channel == key && unstored.location == Location::Paged)
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.resolve(id, Fate::Settled, turn);
        }
    }
}
