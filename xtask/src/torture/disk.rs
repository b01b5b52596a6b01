//! The disk of the broker: it can be full or broken, and at a power cut it loses what was not synced.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use faulty_disk::{Disk, Fault, Record, Shim, Survival};

use super::process;
use super::random::Random;

/// The disk of a run.
pub struct BrokerDisk {
    shim: Shim,
    /// Where the broker keeps everything that has to last.
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// What it holds, as of the last time that the broker was started.
    disk: Disk,
    random: Random,
}

impl BrokerDisk {
    /// An empty one: the directory `data` of the run's directory.
    ///
    /// # Errors
    /// There is no C compiler, or the directory cannot be made.
    pub fn new(run: &Path, seed: u64) -> Result<Self, String> {
        let directory = run.join("data");
        std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let shim = Shim::new(run, &directory)?;
        Ok(Self {
            shim,
            directory,
            state: Mutex::new(State { disk: Disk::new(seed), random: Random::new(seed, "disk") }),
        })
    }

    /// Puts it under a program.
    pub fn put_under(&self, command: &mut Command, preloaded: Option<&str>) {
        command.envs(self.shim.environment(true, preloaded));
    }

    /// Lets it fail, or be well again.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    pub fn fail(&self, fault: Fault) -> Result<(), String> {
        self.shim.fail(fault).map_err(|error| format!("the disk's error: {error}"))
    }

    /// Takes over what was written, so that the record stays short. To be called while nothing runs on it.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn catch_up(&self) -> Result<(), String> {
        let mut state = process::lock(&self.state);
        Record::read(self.shim.record())?.0.iter().for_each(|(_, change)| state.disk.apply(change));
        match std::fs::remove_file(self.shim.record()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("the disk's record: {error}")),
            _ => Ok(()),
        }
    }

    /// Cuts the power: all or some of the unsynced writes are lost. Returns which, for the log.
    ///
    /// # Errors
    /// The files cannot be changed.
    pub fn cut(&self) -> Result<String, String> {
        self.catch_up()?;
        let mut state = process::lock(&self.state);
        let survival = if state.random.percent(33) { Survival::Nothing } else { Survival::Some };
        let contents = state.disk.clone().cut(survival);
        let text = |error: std::io::Error| format!("{}: {error}", self.directory.display());
        let replaced = std::fs::remove_dir_all(&self.directory)
            .and_then(|()| std::fs::create_dir(&self.directory))
            .and_then(|()| faulty_disk::write(&contents, &self.directory));
        replaced.map_err(text)?;
        let seed = state.random.between(0, u64::MAX);
        state.disk = Disk::of(&self.directory, seed).map_err(text)?;
        Ok(format!("{survival:?} of what was not synced is left"))
    }
}
