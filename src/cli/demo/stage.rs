//! What the audience sees: one line for each thing that happens, with the time and who does it; and the temporary directory behind the scene.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::output::{self, Style};
use super::super::{Failure, Outcome};

/// Prints the story.
pub(super) struct Stage {
    start: Instant,
    style: Style,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), style: Style::stdout() }
    }

    /// What happens next, in one sentence.
    pub(super) fn chapter(&mut self, text: &str) -> Outcome {
        output::line(&format!("\n{}", self.style.bold(text)))
    }

    pub(super) fn broker(&mut self, text: &str) -> Outcome {
        self.says("broker", text)
    }

    pub(super) fn application(&mut self, text: &str) -> Outcome {
        self.says("application", text)
    }

    pub(super) fn gateway(&mut self, text: &str) -> Outcome {
        self.says("gateway", text)
    }

    /// A line of the count.
    pub(super) fn total(&mut self, text: &str) -> Outcome {
        output::line(&format!("  {}", self.style.good(text)))
    }

    fn says(&mut self, who: &str, text: &str) -> Outcome {
        let time = self.style.dim(format_args!("{:5.1} s", self.start.elapsed().as_secs_f64()));
        let who = match who {
            "gateway" => self.style.good(format_args!("{who:11}")),
            "broker" => self.style.doubt(format_args!("{who:11}")),
            _ => format!("{who:11}"),
        };
        output::line(&format!("{time}  {who}  {text}"))
    }
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
