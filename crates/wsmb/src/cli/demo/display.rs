//! The output of the demo, and its temporary directory.
//!
//! Each event is one line with the time and the party that acts. Never prints a line that is wider than a terminal of 80 columns.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::output::{self, Style};
use super::super::{Failure, Outcome};
use crate::platform;

/// The channel of the demo.
pub(super) const CHANNEL: &str = "sms";

/// How long the demo waits for a frame or a counter before it fails.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// The width of a terminal, in characters.
const COLUMNS: usize = 80;
/// The width of the beginning of a line: the time and the party.
const MARGIN: usize = 22;

/// Reading time for a character of a headline: 20 characters per second.
const READING_TIME_PER_CHARACTER: Duration = Duration::from_millis(50);
/// Pause after an event. Events are short and similar, so they need less time than a headline.
const PAUSE_PER_EVENT: Duration = Duration::from_millis(350);

/// Prints the demo.
pub(super) struct Display {
    start: Instant,
    style: Style,
    is_paced: bool,
}

impl Display {
    /// `is_paced`: pauses after each line, so that a person can read it.
    pub(super) fn new(is_paced: bool) -> Self {
        Self { start: Instant::now(), style: Style::stdout(), is_paced }
    }

    /// Prints a headline: one or two sentences about the next events.
    pub(super) async fn headline(&mut self, text: &str) -> Outcome {
        output::line("")?;
        for line in wrap(text, COLUMNS) {
            output::line(&self.style.bold(line))?;
        }
        self.wait(reading_time(text)).await;
        Ok(())
    }

    pub(super) async fn broker(&mut self, text: &str) -> Outcome {
        self.event("broker", text).await
    }

    pub(super) async fn application(&mut self, text: &str) -> Outcome {
        self.event("application", text).await
    }

    pub(super) async fn gateway(&mut self, text: &str) -> Outcome {
        self.event("gateway", text).await
    }

    /// Prints a line of the result.
    pub(super) fn result(&mut self, text: &str) -> Outcome {
        output::line(&format!("  {}", self.style.good(text)))
    }

    /// Prints the commands that the reader can try next.
    pub(super) fn next(&mut self, commands: &[&str]) -> Outcome {
        output::line(&format!("\n{}", self.style.bold("Try it yourself, each command in a separate terminal:")))?;
        commands.iter().try_for_each(|command| output::line(&format!("  {command}")))
    }

    async fn event(&mut self, party: &str, text: &str) -> Outcome {
        let time = self.style.dim(format_args!("{:5.1} s", self.start.elapsed().as_secs_f64()));
        let party = match party {
            "gateway" => self.style.good(format_args!("{party:11}")),
            "broker" => self.style.warning(format_args!("{party:11}")),
            _ => format!("{party:11}"),
        };
        let lines = wrap(text, COLUMNS - MARGIN).join(&format!("\n{:MARGIN$}", ""));
        output::line(&format!("{time}  {party}  {lines}"))?;
        self.wait(PAUSE_PER_EVENT).await;
        Ok(())
    }

    async fn wait(&self, time: Duration) {
        if self.is_paced {
            tokio::time::sleep(time).await;
        }
    }
}

/// Returns the time that a person needs to read a headline.
fn reading_time(text: &str) -> Duration {
    READING_TIME_PER_CHARACTER * u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Splits a text between words into lines of at most `columns` characters. A longer word gets a line of its own.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A temporary directory. It is removed when this value is dropped.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Creates the directory. Other users cannot read it.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub(super) fn new() -> Result<Self, Failure> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::failed(format_args!("the system provides no random numbers: {error}")))?;
        let path = std::env::temp_dir().join(format!("wsmb-demo-{:016x}", u64::from_le_bytes(bytes)));
        let mut builder = std::fs::DirBuilder::new();
        // Fails if somebody has made the directory already.
        builder.recursive(false);
        platform::make_directories_private(&mut builder);
        builder.create(&path).map_err(|error| {
            Failure::failed(format_args!("cannot create the directory {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // If the removal fails, the system removes the directory with its other temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words_and_keep_their_blanks() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 80), ["one two three"]);
        assert_eq!(wrap("sends no.  8", 80), ["sends no.  8"]);
        assert_eq!(wrap("a far too long word", 3), ["a", "far", "too", "long", "word"]);
        assert_eq!(wrap("für äöü", 7), ["für äöü"], "characters count, not bytes");
    }

    #[test]
    fn a_headline_stays_long_enough_to_read() {
        let words = "word ".repeat(250);
        let a_minute = reading_time(&words).as_secs();
        assert!((50..=75).contains(&a_minute), "250 words a minute, not {a_minute} s");
    }
}
