//! Stores for messages that no receiver has confirmed yet.
//!
//! ```text
//! caller ─► StoreWorker ─► Queue ─► (one thread) ─► Background: sqlite | memory | a database server, with a journal or without
//!                 ▲                                     │
//!                 └─────────── StoreEvent ◄──────────────┘
//! ```
//!
//! [`MessageStore`] reads and writes rows, [`Background`] adds the maintenance that a running broker needs, [`Tools`] holds the operations of an
//! administrator. A store knows messages. A store never knows receivers, connections or policies, never decides whether a message is kept, never
//! reads a clock, and never builds SQL from text that a client sent.

mod columns;
mod copy;
#[cfg(test)]
mod crashing_store;
mod datetime;
mod error;
mod files;
mod ids;
mod inspect;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod journal;
pub mod limits;
mod lock;
mod memory;
mod message_store;
mod open;
mod page;
mod platform;
mod publications;
mod requeue;
mod restamp;
mod set_aside;
mod settings;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sql;
mod sqlite;
mod tools;
mod worker;

pub use columns::{BadColumn, ColumnValue, Columns};
pub use copy::{Copied, CopyError, CopyOptions, Progress, copy};
pub use error::StoreError;
pub use ids::{FoundIds, IdFile, ids_beside};
pub use inspect::{Inspection, inspect, starts_without_database};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use journal::JournaledStore;
pub use memory::MemoryStore;
pub use message_store::{Background, ChannelSummary, Group, MessageStore, Page, Summary, Swept};
pub use open::open;
pub use publications::StoredPublication;
pub use requeue::{Requeue, RequeueError, Requeued, Stay};
pub use restamp::{CLOCK, Restamp};
pub use set_aside::set_aside;
pub use settings::{Backend, JournalSettings, Prefix, StoreSettings};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use sql::SqlStore;
pub use sqlite::SqliteStore;
pub use tools::{ChannelInfo, StoppedStore, Tools};
pub use worker::StoreWorker;

#[cfg(test)]
mod tests;
