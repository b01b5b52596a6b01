//! `wsmb import`: turns the PHP broker's `config.ini` into a configuration of this one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{self, Style};
use super::{Failure, Outcome};
use crate::config::import;

/// Turn the PHP broker's config.ini into a configuration file for this one
///
/// Prints the new file, or writes it with -o, and the password of the database into a file beside it; both only their owner can read. Says on standard error
/// what does not mean the same any more.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb import config.ini -o wsmb.toml")]
pub(crate) struct Import {
    /// The PHP broker's configuration
    file: PathBuf,

    /// Write to this file, which must not exist yet, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Import {
    pub(crate) fn run(&self) -> Outcome {
        let path = self.file.display();
        let bytes =
            std::fs::read(&self.file).map_err(|error| Failure::failed(format_args!("cannot read {path}: {error}")))?;
        let beside = self.output.as_deref().unwrap_or(Path::new("wsmb.toml")).with_extension("password");
        let imported =
            import::import(&bytes, &beside).map_err(|error| Failure::failed(format_args!("{path} {error}")))?;
        match &self.output {
            None => output::line(imported.toml.trim_end())?,
            Some(target) => {
                if let Some(password) = &imported.password {
                    write_new(&beside, &format!("{password}\n"))?;
                }
                write_new(target, &imported.toml).inspect_err(|_| {
                    if imported.password.is_some() {
                        // Nothing else needs it; if it stays, the next attempt says so.
                        let _ = std::fs::remove_file(&beside);
                    }
                })?;
            }
        }
        let style = Style::stderr();
        for remark in &imported.remarks {
            output::note(&format!("{} {remark}", style.doubt("note:")));
        }
        match (&self.output, &imported.password) {
            (Some(_), Some(_)) => output::note(&format!("wrote {}: the password of the database", beside.display())),
            (None, Some(_)) => output::note(&format!(
                "{} the password of the database is not printed: write it into {}, for its owner only, or give it in WSMB_STORE__PASSWORD",
                style.doubt("note:"),
                beside.display()
            )),
            (_, None) => {}
        }
        if let Some(target) = &self.output {
            output::note(&format!("wrote {0}; look at it with: wsmb check --config {0}", target.display()));
        }
        Ok(())
    }
}

/// Writes a new file for its owner's eyes. An existing one is somebody's work.
fn write_new(path: &Path, text: &str) -> Outcome {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
}
