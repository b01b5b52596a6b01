//! `cargo xtask gate`: fails if the number of instructions per message changes, or if the cost of an operation grows with the size of a channel.
//!
//! Instruction counts, unlike times, do not depend on the load of the machine. Each script of `benches/instructions` runs under callgrind with two
//! numbers of messages; the difference of the counts does not contain the start of the program. `baseline.txt` has the expected counts.
//!
//! Runs on x86-64 Linux only; on other systems it prints a note and succeeds.

mod growth;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Failure, cargo, run, target_directory};

/// The file with the expected counts.
const BASELINE: &str = "benches/instructions/baseline.txt";

/// The allowed difference from the baseline in per cent. Another version of the C library causes differences up to this size.
const TOLERANCE: f64 = 4.0;

/// The allowed difference in per cent if the baseline was made with another compiler.
const OTHER_COMPILER: f64 = 15.0;

/// The scripts, with the two numbers of messages. The numbers are multiples of the script's batch size.
const SCRIPTS: &[(&str, u64, u64)] = &[
    ("topic", 3_000, 33_000),
    ("envelope", 3_000, 33_000),
    ("fanout", 10_000, 60_000),
    ("live", 3_000, 33_000),
    ("kept", 2_000, 22_000),
    ("store", 512, 8_192),
];

/// Disables processor features, so that the C library chooses the same routines on every processor.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX2_Usable,-AVX,-ERMS,-FSRM,-BMI2,-MOVBE,-RTM";

/// Counts the instructions and compares the counts with the baseline, or writes a new baseline if `update` is set.
pub fn gate(update: bool) -> Result<(), Failure> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        eprintln!("the gate runs on x86-64 Linux only; skipped");
        return Ok(());
    }
    run(cargo().args(["build", "--profile", "gate", "--package", "instructions"]))?;
    let program = target_directory().join("gate").join("instructions");
    let mut counted = BTreeMap::new();
    for (script, few, many) in SCRIPTS {
        let difference = count(&program, script, *many, &[])?.saturating_sub(count(&program, script, *few, &[])?);
        let each = difference / (many - few);
        eprintln!("{script:>10}: {each} instructions");
        counted.insert((*script).to_owned(), each);
    }
    growth::check(&program)?;
    let compiler = compiler()?;
    if update {
        return fs::write(BASELINE, baseline_text(&compiler, &counted))
            .map_err(|error| Failure(format!("{BASELINE} cannot be written: {error}")));
    }
    let text = fs::read_to_string(BASELINE).map_err(|error| {
        Failure(format!("{BASELINE} cannot be read: {error}; `cargo xtask gate --update` writes it"))
    })?;
    let tolerance = if text.contains(&compiler) {
        TOLERANCE
    } else {
        eprintln!("the baseline was not made with {compiler}; a difference of {OTHER_COMPILER} % is allowed");
        OTHER_COMPILER
    };
    compare(&parse_baseline(&text), &counted, tolerance).map_err(Failure)
}

/// Runs a script under callgrind, with these further options, and returns the number of instructions.
fn count(program: &Path, script: &str, messages: u64, options: &[&str]) -> Result<u64, Failure> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(options).arg(program).arg(script);
    // The environment is cleared, because its size moves the stack and so changes the count.
    command.arg(messages.to_string()).env_clear().env("PATH", "/usr/bin:/bin").env("GLIBC_TUNABLES", TUNABLES);
    let output =
        command.output().map_err(|error| Failure(format!("valgrind cannot be started: {error} (Debian: valgrind)")))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Failure(format!("script {script} ended with {}: {stderr}", output.status)));
    }
    collected(&stderr).ok_or_else(|| Failure(format!("callgrind printed no count: {stderr}")))
}

/// `==7== Collected : 1234` → 1234.
fn collected(stderr: &str) -> Option<u64> {
    stderr.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn compiler() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map_err(|error| Failure(format!("rustc cannot be started: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn baseline_text(compiler: &str, counted: &BTreeMap<String, u64>) -> String {
    let mut text = format!(
        "# Instructions for one message (fanout: one delivery; store: one row), written by `cargo xtask gate --update`.\n# {compiler}\n"
    );
    for (script, each) in counted {
        // Writing to a `String` can't fail.
        let _ = writeln!(text, "{script} {each}");
    }
    text
}

fn parse_baseline(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)))
        .collect()
}

/// Fails with one sentence for each count that differs by more than the tolerance. A smaller count fails, too: with the old baseline, a later change
/// could grow by the saved amount unnoticed.
fn compare(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, tolerance: f64) -> Result<(), String> {
    let mut changed = Vec::new();
    for (script, now) in now {
        let Some(before) = before.get(script) else {
            changed.push(format!("{script}: {now} instructions, not in the baseline"));
            continue;
        };
        #[allow(clippy::cast_precision_loss)] // Both are far below 2⁵².
        let by = (*now as f64 / *before as f64 - 1.0) * 100.0;
        if by.abs() > tolerance {
            let word = if by > 0.0 { "more" } else { "less" };
            changed.push(format!("{script}: {before} instructions before, {now} now, {:.1} % {word}", by.abs()));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the instructions per message have changed by more than {tolerance} %:\n  {}\nif the change is intended, run `cargo xtask gate --update` and give the reason in the commit",
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
    fn a_written_baseline_is_read_again() {
        assert_eq!(parse_baseline(&baseline_text("rustc 1.2.3", &figures(700))), figures(700));
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 1234\n==7==\n"), Some(1_234));
        assert_eq!(collected("valgrind: no such file"), None);
    }

    #[test]
    fn a_change_beyond_the_tolerance_is_reported_with_both_counts() {
        assert_eq!(compare(&figures(1_000), &figures(1_039), TOLERANCE), Ok(()));
        for (now, word) in [(1_050, "5.0 % more"), (950, "5.0 % less")] {
            let error = compare(&figures(1_000), &figures(now), TOLERANCE).unwrap_err();
            assert!(error.contains(word) && error.contains("1000 instructions before"), "{error}");
        }
        assert!(compare(&BTreeMap::new(), &figures(1), TOLERANCE).is_err());
    }
}
