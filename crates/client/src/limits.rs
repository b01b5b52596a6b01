//! Every bound and time-out of the client, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

/// The largest message the client takes: brokers may be configured for more than [`wsmb_protocol::limits::MAX_MESSAGE`], but not for a client's ruin.
pub const CLIENT_MESSAGE: usize = 64 << 20;

/// From the client's first packet to the end of the handshake: a name to resolve and two round trips over a bad mobile network.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(10);

/// After this silence the client pings; after twice that it takes the connection for dead. Above the broker's own heartbeat, so
/// that it only speaks up where the broker does not.
pub const CLIENT_KEEPALIVE: Duration = Duration::from_secs(40);

/// How long the client waits for the answer to its close frame.
pub const CLIENT_CLOSE: Duration = Duration::from_secs(5);

/// Messages the client reads ahead while its caller only writes.
pub const CLIENT_RECEIVED: usize = 4_096;
