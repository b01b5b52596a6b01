//! Bounds of what senders send in pieces, and of how long they wait for what became of it.

/// How many fragments of a message may be empty or tiny. A fragment costs the broker a header to read and the sender six bytes, so 100,000 empty ones are
/// an attack. One fragment more is allowed for each [`FRAGMENT_BYTES`] of the message that have come: beyond, the connection is closed (1009).
pub const FRAGMENTS: usize = 4_096;

/// The size of a fragment that is not tiny. The small libraries of microcontrollers send from buffers of 64 bytes and more, so that a message of any size may come in such
/// fragments.
pub const FRAGMENT_BYTES: usize = 64;
