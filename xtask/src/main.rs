//! The chores of this repository, as a program: `cargo xtask help` lists them.
//!
//! Depends on few crates, as everybody builds it before the first test. Leaves nothing out silently: a check that cannot run is a failure that says
//! what is missing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

mod bench;
mod cross;
mod dependencies;
mod gate;
mod programs;
mod torture;

const HELP: &str = "\
Usage: cargo xtask <task>

Tasks:
  test    everything that must hold before a change is merged, in this order:
          formatting, licences of the dependencies, clippy, smaller builds, documentation, the programs that the tests drive, all tests, a short torture, the gate
  gate    what a message costs, in instructions, against the figures in benches/instructions/baseline.txt;
          with --update, writes the figures anew
  bench   measure the broker beside a bare relay and other brokers, for docs/measurements.md;
          `cargo xtask bench --help` says how
  torture the real broker and real clients under a nemesis that kills, stops, freezes and cuts them; then every promise is checked;
          `cargo xtask torture --help` says how
  cross   check and build the program for Windows, ARM and macOS; `cargo xtask cross --help` says what is needed
  notices write THIRD-PARTY.md, the notices of the crates that the program is built of
  help    this text
";

/// A step that did not succeed, as a sentence for the person at the terminal.
#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One check: what it is called, and what it does.
struct Step {
    name: &'static str,
    run: fn() -> Result<(), Failure>,
}

/// What `cargo xtask test` does, cheapest first, so that a slip of the pen is reported in seconds.
const TEST: &[Step] = &[
    Step { name: "formatting", run: formatting },
    Step { name: "licences of the dependencies", run: dependencies::check },
    Step { name: "clippy", run: clippy },
    Step { name: "smaller builds", run: smaller_builds },
    Step { name: "documentation", run: documentation },
    Step { name: "programs that the tests drive", run: programs::ensure },
    Step { name: "tests", run: tests },
    Step { name: "torture: what is promised", run: || torture::short(target_directory().join("debug/wsmb")) },
    Step { name: "the gate: what a message costs", run: || gate::gate(false) },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["notices"] => told(dependencies::write()),
        ["gate"] => told(gate::gate(false)),
        ["gate", "--update"] => told(gate::gate(true)),
        ["bench", "help" | "--help" | "-h"] => {
            print!("{}", bench::HELP);
            ExitCode::SUCCESS
        }
        ["torture", ..] => torture::task(&arguments[1..]),
        ["bench", ..] => bench::task(&arguments[1..]),
        ["cross", "help" | "--help" | "-h"] => {
            print!("{}", cross::HELP);
            ExitCode::SUCCESS
        }
        ["cross", ..] => told(cross::task(&arguments[1..])),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn told(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> ExitCode {
    let start = Instant::now();
    for (index, step) in TEST.iter().enumerate() {
        eprintln!("\n=== {}/{}: {} ===", index + 1, TEST.len(), step.name);
        let (began, before) = (Instant::now(), processor_time());
        if let Err(failure) = (step.run)() {
            eprintln!("=== FAILED after {}: {}: {failure} ===", seconds(began.elapsed()), step.name);
            return ExitCode::FAILURE;
        }
        let used = processor_time().saturating_sub(before);
        eprintln!("=== {}: {}, processor time {} ===", step.name, seconds(began.elapsed()), seconds(used));
    }
    let used = seconds(processor_time());
    eprintln!("\n=== everything passed in {}, processor time {used} ===", seconds(start.elapsed()));
    ExitCode::SUCCESS
}

/// The user and system time of all child processes that have ended. On a machine that others use too, this is the figure to compare.
fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for one `rusage`, which the system fills in completely if it returns 0.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) != 0 {
            return Duration::ZERO;
        }
        usage.assume_init()
    };
    let time =
        |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Test threads for each core: most tests of programs wait for processes and timers.
const THREADS: usize = 3;

fn formatting() -> Result<(), Failure> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Without what can be left out, and with one of it only.
fn smaller_builds() -> Result<(), Failure> {
    for features in ["", "bench", "mysql", "postgres"] {
        run(cargo().args(["clippy", "--no-default-features", "--features", features, "--", "-D", "warnings"]))?;
    }
    Ok(())
}

fn documentation() -> Result<(), Failure> {
    run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<(), Failure> {
    let mut command = cargo();
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        command.env("RUST_TEST_THREADS", (cores * THREADS).to_string());
    }
    run(command.args(["test", "--workspace"]))
}

/// The cargo that started this program. What it says of this package to this program is not for the next one: build scripts that look at it
/// would run again, and half of the tree with them.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Where cargo puts what it builds, as an absolute path: programs are started in other directories.
fn target_directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::path::absolute(&directory).unwrap_or(directory)
}

/// Runs a command to its end with our own output; anything but exit code 0 is a failure that names the command.
fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure(format!("`{shown}` ended with {status}"))),
        Err(error) => Err(Failure(format!("`{shown}` could not be started: {error}"))),
    }
}

fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or(&program).to_string();
    command.get_args().fold(program, |line, argument| line + " " + &argument.to_string_lossy())
}
