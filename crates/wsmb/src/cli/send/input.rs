//! Reads the lines of standard input for `wsmb send -`.
//!
//! A line that cannot be sent is passed on with a reason, and the next line is read: an invalid line never ends a batch. A byte-order mark at the beginning
//! is removed. A file that `--rejects` has written is recognised by its first line, and its reasons are skipped.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

use super::rejects;
use crate::limits;

/// One line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputLine {
    /// The number of the line, counted from 1.
    pub number: u64,
    /// The message, without the end of the line.
    pub text: Result<String, Unusable>,
}

/// A line that cannot be a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub reason: String,
    /// The line as it was read; `None` if it is longer than [`limits::SEND_LINE`].
    pub bytes: Option<Vec<u8>>,
}

/// The lines in their order. An error is a message for the user, and ends the lines.
pub(super) type Lines = mpsc::Receiver<Result<InputLine, String>>;

/// Returns a message from the command line as the only line.
pub(super) fn one_line(message: &str) -> Lines {
    let (sender, receiver) = mpsc::channel(1);
    let text = message.strip_prefix('\u{feff}').unwrap_or(message);
    // A new channel has room for one line.
    let _ = sender.try_send(Ok(InputLine { number: 1, text: Ok(text.trim_end_matches(['\r', '\n']).to_owned()) }));
    receiver
}

/// Reads standard input on a separate thread, because a read blocks and cannot be interrupted.
pub(super) fn read_lines() -> Lines {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut reader = Reader::new(std::io::stdin().lock(), limits::SEND_LINE);
        while let Some(line) = reader.next().transpose() {
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

struct Reader<R> {
    input: R,
    longest: usize,
    number: u64,
    /// Whether the input was written by `--rejects`.
    has_reasons: bool,
    /// Whether the previous line was a reason. Then this line is a message, even if it begins like a reason.
    is_after_reason: bool,
}

impl<R: BufRead> Reader<R> {
    fn new(input: R, longest: usize) -> Self {
        Self { input, longest, number: 0, has_reasons: false, is_after_reason: false }
    }

    /// Returns the next line with a message; `None` at the end of the input.
    fn next(&mut self) -> Result<Option<InputLine>, String> {
        loop {
            self.number += 1;
            let failed = |error: std::io::Error| format!("cannot read line {}: {error}", self.number);
            let Some(bytes) = read_line(&mut self.input, self.longest).map_err(failed)? else { return Ok(None) };
            let Some(mut bytes) = bytes else {
                let reason = format!("the line is longer than {} bytes", self.longest);
                return Ok(Some(InputLine { number: self.number, text: Err(Unusable { reason, bytes: None }) }));
            };
            if self.number == 1 {
                self.begin(&mut bytes)?;
            }
            let is_blank = bytes.iter().all(u8::is_ascii_whitespace);
            if is_blank || (self.has_reasons && self.is_reason(&bytes)) {
                continue;
            }
            let unusable = |bytes| Unusable { reason: "the line is not valid UTF-8".to_owned(), bytes: Some(bytes) };
            let text = String::from_utf8(bytes).map_err(|error| unusable(error.into_bytes()));
            return Ok(Some(InputLine { number: self.number, text }));
        }
    }

    /// Processes the first line: refuses UTF-16, removes a byte-order mark, and recognises a rejects file.
    fn begin(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(
                "the input is UTF-16 text; convert it to UTF-8 first, for example with `iconv -f UTF-16 -t UTF-8`"
                    .to_owned(),
            );
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        if bytes.as_slice() == rejects::HEAD_LINE.as_bytes() {
            self.has_reasons = true;
            bytes.clear();
        }
        Ok(())
    }

    fn is_reason(&mut self, bytes: &[u8]) -> bool {
        let is_message = std::mem::take(&mut self.is_after_reason);
        self.is_after_reason = !is_message && bytes.starts_with(rejects::REASON_PREFIX.as_bytes());
        !is_message && (self.is_after_reason || bytes.starts_with(rejects::NOTE_PREFIX.as_bytes()))
    }
}

/// Reads one line without its line ending. Returns `None` at the end of the input, and `Some(None)` for a line of more than `longest` bytes, which is read to
/// its end and discarded.
fn read_line(input: &mut impl BufRead, longest: usize) -> std::io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    // A line ending has at most two bytes.
    let bound = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(2);
    if input.by_ref().take(bound).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let is_whole = line.ends_with(b"\n");
    let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    line.truncate(end);
    if line.len() <= longest {
        return Ok(Some(Some(line)));
    }
    if !is_whole {
        input.skip_until(b'\n')?;
    }
    Ok(Some(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], longest: usize) -> Vec<(u64, Result<String, String>)> {
        let mut reader = Reader::new(input, longest);
        let lines = std::iter::from_fn(|| reader.next().unwrap());
        lines.map(|line| (line.number, line.text.map_err(|unusable| unusable.reason))).collect()
    }

    fn good(number: u64, text: &str) -> (u64, Result<String, String>) {
        (number, Ok(text.to_owned()))
    }

    #[test]
    fn line_endings_are_removed_and_empty_lines_are_skipped() {
        let found = read(b"one\r\ntwo\n\n \t\r\n three \nlast", 100);
        assert_eq!(found, [good(1, "one"), good(2, "two"), good(5, " three "), good(6, "last")]);
    }

    #[test]
    fn an_unusable_line_does_not_end_the_batch() {
        let found = read(b"12345\n123456\n1234567890\r\n\xff\nx\n123456", 5);
        let long = || Err("the line is longer than 5 bytes".to_owned());
        let bytes = || Err("the line is not valid UTF-8".to_owned());
        assert_eq!(found, [good(1, "12345"), (2, long()), (3, long()), (4, bytes()), good(5, "x"), (6, long())]);
        let mut reader = Reader::new(&b"a\xffb\n"[..], 5);
        let unusable = reader.next().unwrap().unwrap().text.unwrap_err();
        assert_eq!(unusable.bytes.as_deref(), Some(&b"a\xffb"[..]));
    }

    #[test]
    fn a_byte_order_mark_is_removed_and_utf_16_is_refused() {
        assert_eq!(read(b"\xef\xbb\xbf{}\n\xef\xbb\xbfx\n", 100), [good(1, "{}"), good(2, "\u{feff}x")]);
        for input in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{"] {
            assert!(Reader::new(input, 100).next().unwrap_err().contains("UTF-16"));
        }
        assert_eq!(one_line("\u{feff}5\n").try_recv().unwrap().unwrap().text, Ok("5".to_owned()));
    }

    #[test]
    fn the_reasons_of_a_rejects_file_are_skipped_and_its_messages_are_read() {
        let text =
            format!("{}\n# line 3: no\n# a message\n## a note\n# line 9: no\n{{\n#no reason\nx\n", rejects::HEAD_LINE);
        let found = read(text.as_bytes(), 1000);
        assert_eq!(found, [good(3, "# a message"), good(6, "{"), good(7, "#no reason"), good(8, "x")]);
        assert_eq!(
            read(b"# x\n## y\n", 100),
            [good(1, "# x"), good(2, "## y")],
            "without the head line, nothing is a reason"
        );
    }
}
