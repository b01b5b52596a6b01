//! Every limit and timeout of the client, each with its reason.
//!
//! Every queue, buffer, cache and loop of the client has its limit in this file.

use std::time::Duration;

/// The largest message that the client accepts, in bytes. A broker may be configured for larger messages than [`wsmb_protocol::limits::MAX_MESSAGE`]; this
/// limit protects the memory of the client.
pub const CLIENT_MESSAGE: usize = 64 << 20;

/// The timeout from the first packet to the end of the handshake: enough for a name resolution and two round trips over a bad mobile network.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(10);

/// The client pings after this time without a frame; after twice this time the connection counts as lost. Longer than the broker's heartbeat, so that the
/// client pings only if the broker does not.
pub const CLIENT_KEEPALIVE: Duration = Duration::from_secs(40);

/// How long the client waits for the answer to its close frame: longer than a broker needs to process the last frames.
pub const CLIENT_CLOSE: Duration = Duration::from_secs(5);

/// Received messages that the client queues while its caller only writes. At this number it stops reading.
pub const CLIENT_RECEIVED: usize = 4_096;
