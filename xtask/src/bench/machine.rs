//! Describes the machine: processor, memory, kernel, file system. An unavailable value is "unknown".

use std::path::Path;

use procfs::{CpuInfo, Current as _, Meminfo};

use super::build::first_line;
use super::results::Facts;

/// Returns the facts about the machine, the tool chain and the commit. `directory` is on the file system of the measurement.
pub fn facts(directory: &Path) -> Facts {
    let unknown = || "unknown".to_owned();
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |count| count.to_string());
    let processor = CpuInfo::current().ok().and_then(|info| Some(info.model_name(0)?.to_owned()));
    let memory =
        Meminfo::current().map_or_else(|_| unknown(), |info| format!("{} GiB", (info.mem_total + (1 << 29)) >> 30));
    [
        ("processor", processor.unwrap_or_else(unknown)),
        ("cores", cores),
        ("memory", memory),
        ("system", first_line(Path::new("sh"), &["-c", ". /etc/os-release && echo \"$PRETTY_NAME\""])),
        ("kernel", first_line(Path::new("uname"), &["-r"])),
        ("file system", first_line(Path::new("stat"), &["-f", "-c", "%T", &directory.display().to_string()])),
        ("rustc", first_line(Path::new("rustc"), &["--version"])),
        ("commit", first_line(Path::new("git"), &["describe", "--always", "--dirty", "--exclude", "*"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
