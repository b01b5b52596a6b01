//! Every bound and time-out of the command line, each with its reason. A queue, buffer, cache or loop that has no line here is a defect.

use std::time::Duration;

/// Publications that `wsmb send -` has sent and that are not answered yet: enough to fill the pipe, few to send again after a loss.
pub const SEND_UNANSWERED: usize = 256;

/// Bytes that `wsmb send -` queues before it reads on.
pub const SEND_QUEUE_BYTES: usize = 1 << 20;

/// The longest line that `wsmb send -` takes.
pub const SEND_LINE: usize = wsmb_client::limits::CLIENT_MESSAGE;

/// The longest `--timeout` of `wsmb send`: within `dedup_window`, or a repetition could double the message.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(100);

/// The longest wait of `wsmb send` before it connects again: its `--timeout` is short, and a broker that restarts is back soon.
pub const SEND_RECONNECT_LONGEST: Duration = Duration::from_secs(2);

/// How long `wsmb send` waits for answers after Ctrl-C: a person waits for the count. What is unanswered then is told.
pub const SEND_STOP: Duration = Duration::from_secs(2);

/// Refusals that `wsmb send` shows one by one; more than anybody reads are counted only.
pub const SEND_REFUSALS_SHOWN: u64 = 20;

/// The first wait before the client connects again.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);

/// The longest wait before the client connects again.
pub const RECONNECT_LONGEST: Duration = Duration::from_secs(30);

/// Bytes read of the file of stored logins: thousands of them.
pub const CONTEXTS_BYTES: u64 = 1 << 20;

/// The longest wait of `wsmb receive` before it connects again where nobody listens: a gateway is back within a second of its broker. 10,000 of them make
/// some 13,000 attempts a second, each a packet that the system refuses by itself.
pub const RECONNECT_NOBODY: Duration = Duration::from_secs(1);

/// The most commands that `wsmb receive --exec` runs at once: each is a process.
pub const EXEC_WORKERS: u32 = 256;

/// The longest `--exec-timeout`: nothing that a message sets off takes longer than a day.
pub const EXEC_LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// How long a command that is to end is given between TERM and KILL: modems need a moment to end a session.
pub const EXEC_TERM: Duration = Duration::from_secs(5);

/// How often it is looked whether the last process of a group has ended, meanwhile.
pub const EXEC_LOOK: Duration = Duration::from_millis(20);

/// How long the rest of a command's standard error is read after its end: it is in the pipe already, unless somebody else holds it open.
pub const EXEC_LAST_WORDS: Duration = Duration::from_millis(250);

/// Bytes of a line on a command's standard error that are kept together; a longer one is passed on in parts.
pub const EXEC_LINE: usize = 8 << 10;

/// How often the broker is told that a command goes on: in time for an `ack_timeout` of 10 s or more, and little traffic over a mobile network.
pub const EXEC_EXTEND: Duration = Duration::from_secs(5);

/// How long `wsmb receive` tries, when it is to stop, to tell a broker that is away what has been done: a restart takes less.
pub const EXEC_TELL: Duration = Duration::from_secs(5);

/// How long a finished message whose answer was lost is waited for: a broker that is back gives it out again at once, to this receiver or to another one.
pub const EXEC_OWED: Duration = Duration::from_secs(60);

/// Messages that `wsmb receive` remembers to have finished, some 100 bytes each: far more than can be in hand when a connection is lost.
pub const EXEC_REMEMBERED: usize = 4_096;

/// The most fields of a message given to a command as environment variables.
pub const EXEC_FIELDS: usize = 64;

/// How deep a field may be nested that becomes a variable: each level is read once more.
pub const EXEC_FIELD_DEPTH: usize = 16;

/// The longest name of such a variable, without `WSMB_`: no programming language's names are longer.
pub const EXEC_FIELD_NAME: usize = 100;

/// Bytes of one such variable: the smallest of the systems' bounds (Windows). A longer one is left out, never cut.
pub const EXEC_FIELD_BYTES: usize = 32_000;

/// Bytes of all such variables: well below what systems allow for arguments and environment together.
pub const EXEC_ENVIRONMENT_BYTES: usize = 128 << 10;

/// Sentences in the log about fields of one message that are left out; further ones are only counted.
pub const EXEC_NOTES: usize = 8;

/// Characters of a field's name in such a sentence.
pub const EXEC_NOTE_CHARS: usize = 40;

/// Different messages that must have failed in a row before the gateway takes a breath: then it is the modem's or the command's fault.
pub const EXEC_FAILING_CALM: usize = 3;

/// Messages that have failed in a row and are told apart: at so many the breath has long been the longest.
pub const EXEC_FAILING: usize = 16;

/// The first such breath. Each further failure doubles it.
pub const EXEC_PAUSE_FIRST: Duration = Duration::from_millis(500);

/// The longest such breath: a code that comes right after the modem is back still comes in time.
pub const EXEC_PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// The highest number in a `--rate`: the beginnings within its span are remembered, 16 bytes each.
pub const EXEC_RATE: usize = 100_000;

/// How often the local clock is looked at for `--quiet`.
pub const EXEC_QUIET_LOOK: Duration = Duration::from_secs(5);

/// The first pause between two looks whether a pipe's reader has read a line.
pub const PIPE_LOOK_FIRST: Duration = Duration::from_micros(20);

/// The longest such pause: what a slow reader loses by it is nothing to it.
pub const PIPE_LOOK: Duration = Duration::from_millis(5);
