//! Where it is measured: the processor, the kernel, the disk.

use std::fs;
use std::path::Path;

use super::build::first_line;
use super::results::Facts;

/// What a reader needs to judge a figure.
pub fn facts(place: &Path) -> Facts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |count| count.to_string());
    let file_system = first_line(Path::new("stat"), &["-f", "-c", "%T", &place.display().to_string()]);
    [
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores),
        ("memory", memory(&field(&read("/proc/meminfo"), "MemTotal"))),
        ("system", field(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME").trim_matches('"').to_owned()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system),
        ("rustc", first_line(Path::new("rustc"), &["--version"])),
        ("commit", first_line(Path::new("git"), &["describe", "--always", "--dirty", "--exclude", "*"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The value behind `name:`, the first time it is there.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
}

/// Of `24682344 kB` what people say.
fn memory(total: &str) -> String {
    let kilobytes = total.strip_suffix(" kB").and_then(|digits| digits.parse::<u64>().ok());
    kilobytes.map_or_else(|| total.to_owned(), |kilobytes| format!("{} GiB", (kilobytes + (1 << 19)) >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A B: C\nmodel name\t: D\n", "model name"), "A B: C");
        assert_eq!(field("", "model name"), "unknown");
        assert_eq!(memory("24682344 kB"), "24 GiB");
        assert_eq!(memory("unknown"), "unknown");
    }
}
