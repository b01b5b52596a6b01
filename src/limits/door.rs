//! The bounds of who comes in: sockets before their request, logins that wait, failures that are remembered, lines in the log.

use std::time::Duration;

/// Default of `server.max_handshakes`: connections whose request has not arrived, or that have been answered and refused. One more ends the oldest of the
/// address that has most of them, so nobody has to wait. Each costs its task (some 3 KiB) and what has come of its head: some 6 MiB for silent ones, 40 MiB if
/// every one of them has sent a head of [`REQUEST_HEAD`](super::REQUEST_HEAD) but for its last byte.
pub const HANDSHAKES: usize = 2_048;

/// Sockets that have to go when there are no file descriptors for a new one.
pub const ACCEPT_ROOM: usize = 16;

/// How long after that no connection is accepted: their sockets are closed by then.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// From accept to a complete request head. A client behind a bad mobile network needs a few round trips.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// From a complete request head to a verified password, the wait behind other logins included.
pub const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Password verifications that run at once, off the event loop. More would take the processors from the messages.
pub const VERIFICATIONS: usize = 2;

/// Logins that wait for a verification, some 4 KiB each with their tasks. More than can be verified in [`LOGIN_TIME`] with the usual bcrypt cost. One more takes
/// the place of the newest login of the network that has most of them; that one is answered 503.
pub const LOGINS: usize = 2_048;

/// Different passwords for one user from one address that wait at once. With the longest delay that is [`LOGIN_DELAY_MAX`] × 4 = 16 s. One more is
/// answered 429.
pub const LOGINS_PER_USER: usize = 4;

/// Logins of one address that wait at once, once it has used its free failures: with [`ADDRESS_DELAY`], those that can be verified in 16 s. One more takes the
/// place of the oldest, which is answered 503; the newest is verified first.
pub const LOGINS_PER_ADDRESS: usize = 64;

/// Failures of one user from one address that cost no time: a mistyped password is no attack.
pub const FREE_FAILURES: u32 = 3;

/// The pause before the first guess that is slowed; it doubles with each further failure.
pub const LOGIN_DELAY: Duration = Duration::from_millis(250);

/// The longest pause between two guesses at one user from one address: 15 guesses a minute, and a user who has found the right password does not wait longer.
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(4);

/// Failures of one address, whatever the user, that cost no time: an office behind one address has several people who mistype.
pub const ADDRESS_FREE_FAILURES: u32 = 32;

/// The pause between two guesses from an address beyond its free failures: four a second. Another user of that address who has not come in before waits no longer than
/// this for each guess that waits in front.
pub const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Failures are forgotten when there were no more of them for this long.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(600);

/// Pairs of an address and a user whose failures are remembered, and addresses: some 150 bytes each, 2.4 MiB for both when full. The entry with the fewest failures makes
/// room, the oldest of those. To push out an entry with many failures, an attacker needs as many failures for each of the entries in the table: more
/// guesses than the forgotten entry allows.
pub const FAILING: usize = 8_192;

/// Verified credentials remembered, 16 bytes each.
pub const CREDENTIALS: usize = 65_536;

/// How often password files are looked at for changes.
pub const HTPASSWD_CHECK: Duration = Duration::from_secs(2);

/// A file that has changed is read when it has not changed again for this long: an editor that truncates it and then writes is done by then. With [`HTPASSWD_CHECK`]
/// well below the 5 s in which a removed user has to be gone.
pub const HTPASSWD_SETTLED: Duration = Duration::from_millis(500);

/// A change of rights is enforced a second time after this: a burst of frames that began before the change is over by then.
pub const ENFORCE_AGAIN: Duration = Duration::from_secs(1);

/// Connections that are looked at under one lock of the core when rights have changed.
pub const ENFORCE_AT_ONCE: usize = 1_024;

/// The time in which lines about failed logins are counted.
pub const LOGIN_LINES_TIME: Duration = Duration::from_secs(10);

/// Lines about failed logins in that time: 100 MB of log a day at the most. The others are counted in the next line.
pub const LOGIN_LINES: usize = 100;

/// Lines about failed logins of one address in that time, so that one address does not use up the lines of all.
pub const LOGIN_LINES_PER_ADDRESS: u32 = 10;

/// Characters of a user name in such a line: a name may be as long as a request head.
pub const LOGIN_LINE_USER: usize = 64;

/// `server.origins` as they may be written, in bytes: the longest host name, a scheme and a port.
pub const ORIGIN_BYTES: usize = 280;
