//! Every bound and time-out of what is read from and written to the wire, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

/// Default of `server.max_message`: the largest frame payload a client may send, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// How deep a JSON frame may nest: `serde_json`'s own recursion bound, named here because docs state it.
pub const JSON_DEPTH: usize = 128;

/// The largest request head that is read, in bytes.
pub const REQUEST_HEAD: usize = 16 << 10;

/// Headers of one request.
pub const REQUEST_HEADERS: usize = 64;

/// The largest 101 reply: the PHP client reads once, 1,024 bytes at the most.
pub const UPGRADE_REPLY: usize = 1_023;

/// `server.origins` as they may be written, in bytes: the longest host name, a scheme and a port.
pub const ORIGIN_BYTES: usize = 280;

/// The largest PROXY protocol header, in bytes. Addresses take 36; the rest is fields that nobody reads here, the largest of them a client's
/// TLS certificate in some proxies. A longer header is refused.
pub const PROXY_HEADER: usize = 4 << 10;

/// Addresses of one `X-Forwarded-For` or `Forwarded` that are looked at, from the nearest on: a chain of trusted proxies is never so long, and a
/// client may fill a whole request head with commas.
pub const FORWARDED_HOPS: usize = 32;

/// How many fragments of a message may be empty or tiny. A fragment costs the broker a header to read and the sender six bytes, so 100,000 empty ones are
/// an attack. One fragment more is allowed for each [`FRAGMENT_BYTES`] of the message that have come: beyond, the connection is closed (1009).
pub const FRAGMENTS: usize = 4_096;

/// The size of a fragment that is not tiny. The small libraries of microcontrollers send from buffers of 64 bytes and more, so that a message of any size may come in such
/// fragments.
pub const FRAGMENT_BYTES: usize = 64;

/// Bytes read from one socket at a time, into a buffer that its thread shares.
pub const READ_BUFFER: usize = 64 << 10;

/// What a queued frame costs beside its bytes: its place in the queue and its allocation. Without it, a client that pings at full
/// speed and never reads would fill a queue of [`wsmb_core::limits::QUEUE_BYTES`] with millions of two-byte pongs.
pub const FRAME_PLACE: usize = 64;
