//! `wsmb import`: turns the PHP broker's `config.ini` into a configuration of this one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::output::{self, Style};
use super::{Failure, Outcome};
use crate::config::import;

/// Turn the PHP broker's config.ini into a configuration file for this one
///
/// Prints the new file, or writes it with -o; says on standard error what does not mean the same any more.
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
        let imported = import::import(&bytes).map_err(|error| Failure::failed(format_args!("{path} {error}")))?;
        match &self.output {
            None => output::line(imported.toml.trim_end())?,
            Some(target) => {
                // An existing configuration is somebody's work.
                let written = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(target)
                    .and_then(|mut file| file.write_all(imported.toml.as_bytes()));
                written.map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", target.display())))?;
            }
        }
        let style = Style::stderr();
        for remark in &imported.remarks {
            output::note(&format!("{} {remark}", style.doubt("note:")));
        }
        if let Some(target) = &self.output {
            output::note(&format!("wrote {0}; look at it with: wsmb check --config {0}", target.display()));
        }
        Ok(())
    }
}
