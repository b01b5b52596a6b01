//! `wsmb bench`: measures the throughput and the costs of a running broker.
//!
//! This file holds the arguments and the output. The load generator ([`wsmb_load`]) does the measurement.

use std::io;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::connect::Connect;
use super::output::{self, Style};
use super::{Failure, Outcome};
use wsmb_core::message::Dialect;
use wsmb_load::{Error, Options, Progress, Report, Target, Workload, Wsmb};

/// Measure a running broker: deliveries per second, CPU time per delivery, memory, round-trip times
///
/// Connects as many clients as the workload needs, and checks that every message arrives once and in order. Shows the CPU time and the memory of the
/// broker if the broker runs on this computer and the system is Linux. Uses new channels, and leaves no messages in them. The exit code is 1 if a message
/// was lost, duplicated or reordered.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples, with a broker without passwords and without a store on disk:
  wsmb serve --set auth.anonymous=true --set store.url=memory:
  wsmb bench p2p
  wsmb bench fanout --receivers 1000 --dialect envelope --seconds 10
  wsmb bench latency --rate 1000 --json

Compare the broker's CPU time per delivery. Rates also depend on the other programs that use the processor.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    workload: Workload,

    /// Dialect of the clients [default: topic; envelope for channels, confirmed and backlog]
    #[arg(long, global = true, value_enum, help_heading = "Load")]
    dialect: Option<DialectName>,

    /// For confirmed and backlog: the receiver acknowledges each delivery with a command instead of a pong
    #[arg(long, global = true, help_heading = "Load")]
    manual_ack: bool,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connect: Connect,
}

/// The values of `--dialect`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// Each frame is a message; the address names the channel
    Topic,
    /// Each frame is a JSON command
    Envelope,
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let dialect = match (self.dialect, &self.workload) {
            (Some(DialectName::Topic), _) => Dialect::Topic,
            (Some(DialectName::Envelope), _)
            | (None, Workload::Channels { .. } | Workload::Confirmed | Workload::Backlog { .. }) => Dialect::Envelope,
            (None, _) => Dialect::Topic,
        };
        let wire = Wsmb { dialect, manual: self.manual_ack };
        let target = Target::new(url, options.credentials, options.ca.as_deref()).map_err(failure_of)?;
        let bar = progress_bar(self.workload.name());
        let mut watch = |progress: Progress| show(&bar, progress);
        let result = wsmb_load::run(&wire, &target, &self.workload, &self.options, &mut watch);
        bar.finish_and_clear();
        let report = result.map_err(failure_of)?;
        output::line(&if self.options.json { report.to_json() } else { report.to_string() })?;
        check_report(&report)
    }
}

/// Returns a failure if a message was lost, duplicated or reordered.
fn check_report(report: &Report) -> Outcome {
    if report.is_sound() {
        return Ok(());
    }
    let Report { lost, doubled, reordered, .. } = report;
    Err(Failure::failed(format_args!(
        "the broker made mistakes: {lost} messages lost, {doubled} duplicated, {reordered} out of order"
    )))
}

/// Converts an error of the load generator. If no broker listens at the address, the message says how to start one.
fn failure_of(error: Error) -> Failure {
    match error {
        Error::Misuse(sentence) => Failure::Misuse(sentence),
        Error::Connection(wsmb_client::Error::Unreachable { ref source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Failure::failed(format_args!(
                "{error}; to start a broker without passwords and without a store on disk: \
                 wsmb serve --set auth.anonymous=true --set store.url=memory:"
            ))
        }
        other => Failure::failed(other),
    }
}

fn progress_bar(workload: &'static str) -> ProgressBar {
    /// Steps of the bar.
    const STEPS: u64 = 1_000;
    if !Style::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr_with_hz(10)).with_prefix(workload);
    let template = if Style::stderr().has_colours() {
        "{prefix} {wide_bar:.cyan} {percent:>3} %  {msg}"
    } else {
        "{prefix} {wide_bar} {percent:>3} %  {msg}"
    };
    // With an invalid template the bar keeps its default style.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let steps = bar.length().unwrap_or(0) as f64 * progress.fraction.clamp(0.0, 1.0);
    // `steps` is between 0 and the length of the bar, so the conversion is exact.
    bar.set_position(steps as u64);
    bar.set_message(progress.phase);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_lost_or_reordered_messages_fails_with_the_numbers() {
        assert!(check_report(&Report::default()).is_ok());
        let Err(Failure::Failed(sentence)) = check_report(&Report { lost: 3, reordered: 1, ..Report::default() })
        else {
            panic!("it must fail");
        };
        assert_eq!(sentence, "the broker made mistakes: 3 messages lost, 0 duplicated, 1 out of order");
    }

    #[test]
    fn without_a_broker_the_message_says_how_to_start_one() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = wsmb_client::Error::Unreachable { address: "h:1".to_owned(), source };
        let Failure::Failed(sentence) = failure_of(error.into()) else { panic!("it failed") };
        assert!(sentence.contains("wsmb serve --set auth.anonymous=true"), "{sentence}");
        assert!(matches!(failure_of(Error::Misuse("x".to_owned())), Failure::Misuse(_)));
    }
}
