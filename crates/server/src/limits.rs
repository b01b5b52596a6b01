//! Every bound and time-out of the server, each with its reason. A queue, buffer, cache or loop without a bound is a defect.

use std::time::Duration;

/// How long outbound frames are held for a legacy client that has not sent its first frame (SPEC: the head's shadow).
pub const HEAD_SHADOW: Duration = Duration::from_millis(50);

/// Time from the handshake to the first ping: one-shot PHP readers take an earlier ping for an empty answer.
pub const FIRST_PING: Duration = Duration::from_secs(15);

/// Unanswered pings after which a connection is ended.
pub const UNANSWERED_PINGS: u8 = 2;

/// Outstanding pings of one connection, each some 16 bytes: a receiver that works on deliveries may answer none for `confirm_timeout`, and gets one
/// for each heartbeat. At the bound no more pings are sent, and only `confirm_timeout` ends the connection.
pub const OUTSTANDING_PINGS: usize = 64;

/// From the queueing of our FIN to the abort of the connection. In this time the queue is flushed and input is read.
pub const LINGER: Duration = Duration::from_secs(5);

/// Time after the first stop signal from which on a second one ends the process at once. `timeout` and shells signal the process and its process
/// group, so the same signal may arrive twice within milliseconds.
pub const SECOND_SIGNAL: Duration = Duration::from_secs(1);

/// The resolution of timers for heartbeats and lingering ends. Neither needs a finer one.
pub const WHEEL_TICK: Duration = Duration::from_millis(100);

/// Slots of the timer wheel: 51 seconds, twice the default heartbeat. A later entry is taken out early and inserted again.
pub const WHEEL_SLOTS: usize = 512;

/// Reads of one socket in a row; then other connections are served.
pub const READ_ROUNDS: usize = 8;

/// If the work for one read takes longer, the next reads of this connection are shorter, so that other connections do not wait for it. If the work for
/// several reads in a row takes half as long, other connections are served.
/// (65,536 bytes of small messages take less than a millisecond; subscriptions to many channels take more.)
pub const LONG_READ: Duration = Duration::from_millis(3);

/// A turn that takes longer is counted as long ([`crate::Turns`]): nobody should wait longer for one piece of work (SPEC 6.10: at most 50 ms for
/// everything together).
pub const LONG_TURN: Duration = Duration::from_millis(5);

/// A turn that takes longer is logged: fifty times what is intended, so no ordinary load of the machine is the cause.
pub const STALLED_TURN: Duration = Duration::from_millis(250);

/// How often a read is halved at most: a read has at least a kibibyte.
pub const READ_HALVINGS: u8 = 6;

/// How often the first read of a connection is halved: 65,536 bytes of the shortest commands take more than [`LONG_TURN`].
pub const FIRST_READ_HALVINGS: u8 = 2;

/// Bytes of one read while memory is scarce.
pub const SHORT_READ: usize = 2 << 10;

/// Bytes of an incomplete message with which a connection is not read while nearly all memory is used. Thousands of connections may have as much.
pub const SHORT_MESSAGE: usize = 1 << 10;

/// How often a thread yields to a writer that has not recorded its write yet. The writer needs microseconds.
pub const YIELDS: usize = 1_000;

/// Writes to one socket in a row; then other connections are served.
pub const WRITE_ROUNDS: usize = 16;

/// Connections that the kernel queues between two accepts: in a reconnect storm all clients connect at once.
pub const ACCEPT_BACKLOG: u32 = 4_096;

/// Pause after an accept failed, for example because no file descriptors are left, and no socket could be evicted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How long the rest of a request is read after a plain HTTP response, so that a reset does not discard the response.
pub const HTTP_LINGER: Duration = Duration::from_secs(1);

/// A repeated warning is logged at most once in this time, with the number of withheld lines.
pub const REPEATED_WARNING: Duration = Duration::from_secs(10);

/// Sockets that are evicted when no file descriptor is left for a new one.
pub const ACCEPT_ROOM: usize = 16;

/// Pause after such an eviction; the evicted sockets are closed by then.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// From accept to a complete request head. A client behind a bad mobile network needs a few round trips.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Bytes of the client's part of a TLS handshake: a chain of client certificates has a few thousand.
pub const TLS_HANDSHAKE_BYTES: usize = 32 << 10;

