//! Every bound and timeout of the core, each with its reason. Every queue, buffer, cache and loop of the core needs a bound in this file or
//! in `broker/bounds.rs`.

use std::time::Duration;

/// The longest channel name, in characters: the width of the column `channel varchar(100)` in the store.
pub const CHANNEL_NAME_CHARS: usize = 100;

/// The longest `id`, `receiver` and user name, in bytes. These names are keys of tables that are bounded by their number of entries only.
pub const NAME_BYTES: usize = 128;

/// The most messages in one publication. Each message becomes a row and an entry in memory.
pub const PUBLICATION_MESSAGES: usize = 10_000;

/// The most channels that one connection may receive.
pub const SUBSCRIPTIONS: usize = 100;

/// The most channels that exist at once (a channel exists while it has receivers or a backlog). Shared by users ([`crate::shares`]).
pub const CHANNELS: usize = 200_000;

/// Estimated bytes that a channel takes in memory without its messages. Measured with 50,000 channels and a counting allocator: 375 bytes
/// (the channel, its name, its keys in the tables) with a receiver, 700 bytes with a message that was not written yet, of which about 100
/// bytes belong to the message. The first message adds a tree node of 200 bytes. Counted against the memory budget.
pub const CHANNEL_BYTES: usize = 600;

/// Bytes queued for one connection at which the broker ends the connection as slow. A frame is always queued if the queue is empty.
pub const QUEUE_BYTES: usize = 4 << 20;

/// A burst of deliveries to a receiver has ended when nothing was delivered for this time. The broker then sends a ping that asks for the
/// confirmation.
pub const CONFIRM_QUIET: Duration = Duration::from_millis(100);

/// The broker asks for a confirmation at the latest this long after the first delivery of a burst, even if the burst goes on. The time is
/// well below the default of `store.write_delay`, so that a steady stream of a few messages a second is not written to the disk.
pub const CONFIRM_BUSY: Duration = Duration::from_millis(250);

/// Unconfirmed deliveries to one receiver at which the broker asks for a confirmation before the burst ends, if half of the window is more. Enough
/// that the ping and the pong cost little for each message; few enough that the unconfirmed messages stay in the processor's caches.
pub const CONFIRM_DELIVERIES: usize = 256;

/// The most bytes of one channel's backlog in memory.
pub const PAGE_BYTES: usize = 1 << 20;

/// The most bytes of one channel's messages in memory while receivers are there: a burst up to this size that they confirm in time is not written.
/// Enough for [`MAX_PREFETCH`] short messages. If memory is short, [`crate::broker::Bounds::short_page_bytes`].
pub const BURST_BYTES: usize = 4 * PAGE_BYTES;

/// Runs of paged messages of one channel whose sender also receives the channel and must not get them back. Beyond this number the oldest
/// run is forgotten, and its sender may receive its own messages.
pub const SELF_SENT_RUNS: usize = 1_024;

/// The most bytes of one backlog frame, unless a single message is larger. Below the 15 KiB that the ESP32 library accepts.
pub const BACKLOG_FRAME_BYTES: usize = 14 << 10;

/// The budget of a broker whose caller names none: enough for tests and tools.
pub const MEMORY_BUDGET: usize = 256 << 20;

/// Channels that are looked at in one turn while memory is short, so that no turn becomes long.
pub const RELIEVED_AT_ONCE: usize = 64;

/// Delayed messages that are released in one turn, and messages that were held back: a turn takes a millisecond or two. If more are due at once,
/// others have their turns in between.
pub const RELEASED_AT_ONCE: usize = 1_024;

/// How often a broker that is short of memory continues to give memory back while nothing else happens.
pub const RELIEF_EVERY: Duration = Duration::from_millis(20);

/// Slots of the table of unstored messages ([`crate::broker`]) that are always allowed, and the largest gap between two ids that is filled
/// with empty slots.
pub const UNSTORED_SLOTS: usize = 1_024;

/// Slots for each message in the table, beyond [`UNSTORED_SLOTS`]. If the table would get more slots, the oldest messages move to a hash
/// map.
pub const UNSTORED_SLOTS_PER_MESSAGE: usize = 4;

/// Boxes of settled entries that are kept for the next messages: a window between two confirmations ([`CONFIRM_DELIVERIES`], and a read's messages that
/// are on their way meanwhile). About 128 KiB.
pub const SPARE_ENTRIES: usize = 512;

/// Estimated bytes that a message takes in memory in addition to its payload: the entry and its keys in maps and queues. Counted against
/// the memory budget.
pub const ENTRY_BYTES: usize = 256;

/// Delayed messages and publications (`delay`) at once: all of them are in memory. Shared by users ([`crate::shares`]).
pub const DELAYED: usize = 100_000;

