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
//! ```text
//! token ─► token ─► json, signature, claims ─► Grant        user ─► issue ─► token (signed with own_key)
//!                                                           user ─► ticket ─► login, once
//! ```
//!
//! This crate must never write a password or a hash to a log line, an error or a `Debug` output, compare secrets in variable time, or
//! hash on the event loop.

mod apr1;
mod bad_token;
mod cache;
mod claims;
pub mod files;
pub mod first_start;
pub mod hash;
pub mod htpasswd;
pub mod issue;
mod json;
pub mod limits;
pub mod own_key;
pub mod passwd;
pub mod permission;
mod platform;
mod queue;
pub mod rate;
pub mod signature;
mod throttle;
pub mod ticket;
pub mod token;
pub mod verify;

pub use bad_token::BadToken;
pub use files::{Change, Credentials, FileVersion, Users};
pub use first_start::{NewUser, first_start};
pub use issue::{Asker, IssueError, IssuedToken, TokenRequest};
pub use own_key::OwnKey;
pub use permission::{Patterns, Permissions, Rights};
pub use rate::{Rate, RateRules, Rates, UserRate};
pub use signature::{Algorithm, BadKey, Signing};
pub use ticket::Tickets;
pub use token::{Grant, Key};
pub use verify::{Verdict, Verifier};
