//! A server that is measured: private, on a free port of the loopback, with a directory of its own, and gone when it is dropped.
//!
//! Must never touch a server that it did not start, nor leave one behind, whatever happens in between.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::build::Programs;
use super::results::Figures;
use super::subject::Subject;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a server that starts is asked: a small part of the shortest start.
const ASK: Duration = Duration::from_micros(200);

/// How long an answer to a handshake may take: a server that listens already may still read its store.
const ANSWER: Duration = Duration::from_secs(5);

/// How a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub subject: Subject,
    /// Whether sends are to be answered for: NATS has a part of its own for it.
    pub confirms: bool,
}

/// The broker's arguments behind `serve`, without its address: what a user would give who wants no passwords, and the switch that is measured.
pub fn wsmb_arguments(subject: Subject) -> Vec<&'static str> {
    let mut arguments = vec!["--set", "auth.anonymous=true"];
    if matches!(subject, Subject::Topic | Subject::Envelope) {
        arguments.extend(["--set", "channel_defaults.keep=false"]);
    }
    arguments
}

/// Mosquitto's configuration; `benches/peers` says why each line is there.
fn mosquitto_configuration(port: &str, directory: &str) -> String {
    format!(
        "user root\nlistener 0 {directory}/mosquitto.sock\nlistener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n\
         allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\npersistence true\n\
         persistence_location {directory}/\nautosave_interval 1\n"
    )
}

/// The configuration of NATS; `benches/peers` says why each line is there.
fn nats_configuration(port: &str, other: &str, directory: &str, confirms: bool) -> String {
    let mut text =
        format!("listen: \"127.0.0.1:{other}\"\nwebsocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n");
    if confirms {
        text += &format!("jetstream {{ store_dir: \"{directory}\" }}\n");
    }
    text
}

/// A server that runs.
pub struct Server {
    child: Child,
    port: u16,
    directory: Directory,
    subject: Subject,
    /// From running the program to the first byte of its answer to a handshake.
    pub took: Duration,
}

impl Server {
    /// Starts one and waits until it answers, in a new directory below `place`, or in the one where one ran before.
    ///
    /// # Errors
    /// A sentence with the last line of its log.
    pub fn start(setup: Setup, programs: &Programs, place: &Path, before: Option<Directory>) -> Result<Self, String> {
        let Setup { subject, confirms } = setup;
        let directory = before.map_or_else(|| Directory::new(place), Ok)?;
        let port = free_port()?;
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
                let other = free_port()?.to_string();
                let text = nats_configuration(&port.to_string(), &other, &directory.0.display().to_string(), confirms);
                command.arg("-c").arg(directory.write("nats.conf", &text)?);
            }
            _ => {
                command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).args(wsmb_arguments(subject));
            }
        }
        let log = File::create(directory.log()).map_err(|error| format!("no log can be written: {error}"))?;
        let errors = log.try_clone().map_err(|error| format!("no log can be written: {error}"))?;
        without_settings(&mut command).current_dir(&directory.0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let began = Instant::now();
        let child = command.spawn().map_err(|error| format!("{} can't be started: {error}", subject.key()))?;
        let mut server = Self { child, port, directory, subject, took: Duration::ZERO };
        server.wait_for_answer(began)?;
        server.took = began.elapsed();
        Ok(server)
    }

    fn wait_for_answer(&mut self, began: Instant) -> Result<(), String> {
        while began.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended with {status}: {}", self.subject.key(), self.last_words()));
            }
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                return shake_hands(stream, self.subject)
                    .map_err(|error| format!("{} answers no handshake: {error}", self.subject.key()));
            }
            std::thread::sleep(ASK);
        }
        Err(format!("{} does not listen after {PATIENCE:?}: {}", self.subject.key(), self.last_words()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        let path = if self.subject == Subject::Mosquitto { "mqtt" } else { "" };
        format!("ws://127.0.0.1:{}/{path}", self.port)
    }

    /// The file in which this broker keeps messages.
    pub fn store(&self) -> PathBuf {
        self.directory.0.join("wsmb-data/wsmb.db")
    }

    /// Its memory in KiB: `private` is what only this process has (RssAnon), `rss` all that is resident.
    pub fn memory(&self) -> Option<Figures> {
        let status = procfs::process::Process::new(self.pid().cast_signed()).ok()?.status().ok()?;
        let figures = [("private", status.rssanon?), ("rss", status.vmrss?)];
        Some(figures.map(|(name, kib)| (name.to_owned(), kib as f64)).into())
    }

    /// The last line of its log, for a failure.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.directory.log()).unwrap_or_default();
        log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
    }

    /// Ends it and leaves its directory to the next one.
    pub fn end(mut self) -> Directory {
        let directory = Directory(std::mem::take(&mut self.directory.0));
        drop(self);
        directory
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the person's own shell says about a broker is not for this one.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WSMB_") {
            command.env_remove(name);
        }
    }
    command
}

/// A handshake up to the first byte of its answer.
fn shake_hands(mut stream: TcpStream, subject: Subject) -> std::io::Result<()> {
    let (target, protocol) = match subject {
        Subject::Mosquitto => ("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n"),
        Subject::Nats => ("/", ""),
        _ => ("/?topic=start", "Sec-WebSocket-Protocol: wsmb.v1\r\n"),
    };
    stream.set_read_timeout(Some(ANSWER))?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    stream.read_exact(&mut [0])
}

/// A port that nobody listens on.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| format!("there is no free port: {error}"))
}

/// A directory that is removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    fn new(place: &Path) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("server-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = place.join(name);
        fs::create_dir_all(&path).map_err(|error| format!("{} can't be made: {error}", path.display()))?;
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

/// Removes what measurements have left that were ended from outside: their names say whose they were.
pub fn clear(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("server-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // What cannot be removed lies below `target`.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // What cannot be removed lies below `target`.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_keeps_messages_unless_that_is_not_what_is_measured() {
        assert!(wsmb_arguments(Subject::Topic).contains(&"channel_defaults.keep=false"));
        for kept in [Subject::TopicKept, Subject::EnvelopeKept, Subject::EnvelopeManual] {
            assert_eq!(wsmb_arguments(kept), ["--set", "auth.anonymous=true"]);
        }
    }

    #[test]
    fn nats_has_a_store_only_where_it_is_to_confirm() {
        assert!(!nats_configuration("1", "2", "d", false).contains("jetstream"));
        assert!(nats_configuration("1", "2", "d", true).contains("store_dir: \"d\""));
    }

    #[test]
    fn only_what_nobody_uses_is_cleared() {
        let place = Directory::new(&std::env::temp_dir()).unwrap();
        let own = format!("server-{}-0", std::process::id());
        // No system has so many processes.
        for name in ["server-99999999-1", &own, "plots"] {
            fs::create_dir(place.0.join(name)).unwrap();
        }
        clear(&place.0);
        assert!(!place.0.join("server-99999999-1").exists());
        assert!(place.0.join(own).exists() && place.0.join("plots").exists());
    }

    #[test]
    fn a_directory_goes_with_its_owner() {
        let directory = Directory::new(&std::env::temp_dir()).unwrap();
        let path = directory.write("a", "b").unwrap();
        assert!(path.exists());
        drop(directory);
        assert!(!path.exists());
    }
}
