//! Every bound and timeout of the store, each with its reason. A queue, buffer, cache or loop without a bound in this file is a defect.

use std::time::Duration;

/// Bytes that wait for the store's next commit; above this bound, the readers of sockets that publish pause.
pub const STORE_QUEUE_HIGH: usize = 16 << 20;

/// Bytes that wait for the store's next commit; at or below this bound, paused readers continue.
pub const STORE_QUEUE_LOW: usize = 8 << 20;

/// Slots that the store's queue keeps allocated when it is empty: enough for a steady stream, some 70 KiB.
pub const STORE_QUEUE_SLOTS: usize = 512;

/// The longest wait for a group to grow. (The wait is also at most half as long as the commit before.)
pub const STORE_GATHER: Duration = Duration::from_millis(5);

/// How long removals and delivery counts wait for a group with new messages, which saves writes. A crash within this time causes repeated deliveries.
pub const STORE_CHANGES_WAIT: Duration = Duration::from_millis(20);

/// Bytes of messages in one transaction, exceeded by at most one message: bounds the time of a commit with large messages.
pub const STORE_GROUP_BYTES: usize = 8 << 20;

/// Rows in one statement of SQLite: the fixed cost of the statement is then a tenth of the cost of its rows, and more rows gain nothing.
pub const STORE_ROWS_AT_ONCE: usize = 16;

/// Bytes of messages in one such statement, which holds a copy of each message until it has run; larger messages are written one by one.
pub const STORE_BYTES_AT_ONCE: usize = 64 << 10;

/// Bytes that a stored or queued message counts besides its payload: the entry, its names, the allocator's overhead.
pub const STORE_ROW_BYTES: usize = 256;

/// Removals and delivery counts that may wait during an outage before pages of the backlog are refused: messages that are not delivered need no
/// removal, so the number stops growing. Some 16 bytes each.
pub const STORE_PENDING: usize = 1 << 20;

/// Ids of messages whose write was reported as failed but may have happened; twice as many are kept. More than fail within the second until the
/// broker retries them. Some 1 MiB.
pub const STORE_UNCERTAIN_ROWS: usize = 65_536;

/// Pages of the backlog that are read between two commits: many new receivers must not delay senders.
pub const STORE_LOADS: usize = 16;

/// The interval of a store's maintenance.
pub const STORE_MAINTENANCE_EVERY: Duration = Duration::from_secs(1);

/// Checks that may wait for the store's thread; further checks get the last known answer.
pub const STORE_CHECKS: usize = 1_024;

/// How long a successful commit proves that the store can be written. The answer of `ping` is at most this old, and checks cost at most one small
/// write in this time.
pub const STORE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The same error of the store is logged at most once in this time, if it comes and goes: a damaged page fails at every attempt.
pub const STORE_LOG_EVERY: Duration = Duration::from_secs(60);

/// Bytes of SQLite's write-ahead log that are read and written again at a time when a store is opened.
pub const STORE_COPY_BYTES: usize = 64 * 1024;

/// How long a commit waits for another process that is writing the same file.
pub const STORE_BUSY: Duration = Duration::from_millis(250);

/// How long opening waits for the store's lock: a tool that checks whether a broker runs holds the lock for an instant.
pub const STORE_LOCK_WAIT: Duration = Duration::from_millis(500);

/// SQLite's page cache, in KiB: enough for the end of a busy channel's index; the operating system caches the rest.
pub const STORE_CACHE_KIB: i64 = 512;

/// Bytes to which SQLite's write-ahead log is truncated after a burst.
pub const STORE_JOURNAL_BYTES: i64 = 8 << 20;

/// Bytes by which SQLite's file grows at a time: disk space for a message is reserved before the message is accepted.
pub const STORE_CHUNK_BYTES: i32 = 64 << 10;

/// Free pages (4 KiB each) that an empty store keeps for its next backlog; the rest is returned to the file system.
pub const STORE_SPARE_PAGES: i64 = 1_024;

/// Free pages that one run of maintenance returns to the file system: some tens of milliseconds.
pub const STORE_VACUUM_PAGES: i64 = 4_096;

/// Bytes that a store that was full must write before it counts as writable again: more than the file has in reserve.
pub const STORE_PROBE_BYTES: usize = 64 << 10;

/// The share of a disk, in percent, that the broker leaves free if `store.max_size` is 0. (SPEC 11)
pub const DISK_RESERVE_PERCENT: u64 = 5;

/// The most bytes of a disk that the broker leaves free: enough for the write-ahead log, removals, and logs of other programs on a large disk.
pub const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// The default budget of a `memory:` store, in bytes.
pub const MEMORY_STORE_BYTES: usize = 256 << 20;

/// The longest table prefix: with the table's own name, the length stays well under PostgreSQL's bound of 63 characters.
pub const STORE_PREFIX_CHARS: usize = 32;

