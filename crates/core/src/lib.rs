//! The vocabulary of the workspace and the core of the broker: messages, names, policies, and the state machine that decides which receiver
//! gets which message.
//!
//! ```text
//! events + the time ─► broker ─► effects
//!                        ▲
//!        message, network, policy, glob, limits, duration (types that every crate uses)
//! ```
//!
//! Never here: I/O, a clock, a thread, an async runtime, or another crate of this workspace.

pub mod broker;
pub mod duration;
pub mod glob;
pub mod limits;
pub mod message;
pub mod network;
pub mod policy;
pub mod shares;
