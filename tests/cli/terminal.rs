//! Programs on a terminal: the terminal of a broker is closed, and a long batch shows its rate.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use crate::harness::{Broker, run, until, wsmb};

/// A command that leads a session on a pseudo-terminal.
struct OnTerminal {
    child: Child,
    /// The user's side of the terminal.
    screen: BufReader<File>,
}

impl OnTerminal {
    /// `ignoring`: the command ignores SIGHUP, as with `nohup`.
    fn start(mut command: Command, ignoring: bool) -> Self {
        let (mut user, mut program) = (0, 0);
        let null = std::ptr::null_mut();
        let mut size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors and the size are valid pointers, and the others are null.
        let opened =
            unsafe { libc::openpty(&raw mut user, &raw mut program, null, std::ptr::null_mut(), &raw mut size) };
        assert_eq!(opened, 0);
        // SAFETY: both descriptors are open and have no other owner.
        let (user, program) = unsafe { (File::from_raw_fd(user), File::from_raw_fd(program)) };
        // SAFETY: the descriptor is open. Children must not keep the user's side open.
        assert_ne!(unsafe { libc::fcntl(user.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }, -1);
        let end = || program.try_clone().unwrap();
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: the closure makes only system calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if ignoring {
                    libc::signal(libc::SIGHUP, libc::SIG_IGN);
                }
                match (libc::setsid(), libc::ioctl(0, libc::TIOCSCTTY, 0)) {
                    (-1, _) | (_, -1) => Err(std::io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        drop(program);
        Self { child, screen: BufReader::new(user) }
    }

    fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.screen.read_line(&mut line).unwrap(), 0, "the terminal ended before `{text}`");
        }
        line
    }

    /// Closes the terminal.
    fn close(self) -> Child {
        self.child
    }
}

fn broker(directory: &std::path::Path, ignoring: bool) -> (OnTerminal, String) {
    let mut command = wsmb(directory);
    command.args(["serve", "--listen", "127.0.0.1:0", "--set", "auth.anonymous=true"]);
    let mut terminal = OnTerminal::start(command, ignoring);
    let line = terminal.wait_for("wsmb is listening on ");
    // The address may be between control characters that set a colour.
    let start = line.find("ws://").unwrap();
    let url: String = line[start..].chars().take_while(|c| !c.is_control() && !c.is_whitespace()).collect();
    (terminal, url)
}

fn hang_up(child: &Child) {
    let number = i32::try_from(child.id()).unwrap();
    // SAFETY: `kill` touches no memory; the child has not been waited for, so its id is valid.
    assert_eq!(unsafe { libc::kill(number, libc::SIGHUP) }, 0);
}

#[test]
fn closing_the_terminal_stops_the_broker_in_an_orderly_way() {
    let directory = tempfile::tempdir().unwrap();
    let (terminal, url) = broker(directory.path(), false);
    run(wsmb(directory.path()).args(["send", "sms", "x", "--url", &url])).with(0);
    let mut child = terminal.close();
    let mut status = None;
    until("the broker ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
    let list = run(wsmb(directory.path()).args(["queue", "list"])).with(0).stdout;
    assert!(list.contains("sms"), "{list}");
}

#[test]
fn a_hang_up_signal_with_an_open_terminal_reloads() {
    let directory = tempfile::tempdir().unwrap();
    let (mut terminal, url) = broker(directory.path(), false);
    hang_up(&terminal.child);
    terminal.wait_for("reloaded");
    run(wsmb(directory.path()).args(["ping", "--url", &url])).with(0);
    let mut child = terminal.close();
    until("the broker ends", || child.try_wait().unwrap().is_some());
}

#[test]
fn a_broker_that_ignores_hang_ups_survives_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let (terminal, url) = broker(directory.path(), true);
    let mut child = terminal.close();
    // Each reload writes a line to the closed terminal.
    for _ in 0..3 {
        hang_up(&child);
        run(wsmb(directory.path()).args(["ping", "--url", &url])).with(0);
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_long_batch_shows_its_true_rate() {
    let broker = Broker::start();
    let mut terminal = OnTerminal::start(broker.client(&["send", "sms", "-"]), false);
    let mut keyboard = terminal.screen.get_ref().try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let typing = std::thread::spawn(move || {
        // About 50 lines a second, until the test has read the rate.
        let pause = std::time::Duration::from_millis(20);
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            keyboard.write_all(b"1\n").unwrap();
        }
    });
    let line = terminal.wait_for(" a second for ");
    let (before, after) = line.split_once(" a second for ").unwrap();
    let (accepted, rate) = before.rsplit_once(" accepted; ").unwrap();
    let accepted = accepted.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    let seconds: String = after.chars().take_while(char::is_ascii_digit).collect();
    let [accepted, rate, seconds] = [accepted, rate, &seconds].map(|number| number.parse::<f64>().unwrap());
    drop(stop);
    typing.join().unwrap();
    assert!(seconds >= 1.0 && accepted >= 1.0, "{line}");
    // The seconds are truncated, and the rate is rounded.
    assert!(rate <= accepted / seconds + 1.0 && rate >= accepted / (seconds + 1.0) - 1.0, "{line}");
    let mut child = terminal.close();
    child.kill().unwrap();
    child.wait().unwrap();
}
