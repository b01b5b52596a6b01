//! A channel: its receivers in order, and the messages that wait for them.

mod paging;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::entry::Entry;
use super::expiry_histogram::ExpiryIndex;
use super::groups::{Choice, Groups};
use super::holdings::Owner;
use super::member::{Member, Targets};
use super::members::Members;
use super::next_page::NextPage;
use crate::limits;
use crate::message::{ChannelName, ConnectionId, GroupName, MessageId, Timestamp};
use crate::policy::{ChannelPolicy, Dispatch};

/// Consecutive paged messages of one sender that also receives the channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelfSentRun {
    first: MessageId,
    last: MessageId,
    origin: ConnectionId,
}

/// Messages that were sent by receivers of the channel, who must not get them back.
#[derive(Debug)]
struct SelfSent {
    /// The runs of such messages among the paged ones, in order.
    runs: VecDeque<SelfSentRun>,
    /// A member and a message: every waiting entry up to this message was sent by this member or has expired, so that a search for this
    /// member can start after it.
    up_to: (ConnectionId, MessageId),
}

impl Default for SelfSent {
    fn default() -> Self {
        Self { runs: VecDeque::new(), up_to: (ConnectionId(0), MessageId(0)) }
    }
}

/// An index of the members. Two words, because every channel has it.
#[derive(Debug)]
enum MemberIndex {
    /// No member names a group. Holds the connections of all members.
    Ungrouped(Arc<[ConnectionId]>),
    /// The members by their groups, or `None` if no member names a group and the list of connections has not been made since the members
    /// changed.
    Grouped(Option<Box<Groups>>),
}

/// A channel with receivers or unsettled messages.
///
/// The backlog has three parts. `waiting` is in memory; deliveries take the lowest id first. The `paged` messages are only in the store (or
/// in its queue), all with ids above `cursor`; they are read in pages. The `parked` messages come after paged messages, and must stay in
/// memory until they are written; then they become paged.
///
/// While anything is paged, only pages and messages that receivers give back enter `waiting`. All of them have ids up to `cursor`.
#[derive(Debug)]
pub(super) struct Channel {
    pub name: ChannelName,
    /// The user whose publication or subscription has opened it; nobody if the store had messages of it at the start.
    pub owner: Owner,
    /// Shared by all channels with the same policy.
    pub policy: Arc<ChannelPolicy>,
    pub members: Members,
    member_index: MemberIndex,
    /// The order of the receiver that got the last delivery (`dispatch = "rotate"`).
    pub served: u64,
    /// Boxed, because a node of the tree has room for eleven entries, also if it has one.
    pub waiting: BTreeMap<MessageId, Box<Entry>>,
    pub waiting_bytes: usize,
    pub parked: BTreeMap<MessageId, Box<Entry>>,
    pub paged: u64,
    pub cursor: MessageId,
    pub last_paged: MessageId,
    /// Boxed, because few channels have such messages.
    self_sent: Option<Box<SelfSent>>,
    pub next_page: NextPage,
    /// Unsettled flights of this channel plus messages that are held back: messages that may return to `waiting` at their old position.
    pub in_flight: u32,
    /// The highest id of a message that was delivered.
    pub last_delivered: MessageId,
    /// Unsettled messages of this channel, in all states.
    pub unsettled: u64,
    /// The unsettled messages that expire. Boxed, because few channels have any.
    pub expiring: Option<Box<ExpiryIndex>>,
}

impl Channel {
    pub fn new(name: ChannelName, policy: Arc<ChannelPolicy>) -> Self {
        Self {
            name,
            owner: Owner::NOBODY,
            policy,
            members: Members::default(),
            member_index: MemberIndex::Grouped(None),
            served: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            parked: BTreeMap::new(),
            paged: 0,
            cursor: MessageId(0),
            last_paged: MessageId(0),
            self_sent: None,
            next_page: NextPage::default(),
            in_flight: 0,
            last_delivered: MessageId(0),
            unsettled: 0,
            expiring: None,
        }
    }

    /// Whether the channel can be removed: it has no receivers, messages or running load.
    pub fn is_unused(&self) -> bool {
        self.members.is_empty() && self.has_no_messages()
    }

    /// Whether the channel is removed when its only member leaves it.
    pub fn closes_with_last_member(&self) -> bool {
        self.members.len() == 1 && self.has_no_messages()
    }

    fn has_no_messages(&self) -> bool {
        self.unsettled == 0 && !self.next_page.is_loading()
    }

