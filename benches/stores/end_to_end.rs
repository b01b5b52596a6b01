//! Confirmed sends through the real program: a sender that waits for the answer to each of its messages, at most 256 of them unanswered, and a receiver
//! that confirms.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::Server;

/// Messages of one turn.
const MESSAGES: usize = 20_000;

pub fn run(server: Option<&Server>) {
    let name = server.map_or("sqlite", |server| server.kind().name());
    println!("\n{name}: {MESSAGES} confirmed sends of 200 bytes, 256 unanswered, one receiver that confirms");
    println!("| store | sends/s | broker CPU µs per send |\n|---|--:|--:|");
    match server {
        None => turn("sqlite:", None, ""),
        Some(server) => {
            turn("without a journal", Some(server), "");
            turn("with a journal", Some(server), "journal.db");
        }
    }
}

fn turn(label: &str, server: Option<&Server>, journal: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut store = match server {
        None => format!("url = \"sqlite:{}\"\n", path("wsmb.db")),
        Some(server) => {
            let database = server.database();
            let journal = if journal.is_empty() { String::new() } else { path(journal) };
            format!("url = \"{}\"\njournal = \"{journal}\"\n", database.url_with_password())
        }
    };
    store = format!("[server]\nlisten = \"127.0.0.1:0\"\n[auth]\nanonymous = true\nhtpasswd = []\n[store]\n{store}");
    std::fs::write(path("wsmb.toml"), store).expect("a configuration");
    let mut broker = Process(start(&["serve", "--config", &path("wsmb.toml")], directory.path(), Stdio::piped()));
    let url = listening(&mut broker.0);
    let receive = ["receive", "sms", "--url", &url, "--count", &MESSAGES.to_string()];
    let mut receiver = Process(start(&receive, directory.path(), Stdio::null()));
    let mut sender = Command::new(env!("CARGO_BIN_EXE_wsmb"));
    sender.args(["send", "sms", "-", "--url", &url]).stdin(Stdio::piped()).stdout(Stdio::null());
    let (began, cpu) = (Instant::now(), cpu_of(broker.0.id()));
    let mut sender = Process(sender.spawn().expect("the sender"));
    let mut lines = sender.0.stdin.take().expect("its standard input");
    let line = format!("{{\"receiver\":\"081234567890\",\"message\":\"{}\"}}\n", "x".repeat(153));
    for _ in 0..MESSAGES {
        lines.write_all(line.as_bytes()).expect("the sender reads");
    }
    drop(lines);
    assert!(sender.0.wait().expect("the sender's end").success(), "not everything was accepted");
    assert!(receiver.0.wait().expect("the receiver's end").success(), "not everything was received");
    let (wall, cpu) = (began.elapsed(), cpu_of(broker.0.id()).saturating_sub(cpu));
    let (rate, each) = (MESSAGES as f64 / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / MESSAGES as f64);
    println!("| {label} | {rate:.0} | {each:.1} |");
}

/// Ends with the benchmark.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str], directory: &Path, output: Stdio) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsmb"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    command.spawn().expect("the program")
}

/// The address that the broker prints once it listens.
fn listening(broker: &mut Child) -> String {
    use std::io::BufRead as _;
    let output = std::io::BufReader::new(broker.stdout.take().expect("its standard output"));
    let line = output.lines().map_while(Result::ok).find(|line| line.contains("ws://")).expect("the broker's address");
    let url = line.split_whitespace().find(|word| word.starts_with("ws://")).expect("an address");
    url.to_owned()
}

/// What a process has used, in user and system mode.
fn cpu_of(pid: u32) -> Duration {
    let process = procfs::process::Process::new(pid.cast_signed()).expect("a process");
    let stat = process.stat().expect("its times");
    Duration::from_secs_f64((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}
