//! Finds the programs that the tests need besides the broker. On Debian, as root, installs a missing program; otherwise fails and names the
//! package. Must never skip a test because a program is missing, and never start or change a system service.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, run, target_directory};

/// A program that a test or a measurement needs.
pub struct Program {
    name: &'static str,
    /// The path to try if the program is not in `PATH`. A `*` stands for the version.
    path: Option<&'static str>,
    /// Arguments with which the program exits at once with success.
    probe: &'static [&'static str],
    /// The program's Debian package.
    package: &'static str,
    /// The tests that need the program, for the error message.
    used_by: &'static str,
}

const fn program(
    name: &'static str,
    path: Option<&'static str>,
    probe: &'static [&'static str],
    package: &'static str,
    used_by: &'static str,
) -> Program {
    Program { name, path, probe, package, used_by }
}

const BENCH: &str = "cargo xtask bench";
const PROXIES: &str = "tests/proxies, private reverse proxies";
const SERVERS: &str = "tests/servers, private database servers";

const TOKENS: &str = "tests/cli/token.rs, PyJWT";

const VERSION: &[&str] = &["--version"];
const PHP_CURL: &[&str] = &["-r", "exit(extension_loaded('curl') ? 0 : 1);"];
const PYTHON: &[&str] = &["-c", "import ensurepip, json, urllib.request, venv"];
const MARIADB: &[&str] = &["--no-defaults", "--version"];

/// The other brokers that `bench` measures.
pub const PEERS: [Program; 2] = [
    program("mosquitto", Some("/usr/sbin/mosquitto"), &["-h"], "mosquitto", BENCH),
    program("nats-server", Some("/usr/sbin/nats-server"), VERSION, "nats-server", BENCH),
];

/// All programs that the tests need and that are not part of a Rust tool chain. `mariadb-server-core` has only the program and does not set up a
/// system service.
const PROGRAMS: &[Program] = &[
    program("php", None, VERSION, "php-cli", "tests/e2e/php.rs, scripts on plain sockets"),
    program("curl", None, VERSION, "curl", "tests/e2e/http.rs, requests as a person sends them"),
    program("php", None, PHP_CURL, "php-curl", "docs/http.md and examples/otp.php, PHP with curl"),
    program("chromium", Some("/usr/bin/google-chrome"), VERSION, "chromium", "tests/e2e/http/browser.rs, a web page"),
    program(
        "python3",
        None,
        PYTHON,
        "python3-venv",
        "docs/http.md, tests/e2e/tls.rs, tests/e2e/webhooks.rs, tests/e2e/failed_logins.rs and the validator of openapi.json",
    ),
    program("openssl", None, &["version"], "openssl", "tests/e2e/tls.rs, another implementation of TLS"),
    program("/usr/bin/python3", None, &["-c", "import jwt"], "python3-jwt", TOKENS),
    program("/usr/bin/python3", None, &["-c", "import cryptography"], "python3-cryptography", TOKENS),
    program("faketime", None, VERSION, "faketime", "tests/e2e/clock.rs, wrong clocks"),
    program("valgrind", None, VERSION, "valgrind", "cargo xtask gate, which counts instructions"),
    program("nginx", Some("/usr/sbin/nginx"), &["-v"], "nginx-light", PROXIES),
    program("haproxy", Some("/usr/sbin/haproxy"), &["-v"], "haproxy", PROXIES),
    program("mariadbd", Some("/usr/sbin/mariadbd"), MARIADB, "mariadb-server-core", SERVERS),
    program("mariadb", None, MARIADB, "mariadb-client-core", SERVERS),
    program("postgres", Some("/usr/lib/postgresql/*/bin/postgres"), VERSION, "postgresql", SERVERS),
    program("psql", Some("/usr/lib/postgresql/*/bin/psql"), VERSION, "postgresql-client", SERVERS),
];

/// Installs the missing programs, or fails and names them.
pub fn ensure() -> Result<(), Failure> {
    let missing: Vec<&Program> = PROGRAMS.iter().filter(|program| !is_installed(program)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        eprintln!("present: {}", names.join(", "));
        return Ok(());
    }
    if !(is_root() && Path::new("/etc/debian_version").exists()) {
        return Err(Failure(how_to_install(&missing)));
    }
    install(&packages(&missing))?;
    let still: Vec<&Program> = missing.into_iter().filter(|program| !is_installed(program)).collect();
    if still.is_empty() { Ok(()) } else { Err(Failure(how_to_install(&still))) }
}

/// Returns the path of an optional program. Installs a missing program on Debian, as root.
///
/// # Errors
/// The program is missing; the text says how to install it.
pub fn find_or_install(program: &Program) -> Result<PathBuf, String> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    if is_root() && Path::new("/etc/debian_version").exists() {
        install(&[program.package]).map_err(|failure| failure.to_string())?;
    }
    find(program).ok_or_else(|| how_to_install(&[program]))
}

/// Returns the packages of the programs without duplicates.
fn packages(programs: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs Debian packages. Updates the package lists only if the first attempt fails.
fn install(packages: &[&str]) -> Result<(), Failure> {
    // Package scripts get this search path from apt, not the one of this process (apt.conf(5)).
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

/// The programs with which the scripts of a Debian package start its service or create PostgreSQL's first cluster.
const SERVICE_STARTERS: [&str; 3] = ["invoke-rc.d", "deb-systemd-invoke", "pg_createcluster"];

/// Returns a search path, for the scripts of packages, on which [`SERVICE_STARTERS`] do nothing. Writes to the target directory only, so an
/// interrupted installation leaves no changed file in the system.
fn without_services() -> Result<OsString, Failure> {
    let folder = target_directory().join("no-services");
    let failed = |error: &dyn Display| Failure(format!("{} cannot be written: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    for name in SERVICE_STARTERS {
        match std::os::unix::fs::symlink("/bin/true", folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&error)),
            _ => {}
        }
    }
    let system = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.clone()).chain(std::env::split_paths(&system));
    std::env::join_paths(folders).map_err(|error| failed(&error))
}

fn is_installed(program: &Program) -> bool {
    find(program).is_some()
}

/// Returns the path with which a program can be started.
fn find(program: &Program) -> Option<PathBuf> {
    let on_path = std::iter::once(PathBuf::from(program.name));
    on_path.chain(program.path.into_iter().flat_map(expand)).find(|path| {
        // `mosquitto -h` exits with 3.
        let output = Command::new(path).args(program.probe).output();
        output.is_ok_and(|output| output.status.success() || output.status.code() == Some(3))
    })
}

/// Returns the paths that match a pattern with at most one `*`.
fn expand(path: &str) -> Vec<PathBuf> {
    let Some((folder, rest)) = path.split_once("/*/") else { return vec![PathBuf::from(path)] };
    let versions = fs::read_dir(folder).into_iter().flatten().flatten();
    versions.map(|version| version.path().join(rest)).collect()
}

/// Asks `id`, because the standard library has no call for the user id. Every system with `apt-get` has `id`.
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
        for name in SERVICE_STARTERS {
            let script = format!("{name} mosquitto start && command -v {name}");
            let output = Command::new("/bin/sh").args(["-c", &script]).env("PATH", &path).output().unwrap();
            let expected = target_directory().join("no-services").join(name);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected.to_string_lossy());
        }
        assert_eq!(without_services().unwrap(), path, "a second time");
    }
}
