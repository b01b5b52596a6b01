//! Real database servers for the tests. Each has its own data directory and socket below the system's temporary directory, and its own port.
//!
//! Never touches another server, and never leaves a server running: a server ends when its [`Server`] is dropped, the shared servers end with
//! the test's process, and all of them end if that process is killed. Tests wait by polling, never for a fixed time.
//!
//! Most tests use [`Server::shared`] with a [`Database`] of their own. A test that stops, kills or reconfigures a server starts its own
//! with [`Server::start`].

mod instance;
mod mariadb;
mod postgres;
mod process;
mod proxy;
mod session;
mod small_disk;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use wsmb_store::StoreSettings;

use instance::Instance;
pub use instance::Kind;
#[allow(unused_imports)] // Not every test uses a proxy.
pub use proxy::{Mode, Proxy};
pub use session::Session;
use small_disk::SmallDisk;
pub use tls::Certificates;

/// The timeout of every wait. Generous, because a loaded machine is not a defect.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The size of a small disk in bytes: larger than the largest file of a new server (its redo log, 16 MiB).
pub const SMALL_DISK: u64 = 24 << 20;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each commit waits for the disk. Needed only by tests that kill the server.
    pub durable: bool,
    /// The certificates of a server that speaks TLS.
    pub tls: Option<Certificates>,
    /// Further settings: `name=value`.
    pub settings: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { durable: true, tls: None, settings: Vec::new() }
    }
}

/// A private database server.
pub struct Server {
    instance: Instance,
    tls: Option<Certificates>,
    child: Mutex<Option<Child>>,
    /// Mounted below the server's directory; unmounted before the directory is removed.
    disks: Mutex<Vec<SmallDisk>>,
}

