//! Clients in PHP, as they are on cheap hosts: a receiver that works for ever and a sender that is gone after each message. Each writes its own
//! file, so that what it noted survives its death.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::process;
use super::record::{Event, Kind, Recorder};

/// The scripts of a run.
pub struct Scripts {
    directory: PathBuf,
    /// Where each receiver connects.
    places: Vec<SocketAddr>,
    children: Mutex<Vec<(String, Child)>>,
    generation: AtomicU64,
}

impl Scripts {
    /// Starts one receiver for each place, and a sender at the first.
    ///
    /// # Errors
    /// PHP is not installed.
    pub fn start(directory: &Path, places: Vec<SocketAddr>) -> Result<Self, String> {
        let scripts = Self {
            directory: directory.to_path_buf(),
            places,
            children: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        };
        scripts.launch()?;
        Ok(scripts)
    }

    /// None at all.
    pub fn none() -> Self {
        Self {
            directory: PathBuf::new(),
            places: Vec::new(),
            children: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        }
    }

    fn launch(&self) -> Result<(), String> {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst);
        for (index, place) in self.places.iter().enumerate() {
            let route = if index == 0 { "direct" } else { "proxied" };
            self.one("receiver.php", &format!("php-receiver-{index}-{generation}"), *place, route)?;
        }
        self.places
            .first()
            .map_or(Ok(()), |place| self.one("sender.php", &format!("php-sender-{generation}"), *place, "direct"))
    }

    fn one(&self, script: &str, name: &str, place: SocketAddr, route: &str) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/torture/php").join(script);
        let log = self.directory.join(format!("{name}.jsonl"));
        let errors = std::fs::File::create(self.directory.join(format!("{name}.stderr")));
        let errors = errors.map_err(|error| format!("{name}.stderr: {error}"))?;
        let mut command = Command::new("php");
        command.arg(path).arg(place.port().to_string()).args(["script", name, route]).arg(log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = process::spawn(command);
        let child = child.map_err(|error| format!("php: {error}; install it (Debian: apt-get install php-cli)"))?;
        process::lock(&self.children).push((name.to_owned(), child));
        Ok(())
    }

    /// Kills all of them and starts others.
    pub fn kill(&self) {
        self.end();
        let _ = self.launch();
    }

    /// Kills all of them, and notes what they complained about.
    pub fn end(&self) {
        for (name, mut child) in process::lock(&self.children).drain(..) {
            let ended_by_itself = matches!(child.try_wait(), Ok(Some(_)));
            let _ = child.kill();
            let _ = child.wait();
            let Ok(recorder) = Recorder::create(&self.directory, &format!("{name}+harness")) else { continue };
            let said = std::fs::read_to_string(self.directory.join(format!("{name}.stderr"))).unwrap_or_default();
            if ended_by_itself || !said.trim().is_empty() {
                recorder.note(&Event::now(Kind::Wrong).what(format!("{name} ended by itself: {}", said.trim())));
            }
            recorder.note(&Event::now(Kind::Note).what("killed"));
        }
    }

    /// Freezes all of them, or lets them go on.
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
