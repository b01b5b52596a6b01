//! What the audience sees: one line for each thing that happens, with the time and who does it; and the temporary directory behind the scene.
//! No line is longer than a terminal is wide.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::output::{self, Style};
use super::super::{Failure, Outcome};

/// The channel of the story.
pub(super) const CHANNEL: &str = "sms";

/// How long the story waits for anything before it says that it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The width of a terminal, in characters.
const COLUMNS: usize = 80;
/// What stands in front of a line: the time, and who does it.
const MARGIN: usize = 22;

/// A reader of a chapter needs so long for each of its characters: 20 a second.
const PER_CHARACTER: Duration = Duration::from_millis(50);
/// The lines between are much alike, and are looked at rather than read.
const PER_LINE: Duration = Duration::from_millis(350);

/// Prints the story.
pub(super) struct Stage {
    start: Instant,
    style: Style,
    is_paced: bool,
}

impl Stage {
    /// `is_paced`: it waits after each line until a reader has read it.
    pub(super) fn new(is_paced: bool) -> Self {
        Self { start: Instant::now(), style: Style::stdout(), is_paced }
    }

    /// What happens next, in one sentence or two.
    pub(super) async fn chapter(&mut self, text: &str) -> Outcome {
        output::line("")?;
        for line in wrapped(text, COLUMNS) {
            output::line(&self.style.bold(line))?;
        }
        self.wait(reading_time(text)).await;
        Ok(())
    }

    pub(super) async fn broker(&mut self, text: &str) -> Outcome {
        self.says("broker", text).await
    }

    pub(super) async fn application(&mut self, text: &str) -> Outcome {
        self.says("application", text).await
    }

    pub(super) async fn gateway(&mut self, text: &str) -> Outcome {
        self.says("gateway", text).await
    }

    /// A line of the count.
    pub(super) fn total(&mut self, text: &str) -> Outcome {
        output::line(&format!("  {}", self.style.good(text)))
    }

    /// What the reader can do now.
    pub(super) fn next(&mut self, commands: &[&str]) -> Outcome {
        output::line(&format!("\n{}", self.style.bold("Now yours, each line in a terminal of its own:")))?;
        commands.iter().try_for_each(|command| output::line(&format!("  {command}")))
    }

    async fn says(&mut self, who: &str, text: &str) -> Outcome {
        let time = self.style.dim(format_args!("{:5.1} s", self.start.elapsed().as_secs_f64()));
        let who = match who {
            "gateway" => self.style.good(format_args!("{who:11}")),
            "broker" => self.style.doubt(format_args!("{who:11}")),
            _ => format!("{who:11}"),
        };
        let lines = wrapped(text, COLUMNS - MARGIN).join(&format!("\n{:MARGIN$}", ""));
        output::line(&format!("{time}  {who}  {lines}"))?;
        self.wait(PER_LINE).await;
        Ok(())
    }

    async fn wait(&self, time: Duration) {
        if self.is_paced {
            tokio::time::sleep(time).await;
        }
    }
}

/// How long a reader takes for a chapter.
fn reading_time(text: &str) -> Duration {
    PER_CHARACTER * u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// A text in lines of at most so many characters, broken between words. A word that is longer has a line of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
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

/// A directory of one's own that goes when it is dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// # Errors
    /// It cannot be made.
    pub(super) fn new() -> Result<Self, Failure> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::failed(format_args!("the system gives no random numbers: {error}")))?;
        let path = std::env::temp_dir().join(format!("wsmb-demo-{:016x}", u64::from_le_bytes(bytes)));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .map_err(|error| Failure::failed(format_args!("cannot make the directory {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed here is removed by the system with its other temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_no_blank_is_lost() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 80), ["one two three"]);
        assert_eq!(wrapped("sends no.  8", 80), ["sends no.  8"]);
        assert_eq!(wrapped("a far too long word", 3), ["a", "far", "too", "long", "word"]);
        assert_eq!(wrapped("für äöü", 7), ["für äöü"], "characters count, not bytes");
    }

    #[test]
    fn a_chapter_stays_as_long_as_it_takes_to_read() {
        let words = "word ".repeat(250);
        let a_minute = reading_time(&words).as_secs();
        assert!((50..=75).contains(&a_minute), "250 words a minute, not {a_minute} s");
    }
}
