//! The programs of a measurement: builds this repository's programs, and finds or installs the other brokers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::results::Facts;
use super::subject::{Generator, Subject};
use crate::{Failure, cargo, programs, shown};

/// The cargo targets of each build. The broker is built separately, because a common build would enable features of its dependencies that only the
/// tests need.
const TARGETS: [&[&str]; 2] = [&["--bench", "limit", "--bench", "peers"], &["--bin", "wsmb"]];

/// The paths of all programs. An `Err` says why a broker is missing.
pub struct Programs {
    wsmb: PathBuf,
    limit: PathBuf,
    peers: PathBuf,
    mosquitto: Result<PathBuf, String>,
    nats: Result<PathBuf, String>,
}

impl Programs {
    /// Builds this repository's programs, and finds or installs the other brokers.
    ///
    /// # Errors
    /// A build failed. A missing broker is not an error here, but in [`Self::server`].
    pub fn get(profile: &str) -> Result<Self, Failure> {
        let built = build(profile)?;
        let ours = |name: &str| {
            let path = built.get(name).cloned();
            path.ok_or_else(|| Failure(format!("cargo did not report the path of `{name}`")))
        };
        let [mosquitto, nats] = programs::PEERS.each_ref().map(programs::find_or_install);
        Ok(Self { wsmb: ours("wsmb")?, limit: ours("limit")?, peers: ours("peers")?, mosquitto, nats })
    }

    /// Returns the server program of a subject.
    ///
    /// # Errors
    /// The program is missing; the text says why.
    pub fn server(&self, subject: Subject) -> Result<&Path, &str> {
        match subject {
            Subject::Limit => Ok(&self.limit),
            Subject::Mosquitto => self.mosquitto.as_deref().map_err(String::as_str),
            Subject::Nats => self.nats.as_deref().map_err(String::as_str),
            _ => Ok(&self.wsmb),
        }
    }

    pub fn generator(&self, generator: Generator) -> &Path {
        match generator {
            Generator::Wsmb => &self.wsmb,
            Generator::Peers => &self.peers,
        }
    }

    /// Returns the versions of the programs, and the reasons why brokers are missing.
    pub fn versions(&self) -> Facts {
        let mut facts = Facts::new();
        facts.insert("wsmb".to_owned(), first_line(&self.wsmb, &["--version"]));
        if let Ok(size) = std::fs::metadata(&self.wsmb) {
            facts.insert("wsmb bytes".to_owned(), size.len().to_string());
        }
        for (name, found, argument) in [("mosquitto", &self.mosquitto, "-h"), ("nats-server", &self.nats, "--version")]
        {
            let (name, value) = match found {
                Ok(path) => (name.to_owned(), first_line(path, &[argument])),
                Err(why) => (format!("missing {name}"), why.clone()),
            };
            facts.insert(name, value);
        }
        facts
    }
}

/// Builds all targets and returns the path of each program by the name of its target.
fn build(profile: &str) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut programs = BTreeMap::new();
    for targets in TARGETS {
        let mut command = cargo();
        command.args(["build", "--profile", profile, "--message-format", "json-render-diagnostics"]).args(targets);
        let line = shown(&command);
        eprintln!("$ {line}");
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| Failure(format!("`{line}` could not be started: {error}")))?;
        if !output.status.success() {
            return Err(Failure(format!("`{line}` ended with {}", output.status)));
        }
        programs.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(executable));
    }
    Ok(programs)
}

/// Returns the target's name and the program's path from a JSON line of cargo.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some((message.pointer("/target/name")?.as_str()?.to_owned(), PathBuf::from(message["executable"].as_str()?)))
}

/// Returns the first line that a program prints, with any exit code (`mosquitto -h` exits with 3).
pub fn first_line(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).stdin(Stdio::null()).output() else {
        return "unknown".to_owned();
    };
    let text =
        String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout }).into_owned();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_output_of_cargo() {
        let line =
            r#"{"reason":"compiler-artifact","target":{"kind":["bench"],"name":"limit"},"executable":"/t/limit-45"}"#;
        assert_eq!(executable(line), Some(("limit".to_owned(), PathBuf::from("/t/limit-45"))));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
