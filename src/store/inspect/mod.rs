//! A look into a store from outside the broker, whether one runs on it or not: what `wsmb queue` does.
//!
//! Reading takes no lock and changes nothing. Emptying a channel of a running broker is *asked for*: rows removed behind the broker's back would still be
//! delivered from its memory. Of a stopped one it is done here, under the broker's lock.

mod file;

use std::path::Path;
use std::time::Duration;

use super::{Page, Place, Prefix, StoreError, StoreSettings};
use crate::message::{ChannelName, MessageId, Timestamp};
use file::FileView;

/// How often the answer to a request is looked for.
const ANSWER_POLL: Duration = Duration::from_millis(50);

/// One channel's backlog.
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

/// How a channel was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// Here: so many messages are gone.
    Removed(u64),
    /// By the broker that runs on the store.
    ByBroker,
}

/// Opens a store for a look.
///
/// # Errors
/// [`StoreError::Missing`] if there is none, and everything that is wrong with the URL, the prefix, the file or the server.
pub fn inspect(settings: &StoreSettings) -> Result<Inspector, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Place::parse(&settings.url)? {
        Place::Sqlite(path) => Ok(Inspector { file: FileView::open(&path, &prefix)? }),
        Place::Memory => Err(StoreError::BadUrl { reason: super::ONLY_THE_BROKER.to_owned() }),
        Place::Server(backend) => Err(StoreError::NotBuilt { backend: backend.name() }),
    }
}

/// Whether this file is the journal of that database. One that can't be read is left to whoever opens it to say so.
pub(super) fn is_journal_of(path: &Path, prefix: &Prefix, database: &str) -> bool {
    match FileView::open(path, prefix).and_then(|file| file.database()) {
        Ok(found) => found.as_deref() == Some(database),
        Err(StoreError::Missing { .. }) => false,
        Err(_) => true,
    }
}

/// A store seen from outside.
#[derive(Debug)]
pub struct Inspector {
    file: FileView,
}

impl Inspector {
    /// A broker runs on the store.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.file.is_running()
    }

    /// Every channel with a backlog, by name. Reads the whole table.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError> {
        self.file.channels()
    }

    /// The messages of a channel with ids above `after`, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn peek(&mut self, channel: &ChannelName, after: MessageId, limit: usize) -> Result<Page, StoreError> {
        self.file.peek(channel, after, limit)
    }

    /// Empties a channel: by asking the broker that runs on the store, or here if none does. Waits `patience` for the broker's answer.
    ///
    /// # Errors
    /// [`StoreError::NoAnswer`] (the request is withdrawn then), or whatever keeps the store from being written.
    pub fn purge(&mut self, channel: &ChannelName, patience: Duration) -> Result<Purged, StoreError> {
        self.file.purge(channel, patience)
    }
}
