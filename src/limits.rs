//! Every bound and time-out of the broker, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.
//!
//! What an administrator may want to change is configuration; these are its defaults and the bounds that no configuration lifts.

mod door;
mod failure;
mod gateway;
pub mod load;
mod proxy;
mod restart;
mod sender;
mod time;
mod turn;
mod window;

pub use door::*;
pub use failure::*;
pub use gateway::*;
pub use proxy::*;
pub use restart::*;
pub use sender::*;
pub use time::*;
pub use turn::*;
pub use window::*;

use std::time::Duration;

/// The longest channel name, in characters: the width of the seed table's `channel varchar(100)`.
pub const CHANNEL_NAME_CHARS: usize = 100;

/// The longest `id`, `receiver` and user name, in bytes: keys of tables that are bounded by count only.
pub const NAME_BYTES: usize = 128;

/// Default of `server.max_message`: the largest frame payload a client may send, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The most messages in one publication: each becomes a row and an entry in memory.
pub const PUBLICATION_MESSAGES: usize = 10_000;

/// How deep a JSON frame may nest: `serde_json`'s own recursion bound, named here because docs state it.
pub const JSON_DEPTH: usize = 128;

/// The most channels one connection may receive.
pub const SUBSCRIPTIONS: usize = 100;

/// The most channels that exist at once (with receivers or a backlog): some 300 bytes each.
pub const CHANNELS: usize = 200_000;

/// Unconfirmed deliveries at which a receiver of a fan-out (limit 0, where nobody waits for anybody) is ended as slow. (Few in
/// unit tests, so that the simulation gets there.)
pub const FANOUT_DELIVERIES: usize = if cfg!(test) { 4 } else { 4_096 };

/// Bytes queued for one connection at which it is ended as slow (at least one frame is always taken).
pub const QUEUE_BYTES: usize = 4 << 20;

/// A burst of deliveries has ended after this silence; then a ping asks for its confirmation.
pub const CONFIRM_QUIET: Duration = Duration::from_millis(100);

/// A confirmation is asked for so long after the first unconfirmed delivery even if no silence comes: well before the default of
/// `store.write_delay`, so that a steady stream of a few messages a second is not written to the disk.
pub const CONFIRM_BUSY: Duration = Duration::from_millis(250);

/// Messages of one channel's backlog in memory; the rest is in the store. A burst that runs ahead of its receiver by no more than that is not
/// written if it is confirmed in time. (Few in unit tests, so that the simulation turns pages.)
pub const PAGE_MESSAGES: usize = if cfg!(test) { 8 } else { 2_048 };

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

/// Bytes that wait for the store's next commit, above which readers of sockets pause.
pub const STORE_QUEUE_HIGH: usize = 16 << 20;

/// Bytes that wait for the store's next commit, below which they go on.
pub const STORE_QUEUE_LOW: usize = 8 << 20;

/// The most messages in one transaction: enough to make the fsync cheap, few enough to bound the time of one commit.
pub const STORE_GROUP: usize = 4_096;

/// Places that the store's queue keeps when it is empty: those of a steady stream, some 70 KiB.
pub const STORE_PLACES: usize = 512;

/// How long after a failure the store is tried again.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

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

/// How often an idle store does its housekeeping and looks for requests of the command line.
pub const STORE_TEND_EVERY: Duration = Duration::from_secs(1);

/// Requests of the command line that are taken up at once.
pub const STORE_REQUESTS: usize = 64;

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

/// The smallest journal: one message of the default size.
pub const JOURNAL_BYTES_LEAST: u64 = 1 << 20;

/// The largest journal: beyond it, somebody has mistaken the unit.
pub const JOURNAL_BYTES_MOST: u64 = 1 << 40;

/// The longest address of a store, in bytes: host, names and paths of certificates with room to spare.
pub const STORE_URL_BYTES: usize = 4_096;

/// The longest table prefix: with the table's own name well under the 63 characters that PostgreSQL allows.
pub const STORE_PREFIX_CHARS: usize = 32;

/// The columns of the store's table that are the broker's own, in lower case: no user-defined one can have these names.
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

