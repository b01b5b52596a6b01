//! One instance of a database server: its directory and settings, and the commands that initialise, start and query it. The tests and
//! `cargo xtask torture` share this file.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{self, Account};
use super::{mariadb, postgres};

/// The server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MariaDb,
    /// Oracle's MySQL. Not a package of Debian: tested only if `WSMB_TEST_MYSQL` names its `mysqld`.
    MySql,
    Postgres,
}

impl Kind {
    /// All kinds that the tests of this process use.
    pub fn all() -> Vec<Self> {
        let mysql = mariadb::mysql().map(|_| Self::MySql);
        [Self::MariaDb, Self::Postgres].into_iter().chain(mysql).collect()
    }

    /// The name for messages and prefixes.
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
        }
    }

    /// Whether the server speaks MySQL's protocol and dialect.
    pub fn is_mysql(self) -> bool {
        self != Self::Postgres
    }

    /// Selects one of two values by the server's dialect.
    pub fn pick<T>(self, mysql: T, postgres: T) -> T {
        if self.is_mysql() { mysql } else { postgres }
    }
}

/// An instance. The system user that runs the server is its administrator, through the socket and without a password.
#[derive(Debug)]
pub struct Instance {
    pub kind: Kind,
    pub account: Account,
    /// Holds `data`, the socket, the log and the certificates.
    pub dir: PathBuf,
    /// The TCP port on 127.0.0.1.
    pub port: u16,
    /// Each commit waits for the disk.
    pub durable: bool,
    /// Further settings: `name=value`.
    pub settings: Vec<String>,
}

impl Instance {
    /// Creates the directories of an instance, which has no port and no data yet.
    pub fn new(kind: Kind, dir: PathBuf) -> io::Result<Self> {
        let account = Account::for_server(kind.pick("mysql", "postgres"));
        let temporary = dir.join("tmp");
        std::fs::create_dir_all(&temporary)?;
        account.own(&dir);
        account.own(&temporary);
        Ok(Self { kind, account, dir, port: 0, durable: true, settings: Vec::new() })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Creates the data directory.
    ///
    /// # Errors
    /// The command and what it printed, if it failed.
    pub fn initialise(&self) -> Result<(), String> {
        let mut command = if self.kind.is_mysql() { mariadb::initialise(self) } else { postgres::initialise(self) };
        self.account.assume(&mut command);
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&said)))
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// As [`process::start`].
    pub fn start(&self, log: &Path) -> Result<Child, String> {
        let mut command = if self.kind.is_mysql() { mariadb::command(self) } else { postgres::command(self) };
        self.account.assume(&mut command);
        process::start(command, log, || self.sql(None, "SELECT 1").map(drop).map_err(io::Error::other))
    }

    /// The server's command-line client, as administrator, through the socket.
    pub fn client(&self, database: Option<&str>) -> Command {
        let client = if self.kind.is_mysql() { mariadb::client } else { postgres::client };
        let mut command = client(self, database);
        self.account.assume(&mut command);
        command
    }

    /// Runs statements as administrator and returns their output: one line for each row, columns separated by tabs, NULL as `NULL`.
    ///
    /// # Errors
    /// The client's error output.
    pub fn sql(&self, database: Option<&str>, statements: &str) -> Result<String, String> {
        process::with_input(&mut self.client(database), statements)
    }
}
