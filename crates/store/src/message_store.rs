//! The interface of every kind of store: [`MessageStore`] for rows, [`Background`] for the maintenance that a running broker needs.
//!
//! This module contains no behaviour: each kind of store is a module of its own. An implementation never reads a clock and never decides whether a
//! message is kept.

use std::collections::HashSet;
use std::task::Waker;
use std::time::Duration;

use crate::error::StoreError;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::limits;
use crate::publications::StoredPublication;
use crate::restamp::Restamp;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// The changes of one transaction, carried out completely or not at all, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// New rows. A row with an existing id replaces the old row: a row may be written again after a failure with an unknown result.
    pub appends: Vec<Message>,
    /// Rows to remove. A missing row is no error.
    pub removals: Vec<MessageId>,
    /// The number of deliveries of rows. A missing row is no error.
    pub deliveries: Vec<(MessageId, u32)>,
    /// Named values that a tool or the broker keeps in the store; a value replaces the earlier value of its name. Names have at most 64 ASCII
    /// characters and begin with the tool's name (`copy.…`) or with `clock.`, so that they differ from the store's own notes; values are at most
    /// `i64::MAX`.
    pub marks: Vec<(String, u64)>,
}

impl Group {
    /// Whether the group contains no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.removals.is_empty() && self.deliveries.is_empty() && self.marks.is_empty()
    }

    /// Returns the bytes that the new rows take, approximately.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn bytes(&self) -> usize {
        self.appends.iter().map(|message| message.payload.bytes.len() + limits::STORE_ROW_BYTES).sum()
    }

    /// Removes rows with these ids from the new rows; returns the ids that were found.
    pub(crate) fn without(&mut self, ids: &[MessageId]) -> Vec<MessageId> {
        let ids: HashSet<MessageId> = ids.iter().copied().collect();
        self.appends.extract_if(.., |message| ids.contains(&message.id)).map(|message| message.id).collect()
    }
}

/// The result of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired rows that were removed.
    pub gone: Vec<(MessageId, ChannelName)>,
    /// Expired rows that stay, because their channels are spared. Reading stops when the rows that were read have more than
    /// [`wsmb_core::limits::PAGE_BYTES`].
    pub spared: Vec<Message>,
    /// Whether there may be further expired rows, for the next sweep.
    pub more: bool,
}

impl Swept {
    /// Adds an expired message: to the rows that stay if its channel is spared, otherwise to the rows that are removed.
    pub(crate) fn add(&mut self, message: Message, spare: &Spare) {
        if spare.has(&message.channel) {
            self.spared.push(message);
        } else {
            self.gone.push((message.id, message.channel));
        }
    }
}

/// Where the next sweep continues: after this row. `None`: at the beginning.
pub(crate) type SweptTo = Option<(Timestamp, MessageId)>;

/// A part of a channel's backlog, or of the backlog of all channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages, in the order of their ids.
    pub messages: Vec<Message>,
    /// Whether no further messages follow.
    pub complete: bool,
}

/// One channel's backlog, without the messages that have a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// The channel's name.
    pub channel: ChannelName,
    /// The number of messages.
    pub messages: u64,
    /// The highest id of the messages.
    pub last: MessageId,
}

/// The contents of a store when the broker starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every channel with a backlog, sorted by name.
    pub channels: Vec<ChannelSummary>,
    /// The expiries of these backlogs: channel, first expiry of an interval, number of messages that expire in the interval. A bounded number for each channel.
    pub expiries: Vec<(ChannelName, Timestamp, u64)>,
    /// The messages with a due time, past or future, in the order of their ids; at most [`wsmb_core::limits::DELAYED`].
    pub delayed: Vec<Message>,
    /// The publications with ids whose messages are stored and were created since the given time, oldest first, each once for its channel; at most
    /// [`wsmb_core::limits::DEDUP_IDS`].
    pub publications: Vec<StoredPublication>,
    /// The highest id that was ever stored.
    pub last_id: MessageId,
    /// Whether the previous broker stopped in an orderly way ([`MessageStore::mark_clean`]). True for a new store.
    pub clean: bool,
}

