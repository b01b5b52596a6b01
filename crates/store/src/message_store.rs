//! What every kind of store does, and what it is given and gives back: [`MessageStore`] for rows, [`Background`] for what a running broker has done beside them.
//!
//! Nothing here does anything: each kind of store is a module of its own. An implementation never reads a clock and never decides what becomes of a message.

use std::collections::HashSet;
use std::task::Waker;
use std::time::Duration;

use crate::error::StoreError;
use crate::publications::StoredPublication;
use crate::restamp::Restamp;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// What one transaction does: all of it or nothing. Its meaning is that of carrying out the lists in this order.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// New rows. One whose id is there already replaces it: a row may be written again after a failure that left its fate open.
    pub appends: Vec<Message>,
    /// Rows that go. One that is not there is no error.
    pub removals: Vec<MessageId>,
    /// How often rows have been delivered. One that is not there is no error.
    pub deliveries: Vec<(MessageId, u32)>,
    /// What a tool, or the broker, remembers in the store, by name: it replaces what was remembered before. Names are the program's own, of at most 64 ASCII
    /// characters, and begin with the tool's (`copy.…`) or `clock.`, so that they meet none of the store's own notes; values are at most `i64::MAX`.
    pub marks: Vec<(String, u64)>,
}

impl Group {
    /// There is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.removals.is_empty() && self.deliveries.is_empty() && self.marks.is_empty()
    }

    /// Takes these out of the new rows, and says which of them were there.
    pub(crate) fn without(&mut self, ids: &[MessageId]) -> Vec<MessageId> {
        let ids: HashSet<MessageId> = ids.iter().copied().collect();
        self.appends.extract_if(.., |message| ids.contains(&message.id)).map(|message| message.id).collect()
    }
}

/// What a sweep has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// These were expired, and are gone.
    pub gone: Vec<(MessageId, ChannelName)>,
    /// These are expired, and are still there. No further one is read once they, and what went between them, have more than [`wsmb_core::limits::PAGE_BYTES`].
    pub spared: Vec<Message>,
    /// There may be further ones that the next sweep finds.
    pub more: bool,
}

/// Where a sweep goes on: behind the last row that the one before it has read. `None`: it begins anew.
pub(crate) type SweptTo = Option<(Timestamp, MessageId)>;

/// A part of a channel's backlog, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their ids.
    pub messages: Vec<Message>,
    /// Nothing of what was asked for lies behind them.
    pub complete: bool,
}

/// One channel's backlog, without the messages that have a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub channel: ChannelName,
    /// How many messages.
    pub messages: u64,
    /// The highest id among them.
    pub last: MessageId,
}

/// What a store holds when the broker starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every channel with a backlog, in the order of their names.
    pub channels: Vec<ChannelSummary>,
    /// When the messages of these backlogs expire, and how many then, each moment standing for a span from it on; a bounded number for each channel.
    pub expiries: Vec<(ChannelName, Timestamp, u64)>,
    /// The messages with a due time, past or future, in the order of their ids; at most [`wsmb_core::limits::DELAYED`].
    pub delayed: Vec<Message>,
    /// The publications with ids of stored messages created since the time asked for, oldest first, each once in its channel; at most
    /// [`wsmb_core::limits::DEDUP_IDS`].
    pub publications: Vec<StoredPublication>,
    /// The highest id ever stored.
    pub last_id: MessageId,
    /// The broker before this one stopped in an orderly way ([`MessageStore::mark_clean`]), or there was none.
    pub clean: bool,
}

/// A place where messages survive. Called from one thread only, and may block it.
///
/// Whatever it returns an error for has not happened, or not wholly, and may be asked for again. An implementation recovers by itself: when the
/// cause of a failure is gone (room on the disk, a lock released, a server back), the next call works.
pub trait MessageStore: Send {
    /// What is there at start-up; ids of publications only from rows created at `publications_since` or later.
    ///
    /// # Errors
    /// If the store can't be read.
    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError>;

    /// Carries out a group and makes it durable.
    ///
    /// # Errors
    /// Then nothing of the group is in the store.
    fn commit(&mut self, group: &Group) -> Result<(), StoreError>;

    /// The messages of `channel` without a due time and with an id above `after`, in the order of ids: at most `limit` of them, and no further one
    /// once they have more than `max_bytes` of payload.
    ///
    /// # Errors
    /// If the store can't be read.
    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError>;

    /// Every message, of whatever channel, due or not, with an id above `after`, in the order of ids: at most `limit` of them, and no further one
    /// once they have more than `max_bytes` of payload.
    ///
    /// # Errors
    /// If the store can't be read.
    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError>;

    /// What [`Group::marks`] last said under this name.
    ///
    /// # Errors
    /// If the store can't be read.
    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Removes at most `limit` messages of `channel`, due or not, with ids up to `up_to`, and says how many; fewer than `limit` means that none
    /// is left.
    ///
    /// # Errors
    /// Then none is removed.
    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError>;

    /// The last call of an orderly stop: everything is in the store and every `deliveries` in it is true. Opening takes the mark away.
    ///
    /// # Errors
    /// If the mark could not be written; the next start then takes the stop for a crash, which costs marks of redelivery and nothing else.
    fn mark_clean(&mut self) -> Result<(), StoreError>;
}

/// What a running broker has its store do beside reading and writing messages.
pub trait Background: MessageStore {
    /// Whether [`MessageStore::load`], asked the same, would answer without waiting for another machine. If not, it is being fetched from there, and the
    /// waker of [`Self::advance`] is called when asking again may say yes.
    fn prepare(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> bool {
        let _ = (channel, after, limit, max_bytes);
        true
    }

    /// Goes on with what a store does in the background (a journal that moves its rows to a database), for a bounded time. `waker` is called, from any
    /// thread, when there is more to do; the answer says after what time at the latest. A store without a background has nothing to do.
    fn advance(&mut self, waker: &Waker) -> Option<Duration> {
        let _ = waker;
        None
    }

    /// Looks at messages without a due time that are expired at `now` (`expires <= now`), at most `limit`, those first that expired first: removes and names
    /// them, but reads those whose channels are spared, and leaves them. Each call goes on behind what the last one has read, until one has come to
    /// the end (`!more`); the next one begins anew.
    ///
    /// # Errors
    /// Then none is removed.
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError>;

    /// Moves the times of rows that a wrong clock has made. A second call with the same token does nothing, so that one whose answer was lost may be
    /// made again.
    ///
    /// # Errors
    /// Then none is moved.
    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError>;

    /// Takes rows up to the id `up_to` that expire or are due, and whose `created` lies in the future, as created `now`: what is left of their time is
    /// what they had of it in all. For the start, before anything else is asked for.
    ///
    /// # Errors
    /// Then none is changed.
    fn rejuvenate(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError>;

    /// Whether it can be written now, by writing something small that leaves no trace.
    ///
    /// # Errors
    /// It can't, and this is why.
    fn check(&mut self) -> Result<(), StoreError>;

    /// Called about once a second: housekeeping of bounded length.
    ///
    /// # Errors
    /// If the store can't be used; nothing is lost by it.
    fn tend(&mut self) -> Result<(), StoreError>;
}
