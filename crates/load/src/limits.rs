//! The bounds of the load generator, each with its reason. They bind nobody but `wsmb bench` and the programs that measure other brokers the
//! same way.

use std::time::Duration;

/// Connections that `wsmb bench` opens at the most: a system has no more ports for one address.
pub const CONNECTIONS: u32 = 60_000;

/// Channels of one run of `wsmb bench`: half of [`limits::CHANNELS`](wsmb_core::limits::CHANNELS).
pub const CHANNELS: u32 = 100_000;

/// Messages of one run of `wsmb bench`: hours.
pub const MESSAGES: u64 = 1_000_000_000;

/// Messages of `wsmb bench backlog` unless it is said: a few seconds.
pub const BACKLOG: u64 = 100_000;

/// The longest run of `wsmb bench`.
pub const TIME: Duration = Duration::from_secs(3_600);

/// Messages a second of `wsmb bench latency`: beyond it, the generator's own timing is what would be measured.
pub const RATE: u32 = 200_000;

/// Messages that have been sent by one sender and not been received by everybody, unless `--window` says it: deep enough for the broker to work in bursts.
pub const WINDOW: u32 = 4_096;

/// The same where there are many pairs, for each.
pub const WINDOW_PAIR: u32 = 256;

/// The same where each message goes to many.
pub const WINDOW_FANOUT: u32 = 512;

/// Sends without an answer, where each is answered: the same as `wsmb send -` allows itself.
pub const WINDOW_CONFIRMED: u32 = 256;

/// The largest `--window`: packet identifiers of other protocols have 16 bits.
pub const WINDOW_MOST: u32 = 65_535;

/// Bytes of a window: no receiver is to be called slow for what it had no time to read ([`limits::QUEUE_BYTES`](wsmb_core::limits::QUEUE_BYTES)).
pub const WINDOW_BYTES: usize = wsmb_core::limits::QUEUE_BYTES / 2;

/// Bytes of a window for all receivers together: what broker and system hold for a large fan-out, some seconds of it.
pub const WINDOW_BYTES_OF_ALL: usize = 256 << 20;

/// Parts of a window: when one has been received by everybody, the next is sent, so that senders write in bursts and not in drops.
pub const WINDOW_PARTS: u32 = 4;

/// How long receivers of `wsmb bench` stay after the last delivery to confirm it: some times as long as the broker takes to ask
/// ([`limits::CONFIRM_BUSY`](wsmb_core::limits::CONFIRM_BUSY)).
pub const CONFIRM: Duration = Duration::from_secs(1);

/// Bytes that a sender of `wsmb bench` writes at a time.
pub const BURST: usize = 64 << 10;

/// Bursts of one sender in a row, after which others have their turn.
pub const BURSTS: usize = 8;

/// Bytes that `wsmb bench` reads from one connection at a time.
pub const READ: usize = 256 << 10;

/// Events that `wsmb bench` takes from the system at a time.
pub const EVENTS: usize = 1_024;

/// Gaps in the numbers of one sender that are remembered for each receiver; what comes late to an older one counts as doubled.
pub const GAPS: usize = 1_024;

/// When nothing has come for so long, it is lost: longer than a broker that writes to a slow disk pauses, short enough to wait for.
pub const STALL: Duration = Duration::from_secs(10);

/// How long it may take to open all connections: tens of thousands at a broker that is busy hashing passwords.
pub const OPENING: Duration = Duration::from_secs(300);

/// Connections that are opened at once, before pings on the others are answered: a small part of the default of `server.max_handshakes`.
pub const OPENED_AT_ONCE: usize = 64;

/// How long `wsmb bench` takes leave of the broker at the most.
pub const LEAVE: Duration = Duration::from_secs(2);

/// What a broker does behind the last delivery (the last confirmation, the last commit) counts for this long.
pub const SETTLE: Duration = Duration::from_secs(1);

/// A server's memory, or a store's file, has come to rest when it has not changed for this long: longer than the broker's look at its password
/// files takes to come round.
pub const REST: Duration = Duration::from_secs(4);

/// It is taken as it is after this long: some never come to rest.
pub const RESTLESS: Duration = Duration::from_secs(20);

/// How often memory, a file or a progress bar is looked at.
pub const LOOK: Duration = Duration::from_millis(100);

/// How long before its time a message of `wsmb bench latency` is waited for without sleeping: systems wake late by about this.
pub const SPIN: Duration = Duration::from_micros(200);

/// Descriptors that `wsmb bench` needs beside its connections.
pub const SPARE_FILES: u64 = 64;
