//! The lines of standard input, as `wsmb send -` takes them.
//!
//! A line that cannot be sent is handed over with its reason, and the next line is read: one bad line must never end a batch. A byte-order mark
//! in front is dropped. A file that `--rejects` has written is recognised by its first line, and its reasons are passed over.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

use super::rejects;
use crate::limits;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub number: u64,
    /// The message, without the end of the line.
    pub text: Result<String, Unusable>,
}

/// A line that cannot be a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub reason: String,
    /// The line as it is; `None` if it is too long to be held in memory.
    pub bytes: Option<Vec<u8>>,
}

/// The lines as they come; the error is a sentence, and nothing follows it.
pub(super) type Lines = mpsc::Receiver<Result<Line, String>>;

/// A message of the command line, as the only line.
pub(super) fn one_line(message: &str) -> Lines {
    let (sender, receiver) = mpsc::channel(1);
    let text = message.strip_prefix('\u{feff}').unwrap_or(message);
    // A new channel has room for one.
    let _ = sender.try_send(Ok(Line { number: 1, text: Ok(text.trim_end_matches(['\r', '\n']).to_owned()) }));
    receiver
}

/// Reads standard input on a thread of its own: reading blocks, and nothing can interrupt it.
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
    /// The input was written by `--rejects`.
    has_reasons: bool,
    /// The line before was a reason, so this one is a message, whatever it looks like.
    is_after_reason: bool,
}

impl<R: BufRead> Reader<R> {
    fn new(input: R, longest: usize) -> Self {
        Self { input, longest, number: 0, has_reasons: false, is_after_reason: false }
    }

    /// The next line that holds a message. `None` at the end of the input.
    fn next(&mut self) -> Result<Option<Line>, String> {
        loop {
            self.number += 1;
            let failed = |error: std::io::Error| format!("line {} cannot be read: {error}", self.number);
            let Some(bytes) = read_line(&mut self.input, self.longest).map_err(failed)? else { return Ok(None) };
            let Some(mut bytes) = bytes else {
                let reason = format!("the line is longer than {} bytes", self.longest);
                return Ok(Some(Line { number: self.number, text: Err(Unusable { reason, bytes: None }) }));
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
            return Ok(Some(Line { number: self.number, text }));
        }
    }

    /// What only the first line can tell.
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
        if bytes.as_slice() == rejects::HEAD.as_bytes() {
            self.has_reasons = true;
            bytes.clear();
        }
        Ok(())
    }

    fn is_reason(&mut self, bytes: &[u8]) -> bool {
        let is_message = std::mem::take(&mut self.is_after_reason);
        self.is_after_reason = !is_message && bytes.starts_with(rejects::REASON.as_bytes());
        !is_message && (self.is_after_reason || bytes.starts_with(rejects::NOTE.as_bytes()))
    }
}

/// One line without its end; `None` at the end of the input, `Some(None)` for a line of more than `longest` bytes, which is read to its end and dropped.
fn read_line(input: &mut impl BufRead, longest: usize) -> std::io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    // The end of the line has two bytes at most.
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
    fn lines_are_read_without_their_ends_and_empty_ones_are_passed_over() {
        let found = read(b"one\r\ntwo\n\n \t\r\n three \nlast", 100);
        assert_eq!(found, [good(1, "one"), good(2, "two"), good(5, " three "), good(6, "last")]);
    }

    #[test]
    fn a_line_that_cannot_be_sent_does_not_end_the_batch() {
        let found = read(b"12345\n123456\n1234567890\r\n\xff\nx\n123456", 5);
        let long = || Err("the line is longer than 5 bytes".to_owned());
        let bytes = || Err("the line is not valid UTF-8".to_owned());
        assert_eq!(found, [good(1, "12345"), (2, long()), (3, long()), (4, bytes()), good(5, "x"), (6, long())]);
        let mut reader = Reader::new(&b"a\xffb\n"[..], 5);
        let unusable = reader.next().unwrap().unwrap().text.unwrap_err();
        assert_eq!(unusable.bytes.as_deref(), Some(&b"a\xffb"[..]));
    }

    #[test]
    fn a_byte_order_mark_is_dropped_and_utf_16_is_named() {
        assert_eq!(read(b"\xef\xbb\xbf{}\n\xef\xbb\xbfx\n", 100), [good(1, "{}"), good(2, "\u{feff}x")]);
        for input in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{"] {
            assert!(Reader::new(input, 100).next().unwrap_err().contains("UTF-16"));
        }
        assert_eq!(one_line("\u{feff}5\n").try_recv().unwrap().unwrap().text, Ok("5".to_owned()));
    }

    #[test]
    fn the_reasons_of_a_rejects_file_are_passed_over_and_its_messages_are_not() {
        let text =
            format!("{}\n# line 3: no\n# a message\n## a note\n# line 9: no\n{{\n#no reason\nx\n", rejects::HEAD);
        let found = read(text.as_bytes(), 1000);
        assert_eq!(found, [good(3, "# a message"), good(6, "{"), good(7, "#no reason"), good(8, "x")]);
        assert_eq!(read(b"# x\n## y\n", 100), [good(1, "# x"), good(2, "## y")], "only with the first line");
    }
}
