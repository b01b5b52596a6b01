//! Developer tasks of this repository; `cargo xtask help` lists them.
//!
//! Depends on few crates, because each developer builds this program before the first test. Must never skip a check silently: a check that cannot
//! run fails and names the missing program.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

mod bench;
mod cross;
mod dependencies;
mod gate;
mod openapi;
mod process;
mod programs;
mod torture;

const HELP: &str = "\
Usage: cargo xtask <task>

Tasks:
  test    run all checks that must pass before a merge, in this order: formatting, licences of the dependencies, clippy,
          smaller builds, documentation, programs that the tests need, the OpenAPI document, all tests, a short torture run, the gate
  gate    count the instructions per message and compare them with benches/instructions/baseline.txt;
          with --update, write new figures
  bench   measure the broker, a bare relay and other brokers for docs/measurements.md;
          see `cargo xtask bench --help`
  torture run the broker with clients, inject faults (kills, freezes, cut connections), and check every promise;
          see `cargo xtask torture --help`
  cross   check and build the program for Windows, ARM and macOS; see `cargo xtask cross --help`
  notices write THIRD-PARTY.md, the licence notices of the crates in the program
  help    print this text
";

/// The error of a task, as a message for the user.
#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One check of `cargo xtask test`.
struct Step {
    name: &'static str,
    run: fn() -> Result<(), Failure>,
}

/// The steps of `cargo xtask test`. The cheapest step is first, so that a simple mistake is reported within seconds.
const TEST: &[Step] = &[
    Step { name: "formatting", run: formatting },
    Step { name: "licences of the dependencies", run: dependencies::check },
    Step { name: "clippy", run: clippy },
    Step { name: "smaller builds", run: smaller_builds },
    Step { name: "documentation", run: documentation },
    Step { name: "programs for the tests", run: programs::ensure },
    Step { name: "description of the HTTP interface", run: openapi::validate },
    Step { name: "tests", run: tests },
    Step { name: "torture", run: || torture::short(target_directory().join("debug/wsmb")) },
    Step { name: "gate: instructions per message", run: || gate::gate(false) },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["notices"] => exit_code(dependencies::write()),
        ["gate"] => exit_code(gate::gate(false)),
        ["gate", "--update"] => exit_code(gate::gate(true)),
        ["bench", "help" | "--help" | "-h"] => help(bench::HELP),
        ["torture", ..] => torture::task(&arguments[1..]),
        ["bench", ..] => bench::task(&arguments[1..]),
        ["cross", "help" | "--help" | "-h"] => help(cross::HELP),
        ["cross", ..] => exit_code(cross::task(&arguments[1..])),
        ["help" | "--help" | "-h"] => help(HELP),
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn help(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn exit_code(result: Result<(), Failure>) -> ExitCode {
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

/// Returns the user and system time of all child processes that have ended. Unlike the elapsed time, this figure hardly depends on other users of
/// the machine.
fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for one `rusage`, of which zeros are a valid value.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time =
        |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Test threads per core. Most of the slow tests wait for processes and timers.
const THREADS_PER_CORE: usize = 3;

fn formatting() -> Result<(), Failure> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Lints the build without optional features, and each build with one optional feature.
fn smaller_builds() -> Result<(), Failure> {
    for features in ["", "bench", "http", "mysql", "postgres", "tls", "webhooks"] {
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
        command.env("RUST_TEST_THREADS", (cores * THREADS_PER_CORE).to_string());
    }
    run(command.args(["test", "--workspace"]))
}

/// Returns a command for the cargo that started this program, without the variables that cargo sets for this package. With these variables, build
/// scripts that depend on them would run again, and many crates would be rebuilt.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Returns the target directory as an absolute path, because programs are started in other directories.
fn target_directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::path::absolute(&directory).unwrap_or(directory)
}

/// Runs a command to its end with this program's output streams. Any exit code except 0 is a failure that names the command.
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
