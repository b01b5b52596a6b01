//! A private database server for the store: MariaDB or PostgreSQL, with its data in the system's temporary directory.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::process::{self, Account, PATIENCE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MariaDb,
    Postgres,
}

/// A running server with a user `torture` and the user's database `torture`.
pub struct Database {
    kind: Kind,
    directory: PathBuf,
    account: Account,
    address: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Database {
    /// Creates a server in the system's temporary directory, starts it, and creates the database.
    ///
    /// # Errors
    /// A command fails, or the server does not answer in time.
    pub fn new(kind: Kind) -> Result<Self, String> {
        let name = format!("wsmb-torture-{}-{}", std::process::id(), super::record::now());
        let directory = std::env::temp_dir().join(name);
        let account = Account::for_server(if kind == Kind::MariaDb { "mysql" } else { "postgres" });
        for folder in [directory.clone(), directory.join("tmp")] {
            std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            account.own(&folder);
        }
        let address = process::free_port().local_addr().map_err(|error| error.to_string())?;
        let database = Self { kind, directory, account, address, child: Mutex::new(None) };
        database.initialise()?;
        database.start()?;
        database.create()?;
        Ok(database)
    }

    /// The store's URL.
    pub fn url(&self) -> String {
        let scheme = if self.kind == Kind::MariaDb { "mysql" } else { "postgres" };
        format!("{scheme}://torture:secret@{}/torture", self.address)
    }

    fn program(&self, name: &str) -> PathBuf {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        folders.sort();
        folders.reverse();
        folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        process::find(&[name], &folders)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn run(&self, mut command: Command) -> Result<(), String> {
        self.account.assume(&mut command);
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    fn initialise(&self) -> Result<(), String> {
        let mut command;
        match self.kind {
            Kind::MariaDb => {
                command = Command::new(self.program("mariadb-install-db"));
                command.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=socket"]);
                command.arg(format!("--auth-root-socket-user={}", self.account.name));
                command.arg(format!("--datadir={}", self.data().display()));
                command.arg(format!("--tmpdir={}", self.directory.join("tmp").display()));
                command.args(["--innodb-log-file-size=16M"]);
            }
            Kind::Postgres => {
                command = Command::new(self.program("initdb"));
                command.arg("--pgdata").arg(self.data()).args(["--auth-local=peer", "--auth-host=scram-sha-256"]);
                command.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=4"]);
                command.args(["--username", &self.account.name]);
            }
        }
        self.run(command)
    }

    fn create(&self) -> Result<(), String> {
        let statements: &[&str] = match self.kind {
            Kind::MariaDb => &[
                "CREATE DATABASE torture",
                "CREATE USER torture@'127.0.0.1' IDENTIFIED BY 'secret'",
                "GRANT ALL ON torture.* TO torture@'127.0.0.1'",
            ],
            Kind::Postgres => &["CREATE ROLE torture LOGIN PASSWORD 'secret'", "CREATE DATABASE torture OWNER torture"],
        };
        statements.iter().try_for_each(|statement| self.run(self.client(statement)))
    }

    fn client(&self, statement: &str) -> Command {
        let mut command;
        match self.kind {
            Kind::MariaDb => {
                command = Command::new(self.program("mariadb"));
                command.arg("--no-defaults").arg(format!("--socket={}", self.directory.join("socket").display()));
                command.arg(format!("--user={}", self.account.name)).args(["--execute", statement]);
            }
            Kind::Postgres => {
                command = Command::new(self.program("psql"));
                command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--no-password", "--host"]);
                command.arg(&self.directory).args(["--port", &self.address.port().to_string()]);
                command.args(["--username", &self.account.name, "--dbname", "postgres", "--command", statement]);
            }
        }
        command
    }

    fn server(&self) -> Command {
        let mut command;
        let port = self.address.port();
        match self.kind {
            Kind::MariaDb => {
                command = Command::new(self.program("mariadbd"));
                command.arg("--no-defaults").arg(format!("--datadir={}", self.data().display()));
                command.arg(format!("--tmpdir={}", self.directory.join("tmp").display()));
                command.arg(format!("--socket={}", self.directory.join("socket").display()));
                command.arg(format!("--pid-file={}", self.directory.join("pid").display()));
                command.arg(format!("--port={port}")).args(["--bind-address=127.0.0.1", "--skip-name-resolve"]);
                command.args(["--skip-log-bin", "--performance-schema=OFF", "--innodb-buffer-pool-size=16M"]);
                command.args(["--innodb-log-file-size=16M", "--key-buffer-size=64K", "--max-connections=60"]);
            }
            Kind::Postgres => {
                command = Command::new(self.program("postgres"));
                command.arg("-D").arg(self.data());
                let own = [format!("port={port}"), format!("unix_socket_directories={}", self.directory.display())];
                let fixed =
                    ["listen_addresses=127.0.0.1", "shared_buffers=16MB", "max_connections=60"].map(str::to_owned);
                for setting in own.into_iter().chain(fixed) {
                    command.arg("-c").arg(setting);
                }
            }
        }
        self.account.assume(&mut command);
        command
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// The server does not answer in time.
    pub fn start(&self) -> Result<(), String> {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join("log"));
        let log = log.map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.server();
            let errors = log.try_clone().map_err(|error| error.to_string())?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
            let mut child = process::spawn(command).map_err(|error| format!("{:?}: {error}", self.kind))?;
            loop {
                if TcpStream::connect(self.address).is_ok() && self.run(self.client("SELECT 1")).is_ok() {
                    *process::lock(&self.child) = Some(child);
                    return Ok(());
                }
                // The server ends at once if the killed server's locks or port are not released yet. Then it is started again.
                if matches!(child.try_wait(), Ok(Some(_))) {
                    break;
                }
                if Instant::now() > deadline {
                    process::kill_tree(&mut child);
                    return Err(format!(
                        "{:?} does not answer; see {}",
                        self.kind,
                        self.directory.join("log").display()
                    ));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            if Instant::now() > deadline {
                return Err(format!("{:?} does not start; see {}", self.kind, self.directory.join("log").display()));
            }
        }
    }

    /// Kills the server with its child processes.
    pub fn kill(&self) {
        if let Some(mut child) = process::lock(&self.child).take() {
            process::kill_tree(&mut child);
        }
    }

    /// Stops (SIGSTOP) or continues (SIGCONT) the server and its child processes.
    pub fn freeze(&self, on: bool) {
        if let Some(child) = &*process::lock(&self.child) {
            let signal = if on { libc::SIGSTOP } else { libc::SIGCONT };
            process::signal(child.id(), signal);
            for pid in process::children(child.id()) {
                process::signal(pid, signal);
            }
        }
    }

    /// Returns the path of the server's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.freeze(false);
        self.kill();
        let removed: &Path = &self.directory;
        let _ = std::fs::remove_dir_all(removed);
    }
}
