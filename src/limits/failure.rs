//! Bounds of what fails: deliveries that receivers give back, or do not answer.

use std::time::Duration;

use super::CORE_BYTES;

/// The longest `retry_after` of a nack: who means longer than a day means `reject`, or a `delay` of a new message.
pub const RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of a `reason` of a nack that are kept; the rest is cut. Enough for the sentence of a person or the last line of a program, and each
/// dead letter holds one.
pub const REASON_BYTES: usize = 256;

/// A message that comes back from a receiver is held back so long the first time, twice as long the next.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// A message that comes back again and again is held back no longer than this.
pub const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Messages that are held back at once. Beyond it the one whose turn is next stands in its place early, so that none is lost or refused.
pub const HELD: usize = if cfg!(test) { 6 } else { 100_000 };

/// Bytes of messages that are held back at once: a quarter of what the core may hold, so that what fails does not fill the memory in which
/// the others move. What happens at it is the same.
pub const HELD_BYTES: usize = CORE_BYTES / 4;

/// What the members of a group have given back, or lost by vanishing, waits so long for another member where others got it too; then it goes to
/// whoever receives the channel. A gateway that restarts is back by then, and a group that is no more holds up nothing for long.
pub const GROUP_WAIT: Duration = Duration::from_millis(if cfg!(test) { 2_000 } else { 300_000 });

/// Failed deliveries of one message after which the log says so; again each time the number has doubled.
pub const FAILING_TOLD: u32 = 5;

/// What a message costs for each group to which it is owed, in bytes: a line in the broker's table. An estimate.
pub const OWED_BYTES: usize = 64;

/// Timers of receivers that are no more, before they are looked for: some 100 KiB.
pub const TIMERS_LEFT: usize = 4_096;

/// Messages that were refused because the store failed, and are remembered in case it has written them for all that: some 100 KiB. One that is
/// forgotten, and read before its removal, is taken for another program's and delivered.
pub const REFUSED_IDS: usize = 4_096;
