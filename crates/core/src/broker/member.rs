//! A receiver of a channel, as the code that chooses receivers sees it.

use smallvec::SmallVec;

use crate::message::ConnectionId;

/// A receiver of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The receiver's position in the channel's order of receivers; lower is earlier. Unique in the channel.
    pub order: u64,
    /// The receiver's key.
    pub receiver: usize,
    /// The receiver's connection.
    pub connection: ConnectionId,
}

/// The receivers of a delivery.
pub(super) type Targets = SmallVec<[Member; 4]>;
