//! `wsmb queue copy`: moves a backlog to another store, while no broker runs on either.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{self, Style, count};
use crate::cli::settings::Settings;
use crate::cli::{Failure, Outcome, build};
use wsmb_config::{Config, StoreUrl};
use wsmb_store::{Columns, Copied, CopyOptions, Progress, StoreSettings};

/// How often a line says how far it is, where nobody sees a bar.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Copy everything that waits from one store to another
///
/// Both brokers must be stopped. Messages keep their order and everything else about them. A copy that was interrupted goes on where it was when the
/// same command is given again, and nothing is there twice. Without --remove the source stays as it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Passwords of databases: in a file (--from-password-file, --to-password-file), or in WSMB_FROM_PASSWORD and WSMB_TO_PASSWORD.

Examples:
  wsmb queue copy --from sqlite:wsmb-data/wsmb.db --to mysql://wsmb@db.example/broker --to-password-file db.password
  wsmb queue copy --from sqlite:old.db --config wsmb.toml")]
pub(super) struct Copy {
    /// The store to copy from; the configured one unless given
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The store to copy to; the configured one unless given
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// What the names of tables begin with, in both
    #[arg(long)]
    prefix: Option<String>,
    /// What they begin with in the destination, if that differs
    #[arg(long, value_name = "PREFIX")]
    to_prefix: Option<String>,
    /// A file whose first line is the password for the source
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// A file whose first line is the password for the destination
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Remove from the source what is safe in the destination
    #[arg(long)]
    remove: bool,
    /// Copy once more what an earlier copy has brought: for a source whose ids began anew
    #[arg(long)]
    again: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// One end, as it is given on the command line.
struct End<'a> {
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
                "name the other store with --from or --to; the one that is not named is the configured one",
            ));
        }
        let config = self.settings.load(&[])?;
        let from = End {
            flag: "--from",
            variable: "WSMB_FROM_PASSWORD",
            url: self.from.as_deref(),
            password_file: self.from_password_file.as_ref(),
            prefix: self.prefix.as_ref(),
        };
        let to = End {
            flag: "--to",
            variable: "WSMB_TO_PASSWORD",
            url: self.to.as_deref(),
            password_file: self.to_password_file.as_ref(),
            prefix: self.to_prefix.as_ref().or(self.prefix.as_ref()),
        };
        let (from_url, mut from) = from.settings(&config)?;
        if from_url != config.store.url {
            // They are the destination's to fill; another source may have none.
            from.columns = Columns::default();
        }
        let (to_url, to) = to.settings(&config)?;
        let options = CopyOptions { remove: self.remove, again: self.again };
        let mut teller = Teller::new();
        let copied = wsmb_store::copy(&from, &to, options, |progress| teller.tell(progress));
        let began = teller.end();
        let copied = copied.map_err(|error| {
            let command = if self.again { "the command without --again" } else { "the same command" };
            let rest = format!(". What was copied is safe; {command} goes on from there");
            Failure::failed(format_args!("{error}{}", if began { rest.as_str() } else { "" }))
        })?;
        if self.json {
            let object = serde_json::json!({
                "from": from_url.to_string(), "to": to_url.to_string(), "copied": copied.copied, "earlier": copied.earlier,
                "removed": copied.removed, "shift": copied.shift,
            });
            return output::line(&object.to_string());
        }
        // A table of another program may lack columns, and then it has lost what belongs there.
        for sentence in wsmb_store::look(&to).map(|seen| seen.lacks).unwrap_or_default() {
            output::note(&format!("{} {sentence}", Style::stderr().doubt("note:")));
        }
        for line in summary(&copied, &from_url, &to_url, to_url == config.store.url) {
            output::line(&line)?;
        }
        Ok(())
    }
}

impl End<'_> {
    /// Where it is, and how it is opened. What the configuration says about this store holds here, too.
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

/// What has come of it, and what is to be done next.
fn summary(copied: &Copied, from: &StoreUrl, to: &StoreUrl, is_configured: bool) -> Vec<String> {
    let mut lines = vec![format!("copied {} from {from} to {to}", count(copied.copied, "message"))];
    if copied.earlier > 0 {
        lines.push(format!("{} had been copied before", count(copied.earlier, "message")));
    }
    if copied.shift > 0 {
        lines.push(format!(
            "their ids are higher by {} there: the lower ones belong to messages that the destination has, or had",
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
        format!("; {from} still has these messages, and a broker on it would deliver them once more")
    } else {
        String::new()
    };
    lines.push(format!("next: {start}{still}"));
    lines
}

/// Says how far it is: a bar for a person, now and then a line for a log.
struct Teller {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    said: Option<Instant>,
}

impl Teller {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} messages, {eta} left") {
            bar.set_style(style);
        }
        Self { bar, said: None }
    }

    fn tell(&mut self, progress: Progress) {
        let Progress { done, total } = progress;
        let total = total.max(done);
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            if self.bar.is_hidden() {
                output::note(&format!("copied {done} of {}", count(total, "message")));
            }
        }
    }

    /// Whether anything was copied.
    fn end(&self) -> bool {
        self.bar.finish_and_clear();
        self.said.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_to_do_next() {
        let url = |text| StoreUrl::parse(text).unwrap();
        let (from, to) = (url("sqlite:a.db"), url("mysql://u:geheim@h/d"));
        let copied = Copied { copied: 2, earlier: 1, removed: 0, shift: 7 };
        assert_eq!(
            summary(&copied, &from, &to, false),
            [
                "copied 2 messages from sqlite:a.db to mysql://u@h/d",
                "1 message had been copied before",
                "their ids are higher by 7 there: the lower ones belong to messages that the destination has, or had",
                "next: write url = \"mysql://u@h/d\" under [store] in the broker's configuration, and start it; \
                 sqlite:a.db still has these messages, and a broker on it would deliver them once more",
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
