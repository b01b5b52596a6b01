//! Prints deliveries as lines on standard output.
//!
//! A message is finished when its line is written; if standard output is a pipe, when the other program has read the line. So no message is lost if the
//! other program ends early (`| head -2`). Never writes unescaped control characters to a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use super::Failure;
use super::delivery::{ReceivedDelivery, ReceivedMessage};
use crate::cli::output;
use crate::{limits, platform};
use wsmb_protocol::envelope::iso8601;

/// The format of the lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    pub raw: bool,
    pub json: bool,
    /// Whether each line begins with the name of the channel.
    pub channel: bool,
    /// Whether standard output is a pipe.
    pub pipe: bool,
}

impl Printer {
    /// Writes deliveries; into a pipe, also waits until they are read.
    ///
    /// # Errors
    /// The write failed. [`Failure::Reported`]: the reader has closed the pipe.
    pub(super) async fn print(self, items: &[ReceivedDelivery]) -> Result<(), Failure> {
        let terminal = io::stdout().is_terminal();
        let mut text = String::new();
        for item in items {
            for message in &item.messages {
                let line = self.line(item, message);
                // A file or a program gets the message unchanged. On a terminal, control characters are escaped.
                text.push_str(&if terminal { output::printable(&line) } else { line });
                text.push('\n');
            }
        }
        // On a separate thread, because a full pipe blocks, and the client must answer pings meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
            if self.pipe { wait_until_read() } else { Ok(()) }
        });
        written.await.map_err(Failure::failed)?.map_err(|error| output::write_failed(&error))
    }

    fn line(self, item: &ReceivedDelivery, message: &ReceivedMessage) -> String {
        if self.json {
            let [id, channel] = [&message.id, &item.channel].map(|text| serde_json::Value::from(text.as_str()));
            let (attempt, redelivered, time) = (item.attempt, item.redelivered, iso8601(item.at));
            let data = one_line(&message.json);
            return format!(
                r#"{{"id":{id},"channel":{channel},"attempt":{attempt},"redelivered":{redelivered},"time":"{time}","data":{data}}}"#
            );
        }
        let text = if self.raw { plain(&message.json) } else { one_line(&message.json) };
        if self.channel { format!("{}\t{text}", item.channel) } else { text }
    }
}

/// Returns the message as one line. In JSON a line break can only stand between tokens, where a blank has the same meaning.
pub(super) fn one_line(json: &str) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json.to_owned() }
}

/// Returns the text of a JSON string; any other JSON value as one line.
pub(super) fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| one_line(json))
}

/// Returns when the reader of standard output has read all bytes in the pipe.
///
/// # Errors
/// The last reader has closed the pipe.
fn wait_until_read() -> io::Result<()> {
    let mut pause = limits::PIPE_POLL_FIRST;
    loop {
        match platform::unread_bytes() {
            // The last reader has closed the pipe, so the rest will never be read.
            Some(count) if count > 0 && platform::has_no_reader(Duration::ZERO) => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Some(count) if count > 0 => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(limits::PIPE_POLL);
            }
            // The pipe is empty, or the system does not support the call; then written bytes count as read.
            _ => return Ok(()),
        }
    }
}

/// Returns when the last reader of standard output has closed the pipe.
pub(super) async fn reader_left() {
    // On a separate thread, which ends with the program.
    let left = tokio::task::spawn_blocking(|| platform::has_no_reader(Duration::MAX)).await;
    if !left.unwrap_or(false) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_core::message::Timestamp;

    #[test]
    fn a_message_on_one_line_has_the_same_value() {
        let pretty = "{\n  \"a\": \"x\\ny\",\r\n  \"b\": [1]\n}";
        let line = one_line(pretty);
        assert!(!line.contains(['\n', '\r']));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(pretty));
        assert_eq!(one_line("{\"a\" : 1}"), "{\"a\" : 1}");
    }

    #[test]
    fn raw_decodes_strings_and_no_other_values() {
        assert_eq!(plain(r#""say \"hi\" \u00e9""#), "say \"hi\" é");
        assert_eq!(plain("{\"a\":1}"), "{\"a\":1}");
    }

    #[test]
    fn a_line_has_the_requested_format() {
        let item = ReceivedDelivery {
            delivery: None,
            generation: 0,
            channel: "a\"b".to_owned(),
            redelivered: true,
            attempt: 3,
            at: Timestamp(1_763_805_600_000),
            messages: vec![ReceivedMessage { id: "7-ab".to_owned(), json: "{\"x\":\n1}".to_owned() }],
        };
        let plain = Printer { raw: false, json: false, channel: false, pipe: false };
        let line = |printer: Printer| printer.line(&item, &item.messages[0]);
        assert_eq!(line(plain), r#"{"x": 1}"#);
        assert_eq!(line(Printer { channel: true, ..plain }), "a\"b\t{\"x\": 1}");
        assert_eq!(
            line(Printer { json: true, channel: true, ..plain }),
            r#"{"id":"7-ab","channel":"a\"b","attempt":3,"redelivered":true,"time":"2025-11-22T10:00:00.000Z","data":{"x": 1}}"#
        );
    }
}
