//! Every bound and time-out of the core, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

/// The longest channel name, in characters: the width of the seed table's `channel varchar(100)`.
pub const CHANNEL_NAME_CHARS: usize = 100;

/// The longest `id`, `receiver` and user name, in bytes: keys of tables that are bounded by count only.
pub const NAME_BYTES: usize = 128;

/// The most messages in one publication: each becomes a row and an entry in memory.
pub const PUBLICATION_MESSAGES: usize = 10_000;

/// The most channels one connection may receive.
pub const SUBSCRIPTIONS: usize = 100;

/// The most channels that exist at once (with receivers or a backlog): some 300 bytes each.
pub const CHANNELS: usize = 200_000;

/// Bytes queued for one connection at which it is ended as slow (at least one frame is always taken).
pub const QUEUE_BYTES: usize = 4 << 20;

/// A burst of deliveries has ended after this silence; then a ping asks for its confirmation.
pub const CONFIRM_QUIET: Duration = Duration::from_millis(100);

/// A confirmation is asked for so long after the first unconfirmed delivery even if no silence comes: well before the default of
/// `store.write_delay`, so that a steady stream of a few messages a second is not written to the disk.
pub const CONFIRM_BUSY: Duration = Duration::from_millis(250);

/// Bytes of one channel's backlog in memory.
pub const PAGE_BYTES: usize = 1 << 20;

/// Runs of paged messages of one channel whose sender also receives it and must not get them back. Beyond, the oldest run is
/// forgotten, and its sender may see its own messages again.
pub const OWN_RUNS: usize = 1_024;

/// Bytes of one backlog frame: below the ESP32 library's 15 KiB unless one message alone is larger.
pub const BACKLOG_FRAME_BYTES: usize = 14 << 10;

/// Bytes of messages that the core may hold in memory (waiting, in flight, delayed). Over it, what is in the store leaves the
/// memory, and what is not is refused with 06.
pub const CORE_BYTES: usize = 256 << 20;

/// Places for unstored messages that the core keeps ready, and ids that may lie between two of them without a place for each.
pub const RECENT_PLACES: usize = 1_024;

/// Places for unstored messages for each that is there, beyond [`RECENT_PLACES`]: what stays longer than this many others moves to another table.
pub const RECENT_SPARSE: usize = 4;

/// What a message in the core's memory costs beside its payload, in bytes: the entry and its lines in maps and queues. An estimate, for [`CORE_BYTES`].
pub const ENTRY_BYTES: usize = 256;

/// Publications that wait for their time (`delay`): all of them are in memory.
pub const DELAYED: usize = 100_000;

/// Publication ids remembered at once, of all users: some 6 MiB at the most. Beyond it, the user that has the most of them loses its oldest.
pub const DEDUP_IDS: usize = 131_072;

/// Answers owed to repetitions of one publication that is not safe yet.
pub const DEDUP_WAITERS: usize = 16;

/// The most messages in one transaction: enough to make the fsync cheap, few enough to bound the time of one commit.
pub const STORE_GROUP: usize = 4_096;

/// How long after a failure the store is tried again.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

/// The columns of the store's table that are the broker's own, in lower case: no user-defined one can have these names. (Here, because the configuration
/// checks names without a store.)
pub const STORE_OWN_COLUMNS: [&str; 13] = [
    "data_id",
    "channel",
    "data",
    "created",
    "expires",
    "due",
    "receivers",
    "publication",
    "deliveries",
    "dead_why",
    "dead_channel",
    "dead_attempts",
    "dead_reason",
];

/// User-defined columns of the store's table: each is looked up in every message that is stored.
pub const STORE_COLUMNS: usize = 32;

/// The longest name of a user-defined column: what MySQL (64) and PostgreSQL (63) both allow.
pub const STORE_COLUMN_CHARS: usize = 63;

/// The longest `retry_after` of a nack: who means longer than a day means `reject`, or a `delay` of a new message.
pub const RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of a `reason` of a nack that are kept; the rest is cut. Enough for the sentence of a person or the last line of a program, and each
/// dead letter holds one.
pub const REASON_BYTES: usize = 256;

/// A message that comes back from a receiver is held back so long the first time, twice as long the next.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// A message that comes back again and again is held back no longer than this.
pub const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Bytes of messages that are held back at once: a quarter of what the core may hold, so that what fails does not fill the memory in which
/// the others move. What happens at it is the same.
pub const HELD_BYTES: usize = CORE_BYTES / 4;

/// Failed deliveries of one message after which the log says so; again each time the number has doubled.
pub const FAILING_TOLD: u32 = 5;

/// What a message costs for each group to which it is owed, in bytes: a line in the broker's table. An estimate.
pub const OWED_BYTES: usize = 64;

/// Timers of receivers that are no more, before they are looked for: some 100 KiB.
pub const TIMERS_LEFT: usize = 4_096;

/// Messages that were refused because the store failed, and are remembered in case it has written them for all that: some 100 KiB. One that is
/// forgotten, and read before its removal, is taken for another program's and delivered.
pub const REFUSED_IDS: usize = 4_096;

/// How many purged channels are remembered within the time in which an id is known. A purge is an administrator's command, so there are few. Of one that is
/// forgotten, the answer to a repeated publication may call a message stored that the purge has taken away.
pub const PURGES_REMEMBERED: usize = 64;

/// Rows one sweep removes at the most: as many as one commit adds, so that sweeps, one after the other, keep up with whatever was accepted.
pub const SWEEP_ROWS: usize = STORE_GROUP;

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
