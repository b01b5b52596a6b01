//! Compiles and controls the library that stands between a program and its disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No failure.
    None,
    /// Every write and every sync fails with this error number.
    Everything(i32),
    /// Every sync fails with this error number, and unsynced data may be lost (as on Linux, which reports a failed write to one sync only).
    Sync(i32),
    /// Each sync takes so many milliseconds.
    Slow(u32),
}

/// The compiled library and its control files.
#[derive(Clone, Debug)]
pub struct Shim {
    library: PathBuf,
    error: PathBuf,
    record: PathBuf,
    directory: PathBuf,
}

impl Shim {
    /// Compiles the library into `tools`. The library watches the files below `directory`, which must exist and not contain `tools`.
    ///
    /// # Errors
    /// There is no C compiler, or `directory` is not a directory.
    pub fn new(tools: &Path, directory: &Path) -> Result<Self, String> {
        let library = tools.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(source);
        let compiled = compiler.args(["-ldl", "-lpthread"]).status();
        if !compiled.is_ok_and(|status| status.success()) {
            return Err("a C compiler is needed (cc)".to_owned());
        }
        let directory = directory.canonicalize().map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { library, error: tools.join("error"), record: tools.join("record"), directory })
    }

    /// The environment variables for the program. With `records`, syncs are recorded and not made. `preloaded` is a library that must be preloaded too.
    #[must_use]
    pub fn environment(&self, records: bool, preloaded: Option<&str>) -> Vec<(&'static str, OsString)> {
        let mut libraries = OsString::from(preloaded.map_or_else(String::new, |library| format!("{library}:")));
        libraries.push(&self.library);
        let mut variables = vec![
            ("LD_PRELOAD", libraries),
            ("TEST_DISK_DIRECTORY", self.directory.clone().into()),
            ("TEST_DISK_ERROR", self.error.clone().into()),
        ];
        if records {
            variables.push(("TEST_DISK_RECORD", self.record.clone().into()));
        }
        variables
    }

    /// Sets how the disk fails from now on.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn fail(&self, fault: Fault) -> std::io::Result<()> {
        let text = match fault {
            Fault::None => "0".to_owned(),
            Fault::Everything(error) => error.to_string(),
            Fault::Sync(error) => format!("{error} sync"),
            Fault::Slow(millis) => format!("{millis} slow"),
        };
        // A rename, so that the library never reads a part of a number.
        let draft = self.error.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &self.error)
    }

    /// The path of the record.
    #[must_use]
    pub fn record(&self) -> &Path {
        &self.record
    }

    /// The length of the record in bytes: the time of an event, to compare with the position of a cut.
    #[must_use]
    pub fn now(&self) -> u64 {
        std::fs::metadata(&self.record).map_or(0, |file| file.len())
    }
}
