//! Output of the command line: colours on terminals, lines on standard output, notes and errors on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use super::Failure;

/// Whether an output stream is a terminal, and whether it gets colours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    terminal: bool,
    colours: bool,
}

impl Style {
    /// Returns the style of standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// Returns the style of standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        Self { terminal, colours: terminal && colours_wanted() }
    }

    /// Whether the stream is a terminal.
    pub(crate) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Whether the stream gets colours.
    pub(crate) fn has_colours(self) -> bool {
        self.colours
    }

    /// Formats an important text.
    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.paint("1", text)
    }

    /// Formats an unimportant text.
    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.paint("2", text)
    }

    /// Formats a success.
    pub(crate) fn good(self, text: impl fmt::Display) -> String {
        self.paint("32", text)
    }

    /// Formats a warning.
    pub(crate) fn warning(self, text: impl fmt::Display) -> String {
        self.paint("33", text)
    }

    /// Formats an error.
    pub(crate) fn bad(self, text: impl fmt::Display) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Whether the environment allows colours: `NO_COLOR` (no-color.org) is unset or empty, and `TERM` is not `dumb`.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Prints on standard error why the command failed.
pub(crate) fn print_error(reason: &str) {
    let style = Style::stderr();
    note(&format!("{} {reason}", style.bad("wsmb:")));
}

/// Prints a line on standard error. Does nothing if standard error is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes the output of another program to standard error, unchanged.
pub(crate) fn write_stderr(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Prints one line on standard output.
///
/// # Errors
/// The line cannot be written; see [`write_failed`].
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| write_failed(&error))
}

/// Returns the failure for a failed write to standard output. If the reader has closed the pipe (`| head`), the failure has no message.
pub(crate) fn write_failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Reported
    } else {
        Failure::failed(format_args!("cannot write to standard output: {error}"))
    }
}

/// Returns the text with escaped control characters: a message from the network must not control the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Returns a number with its noun: "1 message", "2 messages".
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_a_text_stays_as_it_is() {
        assert_eq!(Style { terminal: true, colours: true }.bold("x"), "\x1b[1mx\x1b[0m");
        let plain = Style { terminal: true, colours: false };
        assert_eq!(
            [plain.bold("x"), plain.dim("x"), plain.good("x"), plain.warning("x"), plain.bad("x")].concat(),
            "xxxxx"
        );
    }

    #[test]
    fn a_noun_has_a_plural() {
        assert_eq!(
            [count(0, "message"), count(1, "message"), count(2, "message")],
            ["0 messages", "1 message", "2 messages"]
        );
    }
}
