//! What the command line of `cargo xtask torture` may say.

use std::path::PathBuf;
use std::time::Duration;

/// The help.
pub const HELP: &str = "\
Usage: cargo xtask torture [OPTIONS]

Runs the real broker with real clients, while a nemesis kills, stops, freezes and cuts them, and then checks that every promise was kept.

Options:
  --seed N           what decides every choice; the time, if it is not given
  --minutes N        how long the nemesis works, 0.4 by default
  --store NAME       sqlite (default), mariadb, postgres: the store's server is killed and frozen, too
  --without LIST     leave things out, separated by commas: kill, term, freeze, clock, disk (full, failing,
                     and power cuts), orderly (receivers that leave in orderly ways), failures
                     (rejections, confirm_within), proxies, nginx, haproxy, scripts, database
  --broker PATH      the program; without it, target/debug/wsmb is built and used
  --keep             keep the directory of a run that found nothing
  --check DIRECTORY  only check the histories of an earlier run once more
";

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The embedded one.
    Sqlite,
    /// MariaDB with a journal.
    MariaDb,
    /// PostgreSQL with a journal.
    Postgres,
}

impl Store {
    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Decides every choice.
    pub seed: u64,
    /// How long the nemesis works.
    pub length: Duration,
    /// What keeps the messages.
    pub store: Store,
    /// What is left out.
    pub without: Vec<String>,
    /// The program.
    pub broker: Option<PathBuf>,
    /// Keep the directory in any case.
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
    /// The command that runs this again.
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

    /// Whether something takes part.
    pub fn has(&self, what: &str) -> bool {
        !self.without.iter().any(|name| name == what)
    }
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Task {
    /// Print the help.
    Help,
    /// Run.
    Run(Options),
    /// Check an earlier run.
    Check(PathBuf),
}

/// What can be left out.
const PARTS: &[&str] = &[
    "kill", "term", "freeze", "clock", "disk", "orderly", "failures", "proxies", "nginx", "haproxy", "scripts",
    "database",
];

/// Reads the arguments behind `torture`.
///
/// # Errors
/// What is wrong, in a sentence.
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
                    store.ok_or_else(|| format!("`--store` knows sqlite, mariadb and postgres, not `{name}`"))?;
            }
            "--without" => {
                options.without = value()?.split(',').map(str::to_owned).collect();
                if let Some(name) = options.without.iter().find(|name| !PARTS.contains(&name.as_str())) {
                    return Err(format!("`--without` does not know `{name}`; it knows {}", PARTS.join(", ")));
                }
            }
            other => return Err(format!("`{other}` is unknown")),
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
    fn the_command_of_a_run_is_read_as_that_run() {
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
    fn mistakes_are_told() {
        for text in ["--seed x", "--minutes 0", "--store oracle", "--without air", "--what", "--seed"] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }
}
