//! A channel: its receivers in order, and what waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::Entry;
use super::expiries::Expiring;
use super::groups::{Choice, Groups};
use super::member::{Member, Targets};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, GroupName, MessageId, Timestamp};
use crate::policy::{ChannelPolicy, Dispatch};

/// A read of the backlog's next page that has not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    /// The last paged message when the page was asked for.
    pub cover: MessageId,
    /// The channel was purged since: the answer is to be thrown away.
    pub stale: bool,
    /// When it was asked for: the lower half of the time, because every channel has it.
    pub asked: u32,
}

/// Paged messages, one after the other in this channel, of one sender that receives the channel too.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnRun {
    first: MessageId,
    last: MessageId,
    origin: ConnectionId,
}

/// What is known of messages whose senders receive the channel, and must not get them back.
#[derive(Debug)]
struct Own {
    /// Whose the paged messages are, as far as it matters; in order.
    runs: VecDeque<OwnRun>,
    /// Every waiting entry up to this one was sent by this member, or has expired: it need not be looked at again for that member.
    up_to: (ConnectionId, MessageId),
}

impl Default for Own {
    fn default() -> Self {
        Self { runs: VecDeque::new(), up_to: (ConnectionId(0), MessageId(0)) }
    }
}

/// What is known of the members together. In two words, because every channel has it.
#[derive(Debug)]
enum Audience {
    /// Nobody names a group, and these are their connections.
    Everyone(Arc<[ConnectionId]>),
    /// The members by their groups, if any of them names one. Few channels have any. If nobody does, their connections have not been asked for since
    /// the members changed.
    ByGroups(Option<Box<Groups>>),
}

/// A channel that has receivers or unsettled messages.
///
/// The backlog is in three parts. `waiting` is in memory and is delivered from, lowest id first. Behind it, `paged` messages are
/// only in the store (or on their way there), all with ids above `cursor`; they are read a page at a time. `parked` are
/// messages behind the paged ones that are not written yet and must not be lost; they join the paged ones when they are.
/// While anything is paged, nothing new enters `waiting` but pages and what receivers give back, all at or below `cursor`.
#[derive(Debug)]
pub(super) struct Channel {
    pub name: ChannelName,
    /// Shared with all channels of the same policy.
    pub policy: Arc<ChannelPolicy>,
    /// In order. Many a channel has one only.
    pub members: SmallVec<[Member; 1]>,
    audience: Audience,
    /// The place of the receiver that was served last (`dispatch = "rotate"`).
    pub served: u64,
    pub waiting: BTreeMap<MessageId, Entry>,
    pub waiting_bytes: usize,
    pub parked: BTreeMap<MessageId, Entry>,
    pub paged: u64,
    pub cursor: MessageId,
    pub last_paged: MessageId,
    /// Few channels have any, and every channel has the field.
    own: Option<Box<Own>>,
    pub loading: Option<Loading>,
    /// The last load failed; it is tried again by the retry timer.
    pub load_failed: bool,
    /// Flights of this channel that are not settled, and messages of it that are held back: what may come back, to its old place.
    pub in_flight: u32,
    /// Messages of this channel that are not settled, wherever they are.
    pub unsettled: u64,
    /// What is known of those among them that expire. Few channels have any.
    pub expiring: Option<Box<Expiring>>,
}

impl Channel {
    pub fn new(name: ChannelName, policy: Arc<ChannelPolicy>) -> Self {
        Self {
            name,
            policy,
            members: SmallVec::new(),
            audience: Audience::ByGroups(None),
            served: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            parked: BTreeMap::new(),
            paged: 0,
            cursor: MessageId(0),
            last_paged: MessageId(0),
            own: None,
            loading: None,
            load_failed: false,
            in_flight: 0,
            unsettled: 0,
            expiring: None,
        }
    }

    /// Whether nothing would be lost or forgotten with it.
    pub fn is_unused(&self) -> bool {
        self.members.is_empty() && self.unsettled == 0 && self.loading.is_none()
    }

