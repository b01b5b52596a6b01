//! Refusals after a failed write. The messages of a publication share one fate, because the sender gets one answer for all of them: either the
//! whole publication is refused and leaves nothing behind, or all of it stays in memory and is written again.
//!
//! A publication must not be refused any more once one of its messages is safe, is in flight or has come back from a receiver: the sender
//! would send all of it again, and a receiver would get that message twice.

use smallvec::SmallVec;

use super::counters::Metric;
use super::entry::{Location, Unstored, WriteState};
use super::pending::Fate;
use super::stage::Cause;
use super::{Broker, Delayed, Effect, Refusal, StoreEffect, StoreFailure, Turn};
use crate::limits;
use crate::message::MessageId;

impl Broker {
    /// Handles [`super::StoreEvent::StoreFailed`].
    pub(super) fn store_failed(&mut self, ids: &[MessageId], failure: StoreFailure, turn: &mut Turn<'_>) {
        let refusal = match failure {
            StoreFailure::Unavailable => Refusal::Unavailable,
            StoreFailure::Full => Refusal::BrokerFull,
        };
        for id in ids {
            if let Some(unstored) = self.unstored.get_mut(*id) {
                unstored.write_state = WriteState::Failed;
                let (owner, bytes) = (unstored.owner, std::mem::take(&mut unstored.writing));
                self.uncharge_write(owner, bytes);
                self.failed.insert(*id);
            }
        }
        let mut disowned = Vec::new();
        for id in ids {
            // A message may have been refused with an earlier one of its publication.
            let Some(unstored) = self.unstored.get(*id) else { continue };
            let refusal = if unstored.expired(turn.now) { Refusal::Expired } else { refusal };
            for id in self.refusable(*id) {
                if self.failed.remove(&id) {
                    disowned.push(id);
                }
                self.refuse_unstored(id, refusal, turn);
            }
        }
        if !self.failed.is_empty() {
            self.arm_retry(turn.now);
        }
        if !disowned.is_empty() {
            turn.effects.list.push(Effect::Store(StoreEffect::Disown(disowned)));
        }
    }

    /// Returns the messages to refuse if this message cannot be written: all messages of its publication, or none.
    fn refusable(&mut self, id: MessageId) -> SmallVec<[MessageId; 1]> {
        let is_refusable =
            |unstored: &Unstored| !unstored.committed && !matches!(unstored.location, Location::Flight(_));
        let Some(unstored) = self.unstored.get(id).filter(|unstored| is_refusable(unstored)) else {
            return SmallVec::new();
        };
        let Some((key, pending)) = unstored.pending.and_then(|key| Some((key, self.pending.get(key)?))) else {
            return SmallVec::from_elem(id, 1);
        };
        let mut ids = SmallVec::new();
        for id in pending.first.0..pending.first.0 + pending.messages as u64 {
            let unstored = self.unstored.get(MessageId(id)).filter(|unstored| unstored.pending == Some(key));
            ids.extend(unstored.is_some_and(is_refusable).then_some(MessageId(id)));
        }
        if ids.len() < pending.messages {
            // One message of the publication is safe or known to a receiver, so the others stay.
            for id in ids.drain(..) {
                if let Some(unstored) = self.unstored.get_mut(id) {
                    unstored.committed = true;
                }
            }
        }
        ids
    }

    /// Refuses a message that is not known to be in the store.
    fn refuse_unstored(&mut self, id: MessageId, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(unstored) = self.unstored.get_mut(id) else { return };
        if unstored.write_state == WriteState::Failed {
            // Its row is disowned. The row of another message of the publication, which is being written, is removed.
            unstored.write_state = WriteState::NotRequested;
        }
        let (key, location) = (unstored.channel, unstored.location);
        let entry = match location {
            Location::Waiting => self.channels[key].unwait(id),
            Location::Parked => self.channels[key].unpark(id),
            Location::Delayed(due) => match self.take_delayed(&(due, id)) {
                Some(Delayed::Kept(_, entry)) => Some(entry),
                _ => None,
            },
            Location::Flight(_) | Location::Held(_) | Location::Paged => None,
        };
        self.count(key, Metric::RefusedLate, 1);
        self.refused.insert(id);
        if self.refused.len() > limits::REFUSED_IDS {
            self.refused.pop_first();
        }
        if let Some(entry) = entry {
            self.drop_entry(key, entry, (Fate::Refused(refusal), Cause::Refused), turn);
        } else {
            // Only the store's queue contained the message.
            let expires = self.resolve(id, Fate::Refused(refusal), turn).and_then(|unstored| unstored.expires);
            self.channels[key].paged -= 1;
            self.count_out(key, id, expires);
            self.close_if_unused(key);
        }
        // It may have been the last one before the messages that only the store has.
        self.to_pump.push(key);
    }
}
