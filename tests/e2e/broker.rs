//! The broker as a child process, with its own directory, configuration and log.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::secure;

/// The timeout of every wait. Generous, because a loaded machine is not a defect of the broker.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The environment variable with the number of threads of each broker (`server.threads`). See `threads.rs`.
pub const THREADS: &str = "WSMB_TEST_THREADS";

/// The user in the default [`Setup`].
pub const USER: &str = "app";
/// The password of [`USER`].
pub const PASSWORD: &str = "secret";
/// [`USER`] with the `{SHA}` hash of [`PASSWORD`], and a user whose password is `pass:word`.
const USERS: &str = r#"["app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "colon:{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8="]"#;

/// The broker's output so far, of both streams; and how many of them have not ended.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<String>, Condvar, AtomicUsize)>);

impl Log {
    fn push(&self, line: &str) {
        let mut text = self.0.0.lock().unwrap();
        text.push_str(line);
        text.push('\n');
        self.0.1.notify_all();
    }

    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// The last 40 lines, for a message.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until `find` returns a value for the text of the log; `None` at the deadline.
    pub fn wait<T>(&self, deadline: Instant, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut text = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = find(&text) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            text = self.0.1.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Reads `stream` to its end in a thread of its own.
    pub fn follow(&self, stream: impl Read + Send + 'static) {
        let log = self.clone();
        log.0.2.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                match line {
                    Ok(line) => log.push(&line),
                    Err(_) => break,
                }
            }
            // Under the lock, so that no waiting thread misses it.
            let _text = log.0.0.lock().unwrap();
            log.0.2.fetch_sub(1, Ordering::SeqCst);
            log.0.1.notify_all();
        });
    }
}

