//! Processes of a test. None outlives the test, and a killed process takes its children with it.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The system user that a server runs as.
#[derive(Clone, Debug)]
pub struct Account {
    /// The name of the user, and of the administrator in the server.
    pub name: String,
    /// The ids of user and group, if the user is not the test's own.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// Database servers refuse to run as root. If the test runs as root, the account is the user that the server's package created, or `nobody`; otherwise the test's own user.
    #[track_caller]
    pub fn for_server(name: &str) -> Self {
        // SAFETY: `geteuid` takes nothing, touches nothing and never fails.
        if unsafe { libc::geteuid() } != 0 {
            let name = id(&["-un"]).expect("the name of the test's user");
            return Self { name, ids: None };
        }
        let name = if id(&["-u", name]).is_some() { name } else { "nobody" };
        let number = |flag| id(&[flag, name]).and_then(|text| text.parse().ok()).expect("a user's number");
        Self { name: name.to_owned(), ids: Some((number("-u"), number("-g"))) }
    }

    /// Makes the account the owner of a file or directory.
    #[track_caller]
    pub fn own(&self, path: &Path) {
        if let Some((user, group)) = self.ids {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("a file for the server");
        }
    }

    /// Makes a command run as the account.
    pub fn assume(&self, command: &mut Command) {
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command.current_dir("/");
    }
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().expect("the program `id`");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The path of a program with one of these names, in one of these directories or in `PATH`.
#[track_caller]
pub fn find(names: &[&str], directories: &[std::path::PathBuf]) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = directories.iter().cloned().chain(std::env::split_paths(&path)).collect();
    let mut candidates = names.iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
    candidates
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("there is no {}; `cargo xtask test` says what to install", names.join(" or ")))
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a process that the kernel kills when the test's process ends.
///
/// The kernel kills it when the *thread* that started it ends. Each test has a thread of its own, so one permanent thread starts all processes.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, queue) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    // SAFETY: `prepare` makes only system calls that are safe between fork and exec.
    unsafe { command.pre_exec(prepare) };
    let (reply, answer) = channel();
    keeper.send((command, reply)).expect("the thread that starts processes");
    answer.recv().expect("the thread that starts processes")
}

fn prepare() -> io::Result<()> {
    // SAFETY: `prctl` changes one attribute of the calling process.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: ignoring a signal runs no code. A write beyond the limit of file sizes then returns an error instead of ending the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `setrlimit` reads one structure. The limit avoids core dumps of killed servers.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    Ok(())
}

/// Starts a server that appends its output to `log`, and waits until `ready` succeeds. A server that is not ready within [`PATIENCE`] is killed.
///
/// # Errors
/// What went wrong, as the end of a sentence about the server.
pub fn start(mut command: Command, log: &Path, ready: impl Fn() -> io::Result<()>) -> Result<Child, String> {
    let file = File::options().create(true).append(true).open(log);
    let files = file.and_then(|file| Ok((file.try_clone()?, file))).map_err(|error| format!("has no log: {error}"))?;
    command.stdin(Stdio::null()).stdout(files.0).stderr(files.1);
    let mut child = spawn(command).map_err(|error| format!("cannot be started: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Err(why) = ready() else { return Ok(child) };
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended with {status} before it listened"));
        }
        if Instant::now() > deadline {
            kill_tree(&mut child);
            return Err(format!("does not listen after {PATIENCE:?} ({why})"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that reads `input`. Returns its standard output, or its standard error if it fails.
pub fn with_input(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().expect("its standard input");
    let text = input.to_owned();
    // A failed write is ignored: a program that ends early does not read all input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let _ = writer.join();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr).trim().to_owned()) }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: `kill` touches no memory of this process.
    unsafe { libc::kill(pid, signal) };
}

/// The running child processes of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = procfs::process::all_processes().expect("the processes").flatten();
    let known = processes.filter_map(|process| process.stat().ok());
    known.filter(|stat| stat.ppid.cast_unsigned() == pid).map(|stat| stat.pid.cast_unsigned()).collect()
}

/// Kills a process and its children, and returns when they are gone.
pub fn kill_tree(child: &mut Child) {
    // A suspended process cannot start or end others.
    signal(child.id(), libc::SIGSTOP);
    let others = children(child.id());
    let _ = child.kill();
    for pid in &others {
        signal(*pid, libc::SIGKILL);
    }
    let _ = child.wait();
    let deadline = Instant::now() + PATIENCE;
    while others.iter().any(|pid| runs(*pid)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs. A zombie does not.
fn runs(pid: u32) -> bool {
    let stat = procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.state != 'Z')
}

/// A listener on a free port. The port is below the ephemeral ports, so that it is still free when a stopped server starts again.
#[track_caller]
pub fn free_port() -> TcpListener {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes begin at different ports.
    let begin = u16::try_from(u64::from(std::process::id()) * 379 % u64::from(COUNT)).expect("below the count");
    for _ in 0..COUNT {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
    panic!("no port is free");
}

/// The address of a free port.
#[track_caller]
pub fn free_address() -> SocketAddr {
    free_port().local_addr().expect("the address of a listener")
}
