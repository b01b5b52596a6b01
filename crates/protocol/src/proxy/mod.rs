//! Finds the address of a client behind reverse proxies: from the PROXY protocol at the beginning of a connection ([`header`]), and from the headers
//! `X-Forwarded-For`, `Forwarded` and `Via` of a request ([`forwarded`]).
//!
//! ```text
//! client ─► proxy ─► PROXY header │ request head with X-Forwarded-For │ frames
//!                    header::parse  Forwarding::of … Forwarding::client
//! ```
//!
//! A client can forge all of these headers. So [`Forwarding::client`] uses an address only if a proxy in a trusted network has appended it.

pub mod forwarded;
pub mod header;
#[cfg(test)]
mod tests;

pub use forwarded::{Claim, Forwarding, Hop};
pub use header::{BadHeader, Header};
