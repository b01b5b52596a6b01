//! The transitions of kept messages between their stages. Every change of a stage is made here, with its cause.
//!
//! ```text
//! Outside ─► Waiting ◄─► Flight ─► Gone        Flight ─► Held ─► Waiting, Flight
//! Outside ─► Parked ──► Waiting                Waiting, Parked ─► Paged
//! Outside ─► Delayed ─► Waiting                Paged ─► Waiting (a page was read)
//! ```
//!
//! From every stage a message can go to Gone, or to the dead-letter channel. In tests, `audit.rs` checks each transition.
//!
//! The broker knows only the number of the paged messages, not their ids: when such messages expire or are purged, there is no transition.

use super::Broker;
use super::entry::{Entry, Location};
use super::stage::{Cause, Stage};
use crate::message::MessageId;

impl Broker {
    /// Moves a message of this channel to another location. Must be called just before the entry is inserted there.
    #[inline]
    pub(super) fn transition(&mut self, channel: usize, entry: &mut Entry, to: Location, cause: Cause) {
        if !entry.written {
            self.move_to(entry.message.id, to);
        }
        self.pass(channel, entry, to.stage(), cause);
    }

    /// Settles a message of this channel.
    #[inline]
    pub(super) fn end_journey(&mut self, channel: usize, entry: &mut Entry, cause: Cause) {
        self.watches.settle(entry.message.id, cause);
        self.pass(channel, entry, Stage::Gone, cause);
    }

    /// Changes the stage of a message. All transitions go through this function.
    #[inline]
    fn pass(&mut self, channel: usize, entry: &mut Entry, to: Stage, cause: Cause) {
        #[cfg(test)]
        self.audit_transition(channel, entry, to, cause);
        #[cfg(not(test))]
        let _ = (channel, cause);
        entry.stage = to;
    }

    /// Notes the new location of an unstored message. Does nothing for a stored message.
    pub(super) fn move_to(&mut self, id: MessageId, location: Location) {
        if let Some(unstored) = self.unstored.get_mut(id) {
            unstored.location = location;
        }
    }
}