/// The configuration, files, environment and arguments of a broker.
#[derive(Clone)]
pub struct Setup {
    server: String,
    listeners: String,
    defaults: String,
    channels: String,
    auth: String,
    store: String,
    url: Option<String>,
    files: Vec<(&'static str, &'static str)>,
    environment: Vec<(&'static str, OsString)>,
    arguments: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            server: String::new(),
            listeners: String::new(),
            defaults: String::new(),
            channels: String::new(),
            auth: format!("htpasswd = []\nusers = {USERS}\n"),
            store: String::new(),
            url: None,
            files: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

impl Setup {
    /// Adds lines to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server += &format!("{lines}\n");
        self
    }

    /// Adds a `[[listener]]` on a free port; see [`Broker::addresses`].
    pub fn listener(mut self, lines: &str) -> Self {
        self.listeners += &format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{lines}\n");
        self
    }

    /// Adds lines to `[channel_defaults]`.
    pub fn defaults(mut self, lines: &str) -> Self {
        self.defaults += &format!("{lines}\n");
        self
    }

    /// Adds a `[[channel]]` of this name.
    pub fn channel(mut self, name: &str, lines: &str) -> Self {
        self.channels += &format!("[[channel]]\nname = \"{name}\"\n{lines}\n");
        self
    }

    /// Adds a `[[webhook]]`.
    #[allow(dead_code)] // Not for tests/proxies.
    pub fn webhook(mut self, lines: &str) -> Self {
        self.channels += &format!("[[webhook]]\n{lines}\n");
        self
    }

    /// Replaces the lines of `[auth]`; `{dir}` stands for the broker's directory.
    pub fn auth(mut self, lines: &str) -> Self {
        self.auth = format!("{lines}\n");
        self
    }

    /// Adds lines to `[store]`.
    pub fn store(mut self, lines: &str) -> Self {
        self.store += &format!("{lines}\n");
        self
    }

    /// Puts a file into the broker's directory.
    pub fn file(mut self, name: &'static str, text: &'static str) -> Self {
        self.files.push((name, text));
        self
    }

    /// Adds an argument of the command line.
    pub fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Sets a variable in the broker's environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Sets these variables in the broker's environment.
    pub fn variables(mut self, variables: Vec<(&'static str, OsString)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Sets `store.url`; `{dir}` stands for the broker's directory.
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Keeps messages in memory only.
    pub fn in_memory(self) -> Self {
        self.url("memory:")
    }

    /// Keeps messages in this file; a relative path is below the broker's directory.
    pub fn database(self, path: &str) -> Self {
        let folder = if Path::new(path).is_absolute() { "" } else { "{dir}/" };
        self.url(&format!("sqlite:{folder}{path}"))
    }

    /// Starts a broker in a new directory, on a free port.
    #[track_caller]
    pub fn start(self) -> Broker {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in &self.files {
            std::fs::write(dir.path().join(name), text).expect("a file in the temporary directory");
        }
        Broker::start_in(self, Arc::new(dir), 0).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// The text of the configuration file.
    fn text(&self, dir: &Path, port: u16) -> String {
        let dir = dir.display();
        let (tls, section) = if secure::is_everywhere() { ("tls://", secure::SECTION) } else { ("", "") };
        let url = self.url.as_deref().unwrap_or("sqlite:{dir}/wsmb.db").replace("{dir}", &dir.to_string());
        format!(
            "[server]\nlisten = \"{tls}127.0.0.1:{port}\"\n{}\n{}\n{section}[channel_defaults]\n{}\n{}\n[auth]\n{}\n[store]\nurl = \"{url}\"\n{}\n",
            self.server,
            self.listeners,
            self.defaults,
            self.channels,
            self.auth.replace("{dir}", &dir.to_string()),
            self.store
        )
    }
}

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
    dir: Arc<tempfile::TempDir>,
    setup: Setup,
    config: PathBuf,
    address: SocketAddr,
    /// The address of a proxy that clients connect to instead.
    proxy: Option<SocketAddr>,
    log: Log,
}

impl Broker {
    /// A broker with the default configuration.
    #[track_caller]
    pub fn start() -> Self {
        Setup::default().start()
    }

    /// Starts a broker in `dir`; port 0 means a free port. The error contains the log and the exit status of a broker that does not listen.
    pub fn start_in(setup: Setup, dir: Arc<tempfile::TempDir>, port: u16) -> Result<Self, String> {
        let log = Log::default();
        let config = dir.path().join(format!("wsmb-{port}.toml"));
        if secure::is_everywhere() {
            secure::Identity::shared().store(dir.path());
        }
        std::fs::write(&config, setup.text(dir.path(), port)).expect("the configuration file");
        let mut child = spawn(&config, dir.path(), &setup, &log);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let step = (Instant::now() + Duration::from_millis(50)).min(deadline);
            if let Some(address) = log.wait(step, listening) {
                return Ok(Self { child, dir, setup, config, address, proxy: None, log });
            }
            if let Some(status) = child.try_wait().expect("the state of the broker") {
                // The pipes may still contain lines after the process has ended.
                let end = Instant::now() + Duration::from_millis(500);
                let _ = log.wait(end, |_| None::<()>);
                return Err(format!("the broker ended with {status} before it listened; log:\n{}", log.tail()));
            }
            if Instant::now() >= deadline {
                let _ = child.kill();
                return Err(format!("the broker does not listen after {PATIENCE:?}; log:\n{}", log.tail()));
            }
        }
    }

    /// The address that clients connect to: a proxy's, or the broker's own.
    pub fn address(&self) -> SocketAddr {
        self.proxy.unwrap_or(self.address)
    }

    /// Sets the proxy that clients connect to; `None` means the broker itself.
    #[allow(dead_code)] // For tests/proxies.
    pub fn set_proxy(&mut self, proxy: Option<SocketAddr>) {
        self.proxy = proxy;
    }

    /// All addresses that the broker listens on: the first, then those of [`Setup::listener`].
    #[track_caller]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let log = self.log.text();
        let line = log.lines().find_map(|line| line.strip_prefix("wsmb is listening on ")).expect("the addresses");
        line.split(" and ")
            .map(|url| url.trim_start_matches("wss://").trim_start_matches("ws://").parse().expect("an address"))
            .collect()
    }

    /// The names of the broker's threads.
    #[cfg(target_os = "linux")]
    #[allow(dead_code)] // Not for tests/proxies.
    pub fn threads(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the broker's threads");
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok()).collect()
    }

    /// The id of the broker's process.
    #[cfg(target_os = "linux")]
    #[allow(dead_code)] // Not for tests/proxies.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> Log {
        self.log.clone()
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// The directory, which exists as long as the returned value.
    pub fn shared_dir(&self) -> Arc<tempfile::TempDir> {
        self.dir.clone()
    }

