//! A receiver's place in a channel, as everything that chooses among receivers knows it.

use smallvec::SmallVec;

use crate::message::ConnectionId;

/// One receiver's place in a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The order in which receivers came; lower is earlier. Unique in the channel.
    pub order: u64,
    /// The receiver's key.
    pub receiver: usize,
    /// The receiver's connection.
    pub connection: ConnectionId,
}

/// The receivers of a delivery.
pub(super) type Targets = SmallVec<[Member; 4]>;
