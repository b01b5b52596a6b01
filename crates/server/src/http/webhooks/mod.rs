//! Webhooks (SPEC section 9.5): the messages of a channel are posted to a URL, as Standard Webhooks 1.0 describes it.
//!
//! ```text
//! core ─► mailbox ─► post (one task for each channel of a webhook) ─► call (the request of one message) ─► client ─► the URL
//!            ▲                                                                                               │
//!            └── ack; nack with a pause ◄────────────────────── outcome ◄────────────────────────────────────┘
//! ```
//!
//! * `supervisor` starts and stops webhooks as the configuration changes
//! * `hook`       one webhook: its client, its requests at the same time, its end, its lines in the log
//! * `post`       the receiver of one channel: takes a delivery, has it posted, answers it
//! * `call`       a delivery as requests: id, body, signature; what an answer means
//! * `outcome`    what has become of a delivery; `problem`: why a request has no answer
//! * `client`     sends a request, keeps connections
//! * `address`    name resolution, and the addresses that are refused
//! * `sign`       ids and signatures
//! * `pace`       how long to wait after a failure
//!
//! Why: `docs/decisions/webhooks.md`.
//!
//! Never here: a redirect that is followed; a body, a secret or a URL in a log line.

mod address;
mod call;
mod client;
mod hook;
mod outcome;
mod pace;
mod post;
mod problem;
mod sign;
mod supervisor;

pub(crate) use supervisor::run;
