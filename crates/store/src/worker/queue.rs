//! What waits for the store, without thread or lock: what cancels what, and what may be done when.
//!
//! Appends are cut in the order in which they came. Removals, delivery counts and purges are debts: they stay until the store has carried them
//! out, whatever fails in between.

mod doubtful;
mod line;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::{Group, Restamp};
use doubtful::Doubtful;
use line::Line;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What is told whether the store can be written.
pub(super) type Check = Box<dyn FnOnce(bool) + Send>;

/// A page that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) channel: ChannelName,
    pub(super) after: MessageId,
    pub(super) limit: usize,
    /// Appends numbered below this came before it and must be in the store first.
    barrier: u64,
}

/// Everything that waits.
#[derive(Default)]
pub(super) struct Queue {
    /// By the number of their coming.
    appends: Line<Message>,
    /// Older rows that waiting messages stand for, to go in the same commit.
    replaced: Replaced,
    /// Where in `appends` a message is.
    numbers: HashMap<MessageId, u64, RandomState>,
    removals: HashSet<MessageId, RandomState>,
    /// Rows that may be there although their writing was reported as failed.
    doubtful: Doubtful,
    deliveries: HashMap<MessageId, u32, RandomState>,
    /// Up to which id each channel is to be emptied.
    purges: BTreeMap<ChannelName, MessageId>,
    loads: VecDeque<Load>,
    sweep: Option<(Timestamp, Spare)>,
    /// Corrections of stored times, oldest first.
    restamps: VecDeque<Restamp>,
    /// The time to be noted.
    time: Option<Timestamp>,
    checks: Vec<Check>,
    /// What the waiting appends cost.
    bytes: usize,
}

/// New rows, and the older ones that each stands for.
pub(super) type Replaced = HashMap<MessageId, Vec<MessageId>, RandomState>;

/// What a message costs of the queue's bound.
pub(super) fn cost(message: &Message) -> usize {
    message.payload.bytes.len() + limits::STORE_ROW_BYTES
}

