//! The file of `--rejects`: every message that was refused, each below its reason.
//!
//! ```text
//! ## Messages that `wsmb send` could not send, each below its reason. To send them again: wsmb send CHANNEL - < THIS-FILE
//! # line 3: 06 Full: the backlog of this channel is full
//! {"receiver":"0812","message":"x"}
//! ```
//!
//! A message stands there byte for byte, so that it can be mended with an editor and sent again. What was refused before must never be lost or
//! be sent twice by accident, so a file that has something in it is not written to.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::super::Failure;
use super::super::output::printable;

/// The first line. By it `wsmb send -` recognises such a file.
pub(super) const HEAD: &str = "## Messages that `wsmb send` could not send, each below its reason. To send them again: wsmb send CHANNEL - < THIS-FILE";

/// Begins a line that says why the message in the next line was refused.
pub(super) const REASON: &str = "# ";

/// Begins a line that belongs to no message.
pub(super) const NOTE: &str = "## ";

/// The open file.
#[derive(Debug)]
pub(super) struct Rejects {
    file: File,
    name: String,
    has_head: bool,
}

impl Rejects {
    /// Makes the file, for its owner only.
    ///
    /// # Errors
    /// There is something in it already, or it cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed =
            |error: std::io::Error| Failure::failed(format_args!("cannot write the rejects file {name}: {error}"));
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > 0 {
            return Err(Failure::misuse(format_args!(
                "the rejects file {name} holds messages already; send them again or remove the file, or name another one"
            )));
        }
        Ok(Self { file, name, has_head: false })
    }

    /// Adds a message, or for one that is too long to be held in memory, a note.
    ///
    /// # Errors
    /// It cannot be written: a sentence.
    pub(super) fn add(&mut self, line: u64, reason: &str, message: Option<&[u8]>) -> Result<(), String> {
        let mut text = Vec::new();
        if !std::mem::replace(&mut self.has_head, true) {
            text.extend_from_slice(format!("{HEAD}\n").as_bytes());
        }
        let reason = printable(&reason.replace('\n', " "));
        match message {
            Some(message) => {
                text.extend_from_slice(format!("{REASON}line {line}: {reason}\n").as_bytes());
                text.extend_from_slice(message);
                text.push(b'\n');
            }
            None => {
                text.extend_from_slice(format!("{NOTE}line {line}: {reason}; it is only in the input\n").as_bytes())
            }
        }
        let name = &self.name;
        self.file.write_all(&text).map_err(|error| format!("cannot write the rejects file {name}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_something_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rejects");
        let mut rejects = Rejects::open(&path).unwrap();
        assert!(Rejects::open(&path).is_ok(), "an empty one may be used");
        rejects.add(3, "06 Full:\nno room", Some(b"a\xffb")).unwrap();
        rejects.add(4, "too long", None).unwrap();
        let expected =
            format!("{HEAD}\n# line 3: 06 Full: no room\na\u{1}b\n## line 4: too long; it is only in the input\n");
        let found = std::fs::read(&path).unwrap();
        assert_eq!(
            found,
            expected.replace('\u{1}', "?").bytes().map(|b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>()
        );
        let Err(Failure::Misuse(reason)) = Rejects::open(&path) else { panic!("it is not empty") };
        assert!(reason.contains("holds messages already"), "{reason}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
