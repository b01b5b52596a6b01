//! One run of the load generator against a server.
//!
//! Must never wait without a timeout, and never return figures of a failed run.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build::Programs;
use super::results::{self, Figures};
use super::server::{Server, remove_settings};
use super::subject::{Generator, Subject};

/// The timeout of a run. The longest run is a backlog of a million messages on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How often the end of a run is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the generator's arguments, without the server's URL and process id.
pub fn arguments(subject: Subject, workload: &[String]) -> Vec<String> {
    let (generator, protocol) = subject.generator();
    let (before, behind) = if generator == Generator::Peers { (protocol, &[][..]) } else { (&["bench"][..], protocol) };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    [words(before), workload.to_vec(), words(behind)].concat()
}

/// Runs a workload.
///
/// # Errors
/// The generator failed or timed out; the text has the last line of its stderr.
pub fn measure(server: &Server, subject: Subject, workload: &[String], programs: &Programs) -> Result<Figures, String> {
    let (generator, _) = subject.generator();
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

/// Stores messages on a channel without receivers.
///
/// # Errors
/// As [`measure`].
pub fn store(server: &Server, messages: u64, programs: &Programs) -> Result<(), String> {
    let workload = ["backlog", "--leave", "--messages", &messages.to_string()].map(str::to_owned);
    measure(server, Subject::EnvelopeKept, &workload, programs).map(|_| ())
}

/// Runs a program to its end and returns its output.
fn finish(command: &mut Command) -> Result<String, String> {
    let command = remove_settings(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("the load generator can't be started: {error}"))?;
    let mut child = KillOnDrop(child);
    let began = Instant::now();
    loop {
        match child.0.try_wait() {
            Ok(Some(status)) => {
                let errors = text(child.0.stderr.take());
                let output = text(child.0.stdout.take());
                if status.success() {
                    return Ok(output);
                }
                let last_line = errors.lines().map(str::trim).rfind(|line| !line.is_empty());
                return Err(last_line.map_or_else(|| format!("the generator ended with {status}"), str::to_owned));
            }
            Ok(None) if began.elapsed() < TIMEOUT => std::thread::sleep(POLL_INTERVAL),
            Ok(None) => return Err(format!("not finished after {} s", TIMEOUT.as_secs())),
            Err(error) => return Err(format!("the end of the generator cannot be checked: {error}")),
        }
    }
}

/// Reads the output of a program that has ended. The output must be shorter than the pipe's buffer, or the program would have blocked.
fn text(stream: Option<impl io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // If the read fails, the bytes before the error are kept.
        let _ = stream.by_ref().read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kills the process when it is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Fails if the process has ended, which is the normal case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_select_the_protocol_of_the_server() {
        let workload = ["p2p".to_owned(), "--size".to_owned(), "10".to_owned()];
        let line = |subject| arguments(subject, &workload).join(" ");
        assert_eq!(line(Subject::Limit), "bench p2p --size 10 --dialect topic");
        assert_eq!(line(Subject::EnvelopeManual), "bench p2p --size 10 --dialect envelope --manual-ack");
        assert_eq!(line(Subject::Mosquitto), "mqtt p2p --size 10");
    }

    #[test]
    fn a_failure_is_the_last_line_of_stderr() {
        let mut good = Command::new("sh");
        good.args(["-c", "echo out"]);
        assert_eq!(finish(&mut good).as_deref(), Ok("out\n"));
        let mut bad = Command::new("sh");
        bad.args(["-c", "echo first >&2; echo last >&2; exit 1"]);
        assert_eq!(finish(&mut bad), Err("last".to_owned()));
        assert!(finish(&mut Command::new("no-such-program")).is_err());
    }
}
