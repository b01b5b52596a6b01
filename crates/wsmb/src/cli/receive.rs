//! `wsmb receive`: receives messages from channels, and prints each message or runs a command for it.
//!
//! Never acknowledges a delivery before its lines are written or its commands have succeeded. The prefetch limits the number of deliveries that wait in
//! this program. When the program ends, the broker takes back the unacknowledged deliveries.

mod delivery;
mod link;
mod pace;
mod print;
mod run;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::link::{Link, Subscription};
use self::pace::{Pace, Quiet, Rate};
use self::print::Printer;
use self::run::{ReceiveLoop, Settings};
use self::worker::{CommandRunner, Task};
use super::connect::Connect;
use super::output::{self, Style};
use super::signals::Stop;
use super::{Failure, Outcome, arguments, exec};
use crate::{limits, platform};
use wsmb_client::Url;
use wsmb_core::message::ChannelName;

/// Receive the messages of one or more channels
///
/// Prints each message on one line (with several channels: after the name of the channel and a tab), or runs a command for each message. A message is
/// confirmed after its line is written (into a pipe: after the other program has read it), or after its command has ended with exit code 0. So no message is
/// lost if this program is killed. If the connection is lost, this program reconnects until it succeeds; but if the first connection fails, it ends with an
/// error. Ctrl-C or SIGTERM stops it after the running commands have finished; a second Ctrl-C or SIGTERM ends these commands.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb receive sms
  wsmb receive sms --count 1 --raw
  wsmb receive sms --exec 'gammu sendsms TEXT \"$WSMB_receiver\" -text \"$WSMB_message\"'
  wsmb receive otp bulk --exec send-sms --rate 20/m --quiet 22:00-07:00

The command gets the message on its standard input. Each field that is a text, a number, true, false or null is also an environment variable: the field
\"receiver\" is WSMB_receiver, and the field \"b\" in the object \"a\" is WSMB_a_b. Characters other than letters from A to Z and digits become \"_\". Numbers
are not changed. The command also gets WSMB_ID (the same at each delivery of a message), WSMB_CHANNEL, WSMB_ATTEMPT (1, 2, 3 ...), WSMB_REDELIVERED (1 if
the message may have been delivered before, else 0) and WSMB_URL. Put the variables in double quotes, so that the shell does not execute parts of a message.

Exit codes of the command:
  0        success: the message is confirmed
  65       the message is invalid: the broker moves it to the channel's dead_letter, or drops it if there is none, and does not deliver it again
  other    failure: the broker delivers the message again after 1, 2, 4 ... 60 s, or to another receiver; other messages do not wait for it

After max_deliveries failures (a key of the channel in the broker's configuration) the broker moves the message to the channel's dead_letter, or drops it if
there is none. The reason in the dead letter is the exit code and the last line that the command wrote to standard error. A command that runs longer than
--exec-timeout is ended, which counts as a failure.

Messages that --rate and --quiet delay wait in the broker, and expire there at the end of their time to live. With --rate 20/m --quiet 22:00-07:00 at most 20
commands start in any minute, and none at night (local time). A one-time password that is valid for one minute expires at night; it is not sent at 7:00.")]
pub(crate) struct Receive {
    /// Channels, in the order of preference
    #[arg(required = true, value_parser = arguments::channel)]
    channels: Vec<ChannelName>,

    /// Run this shell command for each message; exit code 0 confirms the message, 65 rejects it, any other code makes the broker deliver it again
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// Run at most this number of commands at once
    #[arg(long, alias = "workers", value_name = "N", default_value_t = 1, requires = "exec",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::EXEC_WORKERS)))]
    exec_workers: u32,

    /// End a command that runs longer than this
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "exec", value_parser = exec_timeout)]
    exec_timeout: Duration,

    /// Start at most this number of commands in any second, minute, hour or day: 1/s, 20/m, 100/h, 500/d
    #[arg(long, value_name = "N/UNIT", requires = "exec", value_parser = pace::rate)]
    rate: Option<Rate>,

    /// Start no command between these times (local time); the period may include midnight
    #[arg(long, value_name = "HH:MM-HH:MM", requires = "exec", value_parser = pace::quiet)]
    quiet: Option<Quiet>,

    /// Share the messages with the other receivers of this group: one of them gets each message; "none" = do not share [default: none; with --exec: the
    /// name of the command]
    #[arg(long, value_name = "NAME", value_parser = arguments::name)]
    group: Option<String>,

    /// Which of several channels takes precedence
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Order::Listed)]
    order: Order,

    /// End after exactly this number of messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// The broker may send this number of deliveries before the first one is confirmed [default: 64 for one channel if the output is a file or a terminal, else 1]
    #[arg(long, value_name = "N", conflicts_with = "exec",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(wsmb_client::limits::CLIENT_RECEIVED as u32)))]
    prefetch: Option<u32>,

    /// Name of this receiver; a new receiver with the same name replaces the old one at once
    #[arg(long, value_name = "ID", value_parser = arguments::name)]
    receiver: Option<String>,

    /// Accept channel names that look like patterns or lists (a,b  home/#)
    #[arg(long)]
    literal: bool,

    /// Print a JSON string as plain text, without quotes and escapes; with --exec: on the command's standard input
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Print a JSON object per line with id, channel, attempt, redelivered, time (of the arrival, by the local clock) and data (the message)
    #[arg(long, conflicts_with = "exec")]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

