//! `cargo xtask torture`: the real broker, real clients of every kind, a nemesis, and a checker of histories.
//!
//! ```text
//! senders ──┐            ┌─► receivers        each client writes its own file: what it sent, what it was told, what it got, what it confirmed
//!           ├─► broker ──┤
//! publishers┘   ▲        └─► PHP              nemesis: kills, stops and freezes the broker, the proxies, the database and the scripts
//!               └ directly, or through our own proxy, nginx, HAProxy
//! ```
//!
//! When the nemesis is done, the senders bring what they have begun to its end, and patient receivers take what waits. Then the checker reads all
//! files and looks for promises that were broken. The seed decides every choice; only the system's scheduling differs between two runs.

mod broker;
mod checker;
mod clients;
mod clock;
mod databases;
mod disk;
mod fronts;
mod nemesis;
mod options;
mod plan;
mod process;
mod proxy;
mod random;
mod receivers;
mod record;
mod run;
mod scripts;
mod senders;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use options::HELP;
use options::{Options, Store, Task};

/// Runs what the arguments ask for.
pub fn task(arguments: &[String]) -> ExitCode {
    let options = match options::parse(arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Task::Run(options)) => options,
        Ok(Task::Check(directory)) => return verdict(run::check(&directory), None),
        Err(sentence) => {
            eprintln!("{sentence}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let replay = options.command();
    verdict(run::run(&options), Some(&replay))
}

fn verdict(result: Result<(), String>, replay: Option<&str>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            if let Some(replay) = replay {
                eprintln!("the same again: {replay}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The short runs of `cargo xtask test`: one on SQLite, and one on a database server, by turns MariaDB and PostgreSQL. Today's date is the seed, so that
/// every day tries something else, and a failure names it. `broker` is the program that the tests have built: building it alone, without the features that
/// only tests need of its dependencies, would build most of them again.
pub fn short(broker: PathBuf) -> Result<(), crate::Failure> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = now.map_or(0, |time| time.as_secs() / 86_400);
    let server = if days.is_multiple_of(2) { Store::MariaDb } else { Store::Postgres };
    [(Store::Sqlite, 15), (server, 9)].into_iter().try_for_each(|(store, seconds)| {
        let length = Duration::from_secs(seconds);
        let broker = Some(broker.clone());
        let options = Options { seed: days, length, store, broker, ..Options::default() };
        run::run(&options).map_err(|text| crate::Failure(format!("{text}\nthe same again: {}", options.command())))
    })
}
