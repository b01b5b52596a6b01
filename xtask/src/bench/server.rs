//! A measured server: runs on a free loopback port with its own directory, and ends when it is dropped.
//!
//! Must never touch a server that was started elsewhere, and never leave a server running.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::build::Programs;
use super::results::Figures;
use super::subject::Subject;
use crate::process;

/// The timeout of a server's start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a connection to a starting server is tried: a small part of the shortest start.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// The timeout of a handshake. A server that listens may still be reading its store.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub subject: Subject,
    /// Whether the server must confirm sends. NATS needs JetStream for this.
    pub confirms: bool,
}

/// Returns the broker's arguments after `serve` without its address: anonymous access, and `keep=false` for the subjects that keep no messages.
pub fn wsmb_arguments(subject: Subject) -> Vec<&'static str> {
    let mut arguments = vec!["--set", "auth.anonymous=true"];
    if matches!(subject, Subject::Topic | Subject::Envelope) {
        arguments.extend(["--set", "channel_defaults.keep=false"]);
    }
    arguments
}

/// Mosquitto's configuration. `benches/peers` has the reason of each line.
fn mosquitto_configuration(port: &str, directory: &str) -> String {
    format!(
        "user root\nlistener 0 {directory}/mosquitto.sock\nlistener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n\
         allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\npersistence true\n\
         persistence_location {directory}/\nautosave_interval 1\n"
    )
}

/// The configuration of nats-server. `benches/peers` has the reason of each line.
fn nats_configuration(port: &str, other: &str, directory: &str, confirms: bool) -> String {
    let mut text =
        format!("listen: \"127.0.0.1:{other}\"\nwebsocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n");
    if confirms {
        text += &format!("jetstream {{ store_dir: \"{directory}\" }}\n");
    }
    text
}

/// A running server.
pub struct Server {
    child: Child,
    port: u16,
    directory: Directory,
    subject: Subject,
    /// The time from the start of the program to the first byte of its answer to a handshake.
    pub start_time: Duration,
}

impl Server {
    /// Starts a server and waits until it answers. The server runs in `before`, the directory of an earlier server, or in a new directory below
    /// `parent`.
    ///
    /// # Errors
    /// The server cannot be started, ends, or does not answer in time; the text has the last line of its log.
    pub fn start(setup: Setup, programs: &Programs, parent: &Path, before: Option<Directory>) -> Result<Self, String> {
        let Setup { subject, confirms } = setup;
        let directory = before.map_or_else(|| Directory::new(parent), Ok)?;
        let port = process::free_address().port();
        let mut command = Command::new(programs.server(subject)?);
        match subject {
            Subject::Limit => {
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
            }
            Subject::Mosquitto => {
                let text = mosquitto_configuration(&port.to_string(), &directory.0.display().to_string());
                command.arg("-c").arg(directory.write("mosquitto.conf", &text)?);
            }
            Subject::Nats => {
                let other = process::free_address().port().to_string();
                let text = nats_configuration(&port.to_string(), &other, &directory.0.display().to_string(), confirms);
                command.arg("-c").arg(directory.write("nats.conf", &text)?);
            }
            _ => {
                command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).args(wsmb_arguments(subject));
            }
        }
        let log = File::create(directory.log()).map_err(|error| format!("no log can be written: {error}"))?;
        let errors = log.try_clone().map_err(|error| format!("no log can be written: {error}"))?;
        remove_settings(&mut command).current_dir(&directory.0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let began = Instant::now();
        let child = command.spawn().map_err(|error| format!("{} can't be started: {error}", subject.key()))?;
        let mut server = Self { child, port, directory, subject, start_time: Duration::ZERO };
        server.wait_for_answer(began)?;
        server.start_time = began.elapsed();
        Ok(server)
    }

