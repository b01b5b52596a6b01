//! What an administrator does with messages that wait: list, peek, save, purge, requeue.
//!
//! ```text
//! wsmb queue ─► Tools ─► StoppedStore ─► MessageStore
//! ```
//!
//! [`Tools`] says what can be done. [`StoppedStore`] does it on the store of a broker that does not run: it takes the store's lock like a broker, so that
//! nobody ever reads or writes beside one. The administration interface of a running broker is to implement the same trait.

use std::collections::BTreeMap;

use super::look::look;
use super::requeue::{Mover, Requeue, RequeueError, Requeued};
use super::{CLOCK, MessageStore, Page, StoreError, StoreSettings, Summary};
use crate::limits;
use crate::open::open_for_tool;
use wsmb_core::limits::STORE_GROUP;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};

/// A channel with a backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Its name.
    pub channel: ChannelName,
    /// How many messages, delayed ones too.
    pub messages: u64,
    /// Their payloads.
    pub bytes: u64,
    /// When the oldest was accepted, to the second.
    pub oldest: Timestamp,
}

/// What an administrator does with messages that wait.
pub trait Tools {
    /// Every channel with a backlog, by name. Reads every message.
    ///
    /// # Errors
    /// If the store can't be read.
    fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError>;

    /// The oldest messages of a channel, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    fn peek(&mut self, channel: &ChannelName, limit: usize) -> Result<Page, StoreError>;

    /// Messages of all channels with ids above `after`, delayed ones too, in the order of ids.
    ///
    /// # Errors
    /// If the store can't be read.
    fn scan(&mut self, after: MessageId) -> Result<Page, StoreError>;

    /// Removes every message of a channel; says how many.
    ///
    /// # Errors
    /// If the store can't be written. Some may be gone.
    fn purge(&mut self, channel: &ChannelName) -> Result<u64, StoreError>;

    /// Moves dead letters back, oldest first. `clock` gets the latest time that a broker has noted in the store, and returns the time to work with.
    ///
    /// # Errors
    /// [`RequeueError`]; what has been moved stays moved.
    fn requeue(
        &mut self,
        requeue: &Requeue<'_>,
        clock: &dyn Fn(Option<Timestamp>) -> Timestamp,
    ) -> Result<Requeued, RequeueError>;
}

/// The store of a broker that does not run, open and locked.
///
/// Opening takes the mark of a clean stop away, and closing puts it back, after a failure, too: every `deliveries` in the store is as true as it was.
pub struct StoppedStore<'a> {
    pub(super) store: Box<dyn MessageStore + 'a>,
    /// What it held when it was opened.
    pub(super) summary: Summary,
    /// The file, and the database that it is a journal of.
    journal_of: Option<(String, String)>,
}

impl std::fmt::Debug for StoppedStore<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoppedStore").finish_non_exhaustive()
    }
}

impl StoppedStore<'static> {
    /// Opens a store that is there.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Served`] if a broker runs on it; whatever keeps it from being opened.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        // Opening would make a store where there is none.
        let seen = look(settings)?;
        if seen.holder.is_some() {
            return Err(StoreError::Served { place: seen.place, holder: seen.holder });
        }
        let mut stopped = Self::make(settings)?;
        stopped.journal_of = seen.journal_of.map(|database| (seen.place, database));
        Ok(stopped)
    }

    /// Opens a store; makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Served`] if a broker runs on it; whatever keeps it from being opened.
    pub(super) fn make(settings: &StoreSettings) -> Result<Self, StoreError> {
        let store = open_for_tool(settings).map_err(|error| match error {
            StoreError::Locked { place, holder } => StoreError::Served { place, holder },
            error => error,
        })?;
        Self::of(store)
    }
}

impl<'a> StoppedStore<'a> {
    /// Takes a store that is open.
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
    /// If the mark can't be written; the next start then takes the last stop for a crash.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.put_mark_back()
    }

    fn put_mark_back(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.summary.clean) { self.store.mark_clean() } else { Ok(()) }
    }

    /// Rows of a journal may be in its database, too: what is changed here alone would come back.
    fn refuse_journal(&self) -> Result<(), StoreError> {
        match &self.journal_of {
            Some((place, database)) => Err(StoreError::Journal { place: place.clone(), database: database.clone() }),
            None => Ok(()),
        }
    }
}

impl Drop for StoppedStore<'_> {
    fn drop(&mut self) {
        // Who wants to know whether it went well has called `close`.
        let _ = self.put_mark_back();
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
        // What has no due time is in the page up to its end.
        let end = page.messages.last().map(|message| message.id).filter(|_| !page.complete);
        let is_there = |message: &&Message| {
            message.channel == *channel && message.due.is_some() && end.is_none_or(|end| message.id < end)
        };
        page.messages.extend(self.summary.delayed.iter().filter(is_there).cloned());
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
