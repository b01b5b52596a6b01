//! Who may come in, and what he may do there.
//!
//! ```text
//! htpasswd files ─► htpasswd ─► files ─► Users ─► verify ◄─ user, password, address
//!                     (lines)   (reload)            │  ├─ cache     known good credentials
//!                       │                           │  └─ line      whose turn it is ◄─ throttle  who fails
//!                       └─ hash (formats)           ▼
//!                                              Accepted, Rejected, Slowed, Busy
//! ```
//!
//! [`permission`] decides which channels a user may use, [`passwd`] edits a file for `wsmb passwd`, and [`mod@first_start`] makes the
//! first user of a broker that nobody has configured.
//!
//! Never here: a password or a hash in a log line, an error or a `Debug` output; a comparison of secrets that is not constant in
//! time; hashing on the event loop.

mod apr1;
mod cache;
pub mod files;
pub mod first_start;
pub mod hash;
pub mod htpasswd;
pub mod limits;
mod line;
pub mod passwd;
pub mod permission;
mod throttle;
pub mod verify;

pub use files::{Change, Credentials, Users};
pub use first_start::{NewUser, first_start};
pub use permission::Permissions;
pub use verify::{Verdict, Verifier};
