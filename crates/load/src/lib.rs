//! The load generator of `wsmb bench` and of the comparison with other brokers.
//!
//! The engine knows no protocol: it opens WebSockets, writes pre-encoded masked frames in bursts, splits the received bytes into frames
//! by their headers alone, and checks the number of every delivery. The content of the frames is the job of a [`Wire`]: [`Wsmb`]
//! implements this broker's two dialects. Programs that measure other brokers bring their own implementation.
//!
//! ```text
//! options ─► workload ─► engine ─► connections (Wire: the content of the frames) ─► broker
//!                          └─► tracker (gaps, duplicates) ─► report
//! ```
//!
//! This crate must never depend on the server or contain another broker's protocol. It must never be the bottleneck, never report a run as
//! sound in which a message was lost, duplicated or reordered, and never wait without a timeout.

mod connection;
mod connection_state;
mod engine;
mod error;
mod flow;
mod frame_template;
mod histogram;
mod inbound;
mod latency;
pub mod limits;
mod open_files;
mod options;
mod payload;
mod platform;
mod process;
mod report;
mod stream;
mod tracker;
mod wire;
mod workload;
mod wsmb;

pub use self::connection::Target;
pub use self::engine::{Progress, Watch};
pub use self::error::Error;
pub use self::options::{Options, Workload};
pub use self::payload::Payload;
pub use self::report::{Latency, Phase, Report};
pub use self::wire::{Channels, ConnectionPlan, Handshake, Part, Publication, Session, SessionEvent, Wire, frame};
pub use self::workload::run;
pub use self::wsmb::{Wsmb, WsmbSession};

#[cfg(test)]
mod tests;
