//! What is done with a delivery: its lines are printed, or a command is run for each of its messages.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use super::Failure;
use super::item::{Item, Past, Received};
use super::print::{Printer, one_line, plain};
use crate::cli::exec::{self, About, Ended, Job, Report};
use crate::cli::output;
use crate::cli::signals::Stop;

/// What a worker does.
#[derive(Clone)]
pub(super) enum Task {
    Print(Printer),
    Run(Runner),
}

/// A command for each message.
#[derive(Clone)]
pub(super) struct Runner {
    pub command: Arc<str>,
    pub raw: bool,
    pub longest: Duration,
    /// The broker's address, without user and password.
    pub url: Arc<str>,
    pub stop: Stop,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is finished for good.
    Finished(Past),
    /// It is to come again: why.
    Failed(String),
    /// The same, because this program was to stop at once.
    CutOff(String),
}

/// A delivery with what became of its messages, in their order.
pub(super) struct Done {
    pub item: Item,
    pub fates: Vec<Fate>,
}

impl Task {
    /// Works on deliveries.
    pub(super) async fn work(self, items: Vec<Item>) -> Result<Vec<Done>, Failure> {
        match self {
            Self::Print(printer) => {
                printer.print(&items).await?;
                let printed = |item: Item| Done { fates: vec![Fate::Finished(Past::Done); item.messages.len()], item };
                Ok(items.into_iter().map(printed).collect())
            }
            Self::Run(mut runner) => {
                let mut done = Vec::with_capacity(items.len());
                for item in items {
                    let mut fates = Vec::with_capacity(item.messages.len());
                    for message in &item.messages {
                        fates.push(runner.run(&item, message).await);
                    }
                    done.push(Done { item, fates });
                }
                Ok(done)
            }
        }
    }
}

impl Runner {
    /// Runs the command for one message, and says in the log what came of it.
    async fn run(&mut self, item: &Item, message: &Received) -> Fate {
        if self.stop.is_at_once() {
            return Fate::CutOff("the gateway was stopped before the command began".to_owned());
        }
        let text = if self.raw { plain(&message.json) } else { one_line(&message.json) };
        let about = About {
            id: &message.id,
            channel: &item.channel,
            attempt: item.attempt,
            redelivered: item.redelivered,
            url: &self.url,
        };
        let (job, notes) = Job::new(&about, &message.json, text);
        for note in notes {
            told(item, message, format_args!("{note}"));
        }
        match exec::run(&self.command, &job, self.longest, &mut self.stop).await {
            Ok(report) => judge(item, message, &report, self.longest),
            Err(error) => {
                let reason = format!("the command cannot be started: {}", start_failure(&error));
                told(item, message, format_args!("{reason}; the message goes back"));
                Fate::Failed(reason)
            }
        }
    }
}

/// What a command's end means, and a line in the log about it.
fn judge(item: &Item, message: &Received, report: &Report, longest: Duration) -> Fate {
    /// `EX_DATAERR` of sysexits.h: the message is at fault.
    const REJECTED: i32 = 65;
    let how = match report.ended {
        Ended::Exited(status) => ended_with(status),
        Ended::TimedOut => format!("ended because it ran longer than {} s (--exec-timeout)", longest.as_secs_f64()),
        Ended::Stopped => "ended because the gateway was stopped".to_owned(),
    };
    let reason = match &report.last_line {
        Some(line) => format!("{how}: {line}"),
        None => how.clone(),
    };
    let code = if let Ended::Exited(status) = report.ended { status.code() } else { None };
    let (fate, meaning) = match code {
        Some(0) => (Fate::Finished(Past::Done), "done"),
        Some(REJECTED) => (Fate::Finished(Past::Rejected(reason)), "rejected: it never comes again"),
        _ if report.ended == Ended::Stopped => {
            (Fate::CutOff(reason), "it goes back; nobody knows how far the command came")
        }
        _ if report.ended == Ended::TimedOut => {
            (Fate::Failed(reason), "it goes back; nobody knows how far the command came")
        }
        _ => (Fate::Failed(reason), "it goes back"),
    };
    told(item, message, format_args!("{how} after {:.3} s; {meaning}", report.took.as_secs_f64()));
    fate
}

/// One line of the log about a message.
pub(super) fn told(item: &Item, message: &Received, what: fmt::Arguments<'_>) {
    let Item { channel, attempt, .. } = item;
    output::note(&format!("wsmb: message {}, channel {channel}, attempt {attempt}: {what}", message.id));
}

fn ended_with(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("ended by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// Why a command cannot be started.
fn start_failure(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ArgumentListTooLong {
        return "the command line and its environment are too long for this system; the message's fields and this program's own \
                environment count together"
            .to_owned();
    }
    error.to_string()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use wsmb_core::message::Timestamp;

    fn judged(ended: Ended, last_line: Option<&str>) -> Fate {
        let message = Received { id: "7-ab".to_owned(), json: "1".to_owned() };
        let item = Item {
            delivery: None,
            generation: 0,
            channel: "sms".to_owned(),
            redelivered: false,
            attempt: 1,
            at: Timestamp(0),
            messages: vec![message.clone()],
        };
        let report = Report { ended, took: Duration::from_millis(5), last_line: last_line.map(str::to_owned) };
        judge(&item, &message, &report, Duration::from_secs(300))
    }

    #[test]
    fn an_exit_status_decides_about_the_message_and_is_its_reason() {
        let exited = |code: i32| Ended::Exited(ExitStatus::from_raw(code << 8));
        let failed = |reason: &str| Fate::Failed(reason.to_owned());
        assert_eq!(judged(exited(0), Some("warning: slow")), Fate::Finished(Past::Done));
        assert_eq!(judged(exited(3), Some("no network")), failed("exit status 3: no network"));
        assert_eq!(judged(exited(1), None), failed("exit status 1"));
        let rejected = Past::Rejected("exit status 65: no such number".to_owned());
        assert_eq!(judged(exited(65), Some("no such number")), Fate::Finished(rejected));
        assert_eq!(judged(Ended::Exited(ExitStatus::from_raw(9)), None), failed("ended by signal 9"));
        assert_eq!(judged(Ended::TimedOut, None), failed("ended because it ran longer than 300 s (--exec-timeout)"));
        assert!(matches!(judged(Ended::Stopped, None), Fate::CutOff(_)));
    }

    #[test]
    fn an_environment_that_is_too_large_is_told_in_a_sentence() {
        let error = io::Error::from_raw_os_error(libc::E2BIG);
        assert!(start_failure(&error).contains("too long for this system"));
    }
}
