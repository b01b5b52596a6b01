//! What happened, one file for each client, one JSON object a line, written at once: what a client noted survives whatever happens to it.
//!
//! All clients, also those in other languages, note the time of the same clock: CLOCK_MONOTONIC in microseconds.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// What a line tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A connection receives the channel `ch`; `what` says in which manner.
    Open,
    /// A connection is over; `what` says how: `fin`, `close`, `reset`, `refused` (closed with 1009), `lost` (the other side ended it), `killed`.
    End,
    /// A client reads nothing from now on.
    Pause,
    /// A paused client reads again.
    Resume,
    /// A message was received.
    Got,
    /// A pong was written: everything received before on the connection is confirmed.
    Confirm,
    /// A delivery was acknowledged.
    Ack,
    /// A delivery was given back.
    Nack,
    /// A delivery was rejected for good.
    Reject,
    /// The ack timeout of a delivery starts anew.
    Extend,
    /// A message is about to be sent.
    Send,
    /// The answer to a message with an id.
    Answer,
    /// A sender that waits for no answer has handed over all messages of the connection (TCP has acknowledged them), and left it as `what` says.
    Gone,
    /// The nemesis did something; `what` says what, `how` further.
    Act,
    /// Something that must not happen, seen by a client; `what` is the sentence.
    Wrong,
    /// Anything else that helps a reader.
    #[default]
    Note,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds of CLOCK_MONOTONIC.
    pub t: u64,
    /// What.
    pub e: Kind,
    /// Number of the connection, within the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn: Option<u64>,
    /// Channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ch: Option<String>,
    /// Message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub m: Option<String>,
    /// Number of the frame that brought the message, on the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Hash of the message's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h: Option<u64>,
    /// Name of a delivery that is acknowledged by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    /// The delivery was marked as one that may have been delivered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<bool>,
    /// The message was sent with an id, so that it can be sent again.
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
    /// The answer says that the message is a duplicate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// How, or which of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The way to the broker that a connection takes, or a further word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

impl Event {
    /// An event that happens now.
    pub fn now(e: Kind) -> Self {
        Self { t: now(), e, ..Self::default() }
    }

    /// The same on a connection.
    pub fn on(mut self, conn: u64) -> Self {
        self.conn = Some(conn);
        self
    }

    /// The same about a message.
    pub fn of(mut self, message: &str) -> Self {
        self.m = Some(message.to_owned());
        self
    }

    /// The same with a channel.
    pub fn in_channel(mut self, channel: &str) -> Self {
        self.ch = Some(channel.to_owned());
        self
    }

    /// The same with a word.
    pub fn what(mut self, what: impl Into<String>) -> Self {
        self.what = Some(what.into());
        self
    }

    /// The same with a further word.
    pub fn how(mut self, how: impl Into<String>) -> Self {
        self.how = Some(how.into());
        self
    }
}

/// Microseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the one structure, which lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// One client's file.
pub struct Recorder(Mutex<File>);

impl Recorder {
    /// Opens the file of `client` in `directory`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(directory: &Path, client: &str) -> std::io::Result<Self> {
        let path = directory.join(format!("{client}.jsonl"));
        Ok(Self(Mutex::new(File::options().create(true).append(true).open(path)?)))
    }

    /// Writes one line.
    pub fn note(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
    }
}

/// The lines of a client's file. The last one may be unterminated: its writer was killed.
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Event, Kind, parse};

    #[test]
    fn a_line_is_read_as_it_was_written_and_a_torn_one_is_left_out() {
        let event = Event::now(Kind::Got).on(3).of("a-1").in_channel("one").what("x");
        let text = format!("{}\n{{\"t\":5,\"e\":\"go", serde_json::to_string(&event).unwrap());
        assert_eq!(parse(&text).unwrap(), [event]);
        assert!(parse("nonsense\n").is_err());
    }
}
