//! `wsmb queue copy`: copies the messages of one store to another. Never opens a store that a running broker uses.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{self, Style, count};
use crate::cli::settings::Settings;
use crate::cli::{Failure, Outcome, build};
use wsmb_config::{Config, StoreUrl};
use wsmb_store::{Columns, Copied, CopyOptions, Progress, StoreSettings};

/// Time between two progress lines, if standard error is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Copy all messages from one store to another
///
/// Stop the brokers of both stores first. The messages keep their order and all their properties. To continue an interrupted copy, run the same command
/// again; no message is copied twice. Without --remove the source is not changed.
#[derive(Args, Debug)]
#[command(after_help = "\
Give the passwords of database servers in files (--from-password-file, --to-password-file), or in WSMB_FROM_PASSWORD and WSMB_TO_PASSWORD.

Examples:
  wsmb queue copy --from sqlite:wsmb-data/wsmb.db --to mysql://wsmb@db.example/broker --to-password-file db.password
  wsmb queue copy --from sqlite:old.db --config wsmb.toml")]
pub(super) struct Copy {
    /// Store to copy from [default: the configured store]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Store to copy to [default: the configured store]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Prefix of the table names in both stores
    #[arg(long)]
    prefix: Option<String>,
    /// Prefix of the table names in the destination, if it differs
    #[arg(long, value_name = "PREFIX")]
    to_prefix: Option<String>,
    /// File whose first line is the password for the source
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// File whose first line is the password for the destination
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Remove the copied messages from the source after the destination has stored them
    #[arg(long)]
    remove: bool,
    /// Copy messages again that an earlier copy has copied; needed if the message ids of the source have started again at 1
    #[arg(long)]
    again: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// The source or the destination, as the command line names it.
struct Endpoint<'a> {
    flag: &'a str,
    variable: &'a str,
    url: Option<&'a str>,
    password_file: Option<&'a PathBuf>,
    prefix: Option<&'a String>,
}

impl Copy {
    pub(super) fn run(&self) -> Outcome {
        if self.from.is_none() && self.to.is_none() {
            return Err(Failure::misuse(
                "name the other store with --from or --to; the default of both is the configured store",
            ));
        }
        let config = self.settings.load(&[])?;
        let from = Endpoint {
            flag: "--from",
            variable: "WSMB_FROM_PASSWORD",
            url: self.from.as_deref(),
            password_file: self.from_password_file.as_ref(),
            prefix: self.prefix.as_ref(),
        };
        let to = Endpoint {
            flag: "--to",
            variable: "WSMB_TO_PASSWORD",
            url: self.to.as_deref(),
            password_file: self.to_password_file.as_ref(),
            prefix: self.to_prefix.as_ref().or(self.prefix.as_ref()),
        };
        let (from_url, mut from) = from.settings(&config)?;
        if from_url != config.store.url {
            // `[store.columns]` describes the configured store. Another source may not have these columns.
            from.columns = Columns::default();
        }
        let (to_url, to) = to.settings(&config)?;
        let options = CopyOptions { remove: self.remove, again: self.again };
        let mut printer = ProgressPrinter::new();
        let copied = wsmb_store::copy(&from, &to, options, |progress| printer.show(progress));
        let began = printer.end();
        let copied = copied.map_err(|error| {
            let command = if self.again { "the command without --again" } else { "the same command" };
            let rest = format!(". The copied messages are stored; {command} continues from there");
            Failure::failed(format_args!("{error}{}", if began { rest.as_str() } else { "" }))
        })?;
        if self.json {
            let object = serde_json::json!({
                "from": from_url.to_string(), "to": to_url.to_string(), "copied": copied.copied, "earlier": copied.earlier,
                "removed": copied.removed, "shift": copied.shift,
            });
            return output::line(&object.to_string());
        }
        // A table of another program may lack columns. The properties in these columns were then not copied.
        for sentence in wsmb_store::inspect(&to).map(|seen| seen.warnings).unwrap_or_default() {
            output::note(&format!("{} {sentence}", Style::stderr().warning("note:")));
        }
        for line in summary(&copied, &from_url, &to_url, to_url == config.store.url) {
            output::line(&line)?;
        }
        Ok(())
    }
}

