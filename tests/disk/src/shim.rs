//! The library that stands between a program and its disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// To write and to sync gives this error number.
    Everything(i32),
    /// To sync gives this error number, and what was not synced yet may be lost (as on Linux: the system tells once and forgets).
    Sync(i32),
    /// Each sync takes so many milliseconds.
    Slow(u32),
}

/// The library, compiled, with its files.
#[derive(Clone, Debug)]
pub struct Shim {
    library: PathBuf,
    error: PathBuf,
    record: PathBuf,
    directory: PathBuf,
}

impl Shim {
    /// Compiles it into `tools`. It watches what is below `directory`, which must exist and not hold `tools`.
    ///
    /// # Errors
    /// There is no C compiler, or the directory is none.
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

    /// The variables of a program's environment; with `records`, its syncs are recorded and not made. A library that is preloaded already stays.
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

    /// Lets the disk fail from now on.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn fail(&self, fault: Fault) -> std::io::Result<()> {
        let text = match fault {
            Fault::None => "0".to_owned(),
            Fault::Everything(error) => error.to_string(),
            Fault::Sync(error) => format!("{error} sync"),
            Fault::Slow(millis) => format!("{millis} slow"),
        };
        // Renamed into place: nobody reads half a number.
        let draft = self.error.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &self.error)
    }

    /// The file of the record.
    #[must_use]
    pub fn record(&self) -> &Path {
        &self.record
    }

    /// How long the record is now: the time, for what is to be compared with a cut.
    #[must_use]
    pub fn now(&self) -> u64 {
        std::fs::metadata(&self.record).map_or(0, |file| file.len())
    }
}
