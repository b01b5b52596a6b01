//! The programs that the tests drive beside the broker. On Debian, as root, a missing one is installed; anywhere else the person is
//! told what to install. Never is a test left out because a program is missing, and never is a server of the system started or touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, run};

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

/// Installs Debian packages; the lists of packages are fetched only if the ones at hand do not do.
fn install(packages: &[&str]) -> Result<(), Failure> {
    let _without = NoCluster::new(packages)?;
    let _quiet = NoServices::new(packages)?;
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

/// While it lives, Debian's PostgreSQL is installed without making a cluster for the system, and so without starting one.
struct NoCluster {
    /// Removed at the end, where there was none before.
    directories: Vec<PathBuf>,
    file: Option<PathBuf>,
}

impl NoCluster {
    const DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc/postgresql-common/createcluster.d"];

    fn new(packages: &[&str]) -> Result<Self, Failure> {
        let mut guard = Self { directories: Vec::new(), file: None };
        if !packages.contains(&"postgresql") {
            return Ok(guard);
        }
        let failed = |path: &Path, error| Failure(format!("{} can't be written: {error}", path.display()));
        for directory in Self::DIRECTORIES.map(PathBuf::from) {
            if !directory.exists() {
                std::fs::create_dir(&directory).map_err(|error| failed(&directory, error))?;
                guard.directories.push(directory);
            }
        }
        let file = Path::new(Self::DIRECTORIES[1]).join("wsmb-tests.conf");
        std::fs::write(&file, "create_main_cluster = false\n").map_err(|error| failed(&file, error))?;
        guard.file = Some(file);
        Ok(guard)
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
        for directory in self.directories.iter().rev() {
            // Only an empty one goes: what the package put there is its own.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// While it lives, Debian starts no service of a broker or a proxy that is installed.
struct NoServices(Option<PathBuf>);

impl NoServices {
    /// Debian asks this program before it starts a service; 101 forbids it.
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new(packages: &[&str]) -> Result<Self, Failure> {
        let path = Path::new(Self::POLICY);
        let brokers = PEERS.iter();
        let mut services = brokers.chain(PROGRAMS.iter().filter(|program| program.used_by == PROXIES));
        if path.exists() || !services.any(|program| packages.contains(&program.package)) {
            return Ok(Self(None));
        }
        let failed = |error| Failure(format!("{} can't be written: {error}", path.display()));
        std::fs::write(path, "#!/bin/sh\nexit 101\n").map_err(failed)?;
        let guard = Self(Some(path.to_path_buf()));
        run(Command::new("chmod").arg("755").arg(path))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
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
    let versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
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