    /// Whether a publication may pass straight to the receivers, because nothing is before it.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.paged == 0 && self.loading.is_none() && self.parked.is_empty()
    }

    /// Adds a receiver at its place.
    pub fn join(&mut self, member: Member, group: Option<&GroupName>) {
        if group.is_some() && self.groups().is_none() {
            self.audience = Audience::ByGroups(Some(Box::new(Groups::new(&self.members))));
        }
        match &mut self.audience {
            Audience::ByGroups(Some(groups)) => groups.join(member, group),
            audience => *audience = Audience::ByGroups(None),
        }
        let index = self.members.partition_point(|other| other.order < member.order);
        self.members.insert(index, member);
    }

    /// Removes the receiver at this place.
    pub fn leave(&mut self, order: u64) {
        if let Ok(index) = self.members.binary_search_by_key(&order, |member| member.order) {
            self.members.remove(index);
            let is_grouped = match &mut self.audience {
                Audience::ByGroups(Some(groups)) => groups.leave(order),
                _ => false,
            };
            if !is_grouped {
                self.audience = Audience::ByGroups(None);
            }
        }
    }

    /// The members by their groups, if any of them names one.
    #[inline]
    pub fn groups(&self) -> Option<&Groups> {
        if let Audience::ByGroups(Some(groups)) = &self.audience { Some(groups) } else { None }
    }

    /// A receiver names another group, or none any more; it keeps its place. False if nothing has changed.
    pub fn regroup(&mut self, order: u64, group: Option<&GroupName>) -> bool {
        let Ok(index) = self.members.binary_search_by_key(&order, |member| member.order) else { return false };
        let member = self.members[index];
        if self.groups().and_then(|groups| groups.of(member.connection)) == group {
            return false;
        }
        self.leave(order);
        self.join(member, group);
        true
    }

    /// Takes note that these are served, if there are groups.
    #[inline]
    pub fn serve_groups(&mut self, targets: &[Member]) {
        let Audience::ByGroups(Some(groups)) = &mut self.audience else { return };
        self.served = groups.serve(targets).unwrap_or(self.served);
    }

    /// The connections of all members, in order, of which none names a group: one list as long as they are the same.
    pub fn everyone(&mut self) -> Arc<[ConnectionId]> {
        if let Audience::Everyone(everyone) = &self.audience {
            return everyone.clone();
        }
        let everyone: Arc<[ConnectionId]> = self.members.iter().map(|member| member.connection).collect();
        self.audience = Audience::Everyone(everyone.clone());
        everyone
    }

    /// Who gets the next delivery: of the receivers for which `takes` holds, other than `origin`, the first `limit` (0 = all) in
    /// the channel's order of dispatch.
    pub fn choose(&self, origin: Option<ConnectionId>, limit: u32, takes: impl Fn(usize) -> bool) -> Targets {
        let start = match self.policy.dispatch {
            Dispatch::Rotate if limit > 0 => self.members.partition_point(|member| member.order <= self.served),
            Dispatch::First | Dispatch::Rotate => 0,
        };
        let (before, after) = self.members.split_at(start);
        let wanted = if limit == 0 { usize::MAX } else { limit as usize };
        after
            .iter()
            .chain(before)
            .filter(|member| Some(member.connection) != origin && takes(member.receiver))
            .take(wanted)
            .copied()
            .collect()
    }

    /// Who gets a delivery for which nobody needs room.
    pub fn choose_all(&self, origin: Option<ConnectionId>, limit: u32) -> Targets {
        let Some(groups) = self.groups() else { return self.choose(origin, limit, |_| true) };
        let choice = Choice { dispatch: self.policy.dispatch, served: self.served, limit, within: None };
        groups.choose(choice, |member| (Some(member.connection) != origin).then_some(0))
    }

    /// Puts an entry among the waiting ones, at its place.
    pub fn wait(&mut self, entry: Entry) {
        self.waiting_bytes += entry.bytes();
        if let Some(Own { up_to: (member, up_to), .. }) = self.own.as_deref_mut()
            && entry.message.id <= *up_to
            && entry.origin != Some(*member)
        {
            *up_to = MessageId(entry.message.id.0 - 1);
        }
        self.watch(&entry);
        self.waiting.insert(entry.message.id, entry);
    }

    /// Puts an entry among the parked ones.
    pub fn park(&mut self, entry: Entry) {
        self.watch(&entry);
        self.parked.insert(entry.message.id, entry);
    }

    /// Takes a parked entry out.
    pub fn unpark(&mut self, id: MessageId) -> Option<Entry> {
        let entry = self.parked.remove(&id)?;
        self.unwatch(&entry);
        Some(entry)
    }

    fn watch(&mut self, entry: &Entry) {
        if let Some(expires) = entry.message.expires {
            self.expiring.get_or_insert_default().waiting.insert((expires, entry.message.id));
        }
    }

    fn unwatch(&mut self, entry: &Entry) {
        if let (Some(expires), Some(expiring)) = (entry.message.expires, &mut self.expiring) {
            expiring.waiting.remove(&(expires, entry.message.id));
        }
    }

    /// The messages that have not expired, of those that are not settled.
    pub fn live(&mut self, now: Timestamp) -> u64 {
        let expired = self.expiring.as_mut().map_or(0, |expiring| expiring.expired(now));
        self.unsettled.saturating_sub(expired)
    }

    /// Takes a waiting entry out.
    pub fn unwait(&mut self, id: MessageId) -> Option<Entry> {
        let entry = self.waiting.remove(&id)?;
        self.waiting_bytes -= entry.bytes();
        self.unwatch(&entry);
        if self.waiting.is_empty() && self.own.as_ref().is_some_and(|own| own.runs.is_empty()) {
            self.own = None;
        }
        Some(entry)
    }

    /// The first waiting entry that can be delivered now. `only`: the one member that takes any, if there is one only; what it sent itself
    /// waits on, and what is behind need not wait for that.
    pub fn first_deliverable(&mut self, only: Option<ConnectionId>, now: Timestamp) -> Option<MessageId> {
        let Some(only) = only else {
            return self.waiting.iter().find_map(|(id, entry)| (!entry.expired(now)).then_some(*id));
        };
        let known = match self.own.as_deref() {
            Some(Own { up_to: (member, up_to), .. }) if *member == only => *up_to,
            _ => MessageId(0),
        };
        let mut passed = known;
        let mut found = None;
        for (id, entry) in self.waiting.range((Bound::Excluded(passed), Bound::Unbounded)) {
            if entry.origin != Some(only) && !entry.expired(now) {
                found = Some(*id);
                break;
            }
            passed = *id;
        }
        if passed != known {
            self.own.get_or_insert_default().up_to = (only, passed);
        }
        found
    }

    /// Whether something waits in memory that this receiver may get.
    pub fn has_for(&self, receiver: ConnectionId, now: Timestamp) -> bool {
        let known = match self.own.as_deref() {
            Some(Own { up_to: (member, up_to), .. }) if *member == receiver => *up_to,
            _ => MessageId(0),
        };
        let mut rest = self.waiting.range((Bound::Excluded(known), Bound::Unbounded));
        rest.any(|(_, entry)| entry.origin != Some(receiver) && !entry.expired(now))
    }

    /// Whether the page in memory, of at most `page` messages, takes no more.
    pub fn page_is_full(&self, page: usize) -> bool {
        self.waiting.len() >= page || self.waiting_bytes >= limits::PAGE_BYTES
    }

    /// Counts a message as being in the store only. `origin`: its sender, if that receives the channel.
    pub fn page_out(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if self.paged == 0 {
            self.cursor = MessageId(id.0 - 1);
            if let Some(own) = &mut self.own {
                own.runs.clear();
            }
        }
        self.note_origin(id, origin);
        self.paged += 1;
        self.last_paged = self.last_paged.max(id);
    }

    /// Remembers whose a message is that is paged now. Nearly always it is the last one; one that was parked may stand before others.
    fn note_origin(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if origin.is_none() && self.own.as_ref().is_none_or(|own| own.runs.is_empty()) {
            return;
        }
        let runs = &mut self.own.get_or_insert_default().runs;
        let last = runs.back_mut();
        if id > self.last_paged || last.as_ref().is_none_or(|run| run.last < id) {
            match (last, origin) {
                (Some(run), Some(origin)) if run.origin == origin && run.last == self.last_paged => run.last = id,
                (_, Some(origin)) => runs.push_back(OwnRun { first: id, last: id, origin }),
                (_, None) => {}
            }
        } else {
            let mut index = runs.partition_point(|run| run.last < id);
            if let Some(run) = runs.get_mut(index).filter(|run| run.first <= id) {
                // It stands amid another's run, which falls in two.
                let before = OwnRun { last: MessageId(id.0 - 1), ..*run };
                run.first = MessageId(id.0 + 1);
                if before.first <= before.last {
                    runs.insert(index, before);
                    index += 1;
                }
            }
            if let Some(origin) = origin {
                runs.insert(index, OwnRun { first: id, last: id, origin });
            }
        }
        while runs.len() > limits::OWN_RUNS {
            runs.pop_front();
        }
    }

    /// Whose a message that has been paged in is, as far as it matters. To be asked in the order of the messages.
    pub fn paged_origin(&mut self, id: MessageId) -> Option<ConnectionId> {
        let runs = &mut self.own.as_mut()?.runs;
        while runs.front().is_some_and(|run| run.last < id) {
            runs.pop_front();
        }
        runs.front().filter(|run| run.first <= id).map(|run| run.origin)
    }

    /// Whether the next page, of `page` messages, should be read now.
    pub fn wants_page(&self, page: usize) -> bool {
        self.paged > 0
            && self.loading.is_none()
            && !self.load_failed
            && !self.members.is_empty()
            && self.waiting.len() * 2 <= page
            && self.waiting_bytes * 2 <= limits::PAGE_BYTES
    }

    /// Forgets what waits in memory if it is in the store and nobody is there to take it.
    ///
    /// Returns what it has forgotten. Not while anything is in flight or held back: what comes back must stand before what is paged.
    pub fn page_out_waiting(&mut self) -> BTreeMap<MessageId, Entry> {
        let stored = self.waiting.values().all(|entry| entry.written);
        let nobody = self.members.is_empty() && self.in_flight == 0 && self.loading.is_none();
        let (Some((first, _)), Some((last, _))) = (self.waiting.first_key_value(), self.waiting.last_key_value())
        else {
            return BTreeMap::new();
        };
        if !(stored && nobody) {
            return BTreeMap::new();
        }
        self.cursor = MessageId(first.0 - 1);
        self.last_paged = self.last_paged.max(*last);
        self.paged += self.waiting.len() as u64;
        self.waiting_bytes = 0;
        if let Some(expiring) = &mut self.expiring {
            // Nothing is parked: all of it is written.
            expiring.waiting.retain(|(_, id)| self.parked.contains_key(id));
        }
        std::mem::take(&mut self.waiting)
    }

    /// The first waiting entry that has expired, if the first one has.
    pub fn expired_head(&self, now: Timestamp) -> Option<MessageId> {
        let (id, entry) = self.waiting.first_key_value()?;
        entry.expired(now).then_some(*id)
    }
}

#[cfg(test)]
mod tests;
