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
//! * `response`     responses, and problems as RFC 9457 describes them
//!
//! Never here: a decision about delivery; a message, password or token in a log line.

mod answer;
mod asked;
mod connection;
mod content;
mod io;
mod options;
mod publish;
mod requests;
mod response;
mod router;

pub(super) use connection::serve;
pub(super) use requests::Requests;
pub(super) use router::is_addressed;
