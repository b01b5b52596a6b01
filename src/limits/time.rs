//! The bounds of expiry and of the clock.

use std::time::Duration;

use super::{PAGE_BYTES, STORE_GROUP};

/// How often expired messages are looked for in the store. (More often in unit tests, so that the simulation sees many.)
pub const SWEEP_EVERY: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });

/// Rows one sweep removes at the most: as many as one commit adds, so that sweeps, one after the other, keep up with whatever was accepted. (Few in
/// unit tests, so that the simulation needs several.)
pub const SWEEP_ROWS: usize = if cfg!(test) { 3 } else { STORE_GROUP };

/// Messages whose older rows still stand for them (dead letters, delayed ones that came due) above which no further expired ones are read from the store to
/// become dead letters: a store that writes slowly is not outrun. (Few in unit tests.)
pub const DYING: usize = 2 * SWEEP_ROWS;

/// Payloads of expired messages, to become dead letters, that the journal has read from the database and not told yet, in bytes: some pages, so that the
/// database need not wait for the next sweep, and few enough to be of no account.
pub const JOURNAL_SPARED_BYTES: usize = 4 * PAGE_BYTES;

/// Different moments that a channel knows at which messages of it expire; beyond, moments near each other count as the earliest of them. With a
/// uniform ttl they differ by less than half a hundredth of it. Some 10 KiB at the most. (Few in unit tests.)
pub const EXPIRY_BUCKETS: usize = if cfg!(test) { 40 } else { 512 };

/// Different moments in a store's summary at which messages of a channel expire. With a uniform ttl they differ by a two-hundredth of it.
pub const SUMMARY_EXPIRIES: u64 = 256;

/// How often the system's clock is looked at: a step is followed before anybody has read the new time and acted on it.
pub const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// A difference between the system's clock and elapsed time from which on the clock was set: more than the readings are apart, less than matters.
pub const CLOCK_STEP: Duration = Duration::from_secs(1);

/// How often the time is noted in the store while nothing else is written: a clock without a battery loses no more than this.
pub const CLOCK_NOTE_IDLE: Duration = Duration::from_secs(60);

/// How often it is noted along with what is written anyway, in milliseconds.
pub const CLOCK_NOTE_MILLIS: u64 = 1_000;

/// Of how many rows, the newest, it is looked whether they come from the future.
pub const CLOCK_NEWEST_ROWS: u64 = 1_000;
