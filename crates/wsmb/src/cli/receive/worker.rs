//! Processes a delivery: prints its messages, or runs a command for each message.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::delivery::{Completion, ReceivedDelivery, ReceivedMessage};
use super::print::{Printer, one_line, plain};
use crate::cli::exec::{self, CommandInput, CommandResult, MessageInfo, Termination};
use crate::cli::output;
use crate::cli::signals::Stop;
use crate::platform;

/// The task of a worker.
#[derive(Clone)]
pub(super) enum Task {
    Print(Printer),
    Run(CommandRunner),
}

/// Runs a command for each message.
#[derive(Clone)]
pub(super) struct CommandRunner {
    pub command: Arc<str>,
    pub raw: bool,
    pub timeout: Duration,
    /// The broker's address, without user and password.
    pub url: Arc<str>,
    pub stop: Stop,
}

/// The result for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MessageResult {
    /// The message is finished.
    Finished(Completion),
    /// The message failed with this reason; the broker must deliver it again.
    Failed(String),
    /// Like `Failed`, because this program had to stop at once.
    Interrupted(String),
}

/// A processed delivery, with the result for each of its messages in their order.
pub(super) struct ProcessedDelivery {
    pub item: ReceivedDelivery,
    pub results: Vec<MessageResult>,
}

impl Task {
    /// Processes deliveries.
    pub(super) async fn work(self, items: Vec<ReceivedDelivery>) -> Result<Vec<ProcessedDelivery>, Failure> {
        match self {
            Self::Print(printer) => {
                printer.print(&items).await?;
                let printed = |item: ReceivedDelivery| ProcessedDelivery {
                    results: vec![MessageResult::Finished(Completion::Done); item.messages.len()],
                    item,
                };
                Ok(items.into_iter().map(printed).collect())
            }
            Self::Run(mut runner) => {
                let mut done = Vec::with_capacity(items.len());
                for item in items {
                    let mut results = Vec::with_capacity(item.messages.len());
                    for message in &item.messages {
                        results.push(runner.run(&item, message).await);
                    }
                    done.push(ProcessedDelivery { item, results });
                }
                Ok(done)
            }
        }
    }
}

impl CommandRunner {
    /// Runs the command for one message, and logs the result.
    async fn run(&mut self, item: &ReceivedDelivery, message: &ReceivedMessage) -> MessageResult {
        if self.stop.is_immediate() {
            return MessageResult::Interrupted("the gateway was stopped before the command started".to_owned());
        }
        let text = if self.raw { plain(&message.json) } else { one_line(&message.json) };
        let info = MessageInfo {
            id: &message.id,
            channel: &item.channel,
            attempt: item.attempt,
            redelivered: item.redelivered,
            url: &self.url,
        };
        let (input, notes) = CommandInput::new(&info, &message.json, text);
        for note in notes {
            log_message(item, message, format_args!("{note}"));
        }
        match exec::run(&self.command, &input, self.timeout, &mut self.stop).await {
            Ok(result) => evaluate(item, message, &result, self.timeout),
            Err(error) => {
                let reason = format!("cannot start the command: {}", start_failure(&error));
                log_message(item, message, format_args!("{reason}; the broker delivers the message again"));
                MessageResult::Failed(reason)
            }
        }
    }
}

/// Returns the result for a message from the end of its command, and logs it.
fn evaluate(
    item: &ReceivedDelivery,
    message: &ReceivedMessage,
    command: &CommandResult,
    timeout: Duration,
) -> MessageResult {
    /// `EX_DATAERR` in sysexits.h: the message is invalid.
    const REJECTED: i32 = 65;
    let how = match command.ended {
        Termination::Exited(status) => ended_with(status),
        Termination::TimedOut => {
            format!("ended because it ran longer than {} s (--exec-timeout)", timeout.as_secs_f64())
        }
        Termination::Stopped => "ended because the gateway was stopped".to_owned(),
    };
    let reason = match &command.last_line {
        Some(line) => format!("{how}: {line}"),
        None => how.clone(),
    };
    let code = if let Termination::Exited(status) = command.ended { status.code() } else { None };
    let (result, meaning) = match code {
        Some(0) => (MessageResult::Finished(Completion::Done), "done"),
        Some(REJECTED) => {
            (MessageResult::Finished(Completion::Rejected(reason)), "rejected: the broker does not deliver it again")
        }
        _ if command.ended == Termination::Stopped => (
            MessageResult::Interrupted(reason),
            "the broker delivers it again; the command may have done a part of its work",
        ),
        _ if command.ended == Termination::TimedOut => (
            MessageResult::Failed(reason),
            "the broker delivers it again; the command may have done a part of its work",
        ),
        _ => (MessageResult::Failed(reason), "the broker delivers it again"),
    };
    log_message(item, message, format_args!("{how} after {:.3} s; {meaning}", command.duration.as_secs_f64()));
    result
}

/// Logs a line about a message.
pub(super) fn log_message(item: &ReceivedDelivery, message: &ReceivedMessage, what: fmt::Arguments<'_>) {
    let ReceivedDelivery { channel, attempt, .. } = item;
    output::note(&format!("wsmb: message {}, channel {channel}, attempt {attempt}: {what}", message.id));
}

fn ended_with(status: ExitStatus) -> String {
    match (platform::signal_of(status), status.code()) {
        (Some(signal), _) => format!("ended by signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => status.to_string(),
    }
}

/// Returns in words why a command cannot be started.
fn start_failure(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ArgumentListTooLong {
        return "the arguments and the environment are too long for this system; the environment has the fields of the message and \
                this program's own variables"
            .to_owned();
    }
    error.to_string()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use wsmb_core::message::Timestamp;

    fn evaluated(ended: Termination, last_line: Option<&str>) -> MessageResult {
        let message = ReceivedMessage { id: "7-ab".to_owned(), json: "1".to_owned() };
        let item = ReceivedDelivery {
            delivery: None,
            generation: 0,
            channel: "sms".to_owned(),
            redelivered: false,
            attempt: 1,
            at: Timestamp(0),
            messages: vec![message.clone()],
        };
        let result =
            CommandResult { ended, duration: Duration::from_millis(5), last_line: last_line.map(str::to_owned) };
        evaluate(&item, &message, &result, Duration::from_secs(300))
    }

    #[test]
    fn the_exit_status_decides_the_result_and_is_its_reason() {
        let exited = |code: i32| Termination::Exited(ExitStatus::from_raw(code << 8));
        let failed = |reason: &str| MessageResult::Failed(reason.to_owned());
        assert_eq!(evaluated(exited(0), Some("warning: slow")), MessageResult::Finished(Completion::Done));
        assert_eq!(evaluated(exited(3), Some("no network")), failed("exit status 3: no network"));
        assert_eq!(evaluated(exited(1), None), failed("exit status 1"));
        let rejected = Completion::Rejected("exit status 65: no such number".to_owned());
        assert_eq!(evaluated(exited(65), Some("no such number")), MessageResult::Finished(rejected));
        assert_eq!(evaluated(Termination::Exited(ExitStatus::from_raw(9)), None), failed("ended by signal 9"));
        assert_eq!(
            evaluated(Termination::TimedOut, None),
            failed("ended because it ran longer than 300 s (--exec-timeout)")
        );
        assert!(matches!(evaluated(Termination::Stopped, None), MessageResult::Interrupted(_)));
    }

    #[test]
    fn a_too_large_environment_has_its_own_message() {
        let error = io::Error::from_raw_os_error(libc::E2BIG);
        assert!(start_failure(&error).contains("too long for this system"));
    }
}
