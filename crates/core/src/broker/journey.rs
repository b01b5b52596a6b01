//! The journey of a kept message through the broker's memory. Every change of its stage is made here, with its cause.
//!
//! ```text
//! Outside ─► Waiting ◄─► Flight ─► Gone        Flight ─► Held ─► Waiting, Flight
//! Outside ─► Parked ──► Waiting                Waiting, Parked ─► Paged
//! Outside ─► Delayed ─► Waiting                Paged ─► Waiting (a page was read)
//! ```
//!
//! From every stage a message can go to Gone, or to the dead-letter channel. `audit.rs` checks each step in tests.
//!
//! A message that only the store has is counted and not known by its id: when such messages expire or are purged, there is no transition.

use super::Broker;
use super::entry::{Entry, Place};
use super::stage::{Cause, Stage};
use crate::message::MessageId;

impl Broker {
    /// A message of this channel goes to another place. To be called right before the entry is put there.
    #[inline]
    pub(super) fn transition(&mut self, channel: usize, entry: &mut Entry, to: Place, cause: Cause) {
        if !entry.written {
            self.move_to(entry.message.id, to);
        }
        self.pass(channel, entry, to.stage(), cause);
    }

    /// A message of this channel goes for good.
    #[inline]
    pub(super) fn end_journey(&mut self, channel: usize, entry: &mut Entry, cause: Cause) {
        self.pass(channel, entry, Stage::Gone, cause);
    }

    /// All changes of all stages.
    #[inline]
    fn pass(&mut self, channel: usize, entry: &mut Entry, to: Stage, cause: Cause) {
        #[cfg(test)]
        self.audit_transition(channel, entry, to, cause);
        #[cfg(not(test))]
        let _ = (channel, cause);
        entry.stage = to;
    }

    /// Notes where the entry of an unstored message is, or under which key. Nothing to note for a stored one.
    pub(super) fn move_to(&mut self, id: MessageId, place: Place) {
        if let Some(unstored) = self.unstored.get_mut(id) {
            unstored.place = place;
        }
    }
}
