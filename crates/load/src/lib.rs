//! The load generator: what `wsmb bench` drives a broker with, and what the comparison with other brokers is made of.
//!
//! An engine without an opinion about protocols: it opens WebSockets, writes pre-encoded masked frames in bursts, reads what comes by
//! frame headers alone, and checks the number of every delivery. What a frame carries is a [`Wire`]'s business: this broker's two
//! dialects are one ([`Wsmb`]); programs that measure other brokers bring their own.
//!
//! ```text
//! options ─► workload ─► engine ─► connections (Wire: what a protocol's frames carry) ─► broker
//!                          └─► tracker (gaps, doubles) ─► report
//! ```
//!
//! Never here: the server, another broker's protocol. It must never be the bottleneck, never call a run good in which a message was lost, doubled or reordered, and never wait without an end.

mod connection;
mod engine;
mod error;
mod flow;
mod histogram;
mod inbound;
mod latency;
pub mod limits;
mod line;
mod open_files;
mod options;
mod payload;
mod process;
mod report;
mod stamp;
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
pub use self::wire::{Channels, Handshake, Heard, Part, Publication, Seat, Session, Wire, frame};
pub use self::workload::run;
pub use self::wsmb::{Wsmb, WsmbSession};

#[cfg(test)]
mod tests;
