//! Where kept messages live while nobody has received them.
//!
//! ```text
//! caller ─► StoreWorker ─► Queue ─► (one thread) ─► Background: sqlite | memory | a database server, with a journal or without
//!                 ▲                                     │
//!                 └────────────── Outcome ◄─────────────┘
//! ```
//!
//! [`MessageStore`] is what every store does with rows, [`Background`] what a running broker has done beside that, [`Tools`] what an administrator does.
//! A store knows messages and nothing of receivers, connections or policies; it never decides what
//! becomes of a message, never reads a clock, and no SQL in it is ever built from what a client sent.

mod aside;
mod columns;
mod copy;
mod datetime;
mod error;
mod files;
mod ids;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod journal;
pub mod limits;
mod lock;
mod look;
mod memory;
mod message_store;
#[cfg(test)]
mod mortal;
mod open;
mod publications;
mod requeue;
mod restamp;
mod settings;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sql;
mod sqlite;
mod system;
mod tools;
mod worker;

pub use aside::set_aside;
pub use columns::{BadColumn, ColumnValue, Columns};
pub use copy::{Copied, CopyError, CopyOptions, Progress, copy};
pub use error::{FailureKind, StoreError};
pub use ids::{FoundIds, IdFile, ids_beside};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use journal::JournaledStore;
pub use look::{Look, look, starts_without_database};
pub use memory::MemoryStore;
pub use message_store::{Background, ChannelSummary, Group, MessageStore, Page, Summary, Swept};
pub use open::open;
pub use publications::StoredPublication;
pub use requeue::{Requeue, RequeueError, Requeued, Stay};
pub use restamp::{CLOCK, Restamp};
pub use settings::{Backend, JournalSettings, Prefix, StoreSettings};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use sql::SqlStore;
pub use sqlite::SqliteStore;
pub use tools::{ChannelInfo, StoppedStore, Tools};
pub use worker::{Outcome, StoreWorker};

#[cfg(test)]
mod tests;
