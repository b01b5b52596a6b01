//! The WebSocket server. It connects protocol, core, store and credentials, and is the only crate with server sockets.
//! It reads no configuration file: the caller starts it with [`Settings`].
//!
//! Each file imports only files above it in this picture (`tests/tidy.rs` checks that there is no circle):
//!
//! ```text
//! platform       what depends on the operating system
//! transport      the bytes of one connection              encoding, batch      the layout of a turn's frames
//! queue          the send queue of one session
//! session        user, encoding, queue in front of transport
//! registry       connection id ─► session                 outbox               the frames of a turn, once for each encoding
//! request        the requests to the engine               replies              answers as frames and texts
//! engine         requests ─► TurnOutcome (pure)           core                 the engine behind its lock
//! timers, backpressure, loops, storage, callers, ids, stopping, memory     the other parts of the hub
//! hub            lock, clock, engine; carries out a TurnOutcome
//! interpret      bytes ─► requests, outside the lock
//! reader         the task of one session                  tasks, timekeeping, relief   the other tasks
//! handshake, listener, enforce, stop, opening, lifecycle     from a socket to a session; from the start to the end
//! ```
//!
//! Reasons for this design: `docs/decisions/server.md`.
//!
//! Never here: a decision about who receives what (that is [`wsmb_core::broker`]'s); a system call or an await under the core's lock; a
//! message body, password or hash in a log line.

mod access;
mod backpressure;
mod batch;
#[cfg(feature = "http")]
mod callers;
mod clock;
mod core;
mod counters;
mod defect;
mod encoding;
mod enforce;
mod engine;
mod error;
mod failed_logins;
mod fatal;
mod handshake;
mod handshakes;
#[cfg(feature = "http")]
mod http;
mod hub;
mod ids;
mod interpret;
mod lifecycle;
pub mod limits;
mod listener;
mod loops;
mod memory;
mod opening;
mod origins;
mod outbox;
mod platform;
mod proxies;
mod queue;
mod reader;
mod registry;
mod relief;
mod replies;
mod request;
mod session;
mod settings;
mod stop;
mod stopping;
mod storage;
mod tasks;
mod timekeeping;
mod timers;
mod transport;
mod warnings;

#[cfg(test)]
mod tests;

pub use clock::time_after;
pub use counters::Counters;
pub use error::ServeError;
pub use lifecycle::{Load, RunningServer, Server, serve};
pub use listener::{ListenError, obstacles};
pub use memory::CountingAllocator;
pub use platform::is_hang_up_ignored;
pub use settings::{AccessSettings, ConnectionLimits, Listener, Reload, Settings, StoreChoice, Webhook};