/// Bytes that one write encrypts, in records of 16 KiB: as much as the queue copies together ([`COALESCE`]).
pub const TLS_WRITE: usize = 64 << 10;

/// The buffer for the result: each record adds 29 bytes at most, and a message that renews the keys may come first.
pub const TLS_OUTPUT: usize = TLS_WRITE + (1 << 10);

/// The buffer for the announcement of the end: an alert of two bytes, encrypted.
pub const TLS_ANNOUNCEMENT: usize = 64;

/// Writes of an encrypted connection whose sizes are known, to count the acknowledged bytes: a client that receives one message gets three (the reply to the
/// upgrade, the message, a ping), and the announcement of the end. Eight bytes each, in every encrypted connection.
pub const TLS_WRITES: usize = 6;

/// How often the log says that the certificate expires soon.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(86_400);

/// Handshakes that compute at the same time, each up to a millisecond: one for each processor, so that a storm of clients uses the machine, and four at most,
/// because each needs a thread. The others wait in the order of their arrival.
#[must_use]
pub fn tls_handshakes() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().min(4))
}

/// From a complete request head to a verified password, including the wait behind other logins.
pub const LOGIN_TIME: Duration = Duration::from_secs(30);

/// Interval of the check whether password files have changed.
pub const HTPASSWD_CHECK: Duration = Duration::from_secs(2);

/// A change of rights is enforced a second time after this: frames that were being handled during the change are done by then.
pub const ENFORCE_AGAIN: Duration = Duration::from_secs(1);

/// Connections that are checked under one lock of the core after a change of rights.
pub const ENFORCE_AT_ONCE: usize = 1_024;

/// The period in which log lines about failed logins are counted.
pub const LOGIN_LINES_TIME: Duration = Duration::from_secs(10);

/// Lines about failed logins in that period: at most 100 MB of log a day. The next line counts the withheld ones.
pub const LOGIN_LINES: usize = 100;

/// Lines about failed logins of one address in that period, so that one address does not use up the lines of all.
pub const LOGIN_LINES_PER_ADDRESS: u32 = 10;

/// Characters of a user name in such a line: a name may be as long as a request head.
pub const LOGIN_LINE_USER: usize = 64;

/// A stop reads until no client has sent anything for this time: confirmations, and the last publications, arrive within a round trip.
pub const STOP_SILENCE: Duration = Duration::from_millis(300);

/// How long a stop waits for a receiver that has not answered its ping, even if no client sends anything: a gateway on a mobile network needs a
/// second. Messages that are unconfirmed then are delivered again.
pub const STOP_CONFIRM: Duration = Duration::from_millis(800);

/// How long a stop waits for [`STOP_SILENCE`]. Clients that never stop sending would delay the stop forever; their connections are ended.
pub const STOP_BUSY: Duration = Duration::from_secs(1);

/// How long a connection stays open after its FIN, if the client has acknowledged the FIN and sends nothing. Everything that the client sent before
/// it saw the FIN has arrived by then.
pub const STOP_QUIET: Duration = Duration::from_millis(100);

/// Time after the FIN at which a connection is closed in any case. A client behind a dead line acknowledges nothing.
pub const STOP_LINGER: Duration = Duration::from_secs(1);

/// Attempts of a stop to store messages that the store has refused.
pub const STOP_ATTEMPTS: usize = 3;

/// Polling interval of a stop.
pub const STOP_LOOK: Duration = Duration::from_millis(20);

/// How long pending requests are still answered after the store is closed and before the port is closed.
pub const STOP_ANSWERS: Duration = Duration::from_millis(100);

/// How often the ids of accepted publications are appended to their file. A killed process forgets the ids of at most this time.
pub const IDS_SAVE: Duration = Duration::from_secs(1);

/// How long the connect reply of a legacy envelope client waits for the client's first frame: scripts send it at once, and read only one frame,
/// which must contain its result. A client that reads before it sends loses half a second, once.
pub const FIRST_FRAME: Duration = Duration::from_millis(500);

