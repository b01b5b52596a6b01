//! Starts the real program. Each test has a broker of its own, in a directory of its own, on a free port.
//!
//! Tests wait for a line or a condition with a deadline, never for a fixed time.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// The timeout of every wait, for slow machines.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The interval in which a condition is polled.
const POLL: Duration = Duration::from_millis(10);

/// The program, without settings and logins of the user who runs the tests.
pub fn wsmb(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsmb"));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WSMB_")) {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", directory.join(".config")).env("HOME", directory);
    command.stdin(Stdio::null());
    // Programs inherit ignored hang-ups from tests that run under `nohup`.
    // SAFETY: `signal` may be called between fork and exec, and no handler is installed.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command
}

/// The exit code and the output of a command that has ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails unless the command exited with this code.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Fails unless standard error contains this text.
    #[track_caller]
    pub fn with_stderr(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected `{text}` in: {}", self.stderr);
        self
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    let mut running = Running::start(command);
    drop(running.child.stdin.take());
    running.end()
}

/// Runs a command to its end, with this on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Ended {
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().unwrap();
    let input = input.to_owned();
    // Another thread writes, because the command may write output before it has read all input.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let ended = running.end();
    // A command may end before it has read all input.
    let written = writer.join().unwrap();
    assert!(written.as_ref().map_or_else(|error| error.kind() == ErrorKind::BrokenPipe, |()| true), "{written:?}");
    ended
}

/// The lines of a stream.
pub struct Lines {
    incoming: Receiver<String>,
    /// All lines so far.
    pub seen: Vec<String>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stream).lines();
            // Sending fails when the test has dropped the receiver.
            let _ = lines.map_while(Result::ok).try_for_each(|line| sender.send(line));
        });
        Self { incoming, seen: Vec::new() }
    }

    #[track_caller]
    pub fn next(&mut self) -> String {
        self.wait_for("")
    }

    /// The next line that contains this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("waited for `{text}`: {error}; so far: {:#?}", self.seen),
            }
        }
    }

    fn rest(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.seen.join("\n"),
                Err(RecvTimeoutError::Timeout) => panic!("never ended; so far: {:#?}", self.seen),
            }
        }
    }
}

/// A running process; killed when dropped.
pub struct Running {
    pub child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits until the process has ended.
    pub fn end(&mut self) -> Ended {
        let status = self.wait();
        Ended { code: status.code(), stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    #[cfg(unix)]
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: libc::c_int) {
        let number = i32::try_from(self.child.id()).unwrap();
        // SAFETY: `kill` touches no memory; the child has not been waited for, so its id is valid.
        assert_eq!(unsafe { libc::kill(number, signal) }, 0);
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition is true.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "timeout before {what}");
        std::thread::sleep(POLL);
    }
}

/// A broker without a configuration file, and its first user.
pub struct Broker {
    pub directory: tempfile::TempDir,
    pub running: Running,
    pub url: String,
    pub user: String,
}

impl Broker {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a broker with these arguments.
    pub fn start_with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut running = serve(directory.path(), "127.0.0.1:0", flags);
        let url = listening(&mut running);
        let user = running.stdout.wait_for("  user ").split_whitespace().nth(1).unwrap().to_owned();
        let password = running.stdout.wait_for("  password ").split_whitespace().nth(1).unwrap().to_owned();
        running.stdout.wait_for("wsmb send sms");
        Self { directory, running, url, user: format!("{user}:{password}") }
    }

    /// A client command with address, user and password in the environment.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = wsmb(self.directory.path());
        command.args(arguments).env("WSMB_URL", &self.url).env("WSMB_USER", &self.user);
        command
    }

    /// Sends a message, which must be accepted.
    #[track_caller]
    pub fn send(&self, channel: &str, message: &str) -> String {
        run(&mut self.client(&["send", channel, message])).with(0).stdout
    }

    /// Runs `wsmb queue` on the broker's store.
    #[track_caller]
    pub fn queue(&self, arguments: &[&str]) -> Ended {
        run(wsmb(self.directory.path()).arg("queue").args(arguments))
    }

    /// Sends several messages in one publication, which the client commands never do.
    pub async fn send_together(&self, channel: &str, messages: &str) {
        let mut request = self.url.as_str().into_client_request().unwrap();
        let login = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&self.user));
        request.headers_mut().insert("Authorization", login.parse().unwrap());
        let (mut sender, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let command = format!(r#"{{"command":"send-message","channel":"{channel}","data":{messages}}}"#);
        sender.send(Message::text(command)).await.unwrap();
        sender.close(None).await.unwrap();
    }

    /// The number of a channel's messages in the broker's store.
    #[track_caller]
    pub fn waiting(&self, channel: &str) -> u64 {
        stored(&self.directory.path().join("wsmb-data/wsmb.db"), channel)
    }

    /// Starts the broker again on the same port, after it has ended.
    pub fn restart(&mut self) {
        let address = self.url.strip_prefix("ws://").unwrap().to_owned();
        self.running = serve(self.directory.path(), &address, &[]);
        listening(&mut self.running);
    }
}

/// The number of a channel's messages in a store, which a broker may be using.
#[track_caller]
pub fn stored(store: &Path, channel: &str) -> u64 {
    let file = rusqlite::Connection::open_with_flags(store, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    file.busy_timeout(Duration::from_secs(20)).unwrap();
    let query = "SELECT count(*) FROM mq_data WHERE channel = ?1";
    file.query_row(query, [channel], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

fn serve(directory: &Path, address: &str, flags: &[&str]) -> Running {
    Running::start(wsmb(directory).args(["serve", "--listen", address]).args(flags))
}

fn listening(running: &mut Running) -> String {
    running.stdout.wait_for("wsmb is listening on ").split_whitespace().last().unwrap().to_owned()
}
