//! `wsmb bench`: how much the broker at an address does, and what it costs.
//!
//! Arguments and output; the work is the load generator's ([`wsmb_load`]).

use std::io;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::connect::Connect;
use super::output::{self, Style};
use super::{Failure, Outcome};
use wsmb_core::message::Dialect;
use wsmb_load::{Error, Options, Progress, Report, Target, Workload, Wsmb};

/// Measure a running broker: deliveries a second, its CPU time for each, its memory, round trips
///
/// Connects as many clients as the workload needs, checks that every message arrives once and in order, and tells what it cost the broker, as
/// far as the system shows that (Linux, the broker on the same system). The channels are new ones, and nothing stays in them. Exit code 1 if a message was
/// lost, doubled or reordered.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples, with a broker that asks for no password and writes nothing to a disk:
  wsmb serve --set auth.anonymous=true --set store.url=memory:
  wsmb bench p2p
  wsmb bench fanout --receivers 1000 --dialect envelope --seconds 10
  wsmb bench latency --rate 1000 --json

The server's CPU time for each delivery is the figure to compare; rates depend on what else runs, and on who shares the processor with whom.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    workload: Workload,

    /// What is spoken [default: topic; envelope for channels, confirmed and backlog]
    #[arg(long, global = true, value_enum, help_heading = "Load")]
    dialect: Option<Spoken>,

    /// In confirmed and backlog: the receiver acknowledges each delivery with a command (else by pongs)
    #[arg(long, global = true, help_heading = "Load")]
    manual_ack: bool,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connect: Connect,
}

/// The broker's dialects, as they are named on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Spoken {
    /// A frame is a message, the address names the channel
    Topic,
    /// JSON commands
    Envelope,
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let dialect = match (self.dialect, &self.workload) {
            (Some(Spoken::Topic), _) => Dialect::Topic,
            (Some(Spoken::Envelope), _)
            | (None, Workload::Channels { .. } | Workload::Confirmed | Workload::Backlog { .. }) => Dialect::Envelope,
            (None, _) => Dialect::Topic,
        };
        let wire = Wsmb { dialect, manual: self.manual_ack };
        let target = Target::new(url, options.credentials).map_err(told)?;
        let bar = bar(self.workload.name());
        let mut watch = |progress: Progress| show(&bar, progress);
        let result = wsmb_load::run(&wire, &target, &self.workload, &self.options, &mut watch);
        bar.finish_and_clear();
        let report = result.map_err(told)?;
        output::line(&if self.options.json { report.to_json() } else { report.to_string() })?;
        verdict(&report)
    }
}

/// A broker that loses something is no good, however fast it is.
fn verdict(report: &Report) -> Outcome {
    if report.is_sound() {
        return Ok(());
    }
    let Report { lost, doubled, reordered, .. } = report;
    Err(Failure::failed(format_args!(
        "deliveries went wrong: {lost} lost, {doubled} doubled, {reordered} out of order"
    )))
}

/// The sentence for a failure; where no broker runs, how to start one for this.
fn told(error: Error) -> Failure {
    match error {
        Error::Misuse(sentence) => Failure::Misuse(sentence),
        Error::Connection(wsmb_client::Error::Unreachable { ref source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Failure::failed(format_args!(
                "{error}; to measure without a password and without a disk: \
                 wsmb serve --set auth.anonymous=true --set store.url=memory:"
            ))
        }
        other => Failure::failed(other),
    }
}

fn bar(workload: &'static str) -> ProgressBar {
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
    // If the template were wrong, the default one would do.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    let steps = bar.length().unwrap_or(0) as f64 * progress.fraction.clamp(0.0, 1.0);
    // Between 0 and the bar's length.
    bar.set_position(steps as u64);
    bar.set_message(progress.phase);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_something_went_wrong_fails_with_the_numbers() {
        assert!(verdict(&Report::default()).is_ok());
        let Err(Failure::Failed(sentence)) = verdict(&Report { lost: 3, reordered: 1, ..Report::default() }) else {
            panic!("it must fail");
        };
        assert_eq!(sentence, "deliveries went wrong: 3 lost, 0 doubled, 1 out of order");
    }

    #[test]
    fn whoever_has_no_broker_is_told_how_to_start_one() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = wsmb_client::Error::Unreachable { address: "h:1".to_owned(), source };
        let Failure::Failed(sentence) = told(error.into()) else { panic!("it failed") };
        assert!(sentence.contains("wsmb serve --set auth.anonymous=true"), "{sentence}");
        assert!(matches!(told(Error::Misuse("x".to_owned())), Failure::Misuse(_)));
    }
}
