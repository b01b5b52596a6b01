//! What only the start has used of the program: given back when the broker has come to rest.
//!
//! Nearly all memory of an idle broker is the program and its libraries, mapped from their files: reading arguments and configuration,
//! opening the store and making its tables run once, and with each page that they touch the system maps the fifteen around it. What is given
//! back here is in the file as it was in memory. This must never touch a mapping of which a page was written.

use crate::limits;

/// Waits for the end of the start and gives back every page of code and constants, once. What the broker goes on to use comes back by itself,
/// from the system's cache of files, 64 KiB at a fault. It is what the system itself does with such pages when memory is short; where it tells nothing
/// about mappings, nothing is done.
pub(crate) async fn forget_start() {
    tokio::time::sleep(limits::START).await;
    forget();
}

#[cfg(target_os = "linux")]
fn forget() {
    use std::io::BufRead as _;

    let Ok(mappings) = std::fs::File::open("/proc/self/smaps") else { return };
    let mut mapping = Mapping::default();
    for line in std::io::BufReader::new(mappings).lines().map_while(Result::ok) {
        match Mapping::parse(&line) {
            Some(next) => std::mem::replace(&mut mapping, next).give_back(),
            None => mapping.note(&line),
        }
    }
    mapping.give_back();
}

/// A mapping of this process, as `/proc/self/smaps` tells it: proc_pid_smaps(5).
#[cfg(target_os = "linux")]
#[derive(Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: usize,
    bytes: usize,
    /// It is of a file, private, readable and not writable.
    constant: bool,
    /// What is known of its pages: those that are no longer the file's, in memory and swapped out.
    anonymous: Option<u64>,
    swapped: Option<u64>,
}

#[cfg(target_os = "linux")]
impl Mapping {
    /// The first line of a mapping: `55d0…-55d1… r-xp 001ab000 fe:01 1234   /usr/bin/wsmb`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let (access, _offset, _device, inode) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let constant = matches!(access, "r--p" | "r-xp") && inode != "0";
        Some(Self { start, bytes: end.checked_sub(start)?, constant, ..Self::default() })
    }

    /// One of the lines after it: `Anonymous:            0 kB`.
    fn note(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else { return };
        let number = || value.split_ascii_whitespace().next()?.parse().ok();
        match name {
            "Anonymous" => self.anonymous = number(),
            "Swap" => self.swapped = number(),
            _ => {}
        }
    }

    /// Every page of it is as it is in the file. Not so where addresses were filled in, or a debugger has set a breakpoint.
    fn is_as_in_the_file(&self) -> bool {
        self.constant && self.anonymous == Some(0) && self.swapped == Some(0)
    }

    fn give_back(self) {
        if self.is_as_in_the_file() {
            // SAFETY: the mapping is private, of a file, and not writable, and no page of it differs from the file; so whoever reads
            // it next, other threads included, finds what is there now. Where the system refuses, nothing has changed.
            unsafe { libc::madvise(self.start as *mut libc::c_void, self.bytes, libc::MADV_DONTNEED) };
        }
    }
}

/// Elsewhere nothing is done.
#[cfg(not(target_os = "linux"))]
fn forget() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn mapping(lines: &str) -> Mapping {
        let mut lines = lines.lines();
        let mut mapping = Mapping::parse(lines.next().expect("a first line")).expect("a mapping");
        lines.for_each(|line| mapping.note(line));
        mapping
    }

    #[test]
    fn only_what_is_as_in_its_file_is_given_back() {
        let text = "55d0-65d0 r-xp 001ab000 fe:01 1234   /usr/bin/wsmb\nRss: 64 kB\nAnonymous: 0 kB\nSwap: 0 kB\n";
        let found = mapping(text);
        assert!(found.is_as_in_the_file() && found.start == 0x55d0 && found.bytes == 0x1000);
        for (what, instead) in [
            ("Anonymous: 0", "Anonymous: 4"), // Relocated, or a breakpoint.
            ("Swap: 0", "Swap: 4"),           // The same, swapped out.
            ("Anonymous: 0", "Something: 0"), // Not told.
            ("r-xp", "rw-p"),
            ("r-xp", "r-xs"),
            ("1234   /usr/bin/wsmb", "0   [vdso]"),
        ] {
            assert!(!mapping(&text.replace(what, instead)).is_as_in_the_file(), "{instead}");
        }
        assert_eq!(Mapping::parse("VmFlags: rd ex mr mw me"), None);
    }

    #[test]
    fn what_is_given_back_comes_back_as_it_was() {
        static CONSTANTS: [u64; 1 << 16] = {
            let mut numbers = [0; 1 << 16];
            let mut at = 0;
            while at < numbers.len() {
                numbers[at] = at as u64;
                at += 1;
            }
            numbers
        };
        let right = || CONSTANTS.iter().enumerate().all(|(at, number)| std::hint::black_box(*number) == at as u64);
        assert!(right());
        forget();
        assert!(right());
    }
}
