//! A channel: its receivers in order, and what waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::Entry;
use crate::limits;
use crate::message::{ChannelName, ConnectionId, MessageId, Timestamp};
use crate::policy::{ChannelPolicy, Dispatch};

/// One receiver's place in a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Its place: lower is earlier. Unique in the channel.
    pub order: u64,
    /// The receiver's key.
    pub receiver: usize,
    /// The receiver's connection.
    pub connection: ConnectionId,
}

/// The receivers a delivery goes to.
pub(super) type Targets = SmallVec<[Member; 4]>;

/// A read of the backlog's next page that has not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    /// The last paged message when the page was asked for.
    pub cover: MessageId,
    /// The channel was purged since: the answer is to be thrown away.
    pub stale: bool,
}

/// Paged messages, one after the other in this channel, of one sender that receives the channel too.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnRun {
    first: MessageId,
    last: MessageId,
    origin: ConnectionId,
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
    /// Their connections, if they have been asked for since the members changed.
    everyone: Option<Arc<[ConnectionId]>>,
    /// The place of the receiver that was served last (`dispatch = "rotate"`).
    pub served: u64,
    pub waiting: BTreeMap<MessageId, Entry>,
    pub waiting_bytes: usize,
    pub parked: BTreeMap<MessageId, Entry>,
    pub paged: u64,
    pub cursor: MessageId,
    pub last_paged: MessageId,
    /// Whose the paged messages are, as far as it matters; in order.
    #[allow(clippy::box_collection)] // Few channels have any, and every channel has the field.
    own_runs: Option<Box<VecDeque<OwnRun>>>,
    pub loading: Option<Loading>,
    /// The last load failed; it is tried again by the retry timer.
    pub load_failed: bool,
    /// Flights of this channel that are not settled.
    pub in_flight: usize,
    /// Messages of this channel that are not settled, wherever they are.
    pub unsettled: u64,
}

impl Channel {
    pub fn new(name: ChannelName, policy: Arc<ChannelPolicy>) -> Self {
        Self {
            name,
            policy,
            members: SmallVec::new(),
            everyone: None,
            served: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            parked: BTreeMap::new(),
            paged: 0,
            cursor: MessageId(0),
            last_paged: MessageId(0),
            own_runs: None,
            loading: None,
            load_failed: false,
            in_flight: 0,
            unsettled: 0,
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
    pub fn join(&mut self, member: Member) {
        let index = self.members.partition_point(|other| other.order < member.order);
        self.members.insert(index, member);
        self.everyone = None;
    }

    /// Removes the receiver at this place.
    pub fn leave(&mut self, order: u64) {
        if let Ok(index) = self.members.binary_search_by_key(&order, |member| member.order) {
            self.members.remove(index);
            self.everyone = None;
        }
    }

    /// The connections of all members, in order: one list as long as they are the same.
    pub fn everyone(&mut self) -> Arc<[ConnectionId]> {
        let members = &self.members;
        self.everyone.get_or_insert_with(|| members.iter().map(|member| member.connection).collect()).clone()
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

    /// Puts an entry among the waiting ones, at its place.
    pub fn wait(&mut self, entry: Entry) {
        self.waiting_bytes += entry.bytes();
        self.waiting.insert(entry.message.id, entry);
    }

    /// Takes a waiting entry out.
    pub fn unwait(&mut self, id: MessageId) -> Option<Entry> {
        let entry = self.waiting.remove(&id)?;
        self.waiting_bytes -= entry.bytes();
        Some(entry)
    }

    /// Whether the page in memory takes no more. `pressed`: memory as a whole is short.
    pub fn page_is_full(&self, pressed: bool) -> bool {
        let messages = page_messages(pressed);
        self.waiting.len() >= messages || self.waiting_bytes >= limits::PAGE_BYTES
    }

    /// Counts a message as being in the store only. `origin`: its sender, if that receives the channel.
    pub fn page_out(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if self.paged == 0 {
            self.cursor = MessageId(id.0 - 1);
            self.own_runs = None;
        }
        self.note_origin(id, origin);
        self.paged += 1;
        self.last_paged = self.last_paged.max(id);
    }

    /// Remembers whose a message is that is paged now. Nearly always it is the last one; one that was parked may stand before others.
    fn note_origin(&mut self, id: MessageId, origin: Option<ConnectionId>) {
        if self.own_runs.is_none() && origin.is_none() {
            return;
        }
        let runs = self.own_runs.get_or_insert_default();
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
        let runs = self.own_runs.as_mut()?;
        while runs.front().is_some_and(|run| run.last < id) {
            runs.pop_front();
        }
        let origin = runs.front().filter(|run| run.first <= id).map(|run| run.origin);
        if runs.is_empty() {
            self.own_runs = None;
        }
        origin
    }

    /// Whether the next page should be read now.
    pub fn wants_page(&self) -> bool {
        self.paged > 0
            && self.loading.is_none()
            && !self.load_failed
            && !self.members.is_empty()
            && self.waiting.len() * 2 <= limits::PAGE_MESSAGES
            && self.waiting_bytes * 2 <= limits::PAGE_BYTES
    }

    /// Forgets what waits in memory if it is in the store and nobody is there to take it.
    ///
    /// Returns the bytes set free. Not while anything is in flight: what comes back must stand before what is paged.
    pub fn page_out_waiting(&mut self) -> usize {
        let stored = self.waiting.values().all(|entry| entry.written);
        let nobody = self.members.is_empty() && self.in_flight == 0 && self.loading.is_none();
        let (Some((first, _)), Some((last, _))) = (self.waiting.first_key_value(), self.waiting.last_key_value())
        else {
            return 0;
        };
        if !(stored && nobody) {
            return 0;
        }
        self.cursor = MessageId(first.0 - 1);
        self.last_paged = self.last_paged.max(*last);
        self.paged += self.waiting.len() as u64;
        self.waiting.clear();
        std::mem::take(&mut self.waiting_bytes)
    }

    /// The first waiting entry that has expired, if the first one has.
    pub fn expired_head(&self, now: Timestamp) -> Option<MessageId> {
        let (id, entry) = self.waiting.first_key_value()?;
        entry.expired(now).then_some(*id)
    }
}

/// Messages in one page.
pub(super) fn page_messages(pressed: bool) -> usize {
    if pressed { limits::PAGE_MESSAGES.div_ceil(16) } else { limits::PAGE_MESSAGES }
}
