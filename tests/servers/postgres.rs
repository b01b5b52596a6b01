//! The commands that initialise, start and query PostgreSQL.

use std::path::PathBuf;
use std::process::Command;

use super::instance::Instance;
use super::process;

/// A program of the newest installed version. Debian has each version in a directory of its own, outside `PATH`.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let directories: Vec<PathBuf> = versions.into_iter().rev().map(|(_, path)| path).collect();
    process::find(&[name], &directories)
}

/// The command that creates the data directory.
pub fn initialise(server: &Instance) -> Command {
    let mut command = Command::new(program("initdb"));
    command.arg("--pgdata").arg(server.dir.join("data"));
    command.args(["--auth-local=peer", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
    command.args(["--no-sync", "--wal-segsize=4", "--username", &server.account.name]);
    command
}

/// The command that starts the server.
pub fn command(server: &Instance) -> Command {
    let mut settings: Vec<String> = [
        "listen_addresses=127.0.0.1",
        "shared_buffers=16MB",
        "max_connections=60",
        "wal_level=minimal",
        "max_wal_senders=0",
        "min_wal_size=16MB",
        "max_wal_size=64MB",
        "log_min_messages=error",
    ]
    .map(str::to_owned)
    .to_vec();
    settings.push(format!("port={}", server.port));
    settings.push(format!("unix_socket_directories={}", server.dir.display()));
    if !server.durable {
        settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
    }
    settings.extend(server.settings.iter().cloned());
    let mut command = Command::new(program("postgres"));
    command.arg("-D").arg(server.dir.join("data"));
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    command
}

/// The server's command-line client, as administrator.
pub fn client(server: &Instance, database: Option<&str>) -> Command {
    let mut command = Command::new(program("psql"));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"]);
    command.args(["--set=ON_ERROR_STOP=1", "--pset=null=NULL", "--no-password"]).arg("--host").arg(&server.dir);
    command.arg("--port").arg(server.port.to_string());
    command.args(["--username", &server.account.name, "--dbname", database.unwrap_or("postgres")]);
    command.env("PGCLIENTENCODING", "UTF8").env("PGCONNECT_TIMEOUT", "5");
    command
}
