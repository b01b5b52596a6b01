//! The gate: what a message costs, in instructions, must not grow unnoticed.
//!
//! Instructions, not seconds: they are the same whatever else the machine does. Each script of `benches/instructions` runs under callgrind
//! for two numbers of messages; the difference is what the messages cost, without the start of the program. A memory
//! check beside it counts what an idle connection costs, with the real program. The figures to hold are in `baseline.txt`.
//!
//! x86-64 Linux only: elsewhere it says that it does not apply.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo, run, target_directory};

/// Where the figures to hold are.
const BASELINE: &str = "benches/instructions/baseline.txt";

/// By how many per cent a count may differ from its figure: what another version of the C library makes of it. More is a change of the
/// program.
const TOLERANCE: f64 = 4.0;

/// The same, where the compiler is not the one that the figures were made with.
const OTHER_COMPILER: f64 = 15.0;

/// The scripts, with the two numbers of messages. They are multiples of what a script does at a time.
const SCRIPTS: &[(&str, u64, u64)] = &[
    ("topic", 3_000, 33_000),
    ("envelope", 3_000, 33_000),
    ("fanout", 10_000, 60_000),
    ("kept", 2_000, 22_000),
    ("store", 512, 8_192),
];

/// The C library chooses among its routines by what the processor can; with these left out it chooses the same everywhere.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX2_Usable,-AVX,-ERMS,-FSRM,-BMI2,-MOVBE,-RTM";

/// What `cargo xtask gate` does: compares, or with `update` writes the figures anew.
pub fn gate(update: bool) -> Result<(), Failure> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("the gate counts instructions of x86-64 on Linux; it does not apply here");
        return Ok(());
    }
    run(cargo().args(["build", "--profile", "gate", "--package", "instructions"]))?;
    let program = target_directory().join("gate").join("instructions");
    let mut counted = BTreeMap::new();
    for (script, few, many) in SCRIPTS {
        let difference = count(&program, script, *many)?.saturating_sub(count(&program, script, *few)?);
        let each = difference / (many - few);
        eprintln!("{script:>10}: {each} instructions");
        counted.insert((*script).to_owned(), each);
    }
    let compiler = compiler()?;
    if update {
        return fs::write(BASELINE, written(&compiler, &counted))
            .map_err(|error| Failure(format!("{BASELINE} cannot be written: {error}")));
    }
    let text = fs::read_to_string(BASELINE).map_err(|error| {
        Failure(format!("{BASELINE} cannot be read: {error}; `cargo xtask gate --update` makes it"))
    })?;
    let tolerance = if text.contains(&compiler) {
        TOLERANCE
    } else {
        eprintln!("the figures were made with another compiler than {compiler}: {OTHER_COMPILER} % are allowed");
        OTHER_COMPILER
    };
    compare(&read(&text), &counted, tolerance).map_err(Failure)
}

/// The instructions of one run, from callgrind's last words.
fn count(program: &Path, script: &str, messages: u64) -> Result<u64, Failure> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg(script);
    // Nothing of this environment: its size moves the stack.
    command.arg(messages.to_string()).env_clear().env("PATH", "/usr/bin:/bin").env("GLIBC_TUNABLES", TUNABLES);
    let output =
        command.output().map_err(|error| Failure(format!("valgrind cannot be started: {error} (Debian: valgrind)")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Failure(format!("script {script} ended with {}: {said}", output.status)));
    }
    collected(&said).ok_or_else(|| Failure(format!("callgrind said nothing of what it collected: {said}")))
}

/// `==7== Collected : 1234` → 1234.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn compiler() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|error| Failure(format!("rustc cannot be started: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn written(compiler: &str, counted: &BTreeMap<String, u64>) -> String {
    let mut text = format!(
        "# Instructions for one message (fanout: one delivery; store: one row), written by `cargo xtask gate --update`.\n# {compiler}\n"
    );
    for (script, each) in counted {
        // Writing to a `String` can't fail.
        let _ = writeln!(text, "{script} {each}");
    }
    text
}

fn read(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, it)| Some((name.to_owned(), it.parse().ok()?)))
        .collect()
}

/// What has changed by more than is allowed, as sentences. What has become cheaper counts too: else the next change may use it up.
fn compare(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, tolerance: f64) -> Result<(), String> {
    let mut changed = Vec::new();
    for (script, now) in now {
        let Some(before) = before.get(script) else {
            changed.push(format!("{script}: {now} instructions, and no figure to hold"));
            continue;
        };
        #[allow(clippy::cast_precision_loss)] // Both are far below 2⁵².
        let by = (*now as f64 / *before as f64 - 1.0) * 100.0;
        if by.abs() > tolerance {
            let word = if by > 0.0 { "dearer" } else { "cheaper" };
            changed.push(format!("{script}: {before} instructions before, {now} now, {:.1} % {word}", by.abs()));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the cost of a message has changed by more than {tolerance} %:\n  {}\nIf that is meant, `cargo xtask gate --update` and say why in the commit",
        changed.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(each: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("topic".to_owned(), each)])
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(read(&written("rustc 1.2.3", &figures(700))), figures(700));
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 1234\n==7==\n"), Some(1_234));
        assert_eq!(collected("valgrind: no such file"), None);
    }

    #[test]
    fn a_change_beyond_the_tolerance_is_told_with_both_figures() {
        assert_eq!(compare(&figures(1_000), &figures(1_039), TOLERANCE), Ok(()));
        for (now, word) in [(1_050, "5.0 % dearer"), (950, "5.0 % cheaper")] {
            let told = compare(&figures(1_000), &figures(now), TOLERANCE).unwrap_err();
            assert!(told.contains(word) && told.contains("1000 instructions before"), "{told}");
        }
        assert!(compare(&BTreeMap::new(), &figures(1), TOLERANCE).is_err());
    }
}
