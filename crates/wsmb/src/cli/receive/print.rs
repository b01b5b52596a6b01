//! Deliveries as lines on standard output.
//!
//! A message counts as received when its line has been written; into a pipe, when the program at the other end has read it. So a reader that leaves
//! (`| head -2`) has taken no message more than it has read.

use std::io::{self, IsTerminal as _, Write as _};

use super::Failure;
use super::item::{Item, Received};
use crate::cli::output;
use wsmb_protocol::envelope::iso8601;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    pub raw: bool,
    pub json: bool,
    /// There are several channels: a line says which.
    pub channel: bool,
    /// Somebody reads the lines from a pipe.
    pub pipe: bool,
}

impl Printer {
    /// Writes deliveries, and waits until they have been taken.
    ///
    /// # Errors
    /// They cannot be written. [`Failure::Said`]: the reader has left.
    pub(super) async fn print(self, items: &[Item]) -> Result<(), Failure> {
        let terminal = io::stdout().is_terminal();
        let mut text = String::new();
        for item in items {
            for message in &item.messages {
                let line = self.line(item, message);
                // A file or a program gets what was sent; a terminal must not obey it.
                text.push_str(&if terminal { output::printable(&line) } else { line });
                text.push('\n');
            }
        }
        // A full pipe blocks, and pings must be answered meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
            if self.pipe { pipe::wait_until_read() } else { Ok(()) }
        });
        written.await.map_err(Failure::failed)?.map_err(|error| output::write_failed(&error))
    }

    fn line(self, item: &Item, message: &Received) -> String {
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

/// The message on one line. A line break in a JSON text stands between its tokens, never inside a string: a blank means the same.
pub(super) fn one_line(json: &str) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json.to_owned() }
}

/// The text of a JSON string; anything else as it stands.
pub(super) fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| one_line(json))
}

pub(super) use self::pipe::{is_pipe, reader_left};

/// Standard output as a pipe.
#[cfg(unix)]
mod pipe {
    use std::io;
    use std::time::Duration;

    use crate::limits;

    pub(in super::super) fn is_pipe() -> bool {
        // SAFETY: all-zero is a valid `stat`, and the call only writes into it.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            libc::fstat(libc::STDOUT_FILENO, &raw mut found) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFIFO
        }
    }

    /// Returns when the reader has taken everything that was written.
    pub(super) fn wait_until_read() -> io::Result<()> {
        let mut pause = limits::PIPE_LOOK_FIRST;
        loop {
            match unread() {
                // What nobody has read when the last reader leaves, nobody will read.
                Some(count) if count > 0 && has_no_reader(Duration::ZERO) => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Some(count) if count > 0 => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(limits::PIPE_LOOK);
                }
                // A system that does not tell: what is written counts as read.
                _ => return Ok(()),
            }
        }
    }

    /// Bytes that the reader has not taken yet.
    fn unread() -> Option<libc::c_int> {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        let told = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::FIONREAD, &raw mut count) };
        (told == 0).then_some(count)
    }

    /// Whether the other end of the pipe is closed, now or within this time.
    fn has_no_reader(patience: Duration) -> bool {
        let mut end = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
        let millis = patience.as_millis().try_into().unwrap_or(-1);
        // SAFETY: poll gets one `pollfd`, and writes into it.
        unsafe { libc::poll(&raw mut end, 1, millis) > 0 && end.revents & (libc::POLLERR | libc::POLLHUP) != 0 }
    }

    /// Returns when the last reader of the pipe has left.
    pub(in super::super) async fn reader_left() {
        // On a thread of its own, which ends with the program.
        let left = tokio::task::spawn_blocking(|| has_no_reader(Duration::MAX)).await;
        if !left.unwrap_or(false) {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
mod pipe {
    pub(in super::super) fn is_pipe() -> bool {
        false
    }

    pub(super) fn wait_until_read() -> std::io::Result<()> {
        Ok(())
    }

    pub(in super::super) async fn reader_left() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_core::message::Timestamp;

    #[test]
    fn a_message_fits_on_one_line_and_means_the_same() {
        let pretty = "{\n  \"a\": \"x\\ny\",\r\n  \"b\": [1]\n}";
        let line = one_line(pretty);
        assert!(!line.contains(['\n', '\r']));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(pretty));
        assert_eq!(one_line("{\"a\" : 1}"), "{\"a\" : 1}");
    }

    #[test]
    fn raw_gives_the_text_of_a_string_and_leaves_the_rest() {
        assert_eq!(plain(r#""say \"hi\" \u00e9""#), "say \"hi\" é");
        assert_eq!(plain("{\"a\":1}"), "{\"a\":1}");
    }

    #[test]
    fn a_line_says_what_was_asked_for() {
        let item = Item {
            delivery: None,
            generation: 0,
            channel: "a\"b".to_owned(),
            redelivered: true,
            attempt: 3,
            at: Timestamp(1_763_805_600_000),
            messages: vec![Received { id: "7-ab".to_owned(), json: "{\"x\":\n1}".to_owned() }],
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
