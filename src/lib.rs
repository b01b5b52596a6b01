//! `wsmb`, a lightweight WebSocket message broker: an application and a device behind NAT both dial it, and it forwards messages
//! between them, and keeps them until somebody has received them.
//!
//! ```text
//! socket ─► frame ─► command ─► BROKER (pure) ─► effects ─┬─► outbound queues ─► sockets
//!  (server)  (protocol)         (broker)                  └─► store worker ─┐
//!                                  ▲                                        │
//!                                  └───────── events (stored, loaded, tick) ◄┘
//! ```
//!
//! To be read in this order. Nothing imports what stands below it, and the five rooms know nothing of each other.

pub mod limits;
pub mod message;
pub mod network;
pub mod policy;

// The five rooms.
pub mod auth;
pub mod broker;
pub mod config;
pub mod protocol;
pub mod store;

// What joins them, and what stands on it.
pub mod cli;
pub mod client;
#[cfg(feature = "bench")]
pub mod load;
pub mod server;