    fn wait_for_answer(&mut self, began: Instant) -> Result<(), String> {
        while began.elapsed() < START_TIMEOUT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended with {status}: {}", self.subject.key(), self.last_log_line()));
            }
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                return handshake(stream, self.subject)
                    .map_err(|error| format!("{} answers no handshake: {error}", self.subject.key()));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(format!("{} does not listen after {START_TIMEOUT:?}: {}", self.subject.key(), self.last_log_line()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        let path = if self.subject == Subject::Mosquitto { "mqtt" } else { "" };
        format!("ws://127.0.0.1:{}/{path}", self.port)
    }

    /// Returns the path of the broker's database.
    pub fn store(&self) -> PathBuf {
        self.directory.0.join("wsmb-data/wsmb.db")
    }

    /// Returns the server's memory in KiB: `private` is RssAnon, `rss` the resident memory. `None` if the server has ended.
    pub fn memory(&self) -> Option<Figures> {
        let status = procfs::process::Process::new(self.pid().cast_signed()).ok()?.status().ok()?;
        let figures = [("private", status.rssanon?), ("rss", status.vmrss?)];
        Some(figures.map(|(name, kib)| (name.to_owned(), kib as f64)).into())
    }

    /// Returns the last line of the server's log.
    pub fn last_log_line(&self) -> String {
        let log = fs::read_to_string(self.directory.log()).unwrap_or_default();
        log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
    }

    /// Ends the server and returns its directory for the next server.
    pub fn end(mut self) -> Directory {
        let directory = Directory(std::mem::take(&mut self.directory.0));
        drop(self);
        directory
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes the `WSMB_` variables of the user's shell from a command's environment.
pub fn remove_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WSMB_") {
            command.env_remove(name);
        }
    }
    command
}

/// Sends a handshake and waits for the first byte of the answer.
fn handshake(mut stream: TcpStream, subject: Subject) -> std::io::Result<()> {
    let (target, protocol) = match subject {
        Subject::Mosquitto => ("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n"),
        Subject::Nats => ("/", ""),
        _ => ("/?topic=start", "Sec-WebSocket-Protocol: wsmb.v1\r\n"),
    };
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.read_exact(&mut [0])
}

/// A directory that is removed when it is dropped.
pub struct Directory(PathBuf);

impl Directory {
    fn new(parent: &Path) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("server-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{} can't be created: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(|error| format!("{} can't be written: {error}", path.display()))?;
        Ok(path)
    }
}

/// Removes the directories of measurements that were killed. The directory name contains the id of the measurement's process.
pub fn clear(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("server-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // A directory that cannot be removed stays below `target`.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // A directory that cannot be removed stays below `target`.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_subjects_without_keep_disable_keep() {
        assert!(wsmb_arguments(Subject::Topic).contains(&"channel_defaults.keep=false"));
        for kept in [Subject::TopicKept, Subject::EnvelopeKept, Subject::EnvelopeManual] {
            assert_eq!(wsmb_arguments(kept), ["--set", "auth.anonymous=true"]);
        }
    }

    #[test]
    fn nats_has_a_store_only_if_it_must_confirm() {
        assert!(!nats_configuration("1", "2", "d", false).contains("jetstream"));
        assert!(nats_configuration("1", "2", "d", true).contains("store_dir: \"d\""));
    }

    #[test]
    fn only_unused_directories_are_removed() {
        let parent = Directory::new(&std::env::temp_dir()).unwrap();
        let own = format!("server-{}-0", std::process::id());
        // No system has a process with this id.
        for name in ["server-99999999-1", &own, "plots"] {
            fs::create_dir(parent.0.join(name)).unwrap();
        }
        clear(&parent.0);
        assert!(!parent.0.join("server-99999999-1").exists());
        assert!(parent.0.join(own).exists() && parent.0.join("plots").exists());
    }

    #[test]
    fn a_dropped_directory_is_removed() {
        let directory = Directory::new(&std::env::temp_dir()).unwrap();
        let path = directory.write("a", "b").unwrap();
        assert!(path.exists());
        drop(directory);
        assert!(!path.exists());
    }
}
