//! A flight: messages that were delivered together, the failures of the delivery so far, and the groups whose members have it.

use smallvec::SmallVec;

use super::entry::Entry;
use super::group_shares::GroupShares;
use crate::message::{ConnectionId, Timestamp};

/// Messages that were delivered together, until a receiver confirms them and the delivery has left the window of every receiver.
#[derive(Debug)]
pub(super) struct Flight {
    /// The key of the channel. Valid only while there are entries: a flight whose messages are settled may outlive its channel.
    pub channel: usize,
    /// The messages. Empty after they are settled.
    pub entries: SmallVec<[Box<Entry>; 1]>,
    /// The number of receivers that have the delivery in their windows.
    pub outstanding: u32,
    /// One of the receivers got the delivery because another receiver did not confirm it in time.
    pub doubled: bool,
    /// The failures of this delivery so far.
    pub failed: Option<Box<Failed>>,
    /// The groups among the receivers.
    pub shares: Option<Box<GroupShares>>,
}

/// The failures of a flight at one or several receivers.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// The receivers at which the flight failed.
    pub by: SmallVec<[ConnectionId; 1]>,
    /// At least one receiver sent a nack. If false, all of them were too slow.
    pub nacked: bool,
    /// The time before which the messages must not be delivered again, if a receiver gave one.
    pub until: Option<Timestamp>,
    /// A receiver rejected the messages for good.
    pub reject: bool,
    /// The reason in the last nack.
    pub reason: Option<Box<str>>,
}

impl Failed {
    /// Whether the flight failed at this receiver.
    pub fn has(&self, receiver: ConnectionId) -> bool {
        self.by.contains(&receiver)
    }

    /// Whether no other receiver may get the messages before all present receivers have given them up.
    pub fn waits(&self) -> bool {
        self.reject || self.until.is_some()
    }
}
