//! The bounds of a receiver's window: how much it may have unconfirmed, and how its confirmations change that.

use std::time::Duration;

/// Unconfirmed deliveries with which a modern receiver begins that asks for nothing else: few, because after a crash of the receiver these are what
/// may arrive twice. (A legacy one begins with one frame: perhaps it takes no more and leaves.)
pub const PREFETCH: u32 = 64;

/// The largest `prefetch` a receiver may ask for.
pub const MAX_PREFETCH: u32 = 4_096;

/// A receiver that confirms half of its window within this time has the window doubled, up to [`MAX_PREFETCH`]: it takes messages as they come. One
/// that takes longer gets [`PREFETCH`] at the most.
pub const QUICK_CONFIRMATION: Duration = Duration::from_millis(20);

/// A receiver that takes this long to confirm gets the window of [`PREFETCH`] back at the most: it works on each message.
pub const SLOW_CONFIRMATION: Duration = Duration::from_millis(200);

/// A window holds no more than a receiver handles in about this time, at least one delivery: what a receiver of a few messages a minute holds
/// when it dies is found by another one soon, and little arrives twice. (SPEC: about 10 s.)
pub const WINDOW_WORK: Duration = Duration::from_secs(10);

/// A receiver that confirms within this time is asked for it as soon as a sender waits, and the store only after this time: a confirmation makes a
/// message as safe as a disk does, and is cheaper. About what a commit to an ordinary disk takes, so that a sender never waits much longer for it.
pub const PROMPT_CONFIRMATION: Duration = Duration::from_millis(5);

/// While the next page of a channel is read from the store, a receiver that prefers this channel gets nothing from its other ones, for so long: a
/// code that waits in the store overtakes what waits in memory, and a slow disk holds up nobody for long.
pub const PREFERENCE_WAIT: Duration = Duration::from_millis(100);

/// Unconfirmed bytes of one receiver, after which it has no room: what its queue and its socket may hold.
pub const WINDOW_BYTES: usize = 1 << 20;
