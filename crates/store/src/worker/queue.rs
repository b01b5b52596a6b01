//! The requests that wait for the store, without thread or lock: which request cancels which, and which may be carried out when.
//!
//! Appends leave the queue in the order of their arrival. Removals, delivery counts and purges stay queued until the store has carried them out, also
//! after failures.

mod numbered_queue;
mod uncertain_rows;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::{Group, Restamp};
use numbered_queue::NumberedQueue;
use uncertain_rows::UncertainRows;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A callback that receives whether the store can be written.
pub(super) type Check = Box<dyn FnOnce(bool) + Send>;

/// A requested page.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) channel: ChannelName,
    pub(super) after: MessageId,
    pub(super) limit: usize,
    pub(super) bytes: usize,
    /// Appends with lower numbers were queued before the page and must be in the store first.
    barrier: u64,
}

/// All waiting requests.
#[derive(Default)]
pub(super) struct Queue {
    /// Messages to write, in order of arrival.
    appends: NumberedQueue<Message>,
    /// Older rows that waiting messages replace; removed in the same commit.
    replaced: Replaced,
    /// The number of each message in `appends`.
    numbers: HashMap<MessageId, u64, RandomState>,
    removals: HashSet<MessageId, RandomState>,
    /// Rows that may be in the store although their write was reported as failed.
    uncertain: UncertainRows,
    deliveries: HashMap<MessageId, u32, RandomState>,
    /// The id up to which each channel is purged.
    purges: BTreeMap<ChannelName, MessageId>,
    loads: VecDeque<Load>,
    sweep: Option<(Timestamp, Spare)>,
    /// Corrections of stored times, oldest first.
    restamps: VecDeque<Restamp>,
    /// The wall clock's time to store.
    time: Option<Timestamp>,
    checks: Vec<Check>,
    /// The cost of the waiting appends, in bytes.
    bytes: usize,
}

/// New rows, and the older rows that each of them replaces.
pub(super) type Replaced = HashMap<MessageId, Vec<MessageId>, RandomState>;

/// The bytes that a message counts towards the queue's bound.
pub(super) fn cost(message: &Message) -> usize {
    message.payload.bytes.len() + limits::STORE_ROW_BYTES
}