/// How long that reply then waits for the publication to be safe, and how long a connection stays open for its answers after the client has
/// finished sending. The PHP scripts wait 10 s.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How often the system's clock is checked: a step is followed before a person can act on the new time.
pub const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// A difference between the system's clock and elapsed time that counts as a step: larger than the gap between the two readings, too small to
/// matter for expiry.
pub const CLOCK_STEP: Duration = Duration::from_secs(1);

/// How often the time is stored while nothing else is written: a machine whose clock has no battery loses at most this time.
pub const CLOCK_NOTE_IDLE: Duration = Duration::from_secs(60);

/// Bytes of frames that are copied together for one write; a larger frame is written without a copy.
pub const COALESCE: usize = 64 << 10;

/// Sessions that are flushed in a row, each with a system call: about a millisecond. Then other connections, timers and logins are served. Also the
/// sessions whose timers are handled in a row.
pub const FLUSHED_AT_ONCE: usize = 256;

/// Bytes that are written to the sockets of several sessions in a row, exceeded by what one of them takes: about a millisecond.
pub const FLUSHED_BYTES_AT_ONCE: usize = 1 << 20;

/// Frames queued under one lock of the core. Then the lock is released and the queues are flushed: a burst into a large fan-out
/// must neither hold the lock nor fill the queues for long.
pub const FRAMES_AT_ONCE: usize = 16_384;

/// Elements for which a reused list keeps memory between two turns; more memory is freed.
pub const EFFECTS_AT_ONCE: usize = 4_096;

/// Bytes in one turn's batch: the frames of one read, converted into another dialect. A slice that a slow socket has not taken keeps
/// the whole batch in memory.
pub const BATCH: usize = 4 * wsmb_protocol::limits::READ_BUFFER;

/// A waiting frame smaller than this is copied out of its batch: otherwise a few bytes would keep all of [`BATCH`] in memory.
pub const BATCH_SHARE: usize = BATCH / 16;

/// Requests for which a thread keeps memory between two reads: a full read buffer of small messages. A read of the smallest frames brings
/// [`READ_BUFFER`](wsmb_protocol::limits::READ_BUFFER) / 6 of them; the memory for more than this bound is freed.
pub const REQUESTS_AT_ONCE: usize = 1_024;

/// The part of the memory budget in per cent above which connections are read in small pieces: then the use grows slowly enough for what follows.
pub const MEMORY_SCARCE_PERCENT: usize = 90;

/// The part of the memory budget in per cent above which the connections that hold most are ended. The rest is for what is freed a moment later.
pub const MEMORY_LAST_PERCENT: usize = 95;

/// How often the sessions are searched for those that hold most, at most: a search of 10,000 sessions takes about a millisecond.
pub const MEMORY_SCAN_EVERY: Duration = Duration::from_millis(10);

/// How often the sessions are searched while memory is scarce and no reader does it: every reader pauses if its client has sent a part of a message, and
/// does not see then that the client has gone.
pub const MEMORY_RELIEF_EVERY: Duration = Duration::from_millis(20);

/// A connection that holds less is not ended to free memory. The bound is low, because thousands of connections could fill the memory together.
pub const MEMORY_HELD_MIN: usize = 1 << 10;

/// The longest request head that is read while nearly all memory is used. An ordinary one takes some 500 bytes.
pub const MEMORY_HEAD: usize = 2 << 10;

/// How often the use of memory is looked at while nothing happens.
pub const MEMORY_TRIM_EVERY: Duration = Duration::from_secs(1);

/// How often freed memory is given back to the system while memory is scarce, for each 64 MiB of the budget (the work grows with the memory), and
/// at most [`MEMORY_TRIM_EVERY`].
pub const MEMORY_TRIM_SCARCE: Duration = Duration::from_millis(250);

/// Freed bytes that are given back to the system.
pub const MEMORY_TRIM_BYTES: usize = 8 << 20;

/// Freed bytes at the end of the heap that are not returned to the system at once, but by the check after [`MEMORY_TRIM_EVERY`]: a window of kept
/// messages, or some large messages.
pub const MEMORY_KEPT: i32 = 8 << 20;

