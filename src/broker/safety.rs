//! When a publication is safe, and who is told: a line in `unstored` for each message that is neither durable nor settled, and a
//! [`Pending`] for each publication whose sender waits for the answer.

use smallvec::SmallVec;

use super::dedup::Key;
use super::entry::{Row, Unstored};
use super::{Broker, Refusal, Reply, Turn};
use crate::limits;
use crate::message::{ConnectionId, MessageId, PublicationId};

/// A publication that is not safe yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub connection: Option<ConnectionId>,
    pub id: Option<PublicationId>,
    /// By what its id is remembered, if it has one.
    pub remembered: Option<Key>,
    /// Messages of it that are not safe.
    pub remaining: usize,
    /// To how many receivers it went at once.
    pub receivers: u32,
    /// At least one message of it is in the store.
    pub stored: bool,
    /// At least one message of it was refused.
    pub refused: Option<Refusal>,
    /// Who has sent it again meanwhile.
    pub waiters: SmallVec<[ConnectionId; 1]>,
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

impl Broker {
    /// Ends the uncertainty about a message. Harmless for one that is stored already.
    pub(super) fn resolve(&mut self, id: MessageId, fate: Fate, turn: &mut Turn<'_>) -> Option<Unstored> {
        let unstored = self.unstored.remove(id)?;
        let is_stored = matches!(fate, Fate::Stored | Fate::StoredLate);
        if unstored.row == Row::Failed {
            self.failed.remove(&id);
        }
        // Also after a failure: the store may have failed after it had written.
        if !is_stored && unstored.row != Row::Unasked {
            self.removals.push(id);
        }
        for old in &unstored.replaces {
            self.superseded.remove(old);
        }
        if !is_stored {
            // Had it been stored, the older rows would have gone in the same commit.
            self.removals.extend_from_slice(&unstored.replaces);
        }
        match unstored.pending {
            Some(pending) => self.advance(pending, fate, turn),
            None => {
                if let Fate::Refused(refusal) = fate {
                    self.tell_refused(unstored.origin, refusal, turn);
                }
            }
        }
        Some(unstored)
    }

    /// One message of a pending publication is certain; answers if it was the last.
    fn advance(&mut self, key: usize, fate: Fate, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.remaining -= 1;
        match fate {
            Fate::Stored => pending.stored = true,
            Fate::StoredLate => pending.refused = Some(Refusal::Expired),
            Fate::Settled => {}
            Fate::Refused(refusal) => pending.refused = Some(refusal),
        }
        if pending.remaining > 0 {
            return;
        }
        let Pending { remembered, connection, id, receivers, stored, refused, waiters, .. } = self.pending.remove(key);
        match (id, refused) {
            (Some(id), None) => {
                if let Some(key) = remembered {
                    self.dedup.accept(turn.now, key, &id);
                }
                let accepted = |id, duplicate| Reply::Accepted {
                    id,
                    receivers: if duplicate { 0 } else { receivers },
                    stored,
                    duplicate,
                };
                self.reply(connection, accepted(id.clone(), false), turn);
                for waiter in waiters {
                    self.reply(Some(waiter), accepted(id.clone(), true), turn);
                }
            }
            (None, Some(refusal)) => self.tell_refused(connection, refusal, turn),
            (Some(id), Some(refusal)) => {
                if let Some(key) = remembered {
                    self.dedup.refuse(key);
                }
                let id = Some(id);
                self.reply(connection, Reply::Refused { id: id.clone(), refusal }, turn);
                for waiter in waiters {
                    self.reply(Some(waiter), Reply::Refused { id: id.clone(), refusal }, turn);
                }
            }
            (None, None) => {}
        }
    }

    /// Tells a sender that gave no id. That a message has expired is no error to one who does not wait for it.
    fn tell_refused(&self, to: Option<ConnectionId>, refusal: Refusal, turn: &mut Turn<'_>) {
        if refusal != Refusal::Expired {
            self.reply(to, Reply::Refused { id: None, refusal }, turn);
        }
    }

    /// Somebody sends again what is pending. False if too many wait already.
    pub(super) fn add_waiter(&mut self, key: usize, connection: Option<ConnectionId>) -> bool {
        let (Some(pending), Some(connection)) = (self.pending.get_mut(key), connection) else { return true };
        if pending.waiters.len() >= limits::DEDUP_WAITERS {
            return false;
        }
        pending.waiters.push(connection);
        true
    }
}
