//! Every bound and time-out of the server, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

/// How long everything outbound is held for a legacy client that has not sent its first frame (SPEC: the head's shadow).
pub const HEAD_SHADOW: Duration = Duration::from_millis(50);

/// No ping before this much time after the handshake: one-shot PHP readers take it for an empty answer.
pub const FIRST_PING: Duration = Duration::from_secs(15);

/// Pings without an answer after which a connection is ended.
pub const UNANSWERED_PINGS: u8 = 2;

/// Pings on their way to one connection, each some 16 bytes: a receiver that works on deliveries answers none for up to `confirm_timeout`, and gets one
/// for each heartbeat. Then it is pinged no more, and only `confirm_timeout` ends it.
pub const OUTSTANDING_PINGS: usize = 64;

/// After our FIN, how long the rest of what the client sent is read.
pub const LINGER: Duration = Duration::from_secs(5);

/// How long after the first signal to stop a second one means "at once". `timeout` and shells signal a process group as well as the process,
/// so one wish may arrive twice within milliseconds; nobody loses patience that fast.
pub const SECOND_SIGNAL: Duration = Duration::from_secs(1);

/// How exactly heartbeats and lingering ends are timed: no better than a person would notice.
pub const WHEEL_TICK: Duration = Duration::from_millis(100);

/// Slots of the wheel that times all connections: 51 seconds, twice the default heartbeat; what is later is looked at early once.
pub const WHEEL_SLOTS: usize = 512;

/// Reads of one socket in a row, after which other connections have their turn.
pub const READ_ROUNDS: usize = 8;

/// How often a thread gives way to another one that is about to note what it has written: it needs microseconds.
pub const YIELDS: usize = 1_000;

/// Writes to one socket in a row, after which other connections have their turn.
pub const WRITE_ROUNDS: usize = 16;

/// Connections that the kernel holds for us between two accepts: a reconnect storm comes all at once.
pub const ACCEPT_BACKLOG: u32 = 4_096;

/// How long no connection is accepted after an accept failed (no file descriptors left).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// After a plain HTTP response, how long the rest of the request is read, so that the response is not lost to a reset.
pub const HTTP_LINGER: Duration = Duration::from_secs(1);

/// A warning that repeats is logged once in this time, with the number of its repetitions.
pub const REPEATED_WARNING: Duration = Duration::from_secs(10);

/// Sockets that have to go when there are no file descriptors for a new one.
pub const ACCEPT_ROOM: usize = 16;

/// How long after that no connection is accepted: their sockets are closed by then.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// From accept to a complete request head. A client behind a bad mobile network needs a few round trips.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// From a complete request head to a verified password, the wait behind other logins included.
pub const LOGIN_TIME: Duration = Duration::from_secs(30);

/// How often password files are looked at for changes.
pub const HTPASSWD_CHECK: Duration = Duration::from_secs(2);

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

/// How long the connect reply of a legacy envelope client waits for the client's first frame: scripts send it at once, and read one frame, which is to say what became of
/// what they sent. A client that reads before it sends loses half a second, once.
pub const FIRST_FRAME: Duration = Duration::from_millis(500);

/// How long that reply then waits for the publication to be safe, and how long a connection stays for its answers whose client has finished sending. The PHP
/// scripts wait 10 s.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How often the system's clock is looked at: a step is followed before anybody has read the new time and acted on it.
pub const CLOCK_LOOK: Duration = Duration::from_secs(1);

/// A difference between the system's clock and elapsed time from which on the clock was set: more than the readings are apart, less than matters.
pub const CLOCK_STEP: Duration = Duration::from_secs(1);

/// How often the time is noted in the store while nothing else is written: a clock without a battery loses no more than this.
pub const CLOCK_NOTE_IDLE: Duration = Duration::from_secs(60);

/// Frames up to this size are copied together for one write; larger ones are written from where they lie.
pub const COALESCE: usize = 64 << 10;

/// Frames queued under one lock of the core, after which it is released and the queues are flushed: a burst into a large fan-out
/// must neither hold the lock nor fill the queues for long.
pub const FRAMES_AT_ONCE: usize = 65_536;

/// Elements that a list which is used again keeps room for between two turns; more is given back.
pub const EFFECTS_AT_ONCE: usize = 4_096;

/// Bytes of frames made in one turn that lie one behind the other: what one read may bring, made into another dialect. A slice of it that a
/// slow socket has not taken keeps all of it in memory.
pub const BATCH: usize = 4 * wsmb_protocol::limits::READ_BUFFER;

/// A frame that a slow socket has not taken is copied out of its batch if it is smaller than this: else a few bytes that wait would keep
/// all of [`BATCH`] in memory.
pub const BATCH_SHARE: usize = BATCH / 16;

/// Requests of one read for which a thread keeps room between two reads: what a full read buffer of small messages brings. A read of the smallest frames
/// brings [`READ_BUFFER`](wsmb_protocol::limits::READ_BUFFER) / 6 of them, for which the memory is given back.
pub const REQUESTS_AT_ONCE: usize = 1_024;
