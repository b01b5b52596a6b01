//! A disk that fails and loses unsynced data, for tests of programs that store data durably.
//!
//! ```text
//! program ── shim.c (LD_PRELOAD) ──► files          errors on demand: full, broken, sync fails
//!                   │
//!                   └─► record ──► Disk ──cut──► contents after a power cut: all synced data, and a random part of the rest
//! ```
//!
//! A [`Shim`] is preloaded into the program. Its record holds every change and every sync in their order. [`Disk`] replays the record up to any point and
//! computes what a disk may hold if the power fails there. A test notes the length of the record with each event that a client saw, and compares the two.
//!
//! This crate must not depend on the program under test: it knows files and directories only.

#![cfg(target_os = "linux")]

mod disk;
mod random;
mod record;
mod shim;

pub use disk::{Contents, Disk, Survival, write};
pub use random::Random;
pub use record::{Change, Record};
pub use shim::{Fault, Shim};
