//! The limits and timeouts of logins, each with its reason. Every queue, buffer, cache and loop of this crate must have a limit here.

use std::time::Duration;

/// The maximum size of an htpasswd file, in bytes: [`HTPASSWD_ENTRIES`] of some 160 bytes each. A larger file is not used.
pub const HTPASSWD_BYTES: usize = 16 << 20;

/// The maximum number of entries of an htpasswd file. An entry takes a few hundred bytes of memory. A file with more is not used.
pub const HTPASSWD_ENTRIES: usize = 100_000;

/// The maximum number of warnings for one htpasswd file, so that an invalid file does not flood the log. The rest is counted.
pub const HTPASSWD_WARNINGS: usize = 20;

/// The maximum length of a password, in bytes: SHA-crypt takes time in the square of the length. A longer password is rejected.
pub const PASSWORD_BYTES: usize = 512;

/// The number of bytes of a password that bcrypt uses. Setting a longer password is refused, because bcrypt would ignore the rest.
pub const BCRYPT_PASSWORD_BYTES: usize = 72;

/// The highest accepted bcrypt cost: 32 times the work of the usual cost 10, some seconds on a small computer.
pub const BCRYPT_COST: u32 = 15;

/// The highest accepted number of rounds of `$5$` and `$6$` hashes: about as expensive as the highest bcrypt cost.
pub const SHA_CRYPT_ROUNDS: u32 = 1_000_000;

/// Concurrent password verifications, on blocking threads. More would take processor time from the event loop.
pub const VERIFICATIONS: usize = 2;

/// Logins that wait for a verification, some 4 KiB each with their tasks; more than can be verified within `LOGIN_TIME` (of the server)
/// at the usual bcrypt cost. If the queue is full, a new login displaces the newest login of the network with the most waiting logins;
/// the displaced login is answered with 503.
pub const WAITING_LOGINS: usize = 2_048;

/// Waiting logins with different passwords for one user from one address: with the longest delay, [`LOGIN_DELAY_MAX`] × 4 = 16 s. A
/// further one is answered with 429.
pub const LOGINS_PER_USER: usize = 4;

/// Waiting logins of one address after its free failures: as many as can be verified in 16 s with [`ADDRESS_DELAY`]. A further login
/// displaces the oldest one, which is answered with 503. The newest login is verified first.
pub const LOGINS_PER_ADDRESS: usize = 64;

/// Failed logins of one user from one address without delay: a mistyped password is not an attack.
pub const FREE_FAILURES: u32 = 3;

/// The delay before the first slowed verification. It doubles with each further failure.
pub const LOGIN_DELAY: Duration = Duration::from_millis(250);

/// The longest delay between two verifications of one user from one address: 15 guesses a minute. It also bounds
/// the delay of a user who then sends the right password.
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(4);

/// Failed logins of one address (all users together) without delay: several users of an office behind one address may mistype.
pub const ADDRESS_FREE_FAILURES: u32 = 32;

/// The delay between two verifications for an address after its free failures: four a second. A new user of the address waits at most
/// this long for each login in front.
pub const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Failures are forgotten when there was no further failure for this long.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(600);

/// The entries of each of the two failure tables (pairs of address and user; addresses): some 150 bytes each, 2.4 MiB for both tables
/// when full. A new entry replaces the entry with the fewest failures, the oldest of those. To displace an entry with many failures, an
/// attacker needs as many failures for each entry of the table: more guesses than the lost entry allows.
pub const FAILURE_ENTRIES: usize = 8_192;

/// The verified credentials in the cache, 16 bytes each. The least recently used half is forgotten when the cache is full.
pub const CACHED_CREDENTIALS: usize = 65_536;

/// A changed file is read when it has not changed again for this long: an editor that truncates the file and then writes it has finished
/// by then. With `HTPASSWD_CHECK` (of the server) well below the 5 s in which a removed user must lose access.
pub const HTPASSWD_STABLE: Duration = Duration::from_millis(500);

/// Users whose rates are remembered before the unused ones are forgotten: some 200 bytes each, 3 MiB. Only users who have logged in count.
pub const RATED_USERS: usize = 16_384;

/// The longest token, in bytes: claims with a hundred patterns. Cheap to refuse, and it fits into a request head and into a subprotocol.
pub const TOKEN_BYTES: usize = 4_096;

/// The most patterns in a claim of a token. A message of the client is compared with all of them.
pub const TOKEN_PATTERNS: usize = 128;

/// The accepted difference between the clocks of the broker and of the application that signs tokens.
pub const TOKEN_SKEW: Duration = Duration::from_secs(60);

/// The fewest bytes in a secret of HS256: as many as the hash has (RFC 7518 section 3.2). A shorter one could be guessed from one token.
pub const HS256_SECRET_BYTES: usize = 32;

/// How long a token of the broker is valid if its asker names no time.
pub const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);

/// The longest time for which a token of the broker is valid: a day, because a stolen token cannot be revoked alone.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How long a ticket is valid: a page that has asked for it connects at once.
pub const TICKET_TIME: Duration = Duration::from_secs(30);

/// The tickets that are neither used nor expired, some 300 bytes each: 5 MiB. Users share them; near the bound a user with more than an equal share is refused.
pub const TICKETS: usize = 16_384;
