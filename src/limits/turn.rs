//! The bounds of one turn: what is read, carried out and written between two looks at the other connections.

/// Bytes read from one socket at a time, into a buffer that its thread shares.
pub const READ_BUFFER: usize = 64 << 10;

/// Frames up to this size are copied together for one write; larger ones are written from where they lie.
pub const COALESCE: usize = 64 << 10;

/// Frames queued under one lock of the core, after which it is released and the queues are flushed: a burst into a large fan-out
/// must neither hold the lock nor fill the queues for long.
pub const FRAMES_AT_ONCE: usize = 65_536;

/// Elements that a list which is used again keeps room for between two turns; more is given back.
pub const EFFECTS_AT_ONCE: usize = 4_096;

/// Bytes of frames made in one turn that lie one behind the other: what one read may bring, made into another dialect. A slice of it that a
/// slow socket has not taken keeps all of it in memory.
pub const BATCH: usize = 4 * READ_BUFFER;

/// A frame that a slow socket has not taken is copied out of its batch if it is smaller than this: else a few bytes that wait would keep
/// all of [`BATCH`] in memory.
pub const BATCH_SHARE: usize = BATCH / 16;

/// What a queued frame costs beside its bytes: its place in the queue and its allocation. Without it, a client that pings at full
/// speed and never reads would fill a queue of [`QUEUE_BYTES`](super::QUEUE_BYTES) with millions of two-byte pongs.
pub const FRAME_PLACE: usize = 64;
