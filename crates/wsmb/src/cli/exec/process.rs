//! One command as a process, from its start to its end, whoever wants it to end.
//!
//! ```text
//! start ─► runs ─┬─────────────────────────► ended by itself
//!                └─► too long, or stopped ─► TERM to its group ─► a few seconds ─► KILL to its group
//! ```
//! On Unix a command has a process group of its own: Ctrl-C does not reach it, and what it has started ends with it if it is ended from here.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::Instant;

use super::{Job, is_own_setting};
use crate::cli::output;
use crate::cli::signals::Stop;
use crate::limits;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended: it ran longer than it may.
    TimedOut,
    /// It was ended: this program is to stop at once.
    Stopped,
}

/// What is known of a command that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub ended: Ended,
    pub took: Duration,
    /// The last line that it wrote on standard error and that is not empty, bounded, and safe to print.
    pub last_line: Option<String>,
}

/// Runs `command` in the shell and waits for it, at most so long. What it writes on standard error appears on ours.
///
/// # Errors
/// It could not be started.
pub(crate) async fn run(command: &str, job: &Job, longest: Duration, stop: &mut Stop) -> std::io::Result<Report> {
    let started = Instant::now();
    let mut child = shell(command, job).spawn()?;
    let group = Group::of(&child);
    if let Some(mut input) = child.stdin.take() {
        let mut text = job.text.clone().into_bytes();
        // A shell's `read` takes a line only with its end.
        text.push(b'\n');
        // Apart, because a command may run for long before it reads. One that does not read its input is no failure.
        tokio::spawn(async move { drop(input.write_all(&text).await) });
    }
    let tail = Arc::new(Mutex::new(Tail::default()));
    let reader = child.stderr.take().map(|stderr| tokio::spawn(pass_on(stderr, tail.clone())));
    let ended = tokio::select! {
        status = child.wait() => Ended::Exited(status?),
        () = tokio::time::sleep(longest) => Ended::TimedOut,
        () = stop.at_once() => Ended::Stopped,
    };
    if !matches!(ended, Ended::Exited(_)) {
        group.end(&mut child).await?;
    }
    if let Some(reader) = reader {
        // A process that the command has left behind may hold its standard error open. It is read on, but not waited for.
        let _ = tokio::time::timeout(limits::EXEC_LAST_WORDS, reader).await;
    }
    let last_line = tail.lock().unwrap_or_else(PoisonError::into_inner).last();
    Ok(Report { ended, took: started.elapsed(), last_line })
}

/// The shell with the command, its streams and its environment.
fn shell(command: &str, job: &Job) -> Command {
    let mut shell = plain_shell(command);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_own_setting(name)) {
        shell.env_remove(name);
    }
    shell.envs(job.environment.iter().cloned()).stdin(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[cfg(unix)]
fn plain_shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only a system call is made, which touches no memory.
    unsafe {
        shell.pre_exec(|| {
            // If this program is killed, the broker gives the message to somebody else: the command should not go on with it. (A system that
            // refuses loses this precaution only.)
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    shell
}

#[cfg(windows)]
fn plain_shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").raw_arg(command);
    shell
}

/// A command and everything that it has started and that has not left its process group.
struct Group {
    #[cfg(unix)]
    number: Option<libc::pid_t>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &Child) -> Self {
        Self { number: child.id().and_then(|id| id.try_into().ok()) }
    }

    #[cfg(not(unix))]
    fn of(_child: &Child) -> Self {
        Self {}
    }

    /// Asks all of them to end, and kills after a while what is left.
    async fn end(&self, child: &mut Child) -> std::io::Result<()> {
        let patience = Instant::now() + limits::EXEC_TERM;
        self.ask(child);
        let ended = tokio::time::timeout_at(patience, child.wait()).await;
        // The first of them has ended; the others may need longer.
        while self.is_alive() && Instant::now() < patience {
            tokio::time::sleep(limits::EXEC_LOOK).await;
        }
        if ended.is_err() || self.is_alive() {
            self.kill(child);
        }
        child.wait().await.map(drop)
    }

    #[cfg(unix)]
    fn ask(&self, _child: &mut Child) {
        self.signal(libc::SIGTERM);
    }

    #[cfg(unix)]
    fn kill(&self, _child: &mut Child) {
        self.signal(libc::SIGKILL);
    }

    #[cfg(unix)]
    fn is_alive(&self) -> bool {
        self.signal(0)
    }

    /// Whether there is anybody to signal. A group keeps its number as long as anybody is in it.
    #[cfg(unix)]
    fn signal(&self, signal: libc::c_int) -> bool {
        // SAFETY: kill has no memory to violate.
        self.number.is_some_and(|number| unsafe { libc::kill(-number, signal) } == 0)
    }

    #[cfg(not(unix))]
    fn ask(&self, child: &mut Child) {
        self.kill(child);
    }

    #[cfg(not(unix))]
    fn kill(&self, child: &mut Child) {
        // It may have ended already.
        let _ = child.start_kill();
    }

    #[cfg(not(unix))]
    fn is_alive(&self) -> bool {
        false
    }
}

/// Writes what a command says on standard error to ours, whole lines at a time, so that commands that run at once do not interrupt each other.
async fn pass_on(mut stderr: ChildStderr, tail: Arc<Mutex<Tail>>) {
    let mut line = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = stderr.read(&mut bytes).await.unwrap_or(0);
        tail.lock().unwrap_or_else(PoisonError::into_inner).take(&bytes[..count]);
        line.extend_from_slice(&bytes[..count]);
        let whole = match line.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if count == 0 || line.len() > limits::EXEC_LINE => line.len(),
            None => 0,
        };
        output::pass_on(line.get(..whole).unwrap_or_default());
        line.drain(..whole);
        if count == 0 {
            output::pass_on(&line);
            return;
        }
    }
}

