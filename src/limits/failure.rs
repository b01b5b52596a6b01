//! Bounds of what fails: deliveries that receivers give back.

use std::time::Duration;

/// The longest `retry_after` of a nack: who means longer than a day means `reject`, or a `delay` of a new message.
pub const RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of a `reason` of a nack that are kept; the rest is cut. Enough for the sentence of a person or the last line of a program, and each
/// dead letter holds one.
pub const REASON_BYTES: usize = 256;
