//! A look into a store from outside the broker, whether one runs on it or not: what `wsmb queue` does.
//!
//! Reading takes no lock and changes nothing. Emptying a channel of a running broker is *asked for*: rows removed behind the broker's back would still be
//! delivered from its memory. Of a stopped one it is done here, under the broker's lock.

mod file;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod server;

use std::path::Path;
use std::time::Duration;

use super::{Page, Place, Prefix, StoreError, StoreSettings};
use file::FileView;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use server::ServerView;
use wsmb_core::message::{ChannelName, MessageId, Timestamp};

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
    let sight = match Place::parse(&settings.url)? {
        Place::Sqlite(path) => Sight::File(Box::new(FileView::open(&path, &prefix)?)),
        Place::Memory => return Err(StoreError::BadUrl { reason: super::ONLY_THE_BROKER.to_owned() }),
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Place::Server(backend) => Sight::Server(Box::new(ServerView::open(backend, settings, &prefix)?)),
        #[cfg(not(any(feature = "mysql", feature = "postgres")))]
        Place::Server(backend) => return Err(StoreError::NotBuilt { backend: backend.name() }),
    };
    Ok(Inspector { sight })
}

/// Whether the configured journal has stood in front of this database before: then a broker starts even while the database is away.
#[must_use]
pub fn starts_without_database(settings: &StoreSettings) -> bool {
    let known = || {
        let (journal, prefix) = (settings.journal.as_ref()?, Prefix::parse(&settings.prefix).ok()?);
        let Place::Server(backend) = Place::parse(&settings.url).ok()? else { return None };
        let place = super::server_place(backend, &settings.url, &prefix).ok()?;
        Some(is_journal_of(&journal.path, &prefix, &place))
    };
    known().unwrap_or(false)
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
    sight: Sight,
}

#[derive(Debug)]
enum Sight {
    File(Box<FileView>),
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    Server(Box<ServerView>),
}

impl Inspector {
    /// Which broker runs on the store, as far as it can be found out; `None` if none does.
    ///
    /// # Errors
    /// If the store's server does not say.
    pub fn holder(&mut self) -> Result<Option<String>, StoreError> {
        match &mut self.sight {
            Sight::File(file) => Ok(file.holder()),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.holder(),
        }
    }

    /// The file, and the database that it is a journal of; `None` if the store is no journal.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn journal_of(&self) -> Result<Option<(String, String)>, StoreError> {
        match &self.sight {
            Sight::File(file) => Ok(file.database()?.map(|database| (file.place().to_owned(), database))),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(_) => Ok(None),
        }
    }

    /// What the store does not keep, in sentences, the last of which says what would help; empty if it keeps everything.
    ///
    /// # Errors
    /// If the store can't be seen.
    pub fn lacks(&mut self) -> Result<Vec<String>, StoreError> {
        match &mut self.sight {
            Sight::File(_) => Ok(Vec::new()),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.lacks(),
        }
    }

    /// The tables beside that of the messages that the next start of a broker makes.
    ///
    /// # Errors
    /// If the store can't be seen.
    pub fn missing(&mut self) -> Result<Vec<String>, StoreError> {
        match &mut self.sight {
            Sight::File(_) => Ok(Vec::new()),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.missing(),
        }
    }

    /// Every channel with a backlog, by name. Reads the whole table.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn channels(&mut self) -> Result<Vec<ChannelInfo>, StoreError> {
        match &mut self.sight {
            Sight::File(file) => file.channels(),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.channels(),
        }
    }

    /// The messages of a channel with ids above `after`, delayed ones too, in the order of ids: at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn peek(&mut self, channel: &ChannelName, after: MessageId, limit: usize) -> Result<Page, StoreError> {
        match &mut self.sight {
            Sight::File(file) => file.peek(channel, after, limit),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.peek(channel, after, limit),
        }
    }

    /// Empties a channel: by asking the broker that runs on the store, or here if none does. Waits `patience` for the broker's answer.
    ///
    /// # Errors
    /// [`StoreError::NoAnswer`] (the request is withdrawn then), or whatever keeps the store from being written.
    pub fn purge(&mut self, channel: &ChannelName, patience: Duration) -> Result<Purged, StoreError> {
        match &mut self.sight {
            Sight::File(file) => file.purge(channel, patience),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            Sight::Server(server) => server.purge(channel, patience),
        }
    }
}
