//! The commands that initialise, start and query MariaDB and MySQL.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::instance::{Instance, Kind};
use super::process;

/// The path of MySQL's server, if `WSMB_TEST_MYSQL` names it.
pub fn mysql() -> Option<PathBuf> {
    std::env::var_os("WSMB_TEST_MYSQL").map(PathBuf::from)
}

fn program(server: &Instance, names: &[&str]) -> PathBuf {
    let beside = mysql().filter(|_| server.kind == Kind::MySql).and_then(|path| path.parent().map(Path::to_path_buf));
    let bin = beside.iter().map(|folder| folder.join("../bin"));
    let system = ["/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    process::find(names, &beside.iter().cloned().chain(bin).chain(system).collect::<Vec<_>>())
}

fn server_program(server: &Instance) -> PathBuf {
    match (server.kind, mysql()) {
        (Kind::MySql, Some(path)) => path,
        _ => program(server, &["mariadbd"]),
    }
}

/// The command that creates the data directory.
pub fn initialise(server: &Instance) -> Command {
    let mut command = if server.kind == Kind::MySql {
        let mut command = Command::new(server_program(server));
        command.args(["--no-defaults", "--initialize-insecure"]);
        command
    } else {
        let mut command = Command::new(program(server, &["mariadb-install-db"]));
        command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=socket"]);
        command.arg(format!("--auth-root-socket-user={}", server.account.name));
        command
    };
    command.arg(data(server)).arg(temporary(server)).args(SIZES).args(own_sizes(server.kind));
    command
}

/// Small sizes, because a test has few connections and few rows.
const SIZES: &[&str] = &["--innodb-buffer-pool-size=16M", "--key-buffer-size=64K"];

fn own_sizes(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::MySql => &["--innodb-redo-log-capacity=16M"],
        _ => &["--innodb-log-file-size=16M", "--aria-pagecache-buffer-size=1M"],
    }
}

fn data(server: &Instance) -> String {
    format!("--datadir={}", server.dir.join("data").display())
}

/// A starting server removes files that look like its own from this directory, so each server needs another one.
fn temporary(server: &Instance) -> String {
    format!("--tmpdir={}", server.dir.join("tmp").display())
}

fn socket(server: &Instance) -> String {
    format!("--socket={}", server.dir.join("socket").display())
}

/// The command that starts the server.
pub fn command(server: &Instance) -> Command {
    let mut command = Command::new(server_program(server));
    command
        .arg("--no-defaults")
        .arg(data(server))
        .arg(temporary(server))
        .arg(socket(server))
        .args(SIZES)
        .args(own_sizes(server.kind));
    command.arg(format!("--port={}", server.port));
    command.arg(format!("--pid-file={}", server.dir.join("pid").display()));
    command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF"]);
    command.args(["--max-connections=60", "--character-set-server=latin1"]);
    if server.kind == Kind::MySql {
        command.arg("--mysqlx=OFF");
    }
    command.arg(format!("--innodb-flush-log-at-trx-commit={}", i32::from(server.durable)));
    command.args(server.settings.iter().map(|setting| format!("--{setting}")));
    command
}

/// The server's command-line client, as administrator.
pub fn client(server: &Instance, database: Option<&str>) -> Command {
    let names: &[&str] = if server.kind == Kind::MySql { &["mysql", "mariadb"] } else { &["mariadb"] };
    let mut command = Command::new(program(server, names));
    command.args(["--no-defaults", "--batch", "--raw", "--skip-column-names", "--unbuffered"]);
    command.args(["--default-character-set=utf8mb4", "--connect-timeout=5"]).arg(socket(server));
    command.arg(format!("--user={}", if server.kind == Kind::MySql { "root" } else { &server.account.name }));
    command.args(database);
    command
}
