//! Writes the file of `--rejects`: each refused message, below a line with the reason.
//!
//! ```text
//! ## Messages that `wsmb send` could not send, each below its reason. To send them again: wsmb send CHANNEL - < THIS-FILE
//! # line 3: 06 Full: the backlog of this channel is full
//! {"receiver":"0812","message":"x"}
//! ```
//!
//! The message is written byte for byte, so that a person can correct it and send it again. Never writes to a file that is not empty: its messages could be
//! lost, or sent twice by accident.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::super::Failure;
use super::super::output::printable;
use crate::platform;

/// The first line. `wsmb send -` recognises a rejects file by this line.
pub(super) const HEAD_LINE: &str = "## Messages that `wsmb send` could not send, each below its reason. To send them again: wsmb send CHANNEL - < THIS-FILE";

/// The beginning of a line with the reason why the message in the next line was refused.
pub(super) const REASON_PREFIX: &str = "# ";

/// The beginning of a line that has no message after it.
pub(super) const NOTE_PREFIX: &str = "## ";

/// The open rejects file.
#[derive(Debug)]
pub(super) struct Rejects {
    file: File,
    name: String,
    has_head: bool,
}

impl Rejects {
    /// Creates the file. Only its owner can read it.
    ///
    /// # Errors
    /// The file exists and is not empty, or it cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed =
            |error: std::io::Error| Failure::failed(format_args!("cannot write the rejects file {name}: {error}"));
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        platform::make_file_private(&mut options);
        let file = options.open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > 0 {
            return Err(Failure::misuse(format_args!(
                "the rejects file {name} already contains messages; send them again, remove the file, or name another file"
            )));
        }
        Ok(Self { file, name, has_head: false })
    }

    /// Adds a refused message. `message` is `None` if the message is too long for memory; then only its line number and the reason are written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn add(&mut self, line: u64, reason: &str, message: Option<&[u8]>) -> Result<(), String> {
        let mut text = Vec::new();
        if !std::mem::replace(&mut self.has_head, true) {
            text.extend_from_slice(format!("{HEAD_LINE}\n").as_bytes());
        }
        let reason = printable(&reason.replace('\n', " "));
        match message {
            Some(message) => {
                text.extend_from_slice(format!("{REASON_PREFIX}line {line}: {reason}\n").as_bytes());
                text.extend_from_slice(message);
                text.push(b'\n');
            }
            None => text.extend_from_slice(
                format!("{NOTE_PREFIX}line {line}: {reason}; the message is not in this file\n").as_bytes(),
            ),
        }
        let name = &self.name;
        self.file.write_all(&text).map_err(|error| format!("cannot write the rejects file {name}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_empty_is_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rejects");
        let mut rejects = Rejects::open(&path).unwrap();
        assert!(Rejects::open(&path).is_ok(), "an empty file may be used");
        rejects.add(3, "06 Full:\nno room", Some(b"a\xffb")).unwrap();
        rejects.add(4, "too long", None).unwrap();
        let expected = format!(
            "{HEAD_LINE}\n# line 3: 06 Full: no room\na\u{1}b\n## line 4: too long; the message is not in this file\n"
        );
        let found = std::fs::read(&path).unwrap();
        assert_eq!(
            found,
            expected.replace('\u{1}', "?").bytes().map(|b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>()
        );
        let Err(Failure::Misuse(reason)) = Rejects::open(&path) else { panic!("it is not empty") };
        assert!(reason.contains("already contains messages"), "{reason}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
