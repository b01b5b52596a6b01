//! Bytes ⇄ meaning: frames, handshakes, the JSON commands of the envelope dialect, the raw topic dialect, and what a
//! receiver of either gets.
//!
//! ```text
//! bytes ─► frame ─► envelope | topic ─► command, publication     (in)
//! delivery, reply ─► frame ─► bytes                              (out)
//! head ─► handshake, origin, proxy ─► who asks for what
//! ```
//!
//! Nothing here does I/O, reads a clock or knows the broker, the store or the configuration. Everything is a function of
//! its arguments; the only state is what a [`frame::Decoder`] holds of an unfinished frame or message. No input makes
//! anything here panic, overflow the stack or hold more memory than was received.
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
