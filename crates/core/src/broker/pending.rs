//! A publication whose sender waits to hear that it is safe, and how a message becomes safe.

use smallvec::SmallVec;

use super::Refusal;
use super::dedup::Key;
use crate::message::{ConnectionId, PublicationId};

/// A publication that is not safe yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub connection: Option<ConnectionId>,
    pub id: Option<PublicationId>,
    /// The sender waits for the answer although the publication has no id.
    pub answer: bool,
    /// The key of the publication's id in the table of remembered ids.
    pub remembered: Option<Key>,
    /// The number of messages that are not safe yet.
    pub remaining: usize,
    /// The smallest number of receivers that had one of the messages when it became safe.
    pub receivers: u32,
    /// The number of messages that are in the store.
    pub rows: u32,
    /// Why a message of the publication was refused, if one was.
    pub refused: Option<Refusal>,
    /// Connections that have sent the same publication again and wait for its answer.
    pub waiters: SmallVec<[ConnectionId; 1]>,
}

impl Pending {
    /// Whether a client waits for the answer.
    pub fn is_awaited(&self) -> bool {
        self.id.is_some() || self.answer
    }
}

/// Why a message leaves the table of unstored messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The message is durable.
    Stored,
    /// The message became durable only after it had expired: the sender is told that it has expired.
    StoredLate,
    /// The message is confirmed, purged or given up: it need not be stored.
    Settled,
    /// The message was refused.
    Refused(Refusal),
}
