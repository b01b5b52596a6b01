//! Every limit and timeout of the command line, each with its reason.
//!
//! Every queue, buffer, cache and loop of the command line has its limit in this file.

use std::time::Duration;

/// Publications of `wsmb send -` that may be unanswered at a time: enough to keep the connection busy, and few to send again after a lost connection.
pub const SEND_UNANSWERED: usize = 256;

/// Bytes that `wsmb send -` may have queued for the connection. At this number it stops reading its input.
pub const SEND_QUEUE_BYTES: usize = 1 << 20;

/// The longest line of input of `wsmb send -`, in bytes. A longer line is refused, and the next line is read.
pub const SEND_LINE: usize = wsmb_client::limits::CLIENT_MESSAGE;

/// The longest `--timeout` of `wsmb send`: shorter than the broker's `dedup_window`, so that the broker recognises every repetition.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(100);

/// The longest back-off of `wsmb send` before it reconnects: its `--timeout` is short, and a restart of the broker takes a few seconds.
pub const SEND_RECONNECT_LONGEST: Duration = Duration::from_secs(2);

/// How long `wsmb send` waits for answers after Ctrl-C: a person waits for it to end. Messages that are then unanswered are reported.
pub const SEND_STOP: Duration = Duration::from_secs(2);

/// Refusals that `wsmb send` prints one by one. Further refusals are only counted.
pub const SEND_REFUSALS_SHOWN: u64 = 20;

/// The first back-off before `send` and `receive` reconnect.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);

/// The longest back-off of `wsmb receive` if the broker answers with a refusal: each attempt costs the broker a handshake.
pub const RECONNECT_REFUSED: Duration = Duration::from_secs(30);

/// The largest file of stored logins, in bytes: room for thousands of logins. A larger file is an error.
pub const CONTEXTS_BYTES: u64 = 1 << 20;

/// The longest back-off of `wsmb receive` if no broker can be reached: a gateway reconnects within a second after its broker has started. 10,000
/// gateways make some 13,000 attempts a second; the operating system refuses each attempt without work for the broker.
pub const RECONNECT_UNREACHABLE: Duration = Duration::from_secs(1);

/// The most commands that `wsmb receive --exec` runs at once: each command is a process.
pub const EXEC_WORKERS: u32 = 256;

/// The longest `--exec-timeout`: no command for a message needs more than a day.
pub const EXEC_LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Time between SIGTERM and SIGKILL for a command that must end: a modem needs a moment to end its session.
pub const EXEC_TERM: Duration = Duration::from_secs(5);

/// Time between two checks whether the last process of a process group has ended.
pub const EXEC_POLL: Duration = Duration::from_millis(20);

/// How long the rest of a command's standard error is read after the command has ended. The rest is in the pipe already; only another process
/// that holds the pipe open can make the read last longer.
pub const EXEC_STDERR_REST: Duration = Duration::from_millis(250);

/// The longest line on a command's standard error that is written in one piece, in bytes. A longer line is written in parts.
pub const EXEC_LINE: usize = 8 << 10;

/// Time between two extensions of the deadline of a delivery whose command still runs: often enough for an `ack_timeout` of 10 s, and little traffic for
/// a mobile network.
pub const EXEC_EXTEND: Duration = Duration::from_secs(5);

/// How long a stopping `wsmb receive` waits for a lost connection in order to confirm finished messages: longer than a restart of the broker takes.
pub const EXEC_CONFIRM: Duration = Duration::from_secs(5);

/// How long `wsmb receive` waits for the redelivery of a finished message whose acknowledgement was lost: after a reconnection the broker delivers the
/// message again at once, to this receiver or to another one.
pub const EXEC_REDELIVERY: Duration = Duration::from_secs(60);

/// Finished messages that `wsmb receive` remembers, some 100 bytes each: far more than can be unacknowledged when a connection is lost.
pub const EXEC_REMEMBERED: usize = 4_096;

/// The most fields of a message that a command gets as environment variables.
pub const EXEC_FIELDS: usize = 64;

/// The deepest nesting of a field that becomes a variable: each level is parsed once more.
pub const EXEC_FIELD_DEPTH: usize = 16;

/// The longest name of such a variable in bytes, without `WSMB_`. Field names in real messages are shorter.
pub const EXEC_FIELD_NAME: usize = 100;

/// The longest value of such a variable, in bytes: the smallest limit of the supported systems (Windows). A longer value is omitted, never truncated.
pub const EXEC_FIELD_BYTES: usize = 32_000;

/// Bytes of all such variables together: well below the limit of the supported systems for arguments and environment.
pub const EXEC_ENVIRONMENT_BYTES: usize = 128 << 10;

/// Log lines about omitted fields of one message. Further omitted fields are only counted.
pub const EXEC_NOTES: usize = 8;

/// Characters of a field's name in such a log line.
pub const EXEC_NOTE_CHARS: usize = 40;

/// Different messages that fail in a row before the gateway pauses: then the modem or the command is at fault, not the messages.
pub const EXEC_PAUSE_AFTER: usize = 3;

/// Failed messages in a row whose ids are remembered: at this number the pause has long reached its maximum.
pub const EXEC_FAILING_IDS: usize = 16;

/// The first such pause. Each further failure doubles the pause.
pub const EXEC_PAUSE_FIRST: Duration = Duration::from_millis(500);

/// The longest such pause: short enough that a one-time password is still valid after the pause.
pub const EXEC_PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// The highest number in a `--rate`: the start time of each command within the period is remembered, 16 bytes each.
pub const EXEC_RATE: usize = 100_000;

/// Time between two readings of the local clock for `--quiet`.
pub const EXEC_QUIET_POLL: Duration = Duration::from_secs(5);

/// The first pause between two checks whether the reader of a pipe has read a line.
pub const PIPE_POLL_FIRST: Duration = Duration::from_micros(20);

/// The longest such pause: short compared with the time that a slow reader needs for a line.
pub const PIPE_POLL: Duration = Duration::from_millis(5);
