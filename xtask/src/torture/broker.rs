//! The broker as a process that is killed, stopped, frozen and started again, on one directory and one port.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use faulty_disk::Fault;

use super::clock::FakeClock;
use super::disk::BrokerDisk;
use super::process;
use super::record::{Event, Kind, Recorder};

/// How long a start or an orderly stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The broker of a run.
pub struct Broker {
    program: PathBuf,
    directory: PathBuf,
    address: SocketAddr,
    clock: Option<FakeClock>,
    disk: Option<BrokerDisk>,
    recorder: Recorder,
    child: Mutex<Option<Child>>,
}

impl Broker {
    /// One that has not been started; its configuration is `wsmb.toml` in `directory`.
    ///
    /// # Errors
    /// Its file of events cannot be made.
    pub fn new(
        program: &Path,
        directory: &Path,
        address: SocketAddr,
        clock: Option<FakeClock>,
        disk: Option<BrokerDisk>,
    ) -> Result<Self, String> {
        let recorder = Recorder::create(directory, "nemesis").map_err(|error| format!("nemesis.jsonl: {error}"))?;
        Ok(Self {
            program: program.to_path_buf(),
            directory: directory.to_path_buf(),
            address,
            clock,
            disk,
            recorder,
            child: Mutex::new(None),
        })
    }

    /// Notes what was done to whom.
    pub fn note(&self, what: &str, how: &str) {
        self.recorder.note(&Event::now(Kind::Act).what(what).how(how));
    }

    /// Notes something that must not happen.
    pub fn wrong(&self, what: &str) {
        self.recorder.note(&Event::now(Kind::Wrong).what(what));
    }

    /// The faked clock of its process.
    pub fn clock(&self) -> Option<&FakeClock> {
        self.clock.as_ref()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.directory.join("wsmb.toml")).current_dir(&self.directory);
        command.stdin(Stdio::null());
        if let Some(clock) = &self.clock {
            clock.fake(&mut command);
        }
        if let Some(disk) = &self.disk {
            disk.put_under(&mut command, self.clock.as_ref().map(FakeClock::library));
        }
        command
    }

    /// Starts it and waits until it answers: it takes its port before it opens its store.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&self) -> Result<(), String> {
        if let Some(disk) = &self.disk {
            disk.catch_up()?;
        }
        let log = File::options().create(true).append(true).open(self.directory.join("broker.log"));
        let log = log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| format!("broker.log: {error}"))?;
        let mut command = self.command(&["serve"]);
        command.stdout(log.0).stderr(log.1);
        let mut child = process::spawn(command).map_err(|error| format!("the broker cannot be started: {error}"))?;
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the broker ended with {status} before it listened; see broker.log"));
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                return Err(format!("the broker does not listen after {PATIENCE:?}; see broker.log"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.note("start", "");
        *process::lock(&self.child) = Some(child);
        Ok(())
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")?;
            Ok(stream.read(&mut [0; 8])? > 0)
        };
        ask().unwrap_or(false)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: libc::c_int) {
        if let Some(child) = &*process::lock(&self.child) {
            process::signal(child.id(), signal);
        }
    }

    /// Ends it at once.
    pub fn kill(&self) {
        if let Some(mut child) = process::lock(&self.child).take() {
            self.note("kill", "");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as a power cut does: its disk loses by chance what was not synced.
    ///
    /// # Errors
    /// The disk cannot be put into that state.
    pub fn cut_power(&self) -> Result<(), String> {
        self.kill();
        self.disk.as_ref().map_or(Ok(()), |disk| {
            let left = disk.cut()?;
            self.note("power", &left);
            Ok(())
        })
    }

    /// Lets its disk fail, or be well again.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn fail_disk(&self, fault: Fault) -> Result<(), String> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if fault != Fault::None {
            self.note("disk-down", &format!("{fault:?}"));
        }
        disk.fail(fault)?;
        if fault == Fault::None {
            self.note("disk-up", "");
        }
        Ok(())
    }

    /// Ends it in an orderly way, and waits.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn stop(&self) -> Result<(), String> {
        let Some(mut child) = process::lock(&self.child).take() else { return Ok(()) };
        self.note("term", "");
        process::signal(child.id(), libc::SIGTERM);
        let begun = Instant::now();
        let status: ExitStatus = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                _ if begun.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("the broker did not end within {PATIENCE:?} of SIGTERM"));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        self.note("ended", &format!("{:.3}", begun.elapsed().as_secs_f64()));
        if status.success() { Ok(()) } else { Err(format!("the broker ended with {status} after SIGTERM")) }
    }

    /// Notes if it has ended by itself: it never may.
    pub fn look(&self) -> bool {
        let mut child = process::lock(&self.child);
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                *child = None;
                self.wrong(&format!("the broker ended by itself: {status}"));
                false
            }
            _ => true,
        }
    }

    /// What still waits in its store, as `wsmb queue export` tells of each channel.
    ///
    /// # Errors
    /// The command fails.
    pub fn waiting(&self, channels: &[String]) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        for channel in channels {
            let output = self.command(&["queue", "export", channel]).output();
            let output = output.map_err(|error| format!("`wsmb queue export`: {error}"))?;
            if !output.status.success() {
                return Err(format!("`wsmb queue export`: {}", String::from_utf8_lossy(&output.stderr)));
            }
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found.extend(text.lines().map(|line| (channel.clone(), line.to_owned())));
        }
        Ok(found)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = process::lock(&self.child).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