    /// Whether a publication may go directly to receivers, because no message comes before it.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.paged == 0 && !self.next_page.is_loading() && self.parked.is_empty()
    }

    /// Adds a receiver at its position.
    pub fn join(&mut self, member: Member, group: Option<&GroupName>) {
        if group.is_some() && self.groups().is_none() {
            self.member_index =
                MemberIndex::Grouped(Some(Box::new(Groups::new(self.members.iter().copied().collect()))));
        }
        match &mut self.member_index {
            MemberIndex::Grouped(Some(groups)) => groups.join(member, group),
            member_index => *member_index = MemberIndex::Grouped(None),
        }
        self.members.insert(member);
    }

    /// Removes the receiver with this order.
    pub fn leave(&mut self, order: u64) {
        if self.members.remove(order) {
            let is_grouped = match &mut self.member_index {
                MemberIndex::Grouped(Some(groups)) => groups.leave(order),
                _ => false,
            };
            if !is_grouped {
                self.member_index = MemberIndex::Grouped(None);
            }
        }
    }

    /// Returns the members by their groups, if a member names a group.
    #[inline]
    pub fn groups(&self) -> Option<&Groups> {
        if let MemberIndex::Grouped(Some(groups)) = &self.member_index { Some(groups) } else { None }
    }

    /// Changes a receiver's group. The receiver keeps its position. Returns false if nothing has changed.
    pub fn regroup(&mut self, order: u64, group: Option<&GroupName>) -> bool {
        let Some(member) = self.members.get(order) else { return false };
        if self.groups().and_then(|groups| groups.of(member.connection)) == group {
            return false;
        }
        self.leave(order);
        self.join(member, group);
        true
    }

    /// Notes which members got a delivery, if there are groups.
    #[inline]
    pub fn serve_groups(&mut self, targets: &[Member]) {
        let MemberIndex::Grouped(Some(groups)) = &mut self.member_index else { return };
        self.served = groups.serve(targets).unwrap_or(self.served);
    }

    /// Returns the connections of all members in order. Must not be called if a member names a group. Returns the same list until the
    /// members change.
    pub fn connections(&mut self) -> Arc<[ConnectionId]> {
        if let MemberIndex::Ungrouped(connections) = &self.member_index {
            return connections.clone();
        }
        let connections: Arc<[ConnectionId]> = self.members.iter().map(|member| member.connection).collect();
        self.member_index = MemberIndex::Ungrouped(connections.clone());
        connections
    }

    /// Returns the order after which a search for `limit` receivers begins.
    fn start(&self, limit: u32) -> u64 {
        match self.policy.dispatch {
            Dispatch::Rotate if limit > 0 => self.served,
            Dispatch::First | Dispatch::Rotate => 0,
        }
    }

    /// Chooses the receivers of the next delivery: the first `limit` (0 = all) in the channel's dispatch order for which `takes` returns
    /// true, except `origin`.
    pub fn choose(&self, origin: Option<ConnectionId>, limit: u32, takes: impl Fn(usize) -> bool) -> Targets {
        let wanted = if limit == 0 { usize::MAX } else { limit as usize };
        let members = self.members.from(self.start(limit));
        members
            .filter(|member| Some(member.connection) != origin && takes(member.receiver))
            .take(wanted)
            .copied()
            .collect()
    }

    /// As [`Self::choose`] with a limit above 0, for a `takes` that returns true only for receivers with room. After [`Self::prepare_choice`]
    /// the search is short.
    pub fn choose_ready(&self, origin: Option<ConnectionId>, limit: u32, takes: impl Fn(usize) -> bool) -> Targets {
        let members = self.members.ready_from(self.start(limit));
        let members = members.filter(|member| Some(member.connection) != origin && takes(member.receiver));
        members.take(limit as usize).copied().collect()
    }

    /// Prepares the next choice of receivers with room. `few`: see [`Members::prepare`].
    #[inline]
    pub fn prepare_choice(&mut self, few: usize, has_room: impl Fn(usize) -> bool) {
        if self.groups().is_none() {
            let limit = self.policy.receivers;
            let search = (self.start(limit), limit.max(2) as usize);
            self.members.prepare(search, few, |member| has_room(member.receiver));
        }
    }

    /// Chooses the receivers of a delivery that needs no room in windows.
    pub fn choose_all(&self, origin: Option<ConnectionId>, limit: u32) -> Targets {
        let Some(groups) = self.groups() else { return self.choose(origin, limit, |_| true) };
        let choice = Choice { dispatch: self.policy.dispatch, served: self.served, limit, within: None };
        groups.choose(choice, |member| (Some(member.connection) != origin).then_some(0))
    }

    /// Adds an entry to `waiting`.
    pub fn wait(&mut self, entry: Box<Entry>) {
        self.waiting_bytes += entry.bytes();
        if let Some(SelfSent { up_to: (member, up_to), .. }) = self.self_sent.as_deref_mut()
            && entry.message.id <= *up_to
            && entry.origin != Some(*member)
        {
            *up_to = MessageId(entry.message.id.0 - 1);
        }
        self.watch(&entry);
        self.waiting.insert(entry.message.id, entry);
    }

    /// Adds an entry to `parked`.
    pub fn park(&mut self, entry: Box<Entry>) {
        self.watch(&entry);
        self.parked.insert(entry.message.id, entry);
    }

    /// Removes the first parked entry.
    pub fn unpark_first(&mut self) -> Option<Box<Entry>> {
        let (id, _) = self.parked.first_key_value()?;
        self.unpark(*id)
    }

    /// Removes the first parked entry if its id is below `id`.
    pub(super) fn unpark_before(&mut self, id: MessageId) -> Option<Box<Entry>> {
        let (first, _) = self.parked.first_key_value().filter(|(first, _)| **first < id)?;
        self.unpark(*first)
    }

    /// Removes the first parked entry if it is in the store.
    pub fn unpark_written(&mut self) -> Option<Box<Entry>> {
        let (id, _) = self.parked.first_key_value().filter(|(_, entry)| entry.written)?;
        self.unpark(*id)
    }

    /// Removes a parked entry.
    pub fn unpark(&mut self, id: MessageId) -> Option<Box<Entry>> {
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

    /// Returns the number of unsettled messages that have not expired.
    pub fn live(&mut self, now: Timestamp) -> u64 {
        let expired = self.expiring.as_mut().map_or(0, |expiring| expiring.expired(now));
        self.unsettled.saturating_sub(expired)
    }

    /// Removes a waiting entry.
    pub fn unwait(&mut self, id: MessageId) -> Option<Box<Entry>> {
        let entry = self.waiting.remove(&id)?;
        self.waiting_bytes -= entry.bytes();
        self.unwatch(&entry);
        if self.waiting.is_empty() && self.self_sent.as_ref().is_some_and(|self_sent| self_sent.runs.is_empty()) {
            self.self_sent = None;
        }
        Some(entry)
    }

    /// Returns the first waiting entry that can be delivered now. `only`: the only member that has room, if there is exactly one. Its own
    /// messages are skipped, so that they do not block later messages.
    pub fn first_deliverable(&mut self, only: Option<ConnectionId>, now: Timestamp) -> Option<MessageId> {
        let Some(only) = only else {
            return self.waiting.iter().find_map(|(id, entry)| (!entry.expired(now)).then_some(*id));
        };
        let known = match self.self_sent.as_deref() {
            Some(SelfSent { up_to: (member, up_to), .. }) if *member == only => *up_to,
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
            self.self_sent.get_or_insert_default().up_to = (only, passed);
        }
        found
    }

    /// Whether a message waits in memory that this receiver may get.
    pub fn has_for(&self, receiver: ConnectionId, now: Timestamp) -> bool {
        let known = match self.self_sent.as_deref() {
            Some(SelfSent { up_to: (member, up_to), .. }) if *member == receiver => *up_to,
            _ => MessageId(0),
        };
        let mut rest = self.waiting.range((Bound::Excluded(known), Bound::Unbounded));
        rest.any(|(_, entry)| entry.origin != Some(receiver) && !entry.expired(now))
    }

    /// Whether the messages in memory fill a page of `page` messages, or `bytes`.
    pub fn page_is_full(&self, page: usize, bytes: usize) -> bool {
        self.waiting.len() >= page || self.waiting_bytes >= bytes
    }

    /// Counts a message as paged. `origin`: the sender, if it receives the channel.
    pub fn page_out(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if self.paged == 0 {
            self.cursor = MessageId(id.0 - 1);
            if let Some(self_sent) = &mut self.self_sent {
                self_sent.runs.clear();
            }
        }
        self.note_origin(id, origin);
        self.paged += 1;
        self.last_paged = self.last_paged.max(id);
    }

    /// Remembers the sender of a paged message. Nearly always the message is the last one; only a message that was parked may come before
    /// others.
    fn note_origin(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if origin.is_none() && self.self_sent.as_ref().is_none_or(|self_sent| self_sent.runs.is_empty()) {
            return;
        }
        let runs = &mut self.self_sent.get_or_insert_default().runs;
        let last = runs.back_mut();
        if id > self.last_paged || last.as_ref().is_none_or(|run| run.last < id) {
            match (last, origin) {
                (Some(run), Some(origin)) if run.origin == origin && run.last == self.last_paged => run.last = id,
                (_, Some(origin)) => runs.push_back(SelfSentRun { first: id, last: id, origin }),
                (_, None) => {}
            }
        } else {
            let mut index = runs.partition_point(|run| run.last < id);
            if let Some(run) = runs.get_mut(index).filter(|run| run.first <= id) {
                // The message splits the run of another sender into two.
                let before = SelfSentRun { last: MessageId(id.0 - 1), ..*run };
                run.first = MessageId(id.0 + 1);
                if before.first <= before.last {
                    runs.insert(index, before);
                    index += 1;
                }
            }
            if let Some(origin) = origin {
                runs.insert(index, SelfSentRun { first: id, last: id, origin });
            }
        }
        while runs.len() > limits::SELF_SENT_RUNS {
            runs.pop_front();
        }
    }

    /// Returns the remembered sender of a message that was read from the store. The ids must be passed in ascending order.
    pub fn paged_origin(&mut self, id: MessageId) -> Option<ConnectionId> {
        let runs = &mut self.self_sent.as_mut()?.runs;
        while runs.front().is_some_and(|run| run.last < id) {
            runs.pop_front();
        }
        runs.front().filter(|run| run.first <= id).map(|run| run.origin)
    }

    /// Returns the id of the first waiting entry, if this entry has expired.
    pub fn expired_head(&self, now: Timestamp) -> Option<MessageId> {
        let (id, entry) = self.waiting.first_key_value()?;
        entry.expired(now).then_some(*id)
    }
}

#[cfg(test)]
mod tests;
