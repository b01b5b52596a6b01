//! Bounds of a restart: what an orderly stop waits for, and how ids are brought over.

use std::time::Duration;

/// A stop goes on reading until no client has sent anything for so long: confirmations, and what publishers left behind, arrive within a round trip.
pub const STOP_SILENCE: Duration = Duration::from_millis(300);

/// How long a stop waits although nobody sends anything, if a receiver has not answered its ping: a gateway on a mobile network needs a second. What is
/// unconfirmed then comes twice.
pub const STOP_CONFIRM: Duration = Duration::from_millis(800);

/// How long a stop waits for that silence. Clients that never stop sending would hold it up for ever; they are told to go instead.
pub const STOP_BUSY: Duration = Duration::from_secs(1);

/// After the end of a connection was sent: how long a client is read that has acknowledged it and sends nothing. What it sent before it saw the end has
/// arrived by then.
pub const STOP_QUIET: Duration = Duration::from_millis(100);

/// After the end of a connection was sent: when the connection is closed, whatever the client does. A client behind a dead line acknowledges nothing.
pub const STOP_LINGER: Duration = Duration::from_secs(1);

/// How often a stop asks the store for what it has refused.
pub const STOP_ATTEMPTS: usize = 3;

/// How often a stop looks at what it waits for.
pub const STOP_LOOK: Duration = Duration::from_millis(20);

/// When the store is closed: how long requests that have come are still answered before the port is closed.
pub const STOP_ANSWERS: Duration = Duration::from_millis(100);

/// How often the ids of accepted publications are appended to their file: a process that is killed forgets no more than this.
pub const IDS_SAVE: Duration = Duration::from_secs(1);

/// How long appended ids may wait for an fsync. A power cut may forget 30 s of them (SPEC 6.7); the rest is for a slow disk.
pub const IDS_SYNC: Duration = Duration::from_secs(20);

/// Records in the file of ids (36 bytes each) that are never too many: below it, the file is not written anew for its length.
pub const IDS_SPARE: usize = 8_192;

/// Old rows that a start passes over while it looks through the newest ones for ids. An imported row may be old and stand before newer ones, so one
/// old row ends nothing; a backlog of a million old ones need not be read.
pub const IDS_OLD_ROWS: usize = 16_384;
