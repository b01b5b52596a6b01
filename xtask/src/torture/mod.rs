//! `cargo xtask torture`: runs the real broker with real clients, injects faults, and checks the recorded histories.
//!
//! ```text
//! senders ──┐            ┌─► receivers        each client records sends, answers, receipts and confirmations in its own file
//!           ├─► broker ──┤
//! publishers┘   ▲        └─► PHP              the nemesis kills, stops and freezes the broker, the proxies, the database and the scripts
//!               └ directly, or through a faulty proxy, nginx, HAProxy
//! ```
//!
//! After the last fault, the senders finish their pending publications, and drain receivers take all waiting messages. Then the checker reads all
//! files and reports broken promises. The seed decides every choice; only the system's scheduling differs between two runs with one seed.

mod broker;
mod checker;
mod clients;
mod clock;
mod databases;
mod disk;
mod nemesis;
mod options;
mod plan;
mod proxy;
mod random;
mod receivers;
mod record;
mod reverse_proxies;
mod run;
mod scripts;
mod senders;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use options::HELP;
use options::{Options, Store, Task};

/// Runs `cargo xtask torture` with these arguments.
pub fn task(arguments: &[String]) -> ExitCode {
    let options = match options::parse(arguments) {
        Ok(Task::Help) => return crate::help(HELP),
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
                eprintln!("to repeat: {replay}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The short runs of `cargo xtask test`: one on SQLite, and one on MariaDB or PostgreSQL, which alternate daily. The seed is the number of days since
/// 1970, so that each day tests another plan. `broker` is the program that the tests have built; building it separately would use other features of
/// the dependencies and rebuild most of them.
pub fn short(broker: PathBuf) -> Result<(), crate::Failure> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = now.map_or(0, |time| time.as_secs() / 86_400);
    let server = if days.is_multiple_of(2) { Store::MariaDb } else { Store::Postgres };
    [(Store::Sqlite, 15), (server, 9)].into_iter().try_for_each(|(store, seconds)| {
        let length = Duration::from_secs(seconds);
        let broker = Some(broker.clone());
        let options = Options { seed: days, length, store, broker, ..Options::default() };
        run::run(&options).map_err(|text| crate::Failure(format!("{text}\nto repeat: {}", options.command())))
    })
}
