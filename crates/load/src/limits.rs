//! The limits of the load generator, each with its reason. They apply only to `wsmb bench` and to the programs that measure other brokers
//! in the same way.

use std::time::Duration;

/// The maximum number of connections: a system has no more ports for one address.
pub const CONNECTIONS: u32 = 60_000;

/// The maximum number of channels of a run: half of [`limits::CHANNELS`](wsmb_core::limits::CHANNELS).
pub const CHANNELS: u32 = 100_000;

/// The maximum number of messages of a run: some hours.
pub const MESSAGES: u64 = 1_000_000_000;

/// The default number of messages of `wsmb bench backlog`: some seconds.
pub const BACKLOG_MESSAGES: u64 = 100_000;

/// The maximum duration of a run, so that a mistyped number does not run for days.
pub const RUN_TIME: Duration = Duration::from_secs(3_600);

/// The maximum rate of `wsmb bench latency`, in messages a second: above it, the measurement would show the generator's own delays.
pub const RATE: u32 = 200_000;

/// The default of `--window`: messages of one sender that not all receivers have received. Large enough for the broker to work in bursts.
pub const WINDOW: u32 = 4_096;

/// The default of `--window` for each of many pairs.
pub const WINDOW_PAIR: u32 = 256;

/// The default of `--window` for messages with many receivers.
pub const WINDOW_FANOUT: u32 = 512;

/// The default of `--window` for confirmed sends: as for `wsmb send -`.
pub const WINDOW_CONFIRMED: u32 = 256;

/// The maximum of `--window`: packet identifiers of other protocols have 16 bits.
pub const WINDOW_MAX: u32 = 65_535;

/// The maximum default window, in bytes: the broker must not end a receiver as slow for messages that it had no time to read ([`limits::QUEUE_BYTES`](wsmb_core::limits::QUEUE_BYTES)).
pub const WINDOW_BYTES: usize = wsmb_core::limits::QUEUE_BYTES / 2;

/// The maximum default window for all receivers together, in bytes: the memory of broker and system for some seconds of a large fan-out.
pub const WINDOW_BYTES_TOTAL: usize = 256 << 20;

/// The parts of a window. When all receivers have received a part, the next part is sent, so that senders write in bursts.
pub const WINDOW_PARTS: u32 = 4;

/// How long receivers stay after the last delivery to confirm it: several times the delay of the broker's ping
/// ([`limits::CONFIRM_BUSY`](wsmb_core::limits::CONFIRM_BUSY)).
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes that a sender writes at a time.
pub const BURST_BYTES: usize = 64 << 10;

/// The bursts of one sender in a row, before the other senders get their turn.
pub const BURSTS: usize = 8;

/// The bytes read from one connection at a time.
pub const READ_BYTES: usize = 256 << 10;

/// The events read from the event queue at a time.
pub const EVENTS_PER_POLL: usize = 1_024;

/// The gaps in the numbers of one sender that are remembered for each receiver. A late message for a forgotten gap counts as a duplicate.
pub const GAPS: usize = 1_024;

/// Missing messages count as lost when nothing has arrived for this long: longer than the pauses of a broker with a slow disk.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time to open all connections: enough for tens of thousands while the broker hashes passwords.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(300);

/// The connections opened at the same time, before the engine answers pings on the others: a small part of the default of
/// `server.max_handshakes`.
pub const CONCURRENT_OPENINGS: usize = 64;

/// The maximum time to wait for the broker when the connections are closed.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the broker's work after the last delivery (the last confirmation, the last commit) is measured.
pub const TRAILING_WORK: Duration = Duration::from_secs(1);

/// A server's memory or a store's file counts as stable when it has not changed for this long: longer than the interval at which the broker
/// checks its password files.
pub const STABLE_TIME: Duration = Duration::from_secs(4);

/// The maximum time to wait for a stable value, because some values never become stable. The last value is used then.
pub const STABLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The interval at which memory, files and the progress bar are updated.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// How long `wsmb bench latency` spins before the time of a message: systems wake a thread late by about this time.
pub const SPIN_TIME: Duration = Duration::from_micros(200);

/// The file descriptors needed in addition to the connections.
pub const SPARE_FILES: u64 = 64;