impl Queue {
    /// What the waiting appends cost, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes messages to be written. One that waits already is replaced; a removal that waits is of an earlier writing, and void.
    pub(super) fn append(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.cancel(message.id);
            self.removals.remove(&message.id);
            self.doubtful.asked_again(message.id);
            self.bytes += cost(&message);
            self.numbers.insert(message.id, self.appends.next());
            self.appends.push(message);
        }
    }

    /// Takes a message to be written in place of older rows, all or nothing.
    pub(super) fn replace(&mut self, message: Message, old: Vec<MessageId>) {
        let id = message.id;
        self.append(vec![message]);
        self.replaced.insert(id, old);
    }

    /// Takes messages to be removed; one that waits to be written is forgotten instead, unless an earlier attempt may have written it.
    pub(super) fn remove(&mut self, ids: &[MessageId]) {
        for id in ids {
            let is_doubtful = self.doubtful.remove(*id);
            if !self.cancel(*id) || is_doubtful {
                self.removals.insert(*id);
            }
            self.deliveries.remove(id);
        }
    }

    /// Takes messages that were refused because writing them was reported as failed: what may have been written goes. Of very many the last ones are forgotten,
    /// whose rows, if there are any, are delivered after the next start.
    pub(super) fn disown(&mut self, ids: &[MessageId]) {
        for id in ids {
            if self.doubtful.remove(*id) && self.removals.len() < limits::STORE_DOUBTS {
                self.removals.insert(*id);
            }
        }
    }

    /// Forgets a waiting append; false if there is none. Rows that it would have replaced stay.
    fn cancel(&mut self, id: MessageId) -> bool {
        self.replaced.remove(&id);
        let Some(message) = self.numbers.remove(&id).and_then(|number| self.appends.take(number)) else {
            return false;
        };
        self.bytes -= cost(&message);
        true
    }

    /// Takes delivery counts. Beyond [`limits::STORE_PENDING`] they are dropped: a count is worth less than memory.
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

    /// Takes a channel to be emptied up to an id; what waits to be written is forgotten.
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

    /// Takes a page to be read after everything that came before.
    pub(super) fn load(&mut self, channel: ChannelName, after: MessageId, limit: usize) {
        self.loads.push_back(Load { channel, after, limit, barrier: self.appends.next() });
    }

    /// Takes a sweep; of several that wait, the last counts.
    pub(super) fn sweep(&mut self, now: Timestamp, spare: Spare) {
        self.sweep = Some((now, spare));
    }

    /// Takes a correction of stored times.
    pub(super) fn restamp(&mut self, restamp: Restamp) {
        self.restamps.push_back(restamp);
    }

    /// The next correction.
    pub(super) fn next_restamp(&self) -> Option<Restamp> {
        self.restamps.front().copied()
    }

    /// It has been carried out.
    pub(super) fn restamped(&mut self) {
        self.restamps.pop_front();
    }

    /// Takes the wall clock's time, to be noted.
    pub(super) fn note_time(&mut self, now: Timestamp) {
        self.time = Some(now);
    }

    pub(super) fn take_time(&mut self) -> Option<Timestamp> {
        self.time.take()
    }

    /// A sweep waits.
    pub(super) fn has_sweep(&self) -> bool {
        self.sweep.is_some()
    }

    /// Takes a question; gives it back if too many wait.
    pub(super) fn check(&mut self, check: Check) -> Option<Check> {
        if self.checks.len() >= limits::STORE_CHECKS {
            return Some(check);
        }
        self.checks.push(check);
        None
    }

    /// Something waits, other than a message, that is tried even while the store is in trouble.
    pub(super) fn has_requests(&self) -> bool {
        !self.loads.is_empty() || self.sweep.is_some() || self.time.is_some() || !self.checks.is_empty()
    }

    /// How many messages wait to be written.
    pub(super) fn appends(&self) -> usize {
        self.appends.len()
    }

    /// Messages wait to be written.
    pub(super) fn has_appends(&self) -> bool {
        !self.appends.is_empty()
    }

    /// Removals or counts wait.
    pub(super) fn has_row_debts(&self) -> bool {
        self.row_debts() > 0
    }

    /// A purge waits: somebody is looking on. Or a correction of times, on which everything read and written depends.
    pub(super) fn has_pressing_debts(&self) -> bool {
        !self.purges.is_empty() || !self.restamps.is_empty()
    }

    /// Something waits that is not put off in favour of larger groups.
    pub(super) fn is_pressing(&self) -> bool {
        self.has_requests() || self.has_pressing_debts() || self.row_debts() >= wsmb_core::limits::STORE_GROUP
    }

    /// How many removals and counts wait.
    pub(super) fn row_debts(&self) -> usize {
        self.removals.len() + self.deliveries.len()
    }

    /// So much is owed that no further messages should be read.
    pub(super) fn is_overdue(&self) -> bool {
        self.row_debts() >= limits::STORE_PENDING
    }

    /// The next transaction: at most [`wsmb_core::limits::STORE_GROUP`] of each kind. The debts only if `debts`. With it, which of its removals are no debts:
    /// those of rows that its appends replace.
    pub(super) fn cut(&mut self, debts: bool) -> (Group, Replaced) {
        let mut group = Group::default();
        let mut replaced = Replaced::default();
        let mut bytes = 0;
        while group.appends.len() < wsmb_core::limits::STORE_GROUP && bytes < limits::STORE_GROUP_BYTES {
            let Some(message) = self.appends.pop() else {
                break;
            };
            self.numbers.remove(&message.id);
            self.doubtful.remove(message.id);
            bytes += cost(&message);
            replaced.extend(self.replaced.remove_entry(&message.id));
            group.appends.push(message);
        }
        self.bytes -= bytes;
        if debts {
            group.removals = self.removals.iter().copied().take(wsmb_core::limits::STORE_GROUP).collect();
            // In the order of ids, rows that lie together are removed together.
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

    /// Writing these was reported as failed, which need not be true: the answer may have been lost.
    pub(super) fn doubt(&mut self, ids: &[MessageId]) {
        ids.iter().for_each(|id| self.doubtful.failed(*id));
    }

    /// Takes back the debts of a transaction that failed, unless something newer was said meanwhile.
    pub(super) fn restore(&mut self, removals: Vec<MessageId>, deliveries: Vec<(MessageId, u32)>) {
        let Self { numbers, .. } = self;
        self.removals.extend(removals.into_iter().filter(|id| !numbers.contains_key(id)));
        for (id, count) in deliveries {
            if !self.numbers.contains_key(&id) && !self.removals.contains(&id) {
                self.deliveries.entry(id).or_insert(count);
            }
        }
    }

    /// A channel to be emptied.
    pub(super) fn next_purge(&self) -> Option<(ChannelName, MessageId)> {
        self.purges.first_key_value().map(|(channel, up_to)| (channel.clone(), *up_to))
    }

    /// The channel is empty up to this id.
    pub(super) fn purged(&mut self, channel: &ChannelName, up_to: MessageId) {
        if self.purges.get(channel).is_some_and(|bound| *bound <= up_to) {
            self.purges.remove(channel);
        }
    }

    /// The pages that may be read now, at most `limit`.
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

    /// The delivery count that a row is still to get.
    pub(super) fn owed_count(&self, id: MessageId) -> Option<u32> {
        self.deliveries.get(&id).copied()
    }

    /// A row that is in the store but to be taken for gone.
    pub(super) fn is_gone(&self, channel: &ChannelName, id: MessageId) -> bool {
        self.removals.contains(&id) || self.purges.get(channel).is_some_and(|up_to| id <= *up_to)
    }
}

#[cfg(test)]
mod tests;
