//! Publications that are not safe yet, and the outcomes that end the wait.

use smallvec::SmallVec;

use super::Refusal;
use super::dedup::Key;
use super::event::ReplyTo;
use crate::message::{MessageId, PublicationId};

/// A publication that is not safe yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// The receiver of the reply.
    pub reply_to: ReplyTo,
    pub id: Option<PublicationId>,
    /// The sender waits for the answer although the publication has no id.
    pub answer: bool,
    /// The key of the publication's id in the table of remembered ids.
    pub remembered: Option<Key>,
    /// The first message's id when the publication was accepted; the others follow without a gap. A delayed message that comes due gets a new id.
    pub first: MessageId,
    /// The number of its messages.
    pub messages: usize,
    /// The number of messages that are not safe yet.
    pub remaining: usize,
    /// The smallest number of receivers that had one of the messages when it became safe.
    pub receivers: u32,
    /// The number of messages that are in the store.
    pub rows: u32,
    /// Why a message of the publication was refused, if one was.
    pub refused: Option<Refusal>,
    /// The receivers of replies to repetitions of the same publication.
    pub waiters: SmallVec<[ReplyTo; 1]>,
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
