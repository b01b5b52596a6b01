//! Every limit on data that is read from or written to the network, each with its reason.
//!
//! Every queue, buffer, cache and loop of this crate has its limit in this file.

/// The default of `server.max_message`: the largest message that a client may send, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The deepest nesting of a JSON frame: the recursion limit of `serde_json`. A deeper frame is malformed.
pub const JSON_DEPTH: usize = 128;

/// The largest request head, in bytes. A larger head is refused (414 or 431).
pub const REQUEST_HEAD: usize = 16 << 10;

/// The most headers of a request. A request with more headers is refused (431).
pub const REQUEST_HEADERS: usize = 64;

/// The largest 101 reply, in bytes: the PHP client reads the reply with one call of at most 1,024 bytes.
pub const UPGRADE_REPLY: usize = 1_023;

/// The longest origin (in `server.origins` or a request), in bytes: the longest host name, a scheme and a port.
pub const ORIGIN_BYTES: usize = 280;

/// The largest PROXY protocol header, in bytes. The addresses take 36 bytes; the rest is fields that the broker skips, the largest of them a client's TLS
/// certificate from some proxies. A longer header is refused.
pub const PROXY_HEADER: usize = 4 << 10;

/// The number of addresses in `X-Forwarded-For` or `Forwarded` that are read, beginning with the nearest: a chain of trusted proxies is never so long, but a
/// client may fill a whole request head with commas.
pub const FORWARDED_HOPS: usize = 32;

/// The most fragments of a message, besides one for each [`FRAGMENT_BYTES`] received bytes of the message. An empty fragment costs the sender six bytes and
/// the broker the work of a header, so many empty fragments are an attack. At the limit the connection is closed (1009).
pub const FRAGMENTS: usize = 4_096;

/// The fragment size with which a message may have any number of fragments, in bytes: the libraries of microcontrollers send from buffers of 64 bytes and more.
pub const FRAGMENT_BYTES: usize = 64;

/// Bytes of one read from a socket. All sockets of a thread share the buffer.
pub const READ_BUFFER: usize = 64 << 10;

/// The size of a queued frame besides its bytes: its queue entry and its allocation. Without this addition, a client that pings at full speed and never
/// reads would fill a queue of [`wsmb_core::limits::QUEUE_BYTES`] with millions of two-byte pongs.
pub const FRAME_PLACE: usize = 64;
