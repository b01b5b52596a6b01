//! The broker's process, which is killed, stopped, frozen and restarted with one directory and one port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use faulty_disk::Fault;

use super::clock::FakeClock;
use super::disk::BrokerDisk;
use super::record::{Event, Kind, Recorder};
use crate::process::{self, PATIENCE};

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
    /// Creates a broker without starting it. Its configuration is `wsmb.toml` in `directory`.
    ///
    /// # Errors
    /// The nemesis' history file cannot be created.
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

    /// Notes an action of the nemesis.
    pub fn note(&self, what: &str, how: &str) {
        self.recorder.note(&Event::now(Kind::Act).what(what).how(how));
    }

    /// Notes an event that must not happen.
    pub fn note_wrong(&self, what: &str) {
        self.recorder.note(&Event::now(Kind::Wrong).what(what));
    }

    /// Returns the faked clock of the broker's process.
    pub fn clock(&self) -> Option<&FakeClock> {
        self.clock.as_ref()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.directory.join("wsmb.toml")).current_dir(&self.directory);
        command.stdin(Stdio::null());
        if let Some(clock) = &self.clock {
            clock.attach(&mut command);
        }
        if let Some(disk) = &self.disk {
            disk.attach(&mut command, self.clock.as_ref().map(FakeClock::library));
        }
        command
    }

    /// Starts the broker and waits for an HTTP answer. An open port is not enough, because the broker binds its port before it opens its store.
    ///
    /// # Errors
    /// The broker ends, or does not answer in time.
    pub fn start(&self) -> Result<(), String> {
        if let Some(disk) = &self.disk {
            disk.apply_record()?;
        }
        let child = process::start(self.command(&["serve"]), &self.directory.join("broker.log"), || self.answer());
        let child = child.map_err(|why| format!("the broker {why}; see broker.log"))?;
        self.note("start", "");
        *process::lock(&self.child) = Some(child);
        Ok(())
    }

    fn answer(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut [0])
    }

    pub fn signal(&self, signal: libc::c_int) {
        if let Some(child) = &*process::lock(&self.child) {
            process::signal(child.id(), signal);
        }
    }

    /// Kills the broker with SIGKILL.
    pub fn kill(&self) {
        if let Some(mut child) = process::lock(&self.child).take() {
            self.note("kill", "");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills the broker; the disk loses some or all unsynced writes.
    ///
    /// # Errors
    /// The files of the disk cannot be changed.
    pub fn cut_power(&self) -> Result<(), String> {
        self.kill();
        self.disk.as_ref().map_or(Ok(()), |disk| {
            let description = disk.cut_power()?;
            self.note("power", &description);
            Ok(())
        })
    }

    /// Sets the fault of the broker's disk; [`Fault::None`] repairs the disk.
    ///
    /// # Errors
    /// The file that controls the fault cannot be written.
    pub fn set_disk_fault(&self, fault: Fault) -> Result<(), String> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if fault != Fault::None {
            self.note("disk-down", &format!("{fault:?}"));
        }
        disk.set_fault(fault)?;
        if fault == Fault::None {
            self.note("disk-up", "");
        }
        Ok(())
    }

    /// Stops the broker with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// The broker does not end in time, or its exit code is not 0.
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

    /// Whether the broker has not ended by itself. Notes such an end, which must not happen.
    pub fn check_running(&self) -> bool {
        let mut child = process::lock(&self.child);
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                *child = None;
                self.note_wrong(&format!("the broker ended by itself: {status}"));
                false
            }
            _ => true,
        }
    }

    /// Returns the waiting messages: for each, its channel and the line of `wsmb queue export`.
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