/// The end of what a command says.
#[derive(Default)]
struct Tail {
    /// The last line that is whole and not empty.
    whole: Vec<u8>,
    /// The one that is being written.
    open: Vec<u8>,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                if !self.open.trim_ascii().is_empty() {
                    self.whole = std::mem::take(&mut self.open);
                }
                self.open.clear();
            } else if self.open.len() < wsmb_core::limits::REASON_BYTES {
                self.open.push(*byte);
            }
        }
    }

    fn last(&self) -> Option<String> {
        let last = [&self.open, &self.whole].into_iter().map(|line| line.trim_ascii()).find(|line| !line.is_empty())?;
        Some(output::printable(&String::from_utf8_lossy(last)))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::About;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn job(json: &str) -> Job {
        let about = About { id: "7-ab", channel: "sms", attempt: 1, redelivered: false, url: "ws://h" };
        Job::new(&about, json, json.to_owned()).0
    }

    async fn ran(command: &str, json: &str) -> Report {
        run(command, &job(json), LONG, &mut Stop::never()).await.unwrap()
    }

    fn code(report: &Report) -> Option<i32> {
        if let Ended::Exited(status) = report.ended { status.code() } else { None }
    }

    #[tokio::test]
    async fn the_command_gets_the_message_and_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out");
        let json = r#"{"receiver":"$(touch hacked); `id`"}"#;
        let command = format!(
            "read line && printf '%s|%s|%s' \"$line\" \"$WSMB_receiver\" \"$WSMB_ID\" > '{}'; echo; echo sent >&2; exit 3",
            file.display()
        );
        let report = ran(&command, json).await;
        assert_eq!((code(&report), report.last_line.as_deref()), (Some(3), Some("sent")));
        assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{json}|$(touch hacked); `id`|7-ab"));
    }

    #[tokio::test]
    async fn a_command_that_reads_nothing_of_a_large_message_ends_when_it_ends() {
        let large = format!("\"{}\"", "x".repeat(1 << 20));
        assert_eq!(code(&ran("exit 0", &large).await), Some(0));
    }

    #[tokio::test]
    async fn a_command_is_not_waited_for_longer_than_it_runs() {
        let begun = Instant::now();
        let report = ran("sleep 30 & echo $! >&2", "1").await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let left: i32 = report.last_line.unwrap().parse().unwrap();
        // SAFETY: kill has no memory to violate; the process is a child of our own command.
        assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("child");
        // The inner one does not listen to TERM.
        let inner = format!("trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done", file.display());
        let command = format!("sh -c '{inner}' & while [ ! -s {} ]; do sleep 0.01; done; wait", file.display());
        let report = run(&command, &job("1"), Duration::from_secs(2), &mut Stop::never()).await.unwrap();
        assert_eq!(report.ended, Ended::TimedOut);
        assert!(report.took >= Duration::from_secs(2) + limits::EXEC_TERM, "it was asked first: {:?}", report.took);
        let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        let begun = Instant::now();
        while !gone() && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(limits::EXEC_LOOK).await;
        }
        assert!(gone(), "no orphans");
    }

    #[tokio::test]
    async fn a_command_that_ends_when_asked_is_not_killed() {
        let command = "trap 'echo bye >&2; exit 0' TERM; while :; do sleep 0.05; done";
        let report = run(command, &job("1"), Duration::from_millis(300), &mut Stop::never()).await.unwrap();
        assert_eq!((report.ended, report.last_line.as_deref()), (Ended::TimedOut, Some("bye")));
        assert!(report.took < limits::EXEC_TERM, "{:?}", report.took);
    }

    #[test]
    fn the_last_words_are_bounded_and_safe() {
        let last = |bytes: &[u8]| {
            let mut tail = Tail::default();
            bytes.chunks(3).for_each(|chunk| tail.take(chunk));
            tail.last()
        };
        assert_eq!(last(b""), None);
        assert_eq!(last(b"\n \r\n").as_deref(), None);
        assert_eq!(last(b"one\ntwo\n\n").as_deref(), Some("two"));
        assert_eq!(last(b"one\ntwo").as_deref(), Some("two"));
        assert_eq!(last(b"10%\r50%\r100%\r").as_deref(), Some("100%"));
        assert_eq!(last(b"a\x1b[2Jb\n").as_deref(), Some("a\\u{1b}[2Jb"));
        assert_eq!(last(&[b'x'; 5_000]).unwrap().len(), wsmb_core::limits::REASON_BYTES);
    }
}
