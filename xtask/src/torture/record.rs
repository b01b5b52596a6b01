//! The history files: one for each client, one JSON object per line. Each line is written at once, so that it survives a kill of the client.
//!
//! All clients, including the PHP scripts, use one clock: CLOCK_MONOTONIC in microseconds.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The kind of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A connection receives the channel `ch`; `what` is the kind of receiver, `how` the route.
    Open,
    /// A connection has ended; `what` says how: `fin`, `close`, `reset`, `refused` (closed with 1009), `lost` (the other side ended it), `killed`.
    End,
    /// A client stops reading.
    Pause,
    /// A paused client reads again.
    Resume,
    /// A message was received.
    Got,
    /// A pong is written: it confirms all earlier deliveries of the connection.
    Confirm,
    /// A manual delivery is acknowledged.
    Ack,
    /// A manual delivery is returned.
    Nack,
    /// A manual delivery is rejected finally.
    Reject,
    /// The ack timeout of a manual delivery is restarted.
    Extend,
    /// A message is about to be sent.
    Send,
    /// The answer to a message with an id.
    Answer,
    /// A sender without ids has written all messages of a connection and closed it; `what` says how. For Rust clients, TCP has acknowledged all bytes.
    Gone,
    /// The nemesis has injected or ended a fault; `what` is the fault, `how` has details.
    Act,
    /// A client has seen an event that must not happen; `what` describes the event.
    Wrong,
    /// Other information.
    #[default]
    Note,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The time, in microseconds of CLOCK_MONOTONIC.
    pub t: u64,
    pub e: Kind,
    /// Number of the client's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn: Option<u64>,
    /// Channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ch: Option<String>,
    /// Key of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub m: Option<String>,
    /// Number of the frame that brought the message, on the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Hash of the message's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h: Option<u64>,
    /// Name of a manual delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    /// Whether the delivery has the mark of a possible redelivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<bool>,
    /// Whether the message was sent with an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<bool>,
    /// Milliseconds to live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Milliseconds before the message may be delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<u64>,
    /// Response code of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the answer reports a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// A detail that depends on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The route of a connection, or a second detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

impl Event {
    /// Creates an event with the current time.
    pub fn now(e: Kind) -> Self {
        Self { t: now(), e, ..Self::default() }
    }

    pub fn on(mut self, conn: u64) -> Self {
        self.conn = Some(conn);
        self
    }

    pub fn of(mut self, message: &str) -> Self {
        self.m = Some(message.to_owned());
        self
    }

    pub fn in_channel(mut self, channel: &str) -> Self {
        self.ch = Some(channel.to_owned());
        self
    }

    pub fn what(mut self, what: impl Into<String>) -> Self {
        self.what = Some(what.into());
        self
    }

    pub fn how(mut self, how: impl Into<String>) -> Self {
        self.how = Some(how.into());
        self
    }
}

/// Returns the time of CLOCK_MONOTONIC in microseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the one structure, which lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// A client's history file.
pub struct Recorder(Mutex<File>);

impl Recorder {
    /// Opens or creates the history file of `client` in `directory`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn create(directory: &Path, client: &str) -> std::io::Result<Self> {
        let path = directory.join(format!("{client}.jsonl"));
        Ok(Self(Mutex::new(File::options().create(true).append(true).open(path)?)))
    }

    /// Appends an event.
    pub fn note(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

/// Parses the lines of a history file. Ignores an unterminated last line, which a killed client leaves.
///
/// # Errors
/// A line is not an event.
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Event, Kind, parse};

    #[test]
    fn a_written_line_is_read_again_and_an_unterminated_line_is_ignored() {
        let event = Event::now(Kind::Got).on(3).of("a-1").in_channel("one").what("x");
        let text = format!("{}\n{{\"t\":5,\"e\":\"go", serde_json::to_string(&event).unwrap());
        assert_eq!(parse(&text).unwrap(), [event]);
        assert!(parse("nonsense\n").is_err());
    }
}
