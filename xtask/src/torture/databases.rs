//! A private database server for the store: MariaDB or PostgreSQL, with its data in the system's temporary directory.

#[allow(dead_code)] // The tests use functions that are not used here.
#[path = "../../../tests/servers/instance.rs"]
mod instance;
#[path = "../../../tests/servers/mariadb.rs"]
mod mariadb;
#[path = "../../../tests/servers/postgres.rs"]
mod postgres;

use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;
use std::time::Instant;

use crate::process::{self, PATIENCE};
use instance::Instance;
pub use instance::Kind;

/// A running server with a user `torture` and the user's database `torture`.
pub struct Database {
    instance: Instance,
    child: Mutex<Option<Child>>,
}

impl Database {
    /// Creates a server in the system's temporary directory, starts it, and creates the database.
    ///
    /// # Errors
    /// A command fails, or the server does not answer in time.
    pub fn new(kind: Kind) -> Result<Self, String> {
        let name = format!("wsmb-torture-{}-{}", std::process::id(), super::record::now());
        let instance = Instance::new(kind, std::env::temp_dir().join(&name));
        let mut instance = instance.map_err(|error| format!("{name}: {error}"))?;
        instance.port = process::free_address().port();
        let database = Self { instance, child: Mutex::new(None) };
        database.instance.initialise()?;
        database.start()?;
        let statements = kind.pick(
            "CREATE DATABASE torture; CREATE USER torture@'127.0.0.1' IDENTIFIED BY 'secret'; \
             GRANT ALL ON torture.* TO torture@'127.0.0.1'",
            "CREATE ROLE torture LOGIN PASSWORD 'secret'; CREATE DATABASE torture OWNER torture",
        );
        database.instance.sql(None, statements)?;
        Ok(database)
    }

    /// The store's URL.
    pub fn url(&self) -> String {
        let scheme = self.instance.kind.pick("mysql", "postgres");
        format!("{scheme}://torture:secret@{}/torture", self.instance.address())
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// The server does not answer in time.
    pub fn start(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.instance.start(&self.log()) {
                Ok(child) => {
                    *process::lock(&self.child) = Some(child);
                    return Ok(());
                }
                // The server ends at once if the killed server's locks or port are not released yet. Then it is started again.
                Err(_) if Instant::now() < deadline => {}
                Err(why) => return Err(format!("{:?} {why}; see {}", self.instance.kind, self.log().display())),
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
        self.instance.dir.join("log")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.freeze(false);
        self.kill();
        let _ = std::fs::remove_dir_all(&self.instance.dir);
    }
}
