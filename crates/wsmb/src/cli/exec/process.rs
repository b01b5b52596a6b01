//! Runs one command as a process, and ends the process after a timeout or on request.
//!
//! ```text
//! start ─► runs ─┬────────────────────────────────► exits
//!                └─► timeout, or request to stop ─► SIGTERM to its group ─► EXEC_TERM ─► SIGKILL to its group
//! ```
//! On Unix each command has its own process group. So Ctrl-C does not reach the command, and the signals also reach the processes that the command has
//! started. Never ends a process outside this group.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::Instant;

use super::{CommandInput, is_wsmb_variable};
use crate::cli::output;
use crate::cli::signals::Stop;
use crate::platform::ProcessGroup;
use crate::{limits, platform};

/// Why a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    /// The command exited by itself.
    Exited(ExitStatus),
    /// The command ran longer than its timeout, and was ended.
    TimedOut,
    /// This program must stop at once, so the command was ended.
    Stopped,
}

/// The result of a command.
#[derive(Clone, Debug)]
pub(crate) struct CommandResult {
    pub ended: Termination,
    pub duration: Duration,
    /// The last non-empty line that the command wrote to standard error: at most [`wsmb_core::limits::REASON_BYTES`] bytes, control characters escaped.
    pub last_line: Option<String>,
}

/// Runs `command` in the shell and waits for its end, for `timeout`. Copies the command's standard error to the standard error of this program.
///
/// # Errors
/// The command cannot be started.
pub(crate) async fn run(
    command: &str,
    input: &CommandInput,
    timeout: Duration,
    stop: &mut Stop,
) -> std::io::Result<CommandResult> {
    let started = Instant::now();
    let mut child = shell(command, input).spawn()?;
    let group = ProcessGroup::of(&child);
    if let Some(mut stdin) = child.stdin.take() {
        let mut text = input.text.clone().into_bytes();
        // The shell's `read` fails on an unterminated line.
        text.push(b'\n');
        // In a separate task, because the command may run for a long time before it reads. It is no failure if the command does not read its input.
        tokio::spawn(async move { drop(stdin.write_all(&text).await) });
    }
    let tail = Arc::new(Mutex::new(Tail::default()));
    let reader = child.stderr.take().map(|stderr| tokio::spawn(copy_stderr(stderr, tail.clone())));
    let ended = tokio::select! {
        status = child.wait() => Termination::Exited(status?),
        () = tokio::time::sleep(timeout) => Termination::TimedOut,
        () = stop.immediate() => Termination::Stopped,
    };
    if !matches!(ended, Termination::Exited(_)) {
        end(&group, &mut child).await?;
    }
    if let Some(reader) = reader {
        // A process that the command has left behind may hold standard error open. The task continues to read it, but this function does not wait.
        let _ = tokio::time::timeout(limits::EXEC_STDERR_REST, reader).await;
    }
    let last_line = tail.lock().unwrap_or_else(PoisonError::into_inner).last();
    Ok(CommandResult { ended, duration: started.elapsed(), last_line })
}

/// Returns the shell with the command, its streams and its environment.
fn shell(command: &str, input: &CommandInput) -> Command {
    let mut shell = platform::shell(command);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_wsmb_variable(name)) {
        shell.env_remove(name);
    }
    shell.envs(input.environment.iter().cloned()).stdin(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// Sends SIGTERM to the group of a command, and SIGKILL after [`limits::EXEC_TERM`] if a process is left.
async fn end(group: &ProcessGroup, child: &mut Child) -> std::io::Result<()> {
    let deadline = Instant::now() + limits::EXEC_TERM;
    group.terminate(child);
    let ended = tokio::time::timeout_at(deadline, child.wait()).await;
    // The shell has ended. Other processes of the group may need longer.
    while group.is_alive() && Instant::now() < deadline {
        tokio::time::sleep(limits::EXEC_POLL).await;
    }
    if ended.is_err() || group.is_alive() {
        group.kill(child);
    }
    child.wait().await.map(drop)
}

/// Copies the standard error of a command to the standard error of this program. Writes whole lines, so that the lines of concurrent commands do not mix.
async fn copy_stderr(mut stderr: ChildStderr, tail: Arc<Mutex<Tail>>) {
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
        output::write_stderr(line.get(..whole).unwrap_or_default());
        line.drain(..whole);
        if count == 0 {
            output::write_stderr(&line);
            return;
        }
    }
}