/// The values of `--order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// Messages of a channel that is listed earlier come first
    Listed,
    /// The channels take turns
    Fair,
}

impl Receive {
    pub(crate) async fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        self.check_channels()?;
        let stop = Stop::listen_twice()
            .map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))?;
        let task = self.task(&url, &stop);
        let pipe = matches!(&task, Task::Print(printer) if printer.pipe);
        let group = self.group();
        let prefetch = self.prefetch(pipe);
        let mut waiting = stop.clone();
        // The first subscription takes no deliveries: the loop computes how many it can take, and subscribes again.
        let link = tokio::select! {
            link = Link::connect(url, options, self.subscription(group.as_deref()), 0) => link?,
            () = waiting.requested() => return Ok(()),
        };
        self.announce(group.as_deref());
        let settings = Settings {
            task,
            workers: usize::try_from(self.exec_workers).unwrap_or(1),
            prefetch,
            count: self.count,
            receiver: self.receiver,
            quiet: self.quiet,
        };
        ReceiveLoop::new(settings, link, Pace::new(self.rate, self.quiet), stop).run().await
    }

    fn check_channels(&self) -> Outcome {
        if self.channels.len() > wsmb_core::limits::SUBSCRIPTIONS {
            return Err(Failure::misuse(format_args!("at most {} channels at once", wsmb_core::limits::SUBSCRIPTIONS)));
        }
        let suspect = self.channels.iter().filter(|_| !self.literal).find_map(|channel| pattern(channel.as_str()));
        suspect.map_or(Ok(()), |reason| Err(Failure::Misuse(reason)))
    }

    fn task(&self, url: &Url, stop: &Stop) -> Task {
        match &self.exec {
            Some(command) => Task::Run(CommandRunner {
                command: Arc::from(command.as_str()),
                raw: self.raw,
                timeout: self.exec_timeout,
                url: format!("ws://{}{}", url.authority(), url.target()).into(),
                stop: stop.clone(),
            }),
            None => {
                let (raw, json, channel) = (self.raw, self.json, self.channels.len() > 1);
                Task::Print(Printer { raw, json, channel, pipe: platform::stdout_is_pipe() })
            }
        }
    }

    fn subscription(&self, group: Option<&str>) -> Subscription {
        Subscription {
            channels: self.channels.iter().map(ChannelName::to_string).collect(),
            receiver: self.receiver.clone(),
            group: group.map(str::to_owned),
            fair: self.order == Order::Fair,
        }
    }

    /// Returns the group that shares the messages. Without `--group`, receivers with the same command share them, so that only one runs it for a message.
    fn group(&self) -> Option<String> {
        match (&self.group, &self.exec) {
            (Some(name), _) if name == "none" => None,
            (Some(name), _) => Some(name.clone()),
            (None, Some(command)) => Some(exec::command_name(command)),
            (None, None) => None,
        }
    }

    /// Prints the group, because the default group may surprise the user; and on a terminal the channels.
    fn announce(&self, group: Option<&str>) {
        let style = Style::stderr();
        if let Some(group) = group {
            output::note(&style.dim(format_args!(
                "wsmb: shares the messages with the other receivers of the group \"{group}\"; to get all messages: --group none"
            )));
        }
        if style.is_terminal() {
            let names: Vec<&str> = self.channels.iter().map(ChannelName::as_str).collect();
            output::note(&style.dim(format_args!("receiving from {}; Ctrl-C stops", names.join(", "))));
        }
    }

    /// Returns how many unacknowledged deliveries this receiver takes.
    ///
    /// With `--exec`: one for each worker, because a command takes much longer than a round trip. With several channels: one, so that the broker applies
    /// the preference to each message. Into a pipe: one, so that no message is lost in the pipe if its reader ends.
    fn prefetch(&self, pipe: bool) -> u32 {
        match (&self.exec, self.prefetch) {
            (Some(_), _) => self.exec_workers,
            (None, Some(prefetch)) => prefetch,
            (None, None) if pipe || self.channels.len() > 1 => 1,
            (None, None) => wsmb_core::limits::PREFETCH,
        }
    }
}

/// Parses the `--exec-timeout`: a duration above 0, at most [`limits::EXEC_LONGEST`].
fn exec_timeout(text: &str) -> Result<Duration, String> {
    let timeout = arguments::duration(text)?;
    if timeout.is_zero() || timeout > limits::EXEC_LONGEST {
        return Err(format!(
            "the timeout must be above 0, and at most {} hours",
            limits::EXEC_LONGEST.as_secs() / 3_600
        ));
    }
    Ok(timeout)
}

/// Returns an error message if a channel name looks like a pattern or a list: the broker would take the name literally.
fn pattern(name: &str) -> Option<String> {
    let advice = "give each channel as a separate argument; if this is really the name of a channel, add --literal";
    if name.contains(',') {
        return Some(format!("\"{name}\" looks like a list of channels; {advice}"));
    }
    let mut levels = name.split('/');
    if levels.any(|level| matches!(level, "#" | "+" | "*" | "**")) {
        return Some(format!("\"{name}\" looks like a pattern, and receivers cannot use patterns; {advice}"));
    }
    None
}

#[cfg(test)]
mod tests;