/// The size from which a block of memory comes from the system alone: above the largest buffers that are used again and again, which are messages of
/// the default [`MAX_MESSAGE`](wsmb_protocol::limits::MAX_MESSAGE).
pub const MEMORY_BLOCK: i32 = 4 << 20;

/// Bytes that a connection may send to the store during a pause of the backpressure without being paused itself: it does not cause the load.
pub const STORE_FREE: u32 = 64 << 10;

/// How long a connection waits whose messages wait for the store. Then its publications are refused with 05, so that the sender learns of it.
pub const STORE_WAIT: Duration = Duration::from_secs(1);

/// Silence after which an HTTP connection is closed: between two requests, and while a head arrives. Longer than the 60 s for which proxies keep
/// connections to reuse them, so that a proxy never sends a request into the broker's close.
pub const HTTP_IDLE: Duration = Duration::from_secs(75);

/// From a complete head to a complete body. A client behind a bad mobile network needs this for a megabyte.
pub const HTTP_BODY: Duration = Duration::from_secs(60);

/// How long a publisher waits until its message is safe. Commits take milliseconds; a store that fails for longer is refused by the core.
pub const HTTP_ANSWER: Duration = Duration::from_secs(30);

/// The longest `wait` of a publisher: proxies cut an answer that takes longer.
pub const HTTP_WAIT: Duration = Duration::from_secs(60);

/// Requests that are answered at the same time, shared by their users. Each may hold a body.
pub const HTTP_REQUESTS: usize = 4_096;

/// Bytes of a request head, and of an answer that waits for the socket.
pub const HTTP_BUFFER: usize = wsmb_protocol::limits::REQUEST_HEAD;

/// How often receivers without a response are looked for. A part of `server.receiver_grace` that nobody notices.
pub const MAILBOX_LOOK: Duration = Duration::from_secs(1);

/// How long a batch waits for messages that are only in the store, even if its client does not want to wait: a page takes milliseconds.
pub const HTTP_PAGE: Duration = Duration::from_millis(500);

/// The default of `max`: the deliveries of one batch.
pub const HTTP_BATCH: u32 = 10;

/// The most deliveries of one batch: a response of bounded size.
pub const HTTP_BATCH_MAX: u32 = 1_000;

/// How long a message of a webhook waits aside after each of its attempts, in seconds; the last one repeats. A restart of the other side takes seconds, and a
/// minute is the longest that a person waits for a message after an outage.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_BACKOFF: [u64; 6] = [1, 2, 5, 15, 30, 60];

/// How long a channel of a webhook rests after each of several failures in a row that may be the fault of the messages.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_REST: Duration = Duration::from_secs(1);

/// The longest pause that `Retry-After` of a webhook's answer may ask for: a mistake in it must not stop a webhook for a day.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// From the end of a webhook's session, or a lack of room for one, to the next attempt to begin one.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a connection of a webhook is kept without a request. Servers close theirs after some time; PHP's and nginx's default is longer.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_IDLE: Duration = Duration::from_secs(30);

/// Bytes of an answer to a webhook's request that are read, so that the connection can be used again. The content means nothing.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_ANSWER: usize = 64 << 10;

/// Addresses of a webhook's host to which the broker tries to connect. Each gets its share of the time.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_ADDRESSES: usize = 4;

/// Look-ups of names for webhooks at the same time. Each takes a thread, for half a minute if the name server does not answer.
#[cfg(feature = "webhooks")]
pub const WEBHOOK_LOOKUPS: usize = 8;

/// Bytes of a request that answers deliveries: 10,000 names.
pub const HTTP_ACKS: usize = 512 << 10;
/// How often sessions with tokens are checked: a token is accepted for a minute after its expiry, so a second more changes nothing.
pub(crate) const EXPIRY_LOOK: Duration = Duration::from_secs(1);

/// Bytes of a request for a token: the patterns of a token of the largest size.
pub const HTTP_TOKEN: usize = 16 << 10;

/// Channels that are read under one lock of the core for a list: some 50 µs.
pub const ADMIN_SLICE: usize = 1_024;

/// The default of `limit`: entries of a list.
pub const ADMIN_PAGE: usize = 100;

/// The most entries of a page: a response of bounded size.
pub const ADMIN_PAGE_MAX: usize = 1_000;
