//! The code of this crate that depends on the operating system: sockets, and what the system reports about the server's process.
//!
//! Each item has the same signature on every system. A process can be read on Linux only; on other systems every call returns an error that says
//! so.

pub(super) use self::system::Process;

/// Whether a read that does not fill the buffer has emptied the socket, so that the system reports the next input.
pub(super) const SHORT_READ_EMPTIES: bool = cfg!(not(windows));

#[cfg(target_os = "linux")]
mod system {
    use std::net::SocketAddr;
    use std::time::Duration;

    use procfs::net::TcpState;
    use procfs::process::{self, FDTarget};

    use crate::process::{Memory, Usage};

    /// A process of this system, read from `/proc`.
    #[derive(Debug)]
    pub(crate) struct Process(process::Process);

    impl Process {
        /// Finds a process by its number.
        ///
        /// # Errors
        /// A sentence that says why its CPU time and memory cannot be read.
        pub(crate) fn new(pid: u32) -> Result<Self, String> {
            let found = i32::try_from(pid).ok().and_then(|pid| process::Process::new(pid).ok()).map(Self);
            found
                .filter(|process| process.usage().is_some() && process.memory().is_some())
                .ok_or_else(|| format!("there is no process {pid}, or this user may not read its data in /proc"))
        }

        /// Finds the process that listens on `address`.
        ///
        /// # Errors
        /// A sentence that says why the process was not found.
        pub(crate) fn listening_on(address: SocketAddr) -> Result<Self, String> {
            let tables = [procfs::net::tcp(), procfs::net::tcp6()];
            let sockets: Vec<u64> = tables
                .into_iter()
                .flatten()
                .flatten()
                .filter(|socket| socket.state == TcpState::Listen && accepts(socket.local_address, address))
                .map(|socket| socket.inode)
                .collect();
            if sockets.is_empty() {
                return Err(format!(
                    "no process on this system listens on {address}; if the server runs here behind a proxy, set --pid"
                ));
            }
            let mut all = process::all_processes().into_iter().flatten().flatten();
            all.find(|process| owns(process, &sockets)).map(Self).ok_or_else(|| {
                format!(
                    "the process that listens on {address} belongs to another user; set --pid, or run this command as that user"
                )
            })
        }

        /// The CPU time used so far.
        pub(crate) fn usage(&self) -> Option<Usage> {
            let stat = self.0.stat().ok()?;
            let ticks = procfs::ticks_per_second();
            let whole = Duration::from_secs_f64((stat.utime + stat.stime) as f64 / ticks as f64);
            let tasks = self.0.tasks().ok()?.flatten();
            let threads = tasks.filter_map(|task| Some((task.tid, task.schedstat().ok()?.sum_exec_runtime))).collect();
            Some(Usage { threads, whole, tick: Duration::from_secs(1) / u32::try_from(ticks).unwrap_or(100) })
        }

        /// The resident memory: now, and the maximum.
        pub(crate) fn memory(&self) -> Option<Memory> {
            let status = self.0.status().ok()?;
            Some(Memory { resident: status.vmrss?, peak: status.vmhwm? })
        }
    }

    /// Whether a socket that listens on `local` accepts connections to `address`.
    fn accepts(local: SocketAddr, address: SocketAddr) -> bool {
        local.port() == address.port()
            && (local.ip().is_unspecified() || local.ip().to_canonical() == address.ip().to_canonical())
    }

    /// Whether the process has one of the sockets (inode numbers) open.
    fn owns(process: &process::Process, sockets: &[u64]) -> bool {
        let mut files = process.fd().into_iter().flatten().flatten();
        files.any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_socket_accepts_connections_to_its_address_and_port() {
            for (local, address, accepted) in [
                ("127.0.0.1:8888", "127.0.0.1:8888", true),
                ("0.0.0.0:8888", "127.0.0.1:8888", true),
                ("[::]:8888", "127.0.0.1:8888", true),
                ("[::ffff:127.0.0.1]:8888", "127.0.0.1:8888", true),
                ("[::1]:8888", "[::1]:8888", true),
                ("127.0.0.1:8889", "127.0.0.1:8888", false),
                ("127.0.0.2:8888", "127.0.0.1:8888", false),
                ("[::1]:8888", "127.0.0.1:8888", false),
            ] {
                assert_eq!(accepts(local.parse().unwrap(), address.parse().unwrap()), accepted, "{local} {address}");
            }
        }

        #[test]
        fn the_process_is_found_by_its_port_and_has_time_and_memory() {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                // Some systems have no IPv6.
                let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
                let process = Process::listening_on(listener.local_addr().unwrap()).unwrap();
                assert_eq!(process.0.pid().cast_unsigned(), std::process::id());
                let before = process.usage().unwrap();
                let began = std::time::Instant::now();
                while process.usage().unwrap().since(&before).is_zero() {
                    assert!(began.elapsed() < Duration::from_secs(30), "no CPU time was seen");
                }
                let memory = process.memory().unwrap();
                assert!(memory.resident > 0 && memory.peak >= memory.resident);
            }
            assert!(Process::new(u32::MAX).is_err());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::net::SocketAddr;

    use crate::process::{Memory, Usage};

    /// The process on other systems. No value of this type can exist.
    #[derive(Debug)]
    pub(crate) enum Process {}

    impl Process {
        pub(crate) fn new(_: u32) -> Result<Self, String> {
            Err("the CPU time and memory of another process can be read on Linux only".to_owned())
        }

        pub(crate) fn listening_on(_: SocketAddr) -> Result<Self, String> {
            Self::new(0)
        }

        pub(crate) fn usage(&self) -> Option<Usage> {
            match *self {}
        }

        pub(crate) fn memory(&self) -> Option<Memory> {
            match *self {}
        }
    }
}
