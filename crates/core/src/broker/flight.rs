//! A delivery on its way: its messages, how it has failed so far, and the groups that have it.

use smallvec::SmallVec;

use super::entry::Entry;
use super::party::Party;
use crate::message::{ConnectionId, Timestamp};

/// Messages that were delivered together and are not confirmed by anybody yet, or are still in somebody's window.
#[derive(Debug)]
pub(super) struct Flight {
    /// Their channel's key. Good only while there are entries: a settled flight may outlive its channel.
    pub channel: usize,
    /// Empty once they are settled.
    pub entries: SmallVec<[Entry; 1]>,
    /// In how many windows the delivery stands.
    pub outstanding: u32,
    /// One of the windows is that of a receiver which got it because another one was silent.
    pub doubled: bool,
    /// How it has failed so far, if it has.
    pub failed: Option<Box<Failed>>,
    /// The groups among its receivers, if there are any.
    pub party: Option<Box<Party>>,
}

/// How a flight has failed so far, at one or several receivers.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// At whose hands.
    pub by: SmallVec<[ConnectionId; 1]>,
    /// One of them has given it back. Else they were too slow.
    pub nacked: bool,
    /// Not to be delivered before this, if one of them said so.
    pub until: Option<Timestamp>,
    /// One of them said that it can never succeed.
    pub reject: bool,
    /// The last reason that one of them gave.
    pub reason: Option<Box<str>>,
}

impl Failed {
    /// Whether it failed at this receiver's hands.
    pub fn has(&self, receiver: ConnectionId) -> bool {
        self.by.contains(&receiver)
    }

    /// Nobody else may have it before all have let go of it.
    pub fn waits(&self) -> bool {
        self.reject || self.until.is_some()
    }
}