/// The largest request head that is read, in bytes.
pub const REQUEST_HEAD: usize = 16 << 10;

/// Headers of one request.
pub const REQUEST_HEADERS: usize = 64;

/// The largest 101 reply: the PHP client reads once, 1,024 bytes at the most.
pub const UPGRADE_REPLY: usize = 1_023;

/// How long everything outbound is held for a legacy client that has not sent its first frame (SPEC: the head's shadow).
pub const HEAD_SHADOW: Duration = Duration::from_millis(50);

/// No ping before this much time after the handshake: one-shot PHP readers take it for an empty answer.
pub const FIRST_PING: Duration = Duration::from_secs(15);

/// Pings without an answer after which a connection is ended.
pub const UNANSWERED_PINGS: u8 = 2;

/// Pings on their way to one connection, each some 16 bytes: a receiver that works on deliveries answers none for up to `confirm_timeout`, and gets one
/// for each heartbeat. Then it is pinged no more, and only `confirm_timeout` ends it.
pub const OUTSTANDING_PINGS: usize = 64;

/// After our FIN, how long the rest of what the client sent is read.
pub const LINGER: Duration = Duration::from_secs(5);

/// How long after the first signal to stop a second one means "at once". `timeout` and shells signal a process group as well as the process,
/// so one wish may arrive twice within milliseconds; nobody loses patience that fast.
pub const SECOND_SIGNAL: Duration = Duration::from_secs(1);

/// The largest message the client takes: brokers may be configured for more than [`MAX_MESSAGE`], but not for a client's ruin.
pub const CLIENT_MESSAGE: usize = 64 << 20;

/// From the client's first packet to the end of the handshake: a name to resolve and two round trips over a bad mobile network.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(10);

/// After this silence the client pings; after twice that it takes the connection for dead. Above the broker's own heartbeat, so
/// that it only speaks up where the broker does not.
pub const CLIENT_KEEPALIVE: Duration = Duration::from_secs(40);

/// How long the client waits for the answer to its close frame.
pub const CLIENT_CLOSE: Duration = Duration::from_secs(5);

/// Messages the client reads ahead while its caller only writes.
pub const CLIENT_RECEIVED: usize = 4_096;

/// Publications that `wsmb send -` has sent and that are not answered yet: enough to fill the pipe, few to send again after a loss.
pub const SEND_UNANSWERED: usize = 256;

/// Bytes that `wsmb send -` queues before it reads on.
pub const SEND_QUEUE_BYTES: usize = 1 << 20;

/// The longest line that `wsmb send -` takes.
pub const SEND_LINE: usize = CLIENT_MESSAGE;

/// The longest `--timeout` of `wsmb send`: within `dedup_window`, or a repetition could double the message.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(100);

/// The longest wait of `wsmb send` before it connects again: its `--timeout` is short, and a broker that restarts is back soon.
pub const SEND_RECONNECT_LONGEST: Duration = Duration::from_secs(2);

/// How long `wsmb send` waits for answers after Ctrl-C: a person waits for the count. What is unanswered then is told.
pub const SEND_STOP: Duration = Duration::from_secs(2);

/// Refusals that `wsmb send` shows one by one; more than anybody reads are counted only.
pub const SEND_REFUSALS_SHOWN: u64 = 20;

/// The first wait before the client connects again.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);

/// The longest wait before the client connects again.
pub const RECONNECT_LONGEST: Duration = Duration::from_secs(30);

/// Bytes read of the file of stored logins: thousands of them.
pub const CONTEXTS_BYTES: u64 = 1 << 20;

/// Bytes read for one password or password line: far more than any hash takes.
pub const PASSWORD_LINE: u64 = 4_096;

/// How long `wsmb queue purge` waits for the running broker to carry it out: a full channel is emptied in a few seconds.
pub const PURGE_PATIENCE: Duration = Duration::from_secs(30);

/// Messages `wsmb queue export` reads at a time.
pub const EXPORT_PAGE: usize = 256;

/// How exactly heartbeats and lingering ends are timed: no better than a person would notice.
pub const WHEEL_TICK: Duration = Duration::from_millis(100);

