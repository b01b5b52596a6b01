//! The programs that the tests drive beside the broker. On Debian, as root, a missing one is installed; anywhere else the person is
//! told what to install. Must never leave a test out because a program is missing, and never start or touch a server of the system.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, run, target_directory};

/// A program that some test, or a measurement, needs.
pub struct Program {
    /// As it is called on the command line.
    name: &'static str,
    /// Where it is if not on the path. A `*` stands for the version.
    place: Option<&'static str>,
    /// Arguments with which it ends at once, successfully.
    probe: &'static [&'static str],
    /// The Debian package it is in.
    package: &'static str,
    /// Which tests need it, for the message.
    used_by: &'static str,
}

/// The brokers that `bench` measures beside ours.
pub const PEERS: [Program; 2] = [
    Program {
        name: "mosquitto",
        place: Some("/usr/sbin/mosquitto"),
        probe: &["-h"],
        package: "mosquitto",
        used_by: "cargo xtask bench",
    },
    Program {
        name: "nats-server",
        place: Some("/usr/sbin/nats-server"),
        probe: &["--version"],
        package: "nats-server",
        used_by: "cargo xtask bench",
    },
];

const PROXIES: &str = "tests/proxies, private reverse proxies";
const SERVERS: &str = "tests/servers, private database servers";

/// Every program that the tests need and a Rust tool chain does not bring. Of MariaDB it is the package with the bare program: that one sets up no
/// server of the system.
const PROGRAMS: &[Program] = &[
    Program {
        name: "php",
        place: None,
        probe: &["--version"],
        package: "php-cli",
        used_by: "tests/e2e/php.rs, scripts on plain sockets",
    },
    Program {
        name: "python3",
        place: None,
        probe: &["--version"],
        package: "python3-minimal",
        used_by: "tests/e2e/failed_logins.rs, the expression for fail2ban",
    },
    Program {
        name: "faketime",
        place: None,
        probe: &["--version"],
        package: "faketime",
        used_by: "tests/e2e/clock.rs, wrong clocks",
    },
    Program {
        name: "valgrind",
        place: None,
        probe: &["--version"],
        package: "valgrind",
        used_by: "cargo xtask gate, which counts instructions",
    },
    Program { name: "nginx", place: Some("/usr/sbin/nginx"), probe: &["-v"], package: "nginx-light", used_by: PROXIES },
    Program { name: "haproxy", place: Some("/usr/sbin/haproxy"), probe: &["-v"], package: "haproxy", used_by: PROXIES },
    Program {
        name: "mariadbd",
        place: Some("/usr/sbin/mariadbd"),
        probe: &["--no-defaults", "--version"],
        package: "mariadb-server-core",
        used_by: SERVERS,
    },
    Program {
        name: "mariadb",
        place: None,
        probe: &["--no-defaults", "--version"],
        package: "mariadb-client-core",
        used_by: SERVERS,
    },
    Program {
        name: "postgres",
        place: Some("/usr/lib/postgresql/*/bin/postgres"),
        probe: &["--version"],
        package: "postgresql",
        used_by: SERVERS,
    },
    Program {
        name: "psql",
        place: Some("/usr/lib/postgresql/*/bin/psql"),
        probe: &["--version"],
        package: "postgresql-client",
        used_by: SERVERS,
    },
];

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
    install(&packages(&missing))?;
    let still: Vec<&Program> = missing.into_iter().filter(|program| !present(program)).collect();
    if still.is_empty() { Ok(()) } else { Err(Failure(how_to_install(&still))) }
}

/// Where a program is that we can do without; on Debian, as root, it is installed.
///
/// # Errors
/// It is not there, in a sentence.
pub fn find_or_install(program: &Program) -> Result<PathBuf, String> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    if is_root() && Path::new("/etc/debian_version").exists() {
        install(&[program.package]).map_err(|failure| failure.to_string())?;
    }
    find(program).ok_or_else(|| how_to_install(&[program]))
}

/// Their packages, each once.
fn packages(programs: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs Debian packages; the package lists are fetched only if the lists at hand do not do.
fn install(packages: &[&str]) -> Result<(), Failure> {
    // apt gives the scripts of packages this search path, not ours (apt.conf(5)).
    let mut path = OsString::from("DPkg::Path=");
    path.push(without_services()?);
    let install = || {
        let mut command = Command::new("apt-get");
        command.arg("-o").arg(&path).args(["install", "--yes", "--no-install-recommends"]).args(packages);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    install().or_else(|_| {
        run(Command::new("apt-get").arg("update"))?;
        install()
    })
}

/// The programs with which a Debian package starts its service, and makes PostgreSQL's first cluster.
const STARTERS: [&str; 3] = ["invoke-rc.d", "deb-systemd-invoke", "pg_createcluster"];

/// A search path on which these programs do nothing, for the scripts of packages. Nothing is written outside the target directory, so nothing is left
/// behind in the system, however the installation ends.
fn without_services() -> Result<OsString, Failure> {
    let folder = target_directory().join("no-services");
    let failed = |error: &dyn Display| Failure(format!("{} cannot be written: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    for name in STARTERS {
        match std::os::unix::fs::symlink("/bin/true", folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&error)),
            _ => {}
        }
    }
    let system = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.clone()).chain(std::env::split_paths(&system));
    std::env::join_paths(folders).map_err(|error| failed(&error))
}

fn present(program: &Program) -> bool {
    find(program).is_some()
}

/// The path with which a program can be started.
fn find(program: &Program) -> Option<PathBuf> {
    let on_path = std::iter::once(PathBuf::from(program.name));
    on_path.chain(program.place.into_iter().flat_map(places)).find(|path| {
        // Mosquitto's help ends with 3.
        let output = Command::new(path).args(program.probe).output();
        output.is_ok_and(|output| output.status.success() || output.status.code() == Some(3))
    })
}

/// The paths that a place stands for.
fn places(place: &str) -> Vec<PathBuf> {
    let Some((folder, rest)) = place.split_once("/*/") else { return vec![PathBuf::from(place)] };
    let versions = fs::read_dir(folder).into_iter().flatten().flatten();
    versions.map(|version| version.path().join(rest)).collect()
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
    text + &format!(
        " install with `apt-get install {}` or your system's equivalent, then run this again",
        packages(missing).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_of_packages_start_no_service() {
        let path = without_services().unwrap();
        for name in STARTERS {
            let script = format!("{name} mosquitto start && command -v {name}");
            let output = Command::new("/bin/sh").args(["-c", &script]).env("PATH", &path).output().unwrap();
            let expected = target_directory().join("no-services").join(name);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected.to_string_lossy());
        }
        assert_eq!(without_services().unwrap(), path, "a second time");
    }
}
