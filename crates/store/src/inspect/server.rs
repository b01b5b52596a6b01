//! A database server, seen from outside, together with the journal in front of it.
//!
//! The journal is read first: a row that is moved meanwhile is then seen twice, which shows, and never not at all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::file::{Debts, FileView};
use super::{ANSWER_POLL, ChannelInfo, Purged};
use crate::limits;
use crate::sql::SqlView;
use crate::{Backend, Page, Prefix, StoreError, StoreSettings, open_for_tool};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};

/// Both of them.
#[derive(Debug)]
pub(super) struct ServerView {
    settings: StoreSettings,
    server: SqlView,
    journal: Option<FileView>,
}

impl ServerView {
    /// Connects.
    ///
    /// # Errors
    /// See [`SqlView::open`] and [`FileView::open`].
    pub(super) fn open(backend: Backend, settings: &StoreSettings, prefix: &Prefix) -> Result<Self, StoreError> {
        let server = SqlView::open(backend, &settings.url, settings.password.as_deref(), prefix, &settings.columns)?;
        let journal = settings.journal.as_ref().map(|journal| journal.path.as_path());
        let journal = journal.filter(|path| super::is_journal_of(path, prefix, server.place()));
        let journal = journal.map(|path| FileView::open(path, prefix)).transpose()?;
        Ok(Self { settings: settings.clone(), server, journal })
    }

    /// Which broker runs on it.
    ///
    /// # Errors
    /// If the server does not say.
    pub(super) fn holder(&mut self) -> Result<Option<String>, StoreError> {
        let here = self.journal.as_ref().and_then(FileView::holder);
        Ok(self.server.holder()?.or(here))
    }

    /// What the table does not keep, in sentences.
    ///
    /// # Errors
    /// If it can't be seen.
    pub(super) fn lacks(&mut self) -> Result<Vec<String>, StoreError> {
        self.server.lacks()
    }

    /// The tables that the next start makes.
    ///
    /// # Errors
    /// If it can't be seen.
    pub(super) fn missing(&mut self) -> Result<Vec<String>, StoreError> {
        self.server.missing()
    }

    /// Every channel with a backlog, by name.
    ///
    /// # Errors
    /// If one of the two can't be read.
    pub(super) fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError> {
        let Some(journal) = &self.journal else { return self.server.channels() };
        let (ours, debts, here) =
            journal.at_once(|journal| Ok((journal.channels()?, journal.debts()?, journal.ids()?)))?;
        let mut all: BTreeMap<ChannelName, ChannelInfo> =
            self.server.channels()?.into_iter().map(|info| (info.channel.clone(), info)).collect();
        for (channel, up_to) in &debts.emptied {
            if all.contains_key(channel) {
                let left = self.count(channel, *up_to)?;
                all.insert(channel.clone(), left);
            }
        }
        let gone = debts.gone.iter().copied().filter(|id| here.binary_search(id).is_err());
        let not_theirs: Vec<MessageId> = here.iter().copied().chain(gone).collect();
        for (id, channel, bytes) in self.server.among(&not_theirs)? {
            let is_counted = debts.emptied.get(&channel).is_none_or(|up_to| id > *up_to);
            if let Some(info) = all.get_mut(&channel).filter(|_| is_counted) {
                info.messages = info.messages.saturating_sub(1);
                info.bytes = info.bytes.saturating_sub(bytes);
            }
        }
        all.retain(|_, info| info.messages > 0);
        for info in ours {
            match all.get_mut(&info.channel) {
                Some(both) => {
                    both.messages += info.messages;
                    both.bytes += info.bytes;
                    both.oldest = both.oldest.min(info.oldest);
                }
                None => drop(all.insert(info.channel.clone(), info)),
            }
        }
        Ok(all.into_values().collect())
    }

    /// What the database has of a channel above an id.
    fn count(&mut self, channel: &ChannelName, mut after: MessageId) -> Result<ChannelInfo, StoreError> {
        let mut info = ChannelInfo { channel: channel.clone(), messages: 0, bytes: 0, oldest: Timestamp(u64::MAX) };
        loop {
            let page = self.server.peek(channel, after, limits::EXPORT_PAGE)?;
            for message in &page.messages {
                info.messages += 1;
                info.bytes += message.payload.bytes.len() as u64;
                info.oldest = info.oldest.min(message.created);
                after = message.id;
            }
            if page.complete {
                return Ok(info);
            }
        }
    }

