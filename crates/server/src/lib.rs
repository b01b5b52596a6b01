//! The only place with sockets, on the server's side. It joins protocol, core, store and credentials.
//! It knows no configuration file: it is started with [`Settings`].
//!
//! ```text
//!            listener ─► handshake ─► connection (one task each, reads)
//!                                        │ frames
//!                                     commands ─► steps
//!                                        ▼
//!  storage ◄──── wishes ──── carry (the core behind its lock) ◄── runtime (the hub; deadlines)
//!     └───── outcomes ─────────►         │ frames
//!                                     outbound (queues) ─► sockets          heartbeat (pings, the wheel)
//! ```
//!
//! Read in this order: `connection`, `outbound`, `carry`, `lifecycle`.
//!
//! Never here: a decision about who receives what (that is [`wsmb_core::broker`]'s), a system call or an await under the core's lock, a
//! message body, password or hash in a log line.

mod access;
mod batch;
mod carrier;
mod carry;
mod clock;
mod commands;
mod connection;
mod counters;
mod defect;
mod error;
mod failed_logins;
mod fatal;
mod flush;
mod gate;
mod handshake;
mod handshakes;
mod heartbeat;
mod ids;
mod lifecycle;
pub mod limits;
mod listener;
mod live;
mod notes;
mod opening;
mod origins;
mod outbound;
mod outgoing;
mod owed;
mod piece;
mod proxies;
mod render;
mod replies;
mod runtime;
mod settings;
mod stop;
mod storage;
mod tcp;
#[cfg(unix)]
mod terminal;
mod timekeeping;

#[cfg(test)]
mod tests;

pub use clock::time_after;
pub use counters::Counters;
pub use error::ServeError;
pub use lifecycle::{Load, RunningServer, Server, serve};
pub use listener::{ListenError, obstacles};
pub use settings::{AccessSettings, ConnectionLimits, Listener, Reload, Settings, StoreChoice};
#[cfg(unix)]
pub use terminal::is_hang_up_ignored;
