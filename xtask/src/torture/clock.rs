//! The wall clock of the broker's process, faked with libfaketime.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::process;

/// The paths of libfaketime for programs with threads, in Debian's package `libfaketime`.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/arm-linux-gnueabihf/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// A wall clock that can be stepped.
pub struct FakeClock {
    library: &'static str,
    file: PathBuf,
    /// The difference from the real clock in seconds.
    offset: Mutex<i64>,
}

impl FakeClock {
    /// Creates a clock without an offset. Its file is in `directory`.
    ///
    /// # Errors
    /// The library is not installed, or the file cannot be written.
    pub fn new(directory: &Path) -> Result<Self, String> {
        let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
        let library = library.ok_or("libfaketime is missing; install it (Debian: apt-get install libfaketime)")?;
        let clock = Self { library, file: directory.join("clock"), offset: Mutex::new(0) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Returns the path of libfaketime, for `LD_PRELOAD`.
    pub fn library(&self) -> &'static str {
        self.library
    }

    /// Lets a program use this clock. The program's monotonic clock stays the real one.
    pub fn attach(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_DISABLE_SHM", "1");
    }

    /// Steps the clock by a number of seconds. Returns the new difference from the real clock in seconds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn step(&self, seconds: i64) -> Result<i64, String> {
        let offset = *process::lock(&self.offset) + seconds;
        self.set(offset)?;
        Ok(offset)
    }

    fn set(&self, offset: i64) -> Result<(), String> {
        // Replaced atomically: the library must never read part of a number.
        let draft = self.file.with_extension("draft");
        let written =
            std::fs::write(&draft, format!("{offset:+}\n")).and_then(|()| std::fs::rename(&draft, &self.file));
        written.map_err(|error| format!("{}: {error}", self.file.display()))?;
        *process::lock(&self.offset) = offset;
        Ok(())
    }
}