    /// The messages of a channel with ids above `after`, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If one of the two can't be read.
    pub(super) fn peek(&mut self, channel: &ChannelName, after: MessageId, limit: usize) -> Result<Page, StoreError> {
        let Some(journal) = &self.journal else { return self.server.peek(channel, after, limit) };
        let (ours, debts) = journal.at_once(|journal| Ok((journal.peek(channel, after, limit)?, journal.debts()?)))?;
        let mut from = debts.emptied.get(channel).map_or(after, |up_to| after.max(*up_to));
        let mut theirs = Page { messages: Vec::new(), complete: false };
        while !theirs.complete && theirs.messages.len() < limit {
            let page = self.server.peek(channel, from, limit)?;
            from = page.messages.last().map_or(from, |last| last.id);
            theirs.complete = page.complete;
            theirs.messages.extend(page.messages.into_iter().filter_map(|message| true_of(message, &debts)));
        }
        Ok(merge(ours, theirs, from, limit))
    }

    /// Empties a channel; see [`super::Inspector::purge`].
    ///
    /// # Errors
    /// [`StoreError::NoAnswer`], or whatever keeps one of the two from being written.
    pub(super) fn purge(&mut self, channel: &ChannelName, patience: Duration) -> Result<Purged, StoreError> {
        if let Some(journal) = self.journal.as_ref().filter(|journal| journal.holder().is_some()) {
            return journal.purge(channel, patience);
        }
        if self.server.holder()?.is_some() {
            return self.request(channel, patience).map(|()| Purged::ByBroker);
        }
        let mut store = open_for_tool(&self.settings)?;
        // Opening takes the mark of a clean stop away.
        let clean = store.summary(Timestamp(u64::MAX))?.clean;
        let mut total = 0;
        loop {
            let removed = store.purge(channel, MessageId(u64::MAX), wsmb_core::limits::STORE_GROUP)?;
            total += removed;
            if removed < wsmb_core::limits::STORE_GROUP as u64 {
                break;
            }
        }
        if clean {
            store.mark_clean()?;
        }
        Ok(Purged::Removed(total))
    }

    fn request(&mut self, channel: &ChannelName, patience: Duration) -> Result<(), StoreError> {
        let request = self.server.request_purge(channel)?;
        let deadline = Instant::now() + patience;
        loop {
            let answered = self.server.answered(request)?;
            // One that is gone was dropped by a broker that has just started: it will not be answered.
            if answered != Some(false) || Instant::now() >= deadline {
                self.server.withdraw(request)?;
                let place = self.server.place().to_owned();
                return if answered == Some(true) { Ok(()) } else { Err(StoreError::NoAnswer { place }) };
            }
            std::thread::sleep(ANSWER_POLL);
        }
    }
}

/// A message of the database as the journal knows it; `None` if it is gone.
fn true_of(mut message: Message, debts: &Debts) -> Option<Message> {
    if let Some(count) = debts.counts.get(&message.id) {
        message.deliveries = *count;
    }
    (!debts.gone.contains(&message.id)).then_some(message)
}

/// Puts two pages of a channel together; of a message in both, ours counts. `theirs` looked up to `horizon`, before messages were taken out of it.
fn merge(ours: Page, theirs: Page, horizon: MessageId, limit: usize) -> Page {
    let their_end = (!theirs.complete).then_some(horizon);
    let our_end = ours.messages.last().map(|message| message.id).filter(|_| !ours.complete);
    let end = [their_end, our_end].into_iter().flatten().min();
    let mut messages = ours.messages;
    messages.extend(theirs.messages);
    // Stable: of two with one id, ours stays.
    messages.sort_by_key(|message| message.id);
    messages.dedup_by_key(|message| message.id);
    messages.retain(|message| end.is_none_or(|end| message.id <= end));
    let complete = end.is_none() && messages.len() <= limit;
    messages.truncate(limit);
    Page { messages, complete }
}
