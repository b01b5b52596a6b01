//! The bounds of what proxies may say about a client.

/// The largest PROXY protocol header, in bytes. Addresses take 36; the rest is fields that nobody reads here, the largest of them a client's
/// TLS certificate in some proxies. A longer header is refused.
pub const PROXY_HEADER: usize = 4 << 10;

/// Addresses of one `X-Forwarded-For` or `Forwarded` that are looked at, from the nearest on: a chain of trusted proxies is never so long, and a
/// client may fill a whole request head with commas.
pub const FORWARDED_HOPS: usize = 32;

/// `[[listener]]` entries: each is a socket and a task for ever.
pub const LISTENER_ENTRIES: usize = 100;
