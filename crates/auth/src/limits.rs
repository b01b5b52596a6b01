//! Every bound and time-out of logins, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

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

/// Password verifications that run at once, off the event loop. More would take the processors from the messages.
pub const VERIFICATIONS: usize = 2;

/// Logins that wait for a verification, some 4 KiB each with their tasks. More than can be verified in `LOGIN_TIME` (of the server) with the usual bcrypt cost. One more takes
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

/// A file that has changed is read when it has not changed again for this long: an editor that truncates it and then writes is done by then. With `HTPASSWD_CHECK` (of the server)
/// well below the 5 s in which a removed user has to be gone.
pub const HTPASSWD_SETTLED: Duration = Duration::from_millis(500);
