//! The operations of an administrator on waiting messages: list, peek, save, purge, requeue.
//!
//! ```text
//! wsmb queue ─► Tools ─► StoppedStore ─► MessageStore
//! ```
//!
//! [`Tools`] is the interface. [`StoppedStore`] implements it for the store of a stopped broker: it takes the store's lock like a broker, so that no
//! tool reads or writes the store of a running broker. The administration interface of a running broker is to implement the same trait.

use std::collections::BTreeMap;

use super::inspect::inspect;
use super::requeue::{Mover, Requeue, RequeueError, Requeued};
use super::{CLOCK, MessageStore, Page, StoreError, StoreSettings, Summary};
use crate::limits;
use crate::open::open_for_tool;
use wsmb_core::limits::STORE_GROUP;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};

/// A channel with waiting messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The channel's name.
    pub channel: ChannelName,
    /// The number of messages, including delayed messages.
    pub messages: u64,
    /// The size of the payloads, in bytes.
    pub bytes: u64,
    /// When the oldest message was accepted, to the second.
    pub oldest: Timestamp,
}

/// The operations of an administrator on waiting messages.
pub trait Tools {
    /// Returns every channel with waiting messages, sorted by name. Reads every message.
    ///
    /// # Errors
    /// If the store can't be read.
    fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError>;

    /// Returns the oldest messages of a channel, including delayed messages, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    fn peek(&mut self, channel: &ChannelName, limit: usize) -> Result<Page, StoreError>;

    /// Returns messages of all channels with ids above `after`, including delayed messages, in the order of ids.
    ///
    /// # Errors
    /// If the store can't be read.
    fn scan(&mut self, after: MessageId) -> Result<Page, StoreError>;

    /// Removes every message of a channel; returns the number of removed messages.
    ///
    /// # Errors
    /// If the store cannot be written. Some messages may have been removed.
    fn purge(&mut self, channel: &ChannelName) -> Result<u64, StoreError>;

    /// Moves dead letters back, oldest first. `clock` receives the latest time that a broker has noted in the store, and returns the current time.
    ///
    /// # Errors
    /// [`RequeueError`]; messages that have been moved stay moved.
    fn requeue(
        &mut self,
        requeue: &Requeue<'_>,
        clock: &dyn Fn(Option<Timestamp>) -> Timestamp,
    ) -> Result<Requeued, RequeueError>;
}

/// The store of a stopped broker, open and locked.
///
/// Opening clears the mark of a clean stop; closing sets the mark again, also after a failure: every `deliveries` in the store is as correct as
/// before.
pub struct StoppedStore<'a> {
    pub(super) store: Box<dyn MessageStore + 'a>,
    /// The contents of the store when it was opened.
    pub(super) summary: Summary,
    /// If the file is a journal: the file, and the address of its database.
    journal_of: Option<(String, String)>,
}

impl std::fmt::Debug for StoppedStore<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoppedStore").finish_non_exhaustive()
    }
}

impl StoppedStore<'static> {
    /// Opens an existing store.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Served`] if a broker runs on the store; any error that keeps the store from being opened.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        // Opening would create a store where there is none.
        let seen = inspect(settings)?;
        if seen.holder.is_some() {
            return Err(StoreError::Served { place: seen.place, holder: seen.holder });
        }
        let mut stopped = Self::make(settings)?;
        stopped.journal_of = seen.journal_of.map(|database| (seen.place, database));
        Ok(stopped)
    }

    /// Opens a store; creates the store if there is none.
    ///
    /// # Errors
    /// [`StoreError::Served`] if a broker runs on the store; any error that keeps the store from being opened.
    pub(super) fn make(settings: &StoreSettings) -> Result<Self, StoreError> {
        let store = open_for_tool(settings).map_err(|error| match error {
            StoreError::Locked { place, holder } => StoreError::Served { place, holder },
            error => error,
        })?;
        Self::of(store)
    }
}

impl<'a> StoppedStore<'a> {
    /// Wraps an open store.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn of(mut store: Box<dyn MessageStore + 'a>) -> Result<Self, StoreError> {
        let summary = store.summary(Timestamp(u64::MAX))?;
        Ok(Self { store, summary, journal_of: None })
    }

    /// Closes the store.
    ///
    /// # Errors
    /// If the mark cannot be written; the next start then takes this stop for a crash.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.restore_clean_mark()
    }

    fn restore_clean_mark(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.summary.clean) { self.store.mark_clean() } else { Ok(()) }
    }

    /// Rows of a journal may be in the database too: a change in the journal alone would be undone.
    fn refuse_journal(&self) -> Result<(), StoreError> {
        match &self.journal_of {
            Some((place, database)) => Err(StoreError::Journal { place: place.clone(), database: database.clone() }),
            None => Ok(()),
        }
    }
}

impl Drop for StoppedStore<'_> {
    fn drop(&mut self) {
        // `close` reports the error to callers that need it.
        let _ = self.restore_clean_mark();
    }
}

impl Tools for StoppedStore<'_> {
    fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError> {
        let mut found: BTreeMap<ChannelName, ChannelInfo> = BTreeMap::new();
        let mut after = MessageId(0);
        loop {
            let page = self.scan(after)?;
            for message in &page.messages {
                let info = found.entry(message.channel.clone()).or_insert_with(|| ChannelInfo {
                    channel: message.channel.clone(),
                    messages: 0,
                    bytes: 0,
                    oldest: message.created,
                });
                info.messages += 1;
                info.bytes += message.payload.bytes.len() as u64;
                info.oldest = info.oldest.min(message.created);
                after = message.id;
            }
            if page.complete {
                return Ok(found.into_values().collect());
            }
        }
    }

    fn peek(&mut self, channel: &ChannelName, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.store.load(channel, MessageId(0), limit, usize::MAX)?;
        // The page holds every message without a due time up to its last message.
        let end = page.messages.last().map(|message| message.id).filter(|_| !page.complete);
        let is_in_range = |message: &&Message| {
            message.channel == *channel && message.due.is_some() && end.is_none_or(|end| message.id < end)
        };
        page.messages.extend(self.summary.delayed.iter().filter(is_in_range).cloned());
        page.messages.sort_unstable_by_key(|message| message.id);
        page.complete &= page.messages.len() <= limit;
        page.messages.truncate(limit);
        Ok(page)
    }

    fn scan(&mut self, after: MessageId) -> Result<Page, StoreError> {
        self.store.scan(after, STORE_GROUP, limits::STORE_GROUP_BYTES)
    }

    fn purge(&mut self, channel: &ChannelName) -> Result<u64, StoreError> {
        self.refuse_journal()?;
        let mut total = 0;
        loop {
            let removed = self.store.purge(channel, MessageId(u64::MAX), STORE_GROUP)?;
            total += removed;
            if removed < STORE_GROUP as u64 {
                self.summary.delayed.retain(|message| message.channel != *channel);
                return Ok(total);
            }
        }
    }

    fn requeue(
        &mut self,
        requeue: &Requeue<'_>,
        clock: &dyn Fn(Option<Timestamp>) -> Timestamp,
    ) -> Result<Requeued, RequeueError> {
        self.refuse_journal()?;
        let now = clock(self.store.mark(CLOCK)?.map(Timestamp));
        let summary = self.store.summary(Timestamp(u64::MAX))?;
        Mover::new(requeue, &summary, now).run(&mut *self.store)
    }
}