/// Slots of the wheel that times all connections: 51 seconds, twice the default heartbeat; what is later is looked at early once.
pub const WHEEL_SLOTS: usize = 512;

/// Reads of one socket in a row, after which other connections have their turn.
pub const READ_ROUNDS: usize = 8;

/// How often a thread gives way to another one that is about to note what it has written: it needs microseconds.
pub const YIELDS: usize = 1_000;

/// Writes to one socket in a row, after which other connections have their turn.
pub const WRITE_ROUNDS: usize = 16;

/// Connections that the kernel holds for us between two accepts: a reconnect storm comes all at once.
pub const ACCEPT_BACKLOG: u32 = 4_096;

/// How long no connection is accepted after an accept failed (no file descriptors left).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// After a plain HTTP response, how long the rest of the request is read, so that the response is not lost to a reset.
pub const HTTP_LINGER: Duration = Duration::from_secs(1);

/// A warning that repeats is logged once in this time, with the number of its repetitions.
pub const REPEATED_WARNING: Duration = Duration::from_secs(10);

/// Bytes of one htpasswd file: room for [`HTPASSWD_ENTRIES`] at some 160 bytes each.
pub const HTPASSWD_BYTES: usize = 16 << 20;

/// Entries of one htpasswd file: each is a few hundred bytes in memory for as long as the broker runs.
pub const HTPASSWD_ENTRIES: usize = 100_000;

/// Warnings told about one htpasswd file; a file of garbage must not flood the log.
pub const HTPASSWD_WARNINGS: usize = 20;

/// The longest password that is verified, in bytes: the SHA-crypt formats take time in the square of it.
pub const PASSWORD_BYTES: usize = 512;

/// The most of a password that bcrypt looks at, in bytes: a longer one is refused when it is set, not silently cut.
pub const BCRYPT_PASSWORD_BYTES: usize = 72;

/// The highest bcrypt cost accepted in a file: 32 times the usual 10, some seconds on a small computer.
pub const BCRYPT_COST: u32 = 15;

/// The most rounds accepted of a `$5$` or `$6$` hash: as expensive as the highest bcrypt cost.
pub const SHA_CRYPT_ROUNDS: u32 = 1_000_000;

/// Bytes of a configuration file (ours or the PHP broker's): a hundred times what anybody writes by hand.
pub const CONFIGURATION_BYTES: usize = 4 << 20;

/// `[[channel]]` entries: every new channel name is compared with each of them.
pub const CHANNEL_ENTRIES: usize = 1_000;

/// `[[permission]]` entries: compared in turn whenever a channel is used for the first time by a connection.
pub const PERMISSION_ENTRIES: usize = 1_000;

/// Entries of a list in the configuration (addresses, files, patterns of one permission).
pub const LIST_ENTRIES: usize = 1_000;

/// Problems of a configuration that are printed; the rest is counted.
pub const CONFIGURATION_PROBLEMS: usize = 50;

/// How long a row waits in the journal before it is moved to the database: what is confirmed in this time never travels.
pub const JOURNAL_LINGER: Duration = Duration::from_millis(500);

/// The shortest time between two rounds of the journal's background that no report brings about.
pub const JOURNAL_PULSE: Duration = Duration::from_millis(5);

/// How often the journal asks the database how much it holds, to correct its own counting. That reads the whole table, which only other programs can make differ from what the journal has counted.
pub const JOURNAL_COUNT_EVERY: Duration = Duration::from_secs(3_600);

/// Pages that the journal fetches from the database at once: enough to keep it busy, few to hold in memory ([`PAGE_BYTES`] each).
pub const JOURNAL_FETCHES: usize = 4;

/// How long an orderly stop tries to empty the journal into the database. What is left is moved after the next start.
pub const JOURNAL_FAREWELL: Duration = Duration::from_secs(3);

/// How long start-up waits for the database behind a journal: longer than any time-out of the database's own client.
pub const JOURNAL_PATIENCE: Duration = Duration::from_secs(90);

/// Bytes that the journal may hold before senders are refused, unless configured otherwise: a million short messages.
pub const JOURNAL_BYTES: u64 = 256 << 20;

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
