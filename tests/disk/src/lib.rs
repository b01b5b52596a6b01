//! A disk that fails and forgets, for tests of programs that promise to keep something.
//!
//! ```text
//! program ── shim.c (LD_PRELOAD) ──► files          errors on demand: full, broken, sync refused
//!                   │
//!                   └─► record ──► Disk ──cut──► what is left after a power cut: what was synced, and by chance some of the rest
//! ```
//!
//! A [`Shim`] is preloaded into the program. Its record holds every change and every sync in their order; [`Disk`] replays it up to any point and
//! tells what a disk may hold if the power goes there. What a client saw is compared with that by the length of the record at the time.
//!
//! Must know nothing of the program: files, directories, and nothing else.

#![cfg(target_os = "linux")]

mod disk;
mod random;
mod record;
mod shim;

pub use disk::{Contents, Disk, Survival, write};
pub use random::Random;
pub use record::{Change, Record};
pub use shim::{Fault, Shim};