/// A new database with a user of its own, who has all rights on it.
#[derive(Clone, Debug)]
pub struct Database {
    /// The kind of the server.
    pub kind: Kind,
    /// The name of the database and of its user.
    pub name: String,
    /// The user's password. Needs escaping in a URL.
    pub password: String,
    /// The address of the server.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a durable server.
    #[track_caller]
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, Options::default())
    }

    /// Starts a server.
    #[track_caller]
    pub fn start_with(kind: Kind, options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("wsmb-").tempdir().expect("a temporary directory").keep();
        let mut instance = Instance::new(kind, dir).expect("a directory");
        let Options { durable, mut tls, settings } = options;
        (instance.durable, instance.settings) = (durable, settings);
        if let Some(tls) = &mut tls {
            tls.install(&instance.dir, &instance.account);
            instance.settings.extend(tls.settings(kind));
        }
        instance.initialise().unwrap_or_else(|said| panic!("no data directory: {said}"));
        let mut server = Self { instance, tls, child: Mutex::new(None), disks: Mutex::new(Vec::new()) };
        server.start_on_a_free_port();
        server
    }

    /// The server that the tests of this process share. Not durable, and never stopped. A test must not change its global settings.
    #[track_caller]
    pub fn shared(kind: Kind) -> &'static Self {
        shared_slot(kind).get_or_init(|| {
            static AT_EXIT: Once = Once::new();
            // SAFETY: the handler has no arguments and does not unwind: it ignores every failure.
            AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(end_shared) }, 0, "a handler at exit"));
            Self::start_with(kind, Options { durable: false, ..Options::default() })
        })
    }

    pub fn kind(&self) -> Kind {
        self.instance.kind
    }

    pub fn address(&self) -> SocketAddr {
        self.instance.address()
    }

    /// The server's directory; the data are in `data`.
    pub fn dir(&self) -> &Path {
        &self.instance.dir
    }

    /// The file with the authority that signed the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.tls.as_ref().expect("a server with TLS").authority()
    }

    /// Creates a database and its user.
    #[track_caller]
    pub fn database(&self) -> Database {
        self.database_with("")
    }

    /// Creates a database with further clauses of `CREATE DATABASE`.
    #[track_caller]
    pub fn database_with(&self, clauses: &str) -> Database {
        let database = self.new_database();
        self.create(&database, clauses);
        database
    }

    /// Creates a database that [`Self::fill_disk`] fills: on a small file system of its own if mounting is permitted.
    #[track_caller]
    pub fn small_database(&self) -> Database {
        let database = self.new_database();
        let folder = self.dir().join(self.kind().pick("data", "small"));
        std::fs::create_dir_all(&folder).expect("a directory");
        self.instance.account.own(&folder);
        let place = folder.join(&database.name);
        match SmallDisk::mount(&place, SMALL_DISK, &self.instance.account) {
            Some(disk) => {
                lock(&self.disks).push(disk);
                if self.kind().is_mysql() {
                    // MySQL takes a directory below the data directory as a database.
                    self.create_user(&database);
                } else {
                    let space = format!("CREATE TABLESPACE {} LOCATION '{}'", database.name, place.display());
                    self.sql(&space);
                    self.create(&database, &format!("TABLESPACE {}", database.name));
                }
                println!("the full disk is a tmpfs");
            }
            None => {
                self.create(&database, "");
                println!("the full disk is a limit of file sizes: mounting is not permitted");
            }
        }
        database
    }

    /// Fills the disk of [`Self::small_database`]. If mounting is not permitted, limits each file of the server to [`SMALL_DISK`] bytes:
    /// the test must then fill its tables itself.
    #[track_caller]
    pub fn fill_disk(&self) {
        let disks = lock(&self.disks);
        disks.iter().for_each(SmallDisk::fill);
        if disks.is_empty() {
            self.each_process(|pid| small_disk::limit_files(pid, Some(SMALL_DISK)));
        }
    }

    /// Whether [`Self::small_database`] has a file system of its own.
    pub fn has_small_disk(&self) -> bool {
        !lock(&self.disks).is_empty()
    }

    /// Undoes [`Self::fill_disk`].
    #[track_caller]
    pub fn make_room(&self) {
        let disks = lock(&self.disks);
        disks.iter().for_each(SmallDisk::make_room);
        if disks.is_empty() {
            self.each_process(|pid| small_disk::limit_files(pid, None));
        }
    }

    fn new_database(&self) -> Database {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Database { kind: self.kind(), password: format!("{name}:/@%#?ü"), name, address: self.address() }
    }

    fn create(&self, database: &Database, clauses: &str) {
        if self.kind() == Kind::Postgres {
            self.create_user(database);
            let name = &database.name;
            self.sql(&format!("CREATE DATABASE {name} OWNER {name} {clauses}"));
        } else {
            self.sql(&format!("CREATE DATABASE {} {clauses}", database.name));
            self.create_user(database);
        }
    }

    fn create_user(&self, database: &Database) {
        let Database { name, password, .. } = database;
        self.sql(&if self.kind().is_mysql() {
            format!(
                "CREATE USER {name}@'127.0.0.1' IDENTIFIED BY '{password}'; GRANT ALL ON {name}.* TO {name}@'127.0.0.1'"
            )
        } else {
            format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        });
    }

    /// Runs statements as administrator and returns their output: one line for each row, columns separated by tabs, NULL as `NULL`.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.sql_in(None, statements)
    }

    /// Like [`Self::sql`], in a database.
    #[track_caller]
    pub fn sql_in(&self, database: Option<&Database>, statements: &str) -> String {
        self.try_sql(database, statements).unwrap_or_else(|error| panic!("{statements}: {error}\n{}", self.log_tail()))
    }

    /// Like [`Self::sql_in`]; returns the client's error output if a statement fails.
    pub fn try_sql(&self, database: Option<&Database>, statements: &str) -> Result<String, String> {
        self.instance.sql(database.map(|database| database.name.as_str()), statements)
    }

    /// Opens an administrator's connection that stays open.
    #[track_caller]
    pub fn session(&self, database: &Database) -> Session {
        Session::start(self.kind(), self.instance.client(Some(&database.name)))
    }

    /// Another process may take a port between finding and using it; then the next port is tried.
    #[track_caller]
    fn start_on_a_free_port(&mut self) {
        for _ in 0..10 {
            self.instance.port = process::free_address().port();
            match self.launch() {
                Ok(()) => return,
                Err(said) if said.to_ascii_lowercase().contains("address already in use") => {}
                Err(said) => panic!("{said}"),
            }
        }
        panic!("no port is free\n{}", self.log_tail());
    }

    /// Starts the process and waits until it answers. The error contains the server's log.
    fn launch(&self) -> Result<(), String> {
        std::fs::write(self.log_path(), "").expect("the server's log");
        let child = self.instance.start(&self.log_path());
        let child = child.map_err(|said| format!("the server {said}:\n{}", self.log_tail()))?;
        *lock(&self.child) = Some(child);
        Ok(())
    }

    /// Kills all processes of the server.
    pub fn kill_hard(&self) {
        if let Some(mut child) = lock(&self.child).take() {
            process::kill_tree(&mut child);
        }
    }

    /// Stops the server in an orderly way, without waiting for its clients.
    #[track_caller]
    pub fn shut_down(&self) {
        let Some(mut child) = lock(&self.child).take() else { return };
        process::signal(child.id(), self.kind().pick(libc::SIGTERM, libc::SIGINT));
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().expect("the state of the server").is_none() {
            if Instant::now() > deadline {
                process::kill_tree(&mut child);
                panic!("the server does not end:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the server again after [`Self::kill_hard`] or [`Self::shut_down`], with the same data on the same port.
    #[track_caller]
    pub fn start_again(&self) {
        assert!(lock(&self.child).is_none(), "the server still runs");
        self.launch().unwrap_or_else(|said| panic!("{said}"));
    }

    /// Starts the server again if it has ended by itself.
    #[track_caller]
    pub fn revive(&self) {
        let mut child = lock(&self.child);
        if child.as_mut().is_some_and(|child| child.try_wait().expect("the state of the server").is_some()) {
            *child = None;
            drop(child);
            self.start_again();
        }
    }

    /// Stops and starts the server, with the same data on the same port.
    #[track_caller]
    pub fn restart(&self) {
        self.shut_down();
        self.start_again();
    }

    /// Suspends the server's processes (SIGSTOP); its sockets stay open.
    #[track_caller]
    pub fn stop(&self) {
        self.each_process(|pid| process::signal(pid, libc::SIGSTOP));
    }

    /// Resumes the server's processes after [`Self::stop`].
    #[track_caller]
    pub fn cont(&self) {
        self.each_process(|pid| process::signal(pid, libc::SIGCONT));
    }

    /// Calls `act` for the server's main process, and then for its children.
    #[track_caller]
    fn each_process(&self, act: impl Fn(u32)) {
        let child = lock(&self.child);
        let pid = child.as_ref().expect("a server that runs").id();
        act(pid);
        for pid in process::children(pid) {
            act(pid);
        }
    }

    /// Makes the server read-only for ordinary users, or writable again.
    #[track_caller]
    pub fn read_only(&self, read_only: bool) {
        let value = i32::from(read_only);
        if self.kind().is_mysql() {
            self.sql(&format!("SET GLOBAL read_only = {value}"));
            return;
        }
        self.sql(&format!(
            "ALTER SYSTEM SET default_transaction_read_only = {}",
            ["off", "on"][usize::from(read_only)]
        ));
        self.sql("SELECT pg_reload_conf()");
        let deadline = Instant::now() + PATIENCE;
        while self.sql("SHOW default_transaction_read_only").trim() != ["off", "on"][usize::from(read_only)] {
            assert!(Instant::now() < deadline, "the server does not read its configuration\n{}", self.log_tail());
        }
    }

    /// Ends every connection of a database's user, as administrator.
    #[track_caller]
    pub fn end_connections(&self, database: &Database) {
        let name = &database.name;
        if self.kind() == Kind::Postgres {
            self.sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"));
            return;
        }
        let ids = self.sql(&format!("SELECT id FROM information_schema.processlist WHERE user = '{name}'"));
        for id in ids.lines() {
            // The connection may have ended in the meantime.
            let _ = self.try_sql(None, &format!("KILL {id}"));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// The server's log since its last start.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The last 40 lines of the log, for a message.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        format!("log of {}:\n{}", self.kind().name(), lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Kills the server and removes its directory.
    fn end(&self) {
        self.kill_hard();
        lock(&self.disks).clear();
        let _ = std::fs::remove_dir_all(self.dir());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log_tail());
        }
        self.end();
    }
}

impl Database {
    /// The settings of a store on this database. The password is not in the URL.
    pub fn settings(&self) -> StoreSettings {
        self.settings_at(self.address)
    }

    /// The settings of a store that connects through another address.
    pub fn settings_at(&self, address: SocketAddr) -> StoreSettings {
        StoreSettings { url: self.url_at(address), password: Some(self.password.clone()), ..StoreSettings::default() }
    }

    /// The URL without the password.
    pub fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The URL without the password, with another address.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("{}://{}@{address}/{}", self.kind.pick("mysql", "postgres"), self.name, self.name)
    }

    /// The URL with the password.
    pub fn url_with_password(&self) -> String {
        let escaped: String = self.password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.url().replacen('@', &format!(":{escaped}@"), 1)
    }
}

/// Text that a server cannot compress, to fill a disk.
pub fn noise(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'A' + u8::try_from(state % 26).unwrap_or_default())
    });
    letters.take(length).collect()
}

fn shared_slot(kind: Kind) -> &'static OnceLock<Server> {
    static SLOTS: [OnceLock<Server>; 3] = [const { OnceLock::new() }; 3];
    match kind {
        Kind::MariaDb => &SLOTS[0],
        Kind::MySql => &SLOTS[1],
        Kind::Postgres => &SLOTS[2],
    }
}

extern "C" fn end_shared() {
    for kind in [Kind::MariaDb, Kind::MySql, Kind::Postgres] {
        if let Some(server) = shared_slot(kind).get() {
            server.end();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