/// How long a row waits in the journal before it is moved to the database: a message that is confirmed within this time is never moved.
pub const JOURNAL_LINGER: Duration = Duration::from_millis(500);

/// The shortest time between two rounds of the journal's background work, unless a report arrives.
pub const JOURNAL_MIN_INTERVAL: Duration = Duration::from_millis(5);

/// How often the journal counts the rows of the database, to correct its own counts. The count reads the whole table, and only other programs can
/// make the counts differ.
pub const JOURNAL_COUNT_EVERY: Duration = Duration::from_secs(3_600);

/// Pages that the journal fetches from the database at the same time: enough to keep the database busy, few enough for memory
/// ([`wsmb_core::limits::PAGE_BYTES`] each).
pub const JOURNAL_FETCHES: usize = 4;

/// How long an orderly stop moves rows from the journal to the database. The rest is moved after the next start.
pub const JOURNAL_FLUSH_TIME: Duration = Duration::from_secs(3);

/// How long a caller that may block waits for an answer of the database behind a journal: longer than any timeout of the database's own client.
pub const JOURNAL_ANSWER: Duration = Duration::from_secs(90);

/// How long opening a connection to a database server may take, from the name resolution to the tables: longer than a busy server needs, short enough
/// to notice an unreachable server.
pub const STORE_CONNECT: Duration = Duration::from_secs(8);

/// How long a database server may take to answer for a group or a page.
pub const STORE_ANSWER: Duration = Duration::from_secs(10);

/// How long a database server may take to count all rows: a table of millions of rows is read once.
pub const STORE_COUNT_TIME: Duration = Duration::from_secs(60);

/// How long closing a connection to a database server may take.
pub const STORE_DISCONNECT: Duration = Duration::from_secs(1);

/// How long a database server waits for a lock of another session before it gives up.
pub const STORE_LOCK_TIME: Duration = Duration::from_secs(5);

/// How long a start waits for the table's lock: the server may not have noticed yet that the previous broker's connection has ended.
pub const STORE_HANDOVER: Duration = Duration::from_secs(2);

/// Idle time after which a database server ends a session and frees its lock. A running broker sends a statement every second
/// ([`STORE_MAINTENANCE_EVERY`]).
pub const STORE_IDLE: Duration = Duration::from_secs(20);

/// Attempts to write one group when other sessions or lost connections interfere.
pub const STORE_ATTEMPTS: u32 = 4;

/// Prepared statements that a connection keeps: every size of every statement.
pub const STORE_STATEMENTS: usize = 64;

/// Rows of one statement. A power of two.
pub const STORE_STATEMENT_ROWS: usize = 256;

/// Ids of one statement. A power of two.
pub const STORE_STATEMENT_IDS: usize = 1_024;

/// Bytes of the rows of one statement, exceeded by at most one row.
pub const STORE_STATEMENT_BYTES: usize = 1 << 20;

/// The largest packet of a database server that does not report its bound, in bytes: PostgreSQL's bound of one field.
pub const STORE_PACKET: usize = 1 << 30;

/// Rows of the first request for a page, before the size of the messages is known: at most this many messages of the largest size are in memory.
pub const STORE_FIRST_ROWS: usize = 16;

/// Rows that are read at a time when the whole table is read.
pub const STORE_WALK_ROWS: usize = 1_024;

/// Rows with refused values that are found in a group at a time: each costs some statements, so the search must be bounded.
pub const STORE_REFUSALS: usize = 64;

/// The distance from the highest id to the new ids of another program's rows whose ids collide with the broker's.
pub const STORE_FOREIGN_GAP: u64 = 1 << 32;

/// How long appended ids may wait for an fsync. A power cut may lose up to 30 s of ids (SPEC 6.7); the remaining 10 s are for a slow disk.
pub const IDS_SYNC: Duration = Duration::from_secs(20);

/// Records in the file of ids (36 bytes each) below which the file is never rewritten to shorten it.
pub const IDS_SPARE: usize = 8_192;

/// Old rows that a start skips while it searches the newest rows for ids. An imported row may be old and precede newer rows, so a single old row does
/// not end the search; a backlog of a million old rows is not read.
pub const IDS_OLD_ROWS: usize = 16_384;

/// Bytes of expired messages' payloads, future dead letters, that the journal has read from the database and not reported yet: some pages, so that
/// the database need not wait for the next sweep, and few enough for memory.
pub const JOURNAL_SPARED_BYTES: usize = 4 * wsmb_core::limits::PAGE_BYTES;

/// Intervals of time in which a summary counts the expiries of messages. With a uniform time to live, an interval is about a two-hundredth of it.
pub const SUMMARY_EXPIRIES: u64 = 256;

/// How often the wall clock's time is stored along with a group, in milliseconds.
pub const CLOCK_NOTE_MILLIS: u64 = 1_000;

/// The number of newest rows that are checked for times in the future.
pub const CLOCK_NEWEST_ROWS: u64 = 1_000;
