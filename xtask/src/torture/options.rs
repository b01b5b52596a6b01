//! The command line of `cargo xtask torture`.

use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
Usage: cargo xtask torture [OPTIONS]

Runs the real broker with real clients, injects faults (kills, stops, freezes, cut connections), and then checks every promise.

Options:
  --seed N           the seed of every choice (default: the time)
  --minutes N        how long faults are injected (default: 0.4)
  --store NAME       sqlite (default), mariadb or postgres; faults include the database server
  --without LIST     parts to omit, separated by commas: kill, term, freeze, clock, disk (full, failing,
                     and power cuts), orderly (orderly ends of receivers' connections), failures
                     (rejections, confirm_within), proxies, nginx, haproxy, scripts, database
  --broker PATH      the program (default: build and use target/debug/wsmb)
  --keep             keep the directory of a run without violations
  --check DIRECTORY  only check the histories of an earlier run again
";

/// The broker's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    /// With a journal.
    MariaDb,
    /// With a journal.
    Postgres,
}

impl Store {
    /// The store's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }
}

/// The options of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
    pub store: Store,
    /// The omitted parts, each one of [`PARTS`].
    pub without: Vec<String>,
    /// The broker's program. `None`: the program is built.
    pub broker: Option<PathBuf>,
    /// Whether to keep the directory of a run without violations.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            length: Duration::from_secs(24),
            store: Store::Sqlite,
            without: Vec::new(),
            broker: None,
            keep: false,
        }
    }
}

impl Options {
    /// Returns the command that repeats this run.
    pub fn command(&self) -> String {
        let mut text = format!(
            "cargo xtask torture --seed {} --minutes {} --store {}",
            self.seed,
            self.length.as_secs_f64() / 60.0,
            self.store.name()
        );
        if !self.without.is_empty() {
            text += &format!(" --without {}", self.without.join(","));
        }
        text
    }

    /// Whether the run has a part: the part is not omitted, and the store has a server if the part is `database`.
    pub fn has(&self, part: &str) -> bool {
        !self.without.iter().any(|name| name == part) && (part != "database" || self.store != Store::Sqlite)
    }
}

/// The task that the command line selects.
#[derive(Debug, PartialEq)]
pub enum Task {
    Help,
    Run(Options),
    /// Check the histories in this directory again.
    Check(PathBuf),
}

/// The parts that `--without` can omit.
const PARTS: &[&str] = &[
    "kill", "term", "freeze", "clock", "disk", "orderly", "failures", "proxies", "nginx", "haproxy", "scripts",
    "database",
];

/// Parses the arguments after `torture`.
///
/// # Errors
/// An unknown argument, or an invalid or missing value.
pub fn parse(arguments: &[String]) -> Result<Task, String> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut options = Options { seed, ..Options::default() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("`{argument}` needs a value"));
        match argument.as_str() {
            "--help" | "-h" | "help" => return Ok(Task::Help),
            "--check" => return Ok(Task::Check(PathBuf::from(value()?))),
            "--keep" => options.keep = true,
            "--broker" => options.broker = Some(PathBuf::from(value()?)),
            "--seed" => options.seed = value()?.parse().map_err(|_| "`--seed` needs a whole number".to_owned())?,
            "--minutes" => {
                let minutes: f64 = value()?.parse().map_err(|_| "`--minutes` needs a number".to_owned())?;
                if !(0.05..=10_000.0).contains(&minutes) {
                    return Err("`--minutes` must be between 0.05 and 10000".to_owned());
                }
                options.length = Duration::from_secs_f64(minutes * 60.0);
            }
            "--store" => {
                let name = value()?;
                let stores = [Store::Sqlite, Store::MariaDb, Store::Postgres];
                let store = stores.into_iter().find(|store| store.name() == name);
                options.store =
                    store.ok_or_else(|| format!("`--store` must be sqlite, mariadb or postgres, not `{name}`"))?;
            }
            "--without" => {
                options.without = value()?.split(',').map(str::to_owned).collect();
                if let Some(name) = options.without.iter().find(|name| !PARTS.contains(&name.as_str())) {
                    return Err(format!("`--without` has no part `{name}`; the parts are {}", PARTS.join(", ")));
                }
            }
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    Ok(Task::Run(options))
}

#[cfg(test)]
mod tests {
    use super::{Options, Store, Task, parse};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_command_of_a_run_is_parsed_to_the_same_options() {
        let options = Options {
            seed: 9,
            store: Store::Postgres,
            without: vec!["clock".to_owned(), "nginx".to_owned()],
            ..Options::default()
        };
        let command = options.command();
        assert_eq!(parse(&words(command.strip_prefix("cargo xtask torture ").unwrap())), Ok(Task::Run(options)));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for text in ["--seed x", "--minutes 0", "--store oracle", "--without air", "--what", "--seed"] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }
}
