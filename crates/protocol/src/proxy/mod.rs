//! What reverse proxies say about the client behind them: the PROXY protocol in front of a connection ([`header`]), and the headers
//! `X-Forwarded-For`, `Forwarded` and `Via` of a request ([`forwarded`]).
//!
//! ```text
//! client ─► proxy ─► PROXY header │ request head with X-Forwarded-For │ frames
//!                    header::parse  Forwarding::of … Forwarding::client
//! ```
//!
//! Anybody can write all of it. So nothing here is believed by itself: [`Forwarding::client`] asks for the networks that are trusted.

pub mod forwarded;
pub mod header;
#[cfg(test)]
mod tests;

pub use forwarded::{Claim, Forwarding, Hop};
pub use header::{BadHeader, Header};
