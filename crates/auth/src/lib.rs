//! Authenticates users and decides which channels they may use.
//!
//! ```text
//! htpasswd files ─► htpasswd ─► files ─► Users ─► verify ◄─ user, password, address
//!                     (lines)   (reload)            │  ├─ cache     verified credentials
//!                       │                           │  └─ queue     waiting logins ◄─ throttle  failed logins
//!                       └─ hash (formats)           ▼
//!                                              Accepted, Rejected, Slowed, Busy
//! ```
//!
//! [`permission`] decides which channels a user may use, and [`rate`] how often. [`passwd`] edits a file for `wsmb passwd`. [`mod@first_start`] creates the
//! first user if there is no configuration.
//!
//! This crate must never write a password or a hash to a log line, an error or a `Debug` output, compare secrets in variable time, or
//! hash on the event loop.

mod apr1;
mod cache;
pub mod files;
pub mod first_start;
pub mod hash;
pub mod htpasswd;
pub mod limits;
pub mod passwd;
pub mod permission;
mod queue;
pub mod rate;
mod throttle;
pub mod verify;

pub use files::{Change, Credentials, FileVersion, Users};
pub use first_start::{NewUser, first_start};
pub use permission::Permissions;
pub use rate::{Rate, RateRules, Rates, UserRate};
pub use verify::{Verdict, Verifier};
