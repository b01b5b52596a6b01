//! The HTTP interface (SPEC section 9): requests on the same ports as WebSocket connections, under the paths of [`is_reserved`].
//!
//! ```text
//! handshake ─► connection (hyper) ─► answer ─► router ─► publish, … ─► hub
//!                   │                                                   │
//!                   └── an upgrade on a kept connection ─► handshake    └─► callers ─► the response
//! ```
//!
//! * `io`           the transport of a connection, as hyper reads and writes it
//! * `connection`   the requests of one connection, one after another
//! * `asked`        a request whose body has not been read
//! * `answer`       who asks: origin, credentials, the number of requests at the same time
//! * `router`       path and method
//! * `options`      `ttl`, `delay`, `receivers`, `wait`, `Idempotency-Key`
//! * `content`      a body and its type become a publication
//! * `publish`      sends a publication and waits for its outcome
//! * `subscription` the query and the headers of a receiver
//! * `mailbox`      a receiver without a socket: its deliveries wait until a response takes them
//! * `receiver`     begins, continues and ends receivers
//! * `receive`      deliveries as events, as lines or as a batch; `stream` is the body
//! * `acks`         answers to deliveries
//! * `admin`        channels and connections, for administrators; `page` is a page of a list
//! * `tokens`       issues tokens and tickets
//! * `openapi`      the description of the interface for programs
//! * `webhooks`     messages that the broker posts itself
//! * `reaper`       ends receivers whose client has not come back
//! * `response`     responses, and problems as RFC 9457 describes them
//!
//! Never here: a decision about delivery; a message, password or token in a log line.

mod acks;
mod admin;
mod answer;
mod asked;
mod body;
mod connection;
mod content;
mod io;
mod line;
mod mailbox;
mod mailboxes;
mod openapi;
mod options;
mod page;
mod publish;
mod reaper;
mod receive;
mod receiver;
mod requests;
mod response;
mod router;
mod stream;
mod subscription;
mod tokens;
#[cfg(feature = "webhooks")]
mod webhooks;

pub(super) use connection::{Origin, serve};
pub(super) use mailboxes::Mailboxes;
pub(super) use requests::Requests;
pub(super) use router::is_addressed;
#[cfg(feature = "webhooks")]
pub(super) use webhooks::run as run_webhooks;
