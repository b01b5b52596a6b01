//! The programs that the tests drive beside the broker. On Debian, as root, a missing one is installed; anywhere else the person is
//! told what to install. Never is a test left out because a program is missing.

use std::path::Path;
use std::process::Command;

use crate::{Failure, run};

/// A program that some test needs.
struct Program {
    /// As it is called on the command line.
    name: &'static str,
    /// An argument with which it ends at once, successfully.
    probe: &'static str,
    /// The Debian package it is in.
    package: &'static str,
    /// Which tests need it, for the message.
    used_by: &'static str,
}

/// Every program that the tests need and a Rust tool chain does not bring.
const PROGRAMS: &[Program] = &[Program {
    name: "php",
    probe: "--version",
    package: "php-cli",
    used_by: "tests/e2e/php.rs, scripts on plain sockets",
}];

/// Sees to it that every program is there.
pub fn ensure() -> Result<(), Failure> {
    let missing: Vec<&Program> = PROGRAMS.iter().filter(|program| !present(program)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        eprintln!("present: {}", names.join(", "));
        return Ok(());
    }
    if !(is_root() && Path::new("/etc/debian_version").exists()) {
        return Err(Failure(how_to_install(&missing)));
    }
    let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    install(&packages)?;
    let still: Vec<&Program> = missing.into_iter().filter(|program| !present(program)).collect();
    if still.is_empty() { Ok(()) } else { Err(Failure(how_to_install(&still))) }
}

/// Installs Debian packages; the lists of packages are fetched only if the ones at hand do not do.
fn install(packages: &[&str]) -> Result<(), Failure> {
    if run(&mut apt_get_install(packages)).is_ok() {
        return Ok(());
    }
    run(Command::new("apt-get").arg("update"))?;
    run(&mut apt_get_install(packages))
}

fn apt_get_install(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn present(program: &Program) -> bool {
    Command::new(program.name).arg(program.probe).output().is_ok_and(|output| output.status.success())
}

/// The standard library does not tell; `id` is everywhere where `apt-get` is.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn how_to_install(missing: &[&Program]) -> String {
    let mut text = String::from("missing:");
    for program in missing {
        text += &format!(" `{}` (needed by {});", program.name, program.used_by);
    }
    let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    text + &format!(
        " install with `apt-get install {}` or your system's equivalent, then run this again",
        packages.join(" ")
    )
}
