//! Every bound and time-out of the configuration, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

/// The smallest journal: one message of the default size.
pub const JOURNAL_BYTES_LEAST: u64 = 1 << 20;

/// The largest journal: beyond it, somebody has mistaken the unit.
pub const JOURNAL_BYTES_MOST: u64 = 1 << 40;

/// The longest address of a store, in bytes: host, names and paths of certificates with room to spare.
pub const STORE_URL_BYTES: usize = 4_096;

/// Bytes read for one password or password line: far more than any hash takes.
pub const PASSWORD_LINE: u64 = 4_096;

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

/// Bytes that the journal may hold before senders are refused, unless configured otherwise: a million short messages.
pub const JOURNAL_BYTES: u64 = 256 << 20;

/// `[[listener]]` entries: each is a socket and a task for ever.
pub const LISTENER_ENTRIES: usize = 100;

/// Default of `server.max_handshakes`: connections whose request has not arrived, or that have been answered and refused. One more ends the oldest of the
/// address that has most of them, so nobody has to wait. Each costs its task (some 3 KiB) and what has come of its head: some 6 MiB for silent ones, 40 MiB if
/// every one of them has sent a head of `REQUEST_HEAD` bytes but for its last byte.
pub const HANDSHAKES: usize = 2_048;

/// The most threads that serve sockets (`server.threads`). The core is behind one lock, so that more threads than a large machine has cores only wait for it.
pub const THREADS: usize = 64;