/// A store of messages. Called from one thread only; every call may block.
///
/// An operation that returns an error has not been carried out, or not completely, and may be repeated. An implementation recovers by itself: when
/// the cause of a failure is gone (space on the disk, a released lock, a reachable server), the next call works.
pub trait MessageStore: Send {
    /// Returns the contents at the start; publications only of rows created at `publications_since` or later.
    ///
    /// # Errors
    /// If the store can't be read.
    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError>;

    /// Carries out a group and makes the changes durable.
    ///
    /// # Errors
    /// No change of the group has been made.
    fn commit(&mut self, group: &Group) -> Result<(), StoreError>;

    /// Returns messages of `channel` without a due time and with ids above `after`, in the order of ids: at most `limit`, and no further message
    /// after more than `max_bytes` of payload.
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

    /// Returns messages of all channels with ids above `after`, with or without a due time, in the order of ids: at most `limit`, and no further
    /// message after more than `max_bytes` of payload.
    ///
    /// # Errors
    /// If the store can't be read.
    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError>;

    /// Returns the last value of [`Group::marks`] with this name.
    ///
    /// # Errors
    /// If the store can't be read.
    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError>;

    /// Removes at most `limit` messages of `channel` with ids up to `up_to`, with or without a due time; returns the number of removed messages. A
    /// number below `limit` means that none is left.
    ///
    /// # Errors
    /// No message has been removed.
    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError>;

    /// Marks the store clean; the last call of an orderly stop. Everything is stored, and every `deliveries` in the store is correct. Opening clears
    /// the mark.
    ///
    /// # Errors
    /// If the mark could not be written; the next start then takes the stop for a crash and marks deliveries as repeated.
    fn mark_clean(&mut self) -> Result<(), StoreError>;
}

/// The operations that a running broker needs besides reading and writing messages.
pub trait Background: MessageStore {
    /// Whether [`MessageStore::load`] with the same arguments would return without waiting for another machine. If not, the page is being fetched,
    /// and the waker of [`Self::advance`] is called when the answer may have changed.
    fn prepare(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> bool {
        let _ = (channel, after, limit, max_bytes);
        true
    }

    /// Continues the background work of a store (a journal that moves its rows to a database), for a bounded time. `waker` is called, from any
    /// thread, when there is more to do. Returns the time after which to call again at the latest; `None` if the store has no background work.
    fn advance(&mut self, waker: &Waker) -> Option<Duration> {
        let _ = waker;
        None
    }

    /// Processes messages without a due time that are expired at `now` (`expires <= now`), at most `limit`, in the order of expiry: removes them and
    /// returns their ids; messages of spared channels are read and stay. Each call continues after the rows of the last call, until a call reaches
    /// the end (`!more`); the next call starts at the beginning.
    ///
    /// # Errors
    /// No message has been removed.
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError>;

    /// Corrects the times of rows that a wrong clock has produced. A second call with the same token does nothing, so that a call with a lost answer
    /// can be repeated.
    ///
    /// # Errors
    /// No row has been corrected.
    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError>;

    /// Changes rows whose `created` lies in the future, if they have an expiry or a due time and an id up to `up_to`: `created` becomes `now`, and
    /// the expiry and the due time move back by the same amount. Called at the start, before any other operation.
    ///
    /// # Errors
    /// No row has been changed.
    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError>;

    /// Checks whether the store can be written now, by a small write that leaves no trace.
    ///
    /// # Errors
    /// The reason why the store cannot be written.
    fn check(&mut self) -> Result<(), StoreError>;

    /// Runs maintenance of bounded length. Called about once a second.
    ///
    /// # Errors
    /// If the store cannot be used; no data is lost.
    fn maintain(&mut self) -> Result<(), StoreError>;
}
