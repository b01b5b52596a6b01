//! The server as the system sees it: which process it is, what CPU time it has used, how much memory it has. Linux only (`/proc`);
//! elsewhere everything here says why it sees nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A process on this system.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pid: u32,
    /// Clock ticks a second, the unit of `/proc/PID/stat`.
    ticks: u64,
}

/// The CPU time that a process has used up to a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// Nanoseconds of each thread that lives.
    threads: BTreeMap<u32, u64>,
    /// User and system time of the whole process, threads that have ended included; exact to a tick each.
    whole: Duration,
    tick: Duration,
}

impl Usage {
    /// What was used since `before`. Nanoseconds where they account for everything; where threads have come and gone, the process's own
    /// count, which is in ticks.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let whole = self.whole.saturating_sub(before.whole);
        if self.threads.is_empty() || before.threads.keys().any(|thread| !self.threads.contains_key(thread)) {
            return whole;
        }
        let fine: u64 = self
            .threads
            .iter()
            .map(|(thread, used)| used.saturating_sub(before.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let fine = Duration::from_nanos(fine);
        // User and system time are rounded, at both ends.
        if whole > fine + 4 * self.tick + fine / 20 { whole } else { fine }
    }
}

/// Resident memory in KiB, now and at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Process {
    /// The process with this number.
    ///
    /// # Errors
    /// Why its CPU time and memory cannot be seen: a sentence.
    pub(super) fn new(pid: u32) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("only Linux shows what another process uses".to_owned());
        }
        let process = Self { pid, ticks: ticks() };
        match (process.usage(), process.memory()) {
            (Some(_), Some(_)) => Ok(process),
            _ => Err(format!("there is no process {pid}, or it may not be seen")),
        }
    }

    /// The process that listens on this address.
    ///
    /// # Errors
    /// Why it was not found: a sentence.
    pub(super) fn listening_on(address: SocketAddr) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("only Linux shows what another process uses".to_owned());
        }
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let sockets: Vec<u64> = tables.iter().flat_map(|table| listeners(table, address)).collect();
        if sockets.is_empty() {
            return Err(format!(
                "nothing on this system listens on {address}; if the server runs here behind something, give --pid"
            ));
        }
        let owner = std::fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            owns(pid, &sockets).then_some(pid)
        });
        match owner {
            Some(pid) => Self::new(pid),
            None => Err(format!(
                "the process that listens on {address} belongs to somebody else; give --pid, or measure as its user"
            )),
        }
    }

    /// The CPU time that it has used so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name of the program may contain anything, but only it stands in parentheses.
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let whole = Duration::from_secs_f64((ticks()? + ticks()?) as f64 / self.ticks as f64);
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(line) = std::fs::read_to_string(entry.path().join("schedstat")) else { continue };
            if let Some(used) = line.split_whitespace().next().and_then(|used| used.parse().ok()) {
                threads.insert(thread, used);
            }
        }
        Some(Usage { threads, whole, tick: Duration::from_secs(1) / u32::try_from(self.ticks).unwrap_or(100) })
    }

    /// Its memory.
    pub(super) fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// The inodes of the sockets in a table of `/proc/net` that take connections to this address.
fn listeners(table: &str, address: SocketAddr) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let (host, port) = local.split_once(':')?;
            let fits = *state == "0A"
                && u16::from_str_radix(port, 16) == Ok(address.port())
                && (host.bytes().all(|digit| digit == b'0') || is_host(host, address));
            if fits { inode.parse().ok() } else { None }
        })
        .collect()
}

/// Whether the address of a table, in hexadecimal words of the machine's own byte order, is this one.
fn is_host(host: &str, address: SocketAddr) -> bool {
    let words = |octets: &[u8]| {
        let words = octets.as_chunks::<4>().0.iter();
        words.map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect::<String>()
    };
    match address {
        SocketAddr::V4(v4) => host == words(&v4.ip().octets()) || host == words(&v4.ip().to_ipv6_mapped().octets()),
        SocketAddr::V6(v6) => host == words(&v6.ip().octets()),
    }
}

/// Whether one of these sockets is a descriptor of the process.
fn owns(pid: u32, sockets: &[u64]) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|entry| {
        let Ok(target) = std::fs::read_link(entry.path()) else { return false };
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode: u64| sockets.contains(&inode))
    })
}

#[cfg(unix)]
fn ticks() -> u64 {
    // SAFETY: sysconf reads a number and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

#[cfg(not(unix))]
fn ticks() -> u64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_in_a_table() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 00000000:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:22B9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: 0100007F:22B8 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0 0 10 0
   4: 0200007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 555 1 0 100 0 0 10 0
";
        if cfg!(target_endian = "little") {
            assert_eq!(listeners(table, "127.0.0.1:8888".parse().unwrap()), [111, 222]);
        }
        let six = "\n 0: 00000000000000000000000001000000:22B8 0:0 0A 0:0 0:0 0 0 0 666";
        if cfg!(target_endian = "little") {
            assert_eq!(listeners(six, "[::1]:8888".parse().unwrap()), [666]);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_own_process_is_found_by_its_port_and_uses_time_and_memory() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_on(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process.pid, std::process::id());
        let before = process.usage().unwrap();
        let began = std::time::Instant::now();
        while process.usage().unwrap().since(&before).is_zero() {
            assert!(began.elapsed() < Duration::from_secs(30), "no CPU time was seen");
        }
        let memory = process.memory().unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        drop(listener);
        assert!(Process::new(u32::MAX).is_err());
    }

    #[test]
    fn time_of_threads_that_have_ended_is_not_forgotten() {
        let tick = Duration::from_millis(10);
        let usage = |threads: &[(u32, u64)], whole: u64| Usage {
            threads: threads.iter().copied().collect(),
            whole: Duration::from_millis(whole),
            tick,
        };
        let before = usage(&[(1, 1_000), (2, 5_000)], 10);
        assert_eq!(usage(&[(1, 3_000), (2, 5_500), (3, 100)], 20).since(&before), Duration::from_nanos(2_600));
        assert_eq!(usage(&[(1, 3_000)], 90).since(&before), Duration::from_millis(80));
        assert_eq!(usage(&[(1, 3_000), (2, 5_000)], 900).since(&before), Duration::from_millis(890));
    }
}
