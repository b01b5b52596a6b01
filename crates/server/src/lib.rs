//! The WebSocket server. It connects protocol, core, store and credentials, and is the only crate with server sockets.
//! It reads no configuration file: the caller starts it with [`Settings`].
//!
//! Each file imports only files above it in this picture (`tests/tidy.rs` checks that there is no circle):
//!
//! ```text
//! platform       what depends on the operating system
//! socket, tls_stream                                      encoding, batch      the layout of a turn's frames
//! transport      the bytes of one connection
//! queue          the send queue of one session
//! access         who a client is, and what it may do
//! session        user, encoding, queue in front of transport
//! registry       connection id ─► session                 outbox               the frames of a turn, once for each encoding
//! request        the requests to the engine               replies              answers as frames and texts
//! engine         requests ─► TurnOutcome (pure)           core                 the engine behind its lock
//! turns, timers, backpressure, loops, storage, callers, ids, stopping, memory, expiries     the other parts of the hub
//! hub            lock, clock, engine; carries out a TurnOutcome
//! interpret      bytes ─► requests, outside the lock
//! reader         the task of one session                  tasks, timekeeping, relief   the other tasks
//! certificates, tls_accept, handshake, listener, enforce, expiry, stop, opening, lifecycle, serving     from a socket to a session; from the start to the end
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
#[cfg(feature = "tls")]
mod certificates;
mod clock;
mod core;
mod counters;
mod defect;
mod encoding;
mod enforce;
mod engine;
mod error;
mod expiries;
mod expiry;
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
mod serving;
mod session;
mod settings;
mod socket;
mod stop;
mod stopping;
mod storage;
mod tasks;
mod timekeeping;
mod timers;
#[cfg(feature = "tls")]
mod tls_accept;
#[cfg(feature = "tls")]
mod tls_stream;
mod transport;
mod turns;
mod warnings;
#[cfg(not(feature = "tls"))]
mod without_tls;

#[cfg(not(feature = "tls"))]
use without_tls::{certificates, tls_accept, tls_stream};

#[cfg(test)]
mod tests;

pub use clock::time_after;
pub use counters::Counters;
pub use error::ServeError;
pub use lifecycle::{RunningServer, Server};
pub use listener::{ListenError, obstacles};
pub use memory::CountingAllocator;
pub use platform::is_hang_up_ignored;
pub use serving::{Load, serve};
pub use settings::{AccessSettings, ConnectionLimits, Listener, Reload, Settings, StoreChoice, TlsFiles, Webhook};
pub use turns::{TurnCause, Turns};