/// Publication ids of all users that are remembered at once: about 6 MiB at most. Above this number, the user with the most ids loses its
/// oldest id.
pub const DEDUP_IDS: usize = 131_072;

/// Connections that may wait for the answer to repetitions of one pending publication.
pub const DEDUP_WAITERS: usize = 16;

/// The most messages in one transaction: enough to make the fsync cheap, few enough to bound the time of one commit.
pub const STORE_GROUP: usize = 4_096;

/// Bytes of messages that the store has been asked to write and has not written: four times as many as make the readers of their senders pause,
/// because each of many connections may send what one read brings before it pauses. Shared by users ([`crate::shares`]). At most half of the memory
/// budget.
pub const STORE_QUEUE: usize = 64 << 20;

/// The broker retries a failed store operation after this time.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

/// The columns of the store's table that the broker itself uses, in lower case. No user-defined column may have one of these names. The
/// list is here because the configuration checks names without a store.
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

/// The most user-defined columns of the store's table. Each column is looked up in every message that is stored.
pub const STORE_COLUMNS: usize = 32;

/// The longest name of a user-defined column: MySQL allows 64 characters and PostgreSQL 63.
pub const STORE_COLUMN_CHARS: usize = 63;

/// The longest `retry_after` of a nack. A receiver that needs more than a day should send `reject`, or a new message with a `delay`.
pub const RETRY_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of a nack's `reason` that are kept; the rest is cut. Enough for one sentence or the last line of a program's output. Each dead
/// letter holds one reason.
pub const REASON_BYTES: usize = 256;

/// The first back-off of a message that a receiver has given back. The back-off doubles with each further failure.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest back-off of a message that receivers give back.
pub const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Failed deliveries of one message after which a warning is logged. A further warning is logged each time the number has doubled.
pub const FAILING_TOLD: u32 = 5;

/// Estimated bytes that a message takes for each group to which it is owed: a key in the broker's table of owed messages.
pub const OWED_BYTES: usize = 64;

/// Timers of disconnected receivers that may remain before they are removed: about 100 KiB.
pub const TIMERS_LEFT: usize = 4_096;

/// Ids of refused messages that are remembered because the failed store may have written them: about 100 KiB. If such an id is forgotten
/// and its row is read before its removal, the broker takes the row for one of another program and delivers the message.
pub const REFUSED_IDS: usize = 4_096;

/// Purged channels that are remembered for `dedup_window`. A purge is an administrator's command, so there are few. If a purge is
/// forgotten, the answer to a repeated publication may say "stored" about a message that was purged.
pub const PURGES_REMEMBERED: usize = 64;

/// The most rows that one sweep removes: as many as one commit adds, so that sweeps keep up with the accepted messages.
pub const SWEEP_ROWS: usize = STORE_GROUP;

/// The first window of a modern receiver that names no `prefetch`, in unconfirmed deliveries. The window is small because these deliveries
/// may arrive twice if the receiver crashes. (The first window of a legacy receiver is one frame, because such a receiver may take one
/// frame and leave.)
pub const PREFETCH: u32 = 64;

/// The largest `prefetch` that a receiver may ask for.
pub const MAX_PREFETCH: u32 = 4_096;

/// A receiver that confirms within this time while half of its window is used gets twice the window, up to [`MAX_PREFETCH`]. A receiver that
/// takes longer gets [`PREFETCH`] at most.
pub const QUICK_CONFIRMATION: Duration = Duration::from_millis(20);

/// The window of a receiver that takes this long to confirm falls to [`PREFETCH`] at most: the receiver works on each message.
pub const SLOW_CONFIRMATION: Duration = Duration::from_millis(200);

/// A window holds at most the messages that the receiver handles in about this time, and at least one delivery. If a receiver of a few
/// messages a minute dies, another receiver gets its messages soon, and few arrive twice. (SPEC: about 10 s.)
pub const WINDOW_WORK: Duration = Duration::from_secs(10);

/// If a sender waits for an answer and the receivers confirm within this time, the broker asks them for a confirmation at once and the
/// store only after this time: a confirmation makes a message as safe as a disk does, and costs less. About the time of a commit to an
/// ordinary disk, so that the sender never waits much longer than for the disk.
pub const PROMPT_CONFIRMATION: Duration = Duration::from_millis(5);

/// While the next page of a channel is read from the store, a receiver that prefers this channel gets nothing from its other channels, for
/// this time at most. A message in the store can thus overtake messages in memory, and a slow disk does not block the receiver for long.
pub const PREFERENCE_WAIT: Duration = Duration::from_millis(100);

/// Unconfirmed bytes of one receiver at which its window is full: about as much as its queue and its socket may hold.
pub const WINDOW_BYTES: usize = 1 << 20;