impl Endpoint<'_> {
    /// Returns the address of the store, and the settings to open it. The configuration's settings apply where the command line has none.
    fn settings(&self, config: &Config) -> Result<(StoreUrl, StoreSettings), Failure> {
        let mut config = config.clone();
        if let Some(text) = self.url {
            let url =
                StoreUrl::parse(text).map_err(|problem| Failure::misuse(format_args!("{} {problem}", self.flag)))?;
            if url != config.store.url {
                (config.store.password, config.store.password_file) = (None, None);
            }
            config.store.url = url;
        }
        if let Ok(password) = std::env::var(self.variable) {
            (config.store.password, config.store.password_file) = (Some(password), None);
        }
        if let Some(file) = self.password_file {
            (config.store.password, config.store.password_file) = (None, Some(file.clone()));
        }
        if let Some(prefix) = self.prefix {
            config.store.prefix.clone_from(prefix);
        }
        let settings = build::store_settings(&config).map_err(Failure::failed)?;
        Ok((config.store.url, settings))
    }
}

/// Returns the result as lines of text. The last line says what to do next.
fn summary(copied: &Copied, from: &StoreUrl, to: &StoreUrl, is_configured: bool) -> Vec<String> {
    let mut lines = vec![format!("copied {} from {from} to {to}", count(copied.copied, "message"))];
    if copied.earlier > 0 {
        lines.push(format!("an earlier copy has already copied {}", count(copied.earlier, "message")));
    }
    if copied.shift > 0 {
        lines.push(format!(
            "their ids are higher by {} in the destination: the lower ids belong to other messages of the destination",
            copied.shift
        ));
    }
    let start = if is_configured {
        "start the broker: its configuration names the destination".to_owned()
    } else {
        format!("write url = \"{to}\" under [store] in the broker's configuration, and start it")
    };
    if copied.removed > 0 {
        lines.push(format!("removed {} from {from}", count(copied.removed, "message")));
    }
    let still = if copied.removed < copied.copied + copied.earlier {
        format!("; {from} still has these messages, and a broker that uses it would deliver them again")
    } else {
        String::new()
    };
    lines.push(format!("next: {start}{still}"));
    lines
}

/// Shows the progress: a bar on a terminal, or a line now and then for a log.
struct ProgressPrinter {
    /// Hidden if standard error is not a terminal.
    bar: ProgressBar,
    last_line: Option<Instant>,
}

impl ProgressPrinter {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} messages, {eta} left") {
            bar.set_style(style);
        }
        Self { bar, last_line: None }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { done, total } = progress;
        let total = total.max(done);
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.last_line.is_none_or(|last_line| last_line.elapsed() >= LINE_INTERVAL) {
            self.last_line = Some(Instant::now());
            if self.bar.is_hidden() {
                output::note(&format!("copied {done} of {}", count(total, "message")));
            }
        }
    }

    /// Removes the bar. Returns whether the copy has begun.
    fn end(&self) -> bool {
        self.bar.finish_and_clear();
        self.last_line.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_to_do_next() {
        let url = |text| StoreUrl::parse(text).unwrap();
        let (from, to) = (url("sqlite:a.db"), url("mysql://u:geheim@h/d"));
        let copied = Copied { copied: 2, earlier: 1, removed: 0, shift: 7 };
        assert_eq!(
            summary(&copied, &from, &to, false),
            [
                "copied 2 messages from sqlite:a.db to mysql://u@h/d",
                "an earlier copy has already copied 1 message",
                "their ids are higher by 7 in the destination: the lower ids belong to other messages of the destination",
                "next: write url = \"mysql://u@h/d\" under [store] in the broker's configuration, and start it; \
                 sqlite:a.db still has these messages, and a broker that uses it would deliver them again",
            ]
        );
        let moved = Copied { copied: 1, removed: 1, ..Copied::default() };
        assert_eq!(
            summary(&moved, &from, &to, true),
            [
                "copied 1 message from sqlite:a.db to mysql://u@h/d",
                "removed 1 message from sqlite:a.db",
                "next: start the broker: its configuration names the destination",
            ]
        );
        let nothing = summary(&Copied::default(), &from, &to, true);
        assert_eq!(nothing[1], "next: start the broker: its configuration names the destination");
    }
}
