//! One run of the load generator against a server.
//!
//! Must never wait without an end, and never take a run that went wrong for a figure.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build::Programs;
use super::results::{self, Figures};
use super::server::{Server, without_settings};
use super::subject::Subject;

/// The longest run: a backlog of a million messages on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The arguments of a run, without what only this server has: its address and its process.
pub fn arguments(subject: Subject, workload: &[String]) -> Vec<String> {
    let (_, speech) = subject.speech();
    let (before, behind) = if subject.is_peer() { (speech, &[][..]) } else { (&["bench"][..], speech) };
    before
        .iter()
        .map(|word| (*word).to_owned())
        .chain(workload.iter().cloned())
        .chain(behind.iter().map(|word| (*word).to_owned()))
        .collect()
}

/// Runs a workload.
///
/// # Errors
/// What the generator said, or that it took too long.
pub fn measure(server: &Server, subject: Subject, workload: &[String], programs: &Programs) -> Result<Figures, String> {
    let (generator, _) = subject.speech();
    let mut command = Command::new(programs.generator(generator));
    command.args(arguments(subject, workload)).args([
        "--url",
        &server.url(),
        "--pid",
        &server.pid().to_string(),
        "--json",
    ]);
    let output = finish(&mut command)?;
    let report: Value =
        serde_json::from_str(&output).map_err(|error| format!("the generator's report is not JSON: {error}"))?;
    if let Some(why) = report["server_unseen"].as_str() {
        return Err(format!("the server's CPU and memory cannot be seen: {why}"));
    }
    Ok(results::figures(&report))
}

/// Stores messages that stay, on a channel that nobody receives.
///
/// # Errors
/// What the generator said.
pub fn store(server: &Server, messages: u64, programs: &Programs) -> Result<(), String> {
    let workload = ["backlog", "--leave", "--messages", &messages.to_string()].map(str::to_owned);
    measure(server, Subject::EnvelopeKept, &workload, programs).map(|_| ())
}

/// Runs a program to its end, which comes in time, and returns what it printed.
fn finish(command: &mut Command) -> Result<String, String> {
    let command = without_settings(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("the load generator can't be started: {error}"))?;
    let mut child = Guard(child);
    let began = Instant::now();
    loop {
        match child.0.try_wait() {
            Ok(Some(status)) => {
                let complaint = text(child.0.stderr.take());
                let output = text(child.0.stdout.take());
                if status.success() {
                    return Ok(output);
                }
                let complaint = complaint.lines().map(str::trim).rfind(|line| !line.is_empty());
                return Err(complaint.map_or_else(|| format!("it ended with {status}"), str::to_owned));
            }
            Ok(None) if began.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            Ok(None) => return Err(format!("not finished after {} s", PATIENCE.as_secs())),
            Err(error) => return Err(format!("it can't be waited for: {error}")),
        }
    }
}

/// What a program that has ended wrote: a line or two, so that it never had to wait for us to read it.
fn text(stream: Option<impl io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is still worth telling.
        let _ = stream.by_ref().read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends the process with its owner.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_speaks_what_the_server_understands() {
        let workload = ["p2p".to_owned(), "--size".to_owned(), "10".to_owned()];
        let line = |subject| arguments(subject, &workload).join(" ");
        assert_eq!(line(Subject::Limit), "bench p2p --size 10 --dialect topic");
        assert_eq!(line(Subject::EnvelopeManual), "bench p2p --size 10 --dialect envelope --manual-ack");
        assert_eq!(line(Subject::Mosquitto), "mqtt p2p --size 10");
    }

    #[test]
    fn a_program_that_fails_is_told_in_its_own_words() {
        let mut good = Command::new("sh");
        good.args(["-c", "echo out"]);
        assert_eq!(finish(&mut good).as_deref(), Ok("out\n"));
        let mut bad = Command::new("sh");
        bad.args(["-c", "echo first >&2; echo last >&2; exit 1"]);
        assert_eq!(finish(&mut bad), Err("last".to_owned()));
        assert!(finish(&mut Command::new("no-such-program")).is_err());
    }
}
