//! `wsmb import`: converts the PHP broker's `config.ini` into a configuration file for this broker. Never overwrites a file.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{self, Style};
use super::{Failure, Outcome};
use crate::platform;
use wsmb_config::import;

/// Convert the PHP broker's config.ini into a configuration file for this broker
///
/// Prints the new configuration. With -o, writes it into a file, and writes the password of the database into a second file next to it; only you can read
/// these files. Lists on standard error the settings whose meaning has changed.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb import config.ini -o wsmb.toml")]
pub(crate) struct Import {
    /// The PHP broker's configuration
    file: PathBuf,

    /// Write the configuration to this file, which must not exist, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Whether the broker keeps messages, if the old file has a value such as keep_data = false, which the PHP broker read as true [default: ask on a
    /// terminal, else yes]
    #[arg(long, value_name = "yes|no", value_parser = clap::builder::BoolishValueParser::new())]
    keep: Option<bool>,
}

impl Import {
    pub(crate) fn run(&self) -> Outcome {
        let path = self.file.display();
        let bytes =
            std::fs::read(&self.file).map_err(|error| Failure::failed(format_args!("cannot read {path}: {error}")))?;
        let beside = self.output.as_deref().unwrap_or(Path::new("wsmb.toml")).with_extension("password");
        let import = |keep| {
            import::import(&bytes, &beside, keep).map_err(|error| Failure::failed(format_args!("{path} {error}")))
        };
        let mut imported = import(self.keep)?;
        if let Some(text) = &imported.undecided
            && let Some(keep) = ask_about(text)?
        {
            imported = import(Some(keep))?;
        }
        match &self.output {
            None => output::line(imported.toml.trim_end())?,
            Some(target) => {
                if let Some(password) = &imported.password {
                    write_new(&beside, &format!("{password}\n"))?;
                }
                write_new(target, &imported.toml).inspect_err(|_| {
                    if imported.password.is_some() {
                        // If the removal fails, the next attempt reports that the file exists.
                        let _ = std::fs::remove_file(&beside);
                    }
                })?;
            }
        }
        let style = Style::stderr();
        for remark in &imported.remarks {
            output::note(&format!("{} {remark}", style.warning("note:")));
        }
        match (&self.output, &imported.password) {
            (Some(_), Some(_)) => output::note(&format!("wrote {}: the password of the database", beside.display())),
            (None, Some(_)) => output::note(&format!(
                "{} the password of the database is not printed; write it into {}, readable by its owner only, or set WSMB_STORE__PASSWORD",
                style.warning("note:"),
                beside.display()
            )),
            (_, None) => {}
        }
        if let Some(target) = &self.output {
            output::note(&format!("wrote {0}; check it with: wsmb check --config {0}", target.display()));
        }
        Ok(())
    }
}

/// Asks on the terminal whether messages are kept. Returns `None` if there is no terminal, or if the answer is neither yes nor no.
fn ask_about(text: &str) -> Result<Option<bool>, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(None);
    }
    output::note(&format!(
        "The old file has keep_data = {text}. The PHP broker read this value as ON: it kept messages, and its table may contain some.\n\
         Keep messages? (yes: also deliver the messages in the table; no: do not deliver them) [yes]"
    ));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format_args!("cannot read the answer: {error}")))?;
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "n" | "no" => Some(false),
        "" | "y" | "yes" => Some(true),
        _ => None,
    })
}

/// Writes a new file that only its owner can read. An existing file is an error.
fn write_new(path: &Path, text: &str) -> Outcome {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    platform::make_file_private(&mut options);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
}
