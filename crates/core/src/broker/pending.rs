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
    /// Its sender waits for the answer, though it gave no id.
    pub answer: bool,
    /// By what its id is remembered, if it has one.
    pub remembered: Option<Key>,
    /// Messages of it that are not safe.
    pub remaining: usize,
    /// How many receivers held each of its messages when it was safe: the smallest number so far.
    pub receivers: u32,
    /// How many of its messages are in the store.
    pub rows: u32,
    /// At least one message of it was refused.
    pub refused: Option<Refusal>,
    /// Who has sent it again meanwhile.
    pub waiters: SmallVec<[ConnectionId; 1]>,
}

impl Pending {
    /// Whether anybody waits for the answer.
    pub fn is_awaited(&self) -> bool {
        self.id.is_some() || self.answer
    }
}

/// How a message left the table of the unstored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is durable.
    Stored,
    /// It is durable, but was so only when its time to live was over: its sender is told that it has expired.
    StoredLate,
    /// It is confirmed, purged or given up: nobody need store it.
    Settled,
    /// It was refused.
    Refused(Refusal),
}