impl Queue {
    /// The cost of the waiting appends, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues messages to write. A waiting message with the same id is replaced; a waiting removal belongs to an earlier write and is dropped.
    pub(super) fn append(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.cancel(message.id);
            self.removals.remove(&message.id);
            self.uncertain.retried(message.id);
            self.bytes += cost(&message);
            self.numbers.insert(message.id, self.appends.next());
            self.appends.push(message);
        }
    }

    /// Queues a message that replaces older rows, atomically.
    pub(super) fn replace(&mut self, message: Message, old: Vec<MessageId>) {
        let id = message.id;
        self.append(vec![message]);
        self.replaced.insert(id, old);
    }

    /// Queues removals. A message that waits to be written is dropped instead, unless an earlier attempt may have written it.
    pub(super) fn remove(&mut self, ids: &[MessageId]) {
        for id in ids {
            let is_uncertain = self.uncertain.remove(*id);
            if !self.cancel(*id) || is_uncertain {
                self.removals.insert(*id);
            }
            self.deliveries.remove(id);
        }
    }

    /// Queues the removal of refused messages whose write was reported as failed but may have happened. If there are more than
    /// [`limits::STORE_UNCERTAIN_ROWS`] removals, further ones are dropped; such a row, if it exists, is delivered after the next start.
    pub(super) fn remove_uncertain(&mut self, ids: &[MessageId]) {
        for id in ids {
            if self.uncertain.remove(*id) && self.removals.len() < limits::STORE_UNCERTAIN_ROWS {
                self.removals.insert(*id);
            }
        }
    }

    /// Drops a waiting append; false if there is none. Rows that the append would have replaced stay.
    fn cancel(&mut self, id: MessageId) -> bool {
        self.replaced.remove(&id);
        let Some(message) = self.numbers.remove(&id).and_then(|number| self.appends.take(number)) else {
            return false;
        };
        self.bytes -= cost(&message);
        true
    }

    /// Queues delivery counts. Beyond [`limits::STORE_PENDING`] counts are dropped to bound the memory.
    pub(super) fn count(&mut self, counts: &[(MessageId, u32)]) {
        for (id, count) in counts {
            if let Some(message) = self.numbers.get(id).and_then(|number| self.appends.get_mut(*number)) {
                message.deliveries = *count;
            } else if !self.removals.contains(id)
                && (self.deliveries.len() < limits::STORE_PENDING || self.deliveries.contains_key(id))
            {
                self.deliveries.insert(*id, *count);
            }
        }
    }

    /// Queues the purge of a channel up to an id; drops its waiting appends.
    pub(super) fn purge(&mut self, channel: &ChannelName, up_to: MessageId) {
        let hit = |message: &Message| message.channel == *channel && message.id <= up_to;
        let gone: Vec<MessageId> =
            self.appends.iter().filter(|message| hit(message)).map(|message| message.id).collect();
        for id in gone {
            self.cancel(id);
        }
        let bound = self.purges.entry(channel.clone()).or_insert(up_to);
        *bound = up_to.max(*bound);
    }

    /// Queues a page that is read after all earlier requests.
    pub(super) fn load(&mut self, channel: ChannelName, after: MessageId, (limit, bytes): (usize, usize)) {
        self.loads.push_back(Load { channel, after, limit, bytes, barrier: self.appends.next() });
    }

    /// Queues a sweep; a later sweep replaces a waiting one.
    pub(super) fn sweep(&mut self, now: Timestamp, spare: Spare) {
        self.sweep = Some((now, spare));
    }

    /// Queues a correction of stored times.
    pub(super) fn restamp(&mut self, restamp: Restamp) {
        self.restamps.push_back(restamp);
    }

    /// The next correction of stored times.
    pub(super) fn next_restamp(&self) -> Option<Restamp> {
        self.restamps.front().copied()
    }

    /// Removes the correction that has been carried out.
    pub(super) fn restamped(&mut self) {
        self.restamps.pop_front();
    }

    /// Queues the wall clock's time, to be stored.
    pub(super) fn note_time(&mut self, now: Timestamp) {
        self.time = Some(now);
    }

    pub(super) fn take_time(&mut self) -> Option<Timestamp> {
        self.time.take()
    }

    /// Whether a sweep waits.
    pub(super) fn has_sweep(&self) -> bool {
        self.sweep.is_some()
    }

    /// Queues a check; returns it if too many checks wait.
    pub(super) fn check(&mut self, check: Check) -> Option<Check> {
        if self.checks.len() >= limits::STORE_CHECKS {
            return Some(check);
        }
        self.checks.push(check);
        None
    }

    /// Whether requests wait that are carried out also during an outage, other than appends.
    pub(super) fn has_requests(&self) -> bool {
        !self.loads.is_empty() || self.sweep.is_some() || self.time.is_some() || !self.checks.is_empty()
    }

    /// The number of messages that wait to be written.
    pub(super) fn appends(&self) -> usize {
        self.appends.len()
    }

    /// Whether messages wait to be written.
    pub(super) fn has_appends(&self) -> bool {
        !self.appends.is_empty()
    }

    /// Whether removals or counts wait.
    pub(super) fn has_row_changes(&self) -> bool {
        self.row_changes() > 0
    }

    /// Whether a purge waits, for which an administrator waits, or a correction of times, on which every read and write depends.
    pub(super) fn has_urgent_changes(&self) -> bool {
        !self.purges.is_empty() || !self.restamps.is_empty()
    }

    /// Whether a request waits that is not delayed in favour of larger groups.
    pub(super) fn is_urgent(&self) -> bool {
        self.has_requests() || self.has_urgent_changes() || self.row_changes() >= wsmb_core::limits::STORE_GROUP
    }

    /// The number of waiting removals and counts.
    pub(super) fn row_changes(&self) -> usize {
        self.removals.len() + self.deliveries.len()
    }

    /// Whether so many removals and counts wait that no further messages should be read.
    pub(super) fn is_overloaded(&self) -> bool {
        self.row_changes() >= limits::STORE_PENDING
    }

    /// Takes the next transaction from the queue: at most [`wsmb_core::limits::STORE_GROUP`] of each kind, and the rest of a publication that has
    /// begun; removals and counts only if `changes`. The second value names the removals of rows that the group's appends replace.
    pub(super) fn next_group(&mut self, changes: bool) -> (Group, Replaced) {
        let mut group = Group::default();
        let mut replaced = Replaced::default();
        let mut bytes = 0;
        while let Some(next) = self.appends.peek() {
            let is_full = group.appends.len() >= wsmb_core::limits::STORE_GROUP || bytes >= limits::STORE_GROUP_BYTES;
            if is_full && !group.appends.last().is_some_and(|last| is_of_one_publication(last, next)) {
                break;
            }
            let Some(message) = self.appends.pop() else { break };
            self.numbers.remove(&message.id);
            self.uncertain.remove(message.id);
            bytes += cost(&message);
            replaced.extend(self.replaced.remove_entry(&message.id));
            group.appends.push(message);
        }
        self.bytes -= bytes;
        if changes {
            group.removals = self.removals.iter().copied().take(wsmb_core::limits::STORE_GROUP).collect();
            // In the order of ids, adjacent rows are removed together.
            group.removals.sort_unstable();
            for id in &group.removals {
                self.removals.remove(id);
            }
            group.deliveries =
                self.deliveries.iter().map(|(id, count)| (*id, *count)).take(wsmb_core::limits::STORE_GROUP).collect();
            for (id, _) in &group.deliveries {
                self.deliveries.remove(id);
            }
        }
        group.removals.extend(replaced.values().flatten());
        (group, replaced)
    }

    /// Records that the write of these rows was reported as failed. The rows may exist, because the answer may have been lost.
    pub(super) fn mark_uncertain(&mut self, ids: &[MessageId]) {
        ids.iter().for_each(|id| self.uncertain.failed(*id));
    }

    /// Queues the removals and counts of a failed transaction again, unless newer requests supersede them.
    pub(super) fn put_back(&mut self, removals: Vec<MessageId>, deliveries: Vec<(MessageId, u32)>) {
        let Self { numbers, .. } = self;
        self.removals.extend(removals.into_iter().filter(|id| !numbers.contains_key(id)));
        for (id, count) in deliveries {
            if !self.numbers.contains_key(&id) && !self.removals.contains(&id) {
                self.deliveries.entry(id).or_insert(count);
            }
        }
    }

    /// The next channel to purge.
    pub(super) fn next_purge(&self) -> Option<(ChannelName, MessageId)> {
        self.purges.first_key_value().map(|(channel, up_to)| (channel.clone(), *up_to))
    }

    /// Removes a purge that has been carried out up to this id.
    pub(super) fn purged(&mut self, channel: &ChannelName, up_to: MessageId) {
        if self.purges.get(channel).is_some_and(|bound| *bound <= up_to) {
            self.purges.remove(channel);
        }
    }

    /// Takes the pages that may be read now, at most `limit`.
    pub(super) fn ready_loads(&mut self, limit: usize) -> Vec<Load> {
        let written = self.appends.first();
        let mut ready = Vec::new();
        while ready.len() < limit
            && self.loads.front().is_some_and(|load| load.barrier <= written)
            && let Some(load) = self.loads.pop_front()
        {
            ready.push(load);
        }
        ready
    }

    pub(super) fn take_sweep(&mut self) -> Option<(Timestamp, Spare)> {
        self.sweep.take()
    }

    pub(super) fn take_checks(&mut self) -> Vec<Check> {
        std::mem::take(&mut self.checks)
    }

    /// The waiting delivery count of a row.
    pub(super) fn pending_count(&self, id: MessageId) -> Option<u32> {
        self.deliveries.get(&id).copied()
    }

    /// Whether a row of the store is about to be removed.
    pub(super) fn is_gone(&self, channel: &ChannelName, id: MessageId) -> bool {
        self.removals.contains(&id) || self.purges.get(channel).is_some_and(|up_to| id <= *up_to)
    }
}

/// Whether two messages belong to one publication with an id. Such messages are written together: after a crash, a publication counts as accepted
/// if the store has one of its messages.
fn is_of_one_publication(one: &Message, other: &Message) -> bool {
    one.publication.is_some() && one.publication == other.publication && one.channel == other.channel
}

#[cfg(test)]
mod tests;
