//! Every bound and time-out of the store, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

/// Bytes that wait for the store's next commit, above which readers of sockets pause.
pub const STORE_QUEUE_HIGH: usize = 16 << 20;

/// Bytes that wait for the store's next commit, below which they go on.
pub const STORE_QUEUE_LOW: usize = 8 << 20;

/// Places that the store's queue keeps when it is empty: those of a steady stream, some 70 KiB.
pub const STORE_PLACES: usize = 512;

/// How long the store waits at the most for a group to grow. (At most half of what the commit before took, too.)
pub const STORE_GATHER: Duration = Duration::from_millis(5);

/// How long removals and delivery counts wait for a group that is written anyway: the disk is spared, and what a crash forgets of them arrives twice.
pub const STORE_DEBTS_WAIT: Duration = Duration::from_millis(20);

/// Bytes of messages in one transaction, at the most one message over it: bounds the time of one commit where messages are large.
pub const STORE_GROUP_BYTES: usize = 8 << 20;

/// Rows that SQLite is given in one statement: what a statement costs beside its rows is then a tenth of what they cost, and more of them gain nothing.
pub const STORE_ROWS_AT_ONCE: usize = 16;

/// Bytes of messages in one such statement, which holds a copy of each until it is carried out; larger ones go one by one.
pub const STORE_BYTES_AT_ONCE: usize = 64 << 10;

/// What one stored or queued message is counted for beside its payload, in bytes: the entry, its names, the allocator's share.
pub const STORE_ROW_BYTES: usize = 256;

/// Removals and delivery counts that a store in trouble may owe before pages of the backlog are refused: what is not delivered needs no
/// removal, so the debt stops growing. Some 16 bytes each.
pub const STORE_PENDING: usize = 1 << 20;

/// Messages whose writing failed and may have happened for all that, remembered twice over: more than fail within the second until the broker tries them
/// again. Some 1 MiB.
pub const STORE_DOUBTS: usize = 65_536;

/// Pages of the backlog read between two commits: a rush of receivers must not hold up senders.
pub const STORE_LOADS: usize = 16;

/// How often an idle store does its housekeeping.
pub const STORE_TEND_EVERY: Duration = Duration::from_secs(1);

/// Questions whether the store can be written that may wait for its thread; further ones get the last known answer.
pub const STORE_CHECKS: usize = 1_024;

/// How long a good commit vouches for the store: `ping` is truthful within this time, and costs one small write in it at the most.
pub const STORE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The same trouble with the store is logged once in this time, if it goes and comes: a damaged page fails at every attempt.
pub const STORE_LOG_EVERY: Duration = Duration::from_secs(60);

/// How many bytes of a journal are read and written again at once when a store is opened.
pub const STORE_COPY_BYTES: usize = 64 * 1024;

/// How long a commit waits for another process that is writing the same file.
pub const STORE_BUSY: Duration = Duration::from_millis(250);

/// How long opening waits for the store's lock: a tool that looks whether a broker runs holds it for an instant.
pub const STORE_LOCK_WAIT: Duration = Duration::from_millis(500);

/// SQLite's page cache, in KiB: the index of a busy channel's end; the operating system caches the rest.
pub const STORE_CACHE_KIB: i64 = 512;

/// Bytes to which SQLite's journal is cut back after a burst.
pub const STORE_JOURNAL_BYTES: i64 = 8 << 20;

/// Bytes by which SQLite's file grows at a time: what is stored has its place in the file before it is accepted.
pub const STORE_CHUNK_BYTES: i32 = 64 << 10;

/// Free pages (4 KiB each) that a drained store keeps for its next backlog; the rest is given back to the file system.
pub const STORE_SPARE_PAGES: i64 = 1_024;

/// Free pages given back in one round of housekeeping: some tens of milliseconds.
pub const STORE_VACUUM_PAGES: i64 = 4_096;

/// What a store that was full tries to write before it counts as writable again, in bytes: more than its file has in reserve.
pub const STORE_PROBE_BYTES: usize = 64 << 10;

/// The default budget of a `memory:` store, in bytes.
pub const MEMORY_STORE_BYTES: usize = 256 << 20;

/// The longest table prefix: with the table's own name well under the 63 characters that PostgreSQL allows.
pub const STORE_PREFIX_CHARS: usize = 32;

/// How long a row waits in the journal before it is moved to the database: what is confirmed in this time never travels.
pub const JOURNAL_LINGER: Duration = Duration::from_millis(500);

/// The shortest time between two rounds of the journal's background that no report brings about.
pub const JOURNAL_PULSE: Duration = Duration::from_millis(5);

