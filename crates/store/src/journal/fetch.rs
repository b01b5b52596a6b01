//! Pages that are on their way from the database, or have come and wait to be asked for.
//!
//! A page that has come is kept true: what is settled meanwhile is taken out of it.

use std::collections::HashSet;

use super::courier::Wanted;
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
    /// What it was asked for.
    after: MessageId,
    /// How far it has looked in vain.
    from: MessageId,
    page: Option<Result<Page, StoreError>>,
}

/// How far a page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has come.
    Ready,
    /// It has not, or there is no room to ask for it now.
    UnderWay,
    /// It is to be asked for.
    New(Wanted),
}

impl Fetches {
    /// How far the page is. [`State::New`] once for each.
    pub(super) fn want(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> State {
        if let Some(fetch) = self.0.iter().find(|fetch| fetch.channel == *channel && fetch.after == after) {
            return if fetch.page.is_some() { State::Ready } else { State::UnderWay };
        }
        if self.0.len() >= limits::JOURNAL_FETCHES {
            return State::UnderWay;
        }
        self.0.push(Fetch { channel: channel.clone(), after, from: after, page: None });
        State::New(Wanted { channel: channel.clone(), after, limit, max_bytes })
    }

    /// Gives a page that has come.
    pub(super) fn take(&mut self, channel: &ChannelName, after: MessageId) -> Option<Result<Page, StoreError>> {
        let ready = |fetch: &Fetch| fetch.channel == *channel && fetch.after == after && fetch.page.is_some();
        let index = self.0.iter().position(ready)?;
        self.0.swap_remove(index).page
    }

    /// Nobody wants this page any more.
    pub(super) fn abandon(&mut self, channel: &ChannelName, after: MessageId) {
        self.0.retain(|fetch| fetch.channel != *channel || fetch.after != after);
    }

    /// The database has given a page. If nothing of it is left, the answer says what to ask for in its place.
    ///
    /// # Errors
    /// If the journal's file can't be read.
    pub(super) fn arrived(
        &mut self,
        ledger: &mut Ledger,
        wanted: Wanted,
        result: Result<Page, StoreError>,
    ) -> Result<Option<Wanted>, StoreError> {
        let Wanted { channel, after: from, limit, max_bytes } = wanted;
        let waits = |fetch: &&mut Fetch| fetch.channel == channel && fetch.from == from && fetch.page.is_none();
        let Some(fetch) = self.0.iter_mut().find(waits) else { return Ok(None) };
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                fetch.page = Some(Err(error));
                return Ok(None);
            }
        };
        let merged = match ledger.complete(&channel, from, page, limit, max_bytes) {
            Ok(merged) => merged,
            Err(error) => {
                fetch.page = Some(Err(error.clone()));
                return Err(error);
            }
        };
        if merged.page.messages.is_empty() && !merged.page.complete {
            fetch.from = merged.horizon;
            return Ok(Some(Wanted { channel, after: merged.horizon, limit, max_bytes }));
        }
        fetch.page = Some(Ok(merged.page));
        Ok(None)
    }

    /// These are gone.
    pub(super) fn forget(&mut self, ids: &HashSet<MessageId>) {
        if !ids.is_empty() {
            self.retain(|_, id| !ids.contains(&id));
        }
    }

    /// The channel is empty up to this id.
    pub(super) fn forget_channel(&mut self, channel: &ChannelName, up_to: MessageId) {
        self.retain(|of, id| of != channel || id > up_to);
    }

    /// The pages that have come.
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