/// The end of a command's standard error.
#[derive(Default)]
struct Tail {
    /// The last complete line that is not empty.
    complete: Vec<u8>,
    /// The unterminated line after it.
    partial: Vec<u8>,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                if !self.partial.trim_ascii().is_empty() {
                    self.complete = std::mem::take(&mut self.partial);
                }
                self.partial.clear();
            } else if self.partial.len() < wsmb_core::limits::REASON_BYTES {
                self.partial.push(*byte);
            }
        }
    }

    fn last(&self) -> Option<String> {
        let last =
            [&self.partial, &self.complete].into_iter().map(|line| line.trim_ascii()).find(|line| !line.is_empty())?;
        Some(output::printable(&String::from_utf8_lossy(last)))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::MessageInfo;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn input(json: &str) -> CommandInput {
        let info = MessageInfo { id: "7-ab", channel: "sms", attempt: 1, redelivered: false, url: "ws://h" };
        CommandInput::new(&info, json, json.to_owned()).0
    }

    async fn ran(command: &str, json: &str) -> CommandResult {
        run(command, &input(json), LONG, &mut Stop::never()).await.unwrap()
    }

    fn code(result: &CommandResult) -> Option<i32> {
        if let Termination::Exited(status) = result.ended { status.code() } else { None }
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
        let result = ran(&command, json).await;
        assert_eq!((code(&result), result.last_line.as_deref()), (Some(3), Some("sent")));
        assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{json}|$(touch hacked); `id`|7-ab"));
    }

    #[tokio::test]
    async fn a_command_may_exit_without_reading_a_large_message() {
        let large = format!("\"{}\"", "x".repeat(1 << 20));
        assert_eq!(code(&ran("exit 0", &large).await), Some(0));
    }

    #[tokio::test]
    async fn a_process_that_the_command_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let result = ran("sleep 30 & echo $! >&2", "1").await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let left: i32 = result.last_line.unwrap().parse().unwrap();
        // SAFETY: `kill` accesses no memory of this process. The target is a child of our own command.
        assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0);
    }

    #[tokio::test]
    async fn a_command_that_runs_too_long_is_ended_with_all_its_processes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("child");
        // The inner shell ignores SIGTERM.
        let inner = format!("trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done", file.display());
        let command = format!("sh -c '{inner}' & while [ ! -s {} ]; do sleep 0.01; done; wait", file.display());
        let result = run(&command, &input("1"), Duration::from_secs(2), &mut Stop::never()).await.unwrap();
        assert_eq!(result.ended, Termination::TimedOut);
        assert!(
            result.duration >= Duration::from_secs(2) + limits::EXEC_TERM,
            "SIGTERM comes before SIGKILL: {:?}",
            result.duration
        );
        let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        let begun = Instant::now();
        while !gone() && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(limits::EXEC_POLL).await;
        }
        assert!(gone(), "no orphans");
    }

    #[tokio::test]
    async fn a_command_that_ends_after_sigterm_is_not_killed() {
        let command = "trap 'echo bye >&2; exit 0' TERM; while :; do sleep 0.05; done";
        let result = run(command, &input("1"), Duration::from_millis(300), &mut Stop::never()).await.unwrap();
        assert_eq!((result.ended, result.last_line.as_deref()), (Termination::TimedOut, Some("bye")));
        assert!(result.duration < limits::EXEC_TERM, "{:?}", result.duration);
    }

    #[test]
    fn the_last_line_is_bounded_and_has_no_control_characters() {
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