/// How often the journal asks the database how much it holds, to correct its own counting. That reads the whole table, which only other programs can make differ from what the journal has counted.
pub const JOURNAL_COUNT_EVERY: Duration = Duration::from_secs(3_600);

/// Pages that the journal fetches from the database at once: enough to keep it busy, few to hold in memory ([`wsmb_core::limits::PAGE_BYTES`] each).
pub const JOURNAL_FETCHES: usize = 4;

/// How long an orderly stop tries to empty the journal into the database. What is left is moved after the next start.
pub const JOURNAL_FAREWELL: Duration = Duration::from_secs(3);

/// How long start-up waits for the database behind a journal: longer than any time-out of the database's own client.
pub const JOURNAL_PATIENCE: Duration = Duration::from_secs(90);

/// How long a connection to a database server may take, from the name to the tables: longer than a busy server needs, short enough to notice that one is away.
pub const STORE_CONNECT: Duration = Duration::from_secs(8);

/// How long a database server may take for a group or a page.
pub const STORE_ANSWER: Duration = Duration::from_secs(10);

/// How long a database server may take to count everything: a table of millions is read once.
pub const STORE_COUNT_TIME: Duration = Duration::from_secs(60);

/// How long the farewell to a database server may take.
pub const STORE_LEAVE: Duration = Duration::from_secs(1);

/// How long a database server waits for a lock of another session before it gives up.
pub const STORE_LOCK_TIME: Duration = Duration::from_secs(5);

/// How long a start waits for the table's lock: the server may not have noticed yet that the broker before this one has gone.
pub const STORE_HANDOVER: Duration = Duration::from_secs(2);

/// Silence after which a database server ends a session, and frees its lock: a broker that lives speaks every second ([`STORE_TEND_EVERY`]).
pub const STORE_IDLE: Duration = Duration::from_secs(20);

/// How often one group is tried when other sessions or lost connections get in its way.
pub const STORE_TRIES: u32 = 4;

/// Prepared statements that a connection keeps: every size of every statement.
pub const STORE_STATEMENTS: usize = 64;

/// Rows of one statement. A power of two.
pub const STORE_STATEMENT_ROWS: usize = 256;

/// Ids of one statement. A power of two.
pub const STORE_STATEMENT_IDS: usize = 1_024;

/// Bytes of the rows of one statement, at the most one row over it.
pub const STORE_STATEMENT_BYTES: usize = 1 << 20;

/// Bytes that a database server takes in one packet, where it does not say: PostgreSQL's bound of one field.
pub const STORE_PACKET: usize = 1 << 30;

/// Rows of a page that are asked for first, before it is known how large they are: at most so many messages of the largest size in memory.
pub const STORE_FIRST_ROWS: usize = 16;

/// Rows that are read at a time where the whole table is walked.
pub const STORE_WALK_ROWS: usize = 1_024;

/// Rows of a group that a table refuses for what stands in them, found at a time: each costs some statements, and a group has an end.
pub const STORE_REFUSALS: usize = 64;

/// How far behind the highest id rows of another program are put that are in the way of the broker's.
pub const STORE_FOREIGN_GAP: u64 = 1 << 32;

/// How long appended ids may wait for an fsync. A power cut may forget 30 s of them (SPEC 6.7); the rest is for a slow disk.
pub const IDS_SYNC: Duration = Duration::from_secs(20);

/// Records in the file of ids (36 bytes each) that are never too many: below it, the file is not written anew for its length.
pub const IDS_SPARE: usize = 8_192;

/// Old rows that a start passes over while it looks through the newest ones for ids. An imported row may be old and stand before newer ones, so one
/// old row ends nothing; a backlog of a million old ones need not be read.
pub const IDS_OLD_ROWS: usize = 16_384;

/// Payloads of expired messages, to become dead letters, that the journal has read from the database and not told yet, in bytes: some pages, so that the
/// database need not wait for the next sweep, and few enough to be of no account.
pub const JOURNAL_SPARED_BYTES: usize = 4 * wsmb_core::limits::PAGE_BYTES;

/// Different moments in a store's summary at which messages of a channel expire. With a uniform ttl they differ by a two-hundredth of it.
pub const SUMMARY_EXPIRIES: u64 = 256;

/// How often it is noted along with what is written anyway, in milliseconds.
pub const CLOCK_NOTE_MILLIS: u64 = 1_000;

/// Of how many rows, the newest, it is looked whether they come from the future.
pub const CLOCK_NEWEST_ROWS: u64 = 1_000;
