//! The broker's disk, with faults: full, I/O errors, and power cuts that lose unsynced writes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use faulty_disk::{Disk, Fault, Record, Shim, Survival};

use super::random::Random;
use crate::process;

pub struct BrokerDisk {
    shim: Shim,
    /// The broker's data directory.
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// The contents of the disk when the broker was last started.
    disk: Disk,
    random: Random,
}

impl BrokerDisk {
    /// Creates an empty disk for the directory `data` in the run's directory.
    ///
    /// # Errors
    /// There is no C compiler, or the directory cannot be created.
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

    /// Lets a program use this disk. `preloaded` is another library for `LD_PRELOAD`.
    pub fn attach(&self, command: &mut Command, preloaded: Option<&str>) {
        command.envs(self.shim.environment(true, preloaded));
    }

    /// Sets the disk's fault; [`Fault::None`] repairs the disk.
    ///
    /// # Errors
    /// The file that controls the fault cannot be written.
    pub fn set_fault(&self, fault: Fault) -> Result<(), String> {
        self.shim.fail(fault).map_err(|error| format!("the disk's error: {error}"))
    }

    /// Applies the recorded writes to the known contents and deletes the record, so that the record stays short. No program may use the disk during
    /// the call.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn apply_record(&self) -> Result<(), String> {
        let mut state = process::lock(&self.state);
        Record::read(self.shim.record())?.0.iter().for_each(|(_, change)| state.disk.apply(change));
        match std::fs::remove_file(self.shim.record()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("the disk's record: {error}")),
            _ => Ok(()),
        }
    }

    /// Cuts the power: all or some of the unsynced writes are lost. Returns a description for the history.
    ///
    /// # Errors
    /// The files cannot be changed.
    pub fn cut_power(&self) -> Result<String, String> {
        self.apply_record()?;
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
