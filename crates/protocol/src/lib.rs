//! Parses and writes everything that crosses the network: frames, handshakes, the JSON commands of the envelope dialect, the messages of the topic dialect,
//! and the deliveries to receivers of both dialects.
//!
//! ```text
//! bytes ─► frame ─► envelope | topic ─► command, publication     (in)
//! delivery, reply ─► frame ─► bytes                              (out)
//! head ─► handshake, origin, proxy ─► request, client address
//! ```
//!
//! Never does I/O, never reads a clock, and never imports the broker, the store or the configuration. Every function depends on its arguments only; the only
//! state is the unfinished frame or message in a [`frame::Decoder`], and the last channel in an [`envelope::Parser`]. No input causes a panic or a stack
//! overflow, or makes this crate hold more memory than was received.
//!
//! In reading order: [`frame`], [`handshake`], [`proxy`], [`envelope`], [`topic`], [`delivery`].

pub mod delivery;
pub mod envelope;
pub mod frame;
pub mod handshake;
mod json;
pub mod limits;
pub mod origin;
pub mod proxy;
pub mod topic;
