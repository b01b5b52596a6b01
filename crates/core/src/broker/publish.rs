//! Publications: they go to receivers at once, wait, or are refused.

use smallvec::SmallVec;

use super::counters::Metric;
use super::dedup::{Key, Seen};
use super::delay::fleeting_bytes;
use super::entry::{Accepted, Entry, Location, Unstored, WriteState, expires_at};
use super::holdings::Owner;
use super::pending::{Fate, Pending};
use super::receiver::Receiver;
use super::stage::Cause;
use super::{Broker, Content, Delayed, Effect, Publish, Refusal, Reply, ReplyTo, Sender, Turn};
use crate::limits;
use crate::message::{ConnectionId, MessageId, Timestamp};

impl Broker {
    pub(super) fn publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) {
        let Some(known) = self.note_publisher(publish) else { return };
        let id = publish.id.as_ref().map(|id| self.dedup.key(&publish.publication.channel, id));
        if id.is_some_and(|id| self.is_repetition(publish, id, known, turn)) {
            return;
        }
        let name = &*publish.publication.channel;
        let keep = match known {
            Some(key) => self.channels[key].policy.keep,
            None => self.settings.policies.of(name).keep,
        };
        if !keep {
            self.publish_fleeting(publish, id, known, turn);
        } else if let Err(refusal) = self.publish_kept(publish, id, known, turn) {
            let key = self.channel_keys.get(name).copied();
            self.count(key, Metric::Refused, publish.publication.messages.len() as u64);
            self.reply(publish.reply_to, refused(publish, refusal), turn);
            if let Some(key) = key {
                self.close_if_unused(key);
            }
        }
    }

    /// Notes the sender, and returns the key of the publication's channel, if the channel exists. The outer `None` means that the sender
    /// has been ended: the publication is ignored.
    fn note_publisher(&mut self, publish: &Publish<'_>) -> Option<Option<usize>> {
        let name = &*publish.publication.channel;
        if let ReplyTo::Connection(asker) = publish.reply_to
            && publish.origin != Some(asker)
            && !self.ended.contains(&asker)
        {
            self.note_connection(asker);
        }
        if let Some(last) = &self.last_sender
            && publish.origin == Some(last.connection)
            && self.channels.get(last.channel).is_some_and(|channel| channel.name.is(name))
        {
            return Some(Some(last.channel));
        }
        let known = self.channel_keys.get(name).copied();
        self.last_sender = None;
        if let Some(connection) = publish.origin {
            if self.ended.contains(&connection) {
                return None;
            }
            let receives = self.note_sender(connection, name, known);
            if let Some(channel) = known {
                self.last_sender = Some(Sender { connection, channel, receives });
            }
        }
        Some(known)
    }

    /// Answers a publication whose id was seen within `dedup_window`, or notes that it waits for the answer to the first one. Returns false
    /// for a new id.
    fn is_repetition(&mut self, publish: &Publish<'_>, key: Key, known: Option<usize>, turn: &mut Turn<'_>) -> bool {
        let Some(id) = &publish.id else { return false };
        let Some(seen) = self.dedup.get(turn.now, self.settings.dedup_window, key) else { return false };
        self.count(known, Metric::Duplicates, 1);
        let reply = match seen {
            Seen::Accepted { at, rows } => {
                let stored = rows > 0 && self.is_still_stored(publish, at, turn.now);
                Reply::Accepted { id: Some(id.clone()), receivers: 0, stored, duplicate: true }
            }
            Seen::Pending(key) if self.add_waiter(key, publish.reply_to) => return true,
            Seen::Pending(_) => refused(publish, Refusal::BrokerFull),
        };
        self.reply(publish.reply_to, reply, turn);
        true
    }

    /// Whether the rows of a repeated publication, accepted at `at`, may still be in the store. The store does not report which
    /// publications' rows it has swept or purged.
    fn is_still_stored(&self, publish: &Publish<'_>, at: Timestamp, now: Timestamp) -> bool {
        let channel = &publish.publication.channel;
        let ttl = publish.ttl.unwrap_or_else(|| self.settings.policies.of(channel).ttl);
        let is_alive = expires_at(at, ttl).is_none_or(|expires| expires > now);
        is_alive && !self.purges.iter().any(|(purged, name)| *purged >= at && *name == **channel)
    }

    /// Delivers a publication on a channel that is not kept to the connected receivers. Nothing is stored.
    fn publish_fleeting(
        &mut self,
        publish: &Publish<'_>,
        remember: Option<Key>,
        known: Option<usize>,
        turn: &mut Turn<'_>,
    ) {
        let Publish { origin, reply_to, publication, receivers, delay, .. } = *publish;
        let mut served = 0;
        if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
            let (owner, bytes) = (self.holdings.owner(publish.user), fleeting_bytes(publication));
            if self.refuses_delayed(owner, 1) || self.is_memory_full(bytes, owner, None, turn) {
                self.count(known, Metric::Refused, publication.messages.len() as u64);
                self.reply(reply_to, refused(publish, Refusal::BrokerFull), turn);
                return;
            }
            self.charge_bytes(owner, bytes);
            let key = (turn.now.after(delay), self.next_id());
            self.remember(remember, publish, turn);
            let publication = Box::new(publication.to_owned());
            self.insert_delayed(key, Delayed::Fleeting { publication, origin, receivers, owner });
        } else {
            self.remember(remember, publish, turn);
            let count = publication.messages.len();
            if let Some(key) = known.filter(|_| count > 0) {
                served = self.fan_out(key, Content::Live, count, (origin, receivers), turn);
            } else {
                self.count(known, Metric::Fleeting, count as u64);
            }
        }
        self.accept(publish, served, turn);
    }

    /// Answers a publication that is accepted without storing anything, if its sender waits for the answer.
    fn accept(&mut self, publish: &Publish<'_>, receivers: u32, turn: &mut Turn<'_>) {
        if publish.id.is_some() || publish.answer {
            let id = publish.id.clone();
            self.reply(publish.reply_to, Reply::Accepted { id, receivers, stored: false, duplicate: false }, turn);
        }
    }

    /// Remembers the publication's id as accepted, if it has an id.
    fn remember(&mut self, key: Option<Key>, publish: &Publish<'_>, turn: &Turn<'_>) {
        if let Some((key, id)) = key.zip(publish.id.as_ref()) {
            self.dedup.accept(turn.now, key, id, 0);
        }
    }

    /// Delivers a content to the receivers of a channel that is not kept. Returns the number of receivers.
    pub(super) fn fan_out(
        &mut self,
        key: usize,
        content: Content,
        messages: usize,
        (origin, receivers): (Option<ConnectionId>, Option<u32>),
        turn: &mut Turn<'_>,
    ) -> u32 {
        self.count(key, Metric::Fleeting, messages as u64);
        let channel = &mut self.channels[key];
        let limit = receivers.unwrap_or(channel.policy.receivers);
        let served = if limit == 0 && channel.groups().is_none() {
            let own = origin.is_some_and(|origin| self.receives(origin, key));
            let to = self.channels[key].connections();
            let served = to.len() - usize::from(own);
            if served > 0 {
                let content = turn.content(content);
                turn.effect(|| Effect::Broadcast { to, except: origin.filter(|_| own), content });
            }
            served
        } else {
            let targets = channel.choose_all(origin, limit);
            let Some(last) = targets.last() else { return 0 };
            channel.served = last.order;
            channel.serve_groups(&targets);
            let content = turn.content(content);
            turn.effects.list.extend(targets.iter().map(|target| Effect::Deliver {
                to: target.connection,
                content,
                sequence: 0,
                manual: false,
                attempt: 1,
                message: MessageId(0),
            }));
            targets.len()
        };
        self.count(key, Metric::Deliveries, served as u64);
        u32::try_from(served).unwrap_or(u32::MAX)
    }

    /// Accepts a publication on a kept channel. Delivers it at once if a receiver has room and no message comes before it, else queues it.
    fn publish_kept(
        &mut self,
        publish: &Publish<'_>,
        id: Option<Key>,
        known: Option<usize>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let publication = &publish.publication;
        let (count, size) =
            (publication.messages.len(), publication.messages.iter().map(ExactSizeIterator::len).sum::<usize>());
        let key = known.or_else(|| self.open_channel_for(&publication.channel, publish.user, turn));
        let key = key.ok_or(Refusal::BrokerFull)?;
        let channel = &self.channels[key];
        let delay = publish.delay.filter(|delay| !delay.is_zero());
        let ttl = publish.ttl.unwrap_or(channel.policy.ttl);
        if delay.is_some_and(|delay| !ttl.is_zero() && delay >= ttl) {
            return Err(Refusal::Expired);
        }
        if self.is_backlog_full(key, count as u64, turn.now) {
            return Err(Refusal::BacklogFull);
        }
        let owner = self.holdings.owner(publish.user);
        if self.is_memory_full(size, owner, Some(key), turn) || (delay.is_some() && self.refuses_delayed(owner, count))
        {
            return Err(Refusal::BrokerFull);
        }
        let channel = &self.channels[key];
        // A message that receivers probably take at once need not be written, if they confirm it.
        let is_taken = delay.is_none() && channel.is_drained() && !channel.members.is_empty();
        if !is_taken && self.refuses_write(owner, count, size) {
            return Err(Refusal::Unavailable);
        }
        if count == 0 {
            self.accept_empty(publish, id, turn);
            self.close_if_unused(key);
            return Ok(());
        }
        self.count(key, Metric::Accepted, count as u64);
        let pending = self.pend(publish, id, count);
        let entries = self.entries(publish, (key, owner), (id, pending), turn);
        if let (true, ReplyTo::Caller(caller)) = (publish.watch, publish.reply_to) {
            let expires = entries.first().and_then(|entry| entry.message.expires);
            self.watches.begin(caller, key, entries.iter().map(|entry| entry.message.id).collect(), expires);
        }
        if let Some(delay) = delay {
            let due = turn.now.after(delay);
            for mut entry in entries {
                entry.message.due = Some(due);
                self.delay(key, due, entry);
            }
            return Ok(());
        }
        self.deliver_or_queue(key, entries, publish, turn);
        Ok(())
    }

    /// Accepts a publication without messages. It reaches nobody.
    fn accept_empty(&mut self, publish: &Publish<'_>, remember: Option<Key>, turn: &mut Turn<'_>) {
        self.remember(remember, publish, turn);
        self.accept(publish, 0, turn);
    }

    /// Makes a [`Pending`] if the sender waits until the publication is safe, or if the publication has several messages, which get one
    /// answer. Returns its key.
    fn pend(&mut self, publish: &Publish<'_>, id: Option<Key>, count: usize) -> Option<usize> {
        if publish.id.is_none() && !publish.answer && count == 1 {
            return None;
        }
        let key = self.pending.vacant_key();
        if let Some(id) = id {
            self.dedup.pend(id, key);
        }
        self.pending.insert(Pending {
            remembered: id,
            reply_to: publish.reply_to,
            id: publish.id.clone(),
            answer: publish.answer,
            first: MessageId(self.last_id.0 + 1),
            messages: count,
            remaining: count,
            receivers: u32::MAX,
            rows: 0,
            refused: None,
            waiters: SmallVec::new(),
        });
        Some(key)
    }

    /// Makes the entries of a publication, and registers each as unstored.
    fn entries(
        &mut self,
        publish: &Publish<'_>,
        (channel, owner): (usize, Owner),
        (remembered, pending): (Option<Key>, Option<usize>),
        turn: &Turn<'_>,
    ) -> SmallVec<[Box<Entry>; 1]> {
        let publication = &publish.publication;
        let expires = expires_at(turn.now, publish.ttl.unwrap_or(self.channels[channel].policy.ttl));
        let origin = publish.origin.filter(|connection| self.receives(*connection, channel));
        let mut entries = SmallVec::with_capacity(publication.messages.len());
        for payload in publication.payloads() {
            let id = self.next_id();
            self.count_in(channel, id, expires);
            self.unstored.insert(
                id,
                Unstored {
                    channel,
                    owner,
                    writing: 0,
                    location: Location::Waiting,
                    write_state: WriteState::NotRequested,
                    pending,
                    reply_to: publish.reply_to,
                    replaces: SmallVec::new(),
                    expires,
                    committed: false,
                },
            );
            let accepted = Accepted {
                id,
                channel: &self.channels[channel].name,
                payload,
                at: turn.now,
                expires,
                receivers: publish.receivers,
                publication: publish.id.as_ref(),
                remembered,
                origin,
                owner,
            };
            let entry = accepted.into_entry(self.spare_entries.take());
            self.charge(&entry);
            entries.push(entry);
        }
        entries
    }

    /// Delivers a publication to receivers as it was sent, or queues it.
    fn deliver_or_queue(
        &mut self,
        key: usize,
        entries: SmallVec<[Box<Entry>; 1]>,
        publish: &Publish<'_>,
        turn: &mut Turn<'_>,
    ) {
        let limit = publish.receivers.unwrap_or(self.channels[key].policy.receivers);
        if limit == 0 && !self.stopping {
            self.end_outrun(key, publish.origin, turn);
        }
        let targets = if self.channels[key].is_drained() {
            let Self { channels, receivers, settings, .. } = self;
            channels[key].prepare_choice(settings.bounds.members_searched, |key| receivers[key].has_room());
            let takes = |receiver: &Receiver| receiver.has_room() && !self.is_reserved(receiver, key, turn.now);
            self.targets(key, publish.origin, limit, takes)
        } else {
            SmallVec::new()
        };
        if targets.is_empty() {
            for entry in entries {
                self.enqueue(key, entry, Cause::Accepted, turn);
            }
            self.to_pump.push(key);
            return;
        }
        let ids: SmallVec<[MessageId; 1]> = entries.iter().map(|entry| entry.message.id).collect();
        // While the message is in flight, its write is delayed; only briefly if the sender waits for the answer.
        let soon = (publish.id.is_some() || publish.answer) && self.await_confirmation(&targets, turn);
        self.start_flight(key, entries, Content::Live, &targets, turn);
        for id in ids {
            if soon {
                self.deadlines.write_awaited_at(turn.now.after(limits::PROMPT_CONFIRMATION), id);
            } else {
                self.schedule_write(id, turn);
            }
        }
    }

    /// Queues an entry after all messages of its channel: in memory if it will be delivered soon, else in the store only.
    pub(super) fn enqueue(&mut self, key: usize, mut entry: Box<Entry>, cause: Cause, turn: &mut Turn<'_>) {
        let (page, bytes) = (self.settings.bounds.page(self.is_memory_short()), self.burst_bytes());
        let id = entry.message.id;
        let channel = &mut self.channels[key];
        let soon = !channel.members.is_empty()
            && channel.paged == 0
            && !channel.next_page.is_loading()
            && channel.parked.is_empty();
        if soon && !channel.page_is_full(page, bytes) {
            self.wait(key, entry, cause);
            self.schedule_write(id, turn);
            return;
        }
        // Kept in memory until it is written, because it cannot be refused alone.
        let is_alone = |unstored: &Unstored| {
            let pending = unstored.pending.and_then(|key| self.pending.get(key));
            !unstored.committed && pending.is_none_or(|pending| pending.messages == 1)
        };
        if !self.unstored.get(id).is_some_and(is_alone) {
            self.park(key, entry, cause);
            self.append(id);
            return;
        }
        // `append` copies the message from the waiting entry, which is then removed.
        self.transition(key, &mut entry, Location::Waiting, cause);
        self.channels[key].wait(entry);
        self.append(id);
        let channel = &mut self.channels[key];
        if let Some(mut entry) = channel.unwait(id) {
            channel.page_out(id, entry.origin);
            self.uncharge(&entry);
            self.transition(key, &mut entry, Location::Paged, Cause::PagedOut);
            self.sweep_later(turn.now);
        }
    }

    /// Removes a settled message from the memory, the store and the channel's count.
    pub(super) fn drop_entry(
        &mut self,
        key: usize,
        mut entry: Box<Entry>,
        (fate, cause): (Fate, Cause),
        turn: &mut Turn<'_>,
    ) {
        self.end_journey(key, &mut entry, cause);
        let (id, expires) = (entry.message.id, entry.message.expires);
        self.uncharge(&entry);
        let had_row = if entry.written {
            self.removals.push(id);
            true
        } else {
            self.resolve(id, fate, turn).is_some_and(|unstored| unstored.has_counted_row())
        };
        if had_row {
            self.row_removed(&entry);
        }
        self.spare_entries.put(entry);
        self.count_out(key, id, expires);
        self.close_if_unused(key);
    }
}

/// Makes the reply to a publication that is not accepted.
fn refused(publish: &Publish<'_>, refusal: Refusal) -> Reply {
    Reply::Refused { id: publish.id.clone(), answer: publish.answer, refusal }
}
