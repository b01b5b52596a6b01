//! Pages that were requested from the database: still pending, or arrived and not taken yet.
//!
//! An arrived page is kept up to date: messages that are removed meanwhile are taken out of it.

use std::collections::HashSet;

use super::database_thread::PageRequest;
use super::ledger::Ledger;
use crate::limits;
use crate::{Page, StoreError};
use wsmb_core::message::{ChannelName, MessageId};

/// At most [`limits::JOURNAL_FETCHES`] pages.
#[derive(Debug, Default)]
pub(super) struct Fetches(Vec<Fetch>);

#[derive(Debug)]
struct Fetch {
    channel: ChannelName,
    /// The id after which the page begins.
    after: MessageId,
    /// The id up to which the search has found nothing.
    from: MessageId,
    page: Option<Result<Page, StoreError>>,
}

/// The state of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The page has arrived.
    Ready,
    /// The page is pending, or too many pages are pending to request it now.
    UnderWay,
    /// The caller must request the page.
    New(PageRequest),
}

impl Fetches {
    /// Returns the state of the page; [`State::New`] once for each page.
    pub(super) fn request(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> State {
        if let Some(fetch) = self.0.iter().find(|fetch| fetch.channel == *channel && fetch.after == after) {
            return if fetch.page.is_some() { State::Ready } else { State::UnderWay };
        }
        if self.0.len() >= limits::JOURNAL_FETCHES {
            return State::UnderWay;
        }
        self.0.push(Fetch { channel: channel.clone(), after, from: after, page: None });
        State::New(PageRequest { channel: channel.clone(), after, limit, max_bytes })
    }

    /// Takes an arrived page.
    pub(super) fn take(&mut self, channel: &ChannelName, after: MessageId) -> Option<Result<Page, StoreError>> {
        let ready = |fetch: &Fetch| fetch.channel == *channel && fetch.after == after && fetch.page.is_some();
        let index = self.0.iter().position(ready)?;
        self.0.swap_remove(index).page
    }

    /// Drops a page that is not needed any more.
    pub(super) fn abandon(&mut self, channel: &ChannelName, after: MessageId) {
        self.0.retain(|fetch| fetch.channel != *channel || fetch.after != after);
    }

    /// Handles a page that has arrived. If no message of it is left, returns the request for the page that replaces it.
    ///
    /// # Errors
    /// If the journal's file can't be read.
    pub(super) fn receive(
        &mut self,
        ledger: &mut Ledger,
        wanted: PageRequest,
        result: Result<Page, StoreError>,
    ) -> Result<Option<PageRequest>, StoreError> {
        let PageRequest { channel, after: from, limit, max_bytes } = wanted;
        let waits = |fetch: &&mut Fetch| fetch.channel == channel && fetch.from == from && fetch.page.is_none();
        let Some(fetch) = self.0.iter_mut().find(waits) else { return Ok(None) };
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                fetch.page = Some(Err(error));
                return Ok(None);
            }
        };
        let merged = match ledger.merge_page(&channel, from, page, limit, max_bytes) {
            Ok(merged) => merged,
            Err(error) => {
                fetch.page = Some(Err(error.clone()));
                return Err(error);
            }
        };
        if merged.page.messages.is_empty() && !merged.page.complete {
            fetch.from = merged.horizon;
            return Ok(Some(PageRequest { channel, after: merged.horizon, limit, max_bytes }));
        }
        fetch.page = Some(Ok(merged.page));
        Ok(None)
    }

    /// Removes messages from arrived pages.
    pub(super) fn forget(&mut self, ids: &HashSet<MessageId>) {
        if !ids.is_empty() {
            self.retain(|_, id| !ids.contains(&id));
        }
    }

    /// Removes the messages of a purged channel from arrived pages.
    pub(super) fn forget_channel(&mut self, channel: &ChannelName, up_to: MessageId) {
        self.retain(|of, id| of != channel || id > up_to);
    }

    /// The arrived pages.
    pub(super) fn pages(&mut self) -> impl Iterator<Item = &mut Page> {
        self.0.iter_mut().filter_map(|fetch| fetch.page.as_mut()?.as_mut().ok())
    }

    fn retain(&mut self, keep: impl Fn(&ChannelName, MessageId) -> bool) {
        for fetch in &mut self.0 {
            if let Some(Ok(page)) = &mut fetch.page {
                page.messages.retain(|message| keep(&fetch.channel, message.id));
            }
        }
    }
}
