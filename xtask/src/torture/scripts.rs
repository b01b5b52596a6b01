//! PHP clients: receivers with long connections, and a sender with one connection per message. Each writes its own history file, which survives a
//! kill of the client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::{Event, Kind, Recorder};
use crate::process;

/// The scripts of a run.
pub struct Scripts {
    directory: PathBuf,
    /// The address of each receiver's route.
    addresses: Vec<SocketAddr>,
    children: Mutex<Vec<(String, Child)>>,
    generation: AtomicU64,
}

impl Scripts {
    /// Starts one receiver for each address, and a sender for the first address. Starts nothing without addresses.
    ///
    /// # Errors
    /// PHP is not installed.
    pub fn start(directory: &Path, addresses: Vec<SocketAddr>) -> Result<Self, String> {
        let scripts = Self {
            directory: directory.to_path_buf(),
            addresses,
            children: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        };
        scripts.launch()?;
        Ok(scripts)
    }

    fn launch(&self) -> Result<(), String> {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst);
        for (index, address) in self.addresses.iter().enumerate() {
            let route = if index == 0 { "direct" } else { "proxied" };
            self.spawn("receiver.php", &format!("php-receiver-{index}-{generation}"), *address, route)?;
        }
        let Some(address) = self.addresses.first() else { return Ok(()) };
        self.spawn("sender.php", &format!("php-sender-{generation}"), *address, "direct")
    }

    fn spawn(&self, script: &str, name: &str, address: SocketAddr, route: &str) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/torture/php").join(script);
        let log = self.directory.join(format!("{name}.jsonl"));
        let errors = std::fs::File::create(self.directory.join(format!("{name}.stderr")));
        let errors = errors.map_err(|error| format!("{name}.stderr: {error}"))?;
        let mut command = Command::new("php");
        command.arg(path).arg(address.port().to_string()).args(["script", name, route]).arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = process::spawn(command);
        let child = child.map_err(|error| format!("php: {error}; install it (Debian: apt-get install php-cli)"))?;
        process::lock(&self.children).push((name.to_owned(), child));
        Ok(())
    }

    /// Kills all scripts and starts new ones.
    pub fn restart(&self) {
        self.end();
        let _ = self.launch();
    }

    /// Kills all scripts, and notes each script that ended by itself or wrote to stderr.
    pub fn end(&self) {
        for (name, mut child) in process::lock(&self.children).drain(..) {
            let ended_by_itself = matches!(child.try_wait(), Ok(Some(_)));
            let _ = child.kill();
            let _ = child.wait();
            let Ok(recorder) = Recorder::create(&self.directory, &format!("{name}+harness")) else { continue };
            let errors = std::fs::read_to_string(self.directory.join(format!("{name}.stderr"))).unwrap_or_default();
            if ended_by_itself || !errors.trim().is_empty() {
                recorder.note(&Event::now(Kind::Wrong).what(format!("{name} ended by itself: {}", errors.trim())));
            }
            recorder.note(&Event::now(Kind::Note).what("killed"));
        }
    }

    /// Stops (SIGSTOP) or continues (SIGCONT) all scripts.
    pub fn freeze(&self, on: bool) {
        for (name, child) in process::lock(&self.children).iter() {
            if on {
                process::signal(child.id(), libc::SIGSTOP);
            }
            if let Ok(recorder) = Recorder::create(&self.directory, &format!("{name}+harness")) {
                recorder.note(&Event::now(if on { Kind::Pause } else { Kind::Resume }));
            }
            if !on {
                process::signal(child.id(), libc::SIGCONT);
            }
        }
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        for (_, child) in process::lock(&self.children).iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
