//! Bounds of what senders send in pieces, and of how long they wait for what became of it.

use std::time::Duration;

/// How many fragments of a message may be empty or tiny. A fragment costs the broker a header to read and the sender six bytes, so 100,000 empty ones are
/// an attack. One fragment more is allowed for each [`FRAGMENT_BYTES`] of the message that have come: beyond, the connection is closed (1009).
pub const FRAGMENTS: usize = 4_096;

/// The size of a fragment that is not tiny. The small libraries of microcontrollers send from buffers of 64 bytes and more, so that a message of any size may come in such
/// fragments.
pub const FRAGMENT_BYTES: usize = 64;

/// How long the connect reply of a legacy envelope client waits for the client's first frame: scripts send it at once, and read one frame, which is to say what became of
/// what they sent. A client that reads before it sends loses half a second, once.
pub const FIRST_FRAME: Duration = Duration::from_millis(500);

/// How long that reply then waits for the publication to be safe, and how long a connection stays for its answers whose client has finished sending. The PHP
/// scripts wait 10 s.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How many purged channels are remembered within the time in which an id is known. A purge is an administrator's command, so there are few. Of one that is
/// forgotten, the answer to a repeated publication may call a message stored that the purge has taken away.
pub const PURGES_REMEMBERED: usize = 64;