    /// The setup that the broker was started with.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let found = self.log.wait(Instant::now() + PATIENCE, |log| log.contains(text).then_some(()));
        assert!(found.is_some(), "the log does not contain {text:?} after {PATIENCE:?}:\n{}", self.log.tail());
    }

    #[track_caller]
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: `kill` touches no memory of this process; the child has not been waited for, so its id is valid.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal} to the broker: {}", std::io::Error::last_os_error());
    }

    /// Kills the broker (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills the broker and starts another one in the same directory on the same port.
    #[track_caller]
    pub fn kill_and_restart(mut self) -> Self {
        self.kill();
        self.start_again()
    }

    /// Stops the broker with SIGTERM and starts another one in the same directory on the same port.
    #[track_caller]
    pub fn stop_and_restart(mut self) -> Self {
        let status = self.stop();
        assert!(status.success(), "the broker ended with {status}:\n{}", self.log.tail());
        self.start_again()
    }

    #[track_caller]
    fn start_again(&self) -> Self {
        Self::start_in(self.setup.clone(), self.dir.clone(), self.address.port())
            .unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Sends SIGTERM and waits until the process ends.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the state of the broker") {
                // The last lines may still be in the pipes.
                self.log.wait(deadline, |_| (self.log.0.2.load(Ordering::SeqCst) == 0).then_some(()));
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the broker has not ended after {PATIENCE:?}:\n{}", self.log.tail());
    }

    /// Limits the size of the files that the broker writes; `None` removes the limit.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        let limit = libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `prlimit` reads one structure and writes nothing; the child has not been waited for, so its id is valid.
        let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "a limit for the broker: {}", std::io::Error::last_os_error());
    }

    /// Limits the broker to `more` file descriptors above the number that it has open.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn limit_descriptors(&self, more: u64) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the broker's descriptors").count() as u64;
        let limit = libc::rlimit { rlim_cur: open + more, rlim_max: open + more };
        // SAFETY: `prlimit` reads one structure and writes nothing; the child has not been waited for, so its id is valid.
        let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "a limit for the broker: {}", std::io::Error::last_os_error());
    }

    /// Changes the configuration file with `change`, and sends SIGHUP.
    #[track_caller]
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        std::fs::write(&self.config, change(text)).expect("the configuration");
        self.signal(libc::SIGHUP);
    }

    /// Limits the number of file descriptors, so that opening a file fails if its number would be `count` or higher.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn open_no_file_from(&self, count: u64) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `prlimit` writes one structure; the child has not been waited for, so its id is valid.
        let read = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut before) };
        let limit = libc::rlimit { rlim_cur: count, ..before };
        // SAFETY: `prlimit` reads one structure and writes nothing; the child has not been waited for, so its id is valid.
        let written = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!((read, written), (0, 0), "a limit for the broker: {}", std::io::Error::last_os_error());
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Fails if the process has ended.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("the state of the broker");
        assert!(status.is_none(), "the broker has ended with {}:\n{}", status.unwrap_or_default(), self.log.tail());
    }

    /// The broker's peak memory (resident) in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the broker's status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB");
        kib * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(config: &Path, dir: &Path, setup: &Setup, log: &Log) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsmb"));
    command.arg("serve").arg("--config").arg(config).args(&setup.arguments).current_dir(dir);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WSMB_")) {
        command.env_remove(name);
    }
    if let Some(threads) = std::env::var_os(THREADS) {
        command.env("WSMB_SERVER__THREADS", threads);
    }
    command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker's binary can be started");
    log.follow(child.stdout.take().expect("its standard output"));
    log.follow(child.stderr.take().expect("its standard error"));
    child
}

/// The broker's address, from the line "listening on", once that line is complete.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    let (line, _) = rest.split_once('\n')?;
    let line = line.strip_prefix("ws://").or(line.strip_prefix("wss://")).unwrap_or(line);
    let address: String = line.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    address.trim_end_matches([':', '.']).parse().ok()
}

#[test]
fn the_address_is_read_from_a_complete_line_only() {
    assert_eq!(listening("a\nINFO listening on 127.0.0.1:80"), None);
    assert_eq!(listening("INFO listening on 127.0.0.1:8080, really\n"), Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(listening("wsmb is listening on ws://127.0.0.1:8080\n"), Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(listening("INFO listening on port\n"), None);
}
