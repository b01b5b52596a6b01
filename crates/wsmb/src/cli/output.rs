//! How the command line speaks: colours only where a person looks, and plain sentences on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use super::Failure;

/// Whether a person reads along, and in colours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    terminal: bool,
    colours: bool,
}

impl Style {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        Self { terminal, colours: terminal && colours_wanted() }
    }

    /// A person reads along.
    pub(crate) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// In colours.
    pub(crate) fn has_colours(self) -> bool {
        self.colours
    }

    /// What matters most.
    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.paint("1", text)
    }

    /// What matters least.
    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.paint("2", text)
    }

    /// Something is well.
    pub(crate) fn good(self, text: impl fmt::Display) -> String {
        self.paint("32", text)
    }

    /// Something deserves a look.
    pub(crate) fn doubt(self, text: impl fmt::Display) -> String {
        self.paint("33", text)
    }

    /// Something is wrong.
    pub(crate) fn bad(self, text: impl fmt::Display) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// `NO_COLOR` (no-color.org: set and not empty) and a terminal that knows none.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Says on standard error why the command failed.
pub(crate) fn complain(reason: &str) {
    let style = Style::stderr();
    note(&format!("{} {reason}", style.bad("wsmb:")));
}

/// Says something on standard error. A closed standard error is nobody's concern.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes to standard error what another program said, as it is.
pub(crate) fn pass_on(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Prints one line on standard output.
///
/// # Errors
/// It cannot be written. A reader that has left (`| head`) is not told about it.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| write_failed(&error))
}

/// What a failed write to standard output means.
pub(crate) fn write_failed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::Said
    } else {
        Failure::failed(format_args!("cannot write to standard output: {error}"))
    }
}

/// The text with every control character written out: what others sent must not command the reader's terminal.
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

/// "1 message", "2 messages".
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        assert_eq!(Style { terminal: true, colours: true }.bold("x"), "\x1b[1mx\x1b[0m");
        let plain = Style { terminal: true, colours: false };
        assert_eq!(
            [plain.bold("x"), plain.dim("x"), plain.good("x"), plain.doubt("x"), plain.bad("x")].concat(),
            "xxxxx"
        );
    }

    #[test]
    fn numbers_and_words_agree() {
        assert_eq!(
            [count(0, "message"), count(1, "message"), count(2, "message")],
            ["0 messages", "1 message", "2 messages"]
        );
    }
}
