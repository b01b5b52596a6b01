//! What has become of a delivery.

use std::time::Duration;

/// What has become of a delivery.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All of its messages were answered with 2xx.
    Delivered,
    /// 410: the webhook wants no more requests.
    Gone,
    Failed(Failed),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failed {
    /// For the log and for dead letters, without a part of the answer.
    pub(super) cause: String,
    /// Probably the fault of the message, and not of the URL.
    pub(super) is_of_message: bool,
    /// The pause that the URL asks for.
    pub(super) retry_after: Option<Duration>,
}
