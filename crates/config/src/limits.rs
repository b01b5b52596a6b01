//! The limits of the configuration, each with its reason. Every queue, buffer, cache and loop of this crate must have a limit here.

use std::time::Duration;

/// The minimum of `store.journal_max`, in bytes: room for one message of the default maximum size.
pub const JOURNAL_BYTES_MIN: u64 = 1 << 20;

/// The maximum of `store.journal_max`, in bytes: a larger value is most likely a mistake in the unit.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 40;

/// The minimum of `server.memory_budget`, in bytes: an idle broker, and some messages of the default maximum size.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;

/// The maximum of `server.memory_budget`, in bytes: a larger value is most likely a mistake in the unit.
pub const MEMORY_BYTES_MAX: u64 = 1 << 40;

/// The number of messages of the largest size that must fit into `server.memory_budget`.
pub const MEMORY_MESSAGES: usize = 8;

/// The minimum of `store.max_size` other than 0, in bytes: room for one message of the default maximum size.
pub const STORE_BYTES_MIN: u64 = 1 << 20;

/// The maximum of `store.max_size`, in bytes: a larger value is most likely a mistake in the unit.
pub const STORE_BYTES_MAX: u64 = 1 << 44;

/// The maximum length of a store URL, in bytes: more than enough for a host, names and paths of certificates.
pub const STORE_URL_BYTES: usize = 4_096;

/// The maximum length of the first line of a password file, in bytes: far more than any password needs.
pub const PASSWORD_LINE_BYTES: u64 = 4_096;

/// The maximum size of a configuration file (also of the PHP broker), in bytes: a hundred times the size of large hand-written files.
pub const CONFIGURATION_BYTES: usize = 4 << 20;

/// The maximum number of `[[channel]]` entries. Each new channel name is compared with all of them.
pub const CHANNEL_ENTRIES: usize = 1_000;

/// The maximum number of `[[permission]]` entries, and of `[[rate]]` entries. They are compared in turn when a connection uses a channel for the first time.
pub const PERMISSION_ENTRIES: usize = 1_000;

/// The maximum number of entries of a list in the configuration (addresses, files, patterns of one permission).
pub const LIST_ENTRIES: usize = 1_000;

/// The maximum number of problems that are printed. The rest is counted.
pub const CONFIGURATION_PROBLEMS: usize = 50;

/// The default of `store.journal_max`, in bytes: about a million short messages. Senders are refused when the journal is full.
pub const JOURNAL_BYTES: u64 = 256 << 20;

/// The maximum number of `[[listener]]` entries. Each needs a socket and a task until the broker stops.
pub const LISTENER_ENTRIES: usize = 100;

/// The default of `server.max_handshakes`: connections whose request has not arrived, or that were refused. A further connection ends the
/// oldest one of the address with the most of them, so no client has to wait. Each takes its task (some 3 KiB) and the received part of
/// its request head: some 6 MiB in all for silent connections, 40 MiB if each has sent almost `REQUEST_HEAD` bytes.
pub const HANDSHAKES: usize = 2_048;

/// The maximum of `server.threads`, the threads that serve sockets. The core is behind one lock, so more threads than the cores of a large
/// machine would only wait for the lock.
pub const THREADS: usize = 64;

/// The maximum number of `[[auth.key]]` entries. Tokens are verified with the key that they name, so a search compares ids only.
pub const KEY_ENTRIES: usize = 100;

/// The maximum number of groups in `[auth.groups]`.
pub const GROUPS: usize = 1_000;

/// The maximum size of a key file, in bytes: far more than a public key in a PEM file needs.
pub const KEY_BYTES: u64 = 16 << 10;
/// The maximum number of `[[webhook]]` entries. Each has a task, a connection and a receiver for each of its channels.
pub const WEBHOOK_ENTRIES: usize = 100;

/// The maximum number of channels of one webhook: as many as a receiver may name.
pub const WEBHOOK_CHANNELS: usize = wsmb_core::limits::SUBSCRIPTIONS;

/// The maximum number of secrets of one webhook, and of files with secrets: an old one, a new one, and two to spare. Each adds a signature to every request.
pub const WEBHOOK_SECRETS: usize = 4;

/// The shortest key of a signature, in bytes (Standard Webhooks 1.0).
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 24;

/// The longest key of a signature, in bytes (Standard Webhooks 1.0).
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 64;

/// The maximum length of the URL of a webhook, in bytes: servers refuse longer ones.
pub const WEBHOOK_URL_BYTES: usize = 2_048;

/// The maximum of `webhook.concurrency`: more requests at the same time would be an attack on a small server.
pub const WEBHOOK_CONCURRENCY: u64 = 64;

/// The minimum of `webhook.timeout`: a distant server needs most of a second for a new connection and an answer.
pub const WEBHOOK_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The maximum of `webhook.timeout`: a request that takes longer holds up its channel for too long.
pub const WEBHOOK_TIMEOUT_MAX: Duration = Duration::from_secs(300);
