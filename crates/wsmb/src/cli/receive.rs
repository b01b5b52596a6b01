//! `wsmb receive`: takes messages from channels, and prints them or runs a command for each.
//!
//! A delivery is acknowledged when its lines have been written, or its commands have succeeded, and never before. What waits here is bounded by
//! the prefetch that the broker was asked for; what has not been acknowledged goes back to the broker when this ends.

mod item;
mod link;
mod pace;
mod print;
mod run;
mod work;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::link::{Link, Subscription};
use self::pace::{Pace, Quiet, Rate};
use self::print::Printer;
use self::run::{Run, Settings};
use self::work::{Runner, Task};
use super::connect::Connect;
use super::output::{self, Style};
use super::signals::Stop;
use super::{Failure, Outcome, arguments, exec};
use crate::limits;
use wsmb_client::Url;
use wsmb_core::message::ChannelName;

/// Receive the messages of one or more channels
///
/// Prints one message a line (with several channels: the channel and a tab before it), or runs a command for each. A message is confirmed when its
/// line has been written (into a pipe: when the other program has read it) or its command has ended with 0. So nothing is lost when this program is
/// killed. A lost connection is made again, without end; only the first one has to succeed. Ctrl-C or SIGTERM lets running commands finish. A second one
/// ends them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb receive sms
  wsmb receive sms --count 1 --raw
  wsmb receive sms --exec 'gammu sendsms TEXT \"$WSMB_receiver\" -text \"$WSMB_message\"'
  wsmb receive otp bulk --exec send-sms --rate 20/m --quiet 22:00-07:00

A command gets the message on its standard input, and each field of the message that is a text, a number, true, false or null as WSMB_field: a field
in an object a as WSMB_a_field, and what is not a letter from A to Z or a digit as _. Numbers stand as they were sent. The command also gets WSMB_ID
(the same each time the message comes), WSMB_CHANNEL, WSMB_ATTEMPT (1, 2, 3 ...), WSMB_REDELIVERED (1 if the message may have come before, else 0)
and WSMB_URL. Put the variables in double quotes: then nothing in a message can become a part of your command.

What the exit code of a command means:
  0        done: the message is confirmed
  65       the message is at fault: the broker moves it to the channel's dead_letter, or drops it if there is none; it never comes again
  other    the message waits in the broker and comes again after 1, 2, 4 ... 60 s, or goes to another receiver; others go on meanwhile

After max_deliveries (a key of the channel in the broker's configuration) a message is moved to the channel's dead_letter, with the exit code and the last
line that the command wrote on standard error as the reason, or dropped if there is none. A command that runs longer than --exec-timeout is ended, and its message comes again.

What --rate and --quiet hold up waits in the broker, where its time to live goes on: with --rate 20/m --quiet 22:00-07:00 no more than 20 commands begin in
any minute and none at night (local time). A code that is valid for a minute expires then; it does not come at 7.")]
pub(crate) struct Receive {
    /// The channels, in the order of preference
    #[arg(required = true, value_parser = arguments::channel)]
    channels: Vec<ChannelName>,

    /// Run this shell command for each message: exit code 0 confirms the message, 65 rejects it, any other gives it back, to be tried again
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// How many commands run at once
    #[arg(long, alias = "workers", value_name = "N", default_value_t = 1, requires = "exec",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::EXEC_WORKERS)))]
    exec_workers: u32,

    /// End a command that runs longer
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "exec", value_parser = exec_timeout)]
    exec_timeout: Duration,

    /// Begin no more than so many commands in any second, minute, hour or day: 1/s, 20/m, 100/h, 500/d
    #[arg(long, value_name = "N/UNIT", requires = "exec", value_parser = pace::rate)]
    rate: Option<Rate>,

    /// Begin no command in these hours, local time; they may go over midnight
    #[arg(long, value_name = "HH:MM-HH:MM", requires = "exec", value_parser = pace::quiet)]
    quiet: Option<Quiet>,

    /// Share the messages with the receivers that name the same group: one of them gets each. `none`: every receiver counts by itself
    /// [default: none, and with --exec the command's name]
    #[arg(long, value_name = "NAME", value_parser = arguments::name)]
    group: Option<String>,

    /// Which of several channels goes first when there is a choice
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Order::Listed)]
    order: Order,

    /// End after exactly so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// How many messages the broker may send ahead [default: 64 for one channel into a file or a terminal, else 1]
    #[arg(long, value_name = "N", conflicts_with = "exec",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(wsmb_client::limits::CLIENT_RECEIVED as u32)))]
    prefetch: Option<u32>,

    /// A name for this receiver: a new one with the same name takes the old one's place at once
    #[arg(long, value_name = "ID", value_parser = arguments::name)]
    receiver: Option<String>,

    /// Take the names of channels as they stand, also those that look like patterns or lists (a,b  home/#)
    #[arg(long)]
    literal: bool,

    /// Give a message that is a JSON string as its text, without quotes and escapes
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Print objects with id, channel, attempt, redelivered, time (when it came, by the local clock) and data (the message)
    #[arg(long, conflicts_with = "exec")]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

/// What goes first of several channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// What waits in an earlier channel
    Listed,
    /// Each channel in turn
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
        // What may be taken is told when it is known; the first connection only shows that it can be made.
        let link = tokio::select! {
            link = Link::connect(url, options, self.subscription(group.as_deref()), 0) => link?,
            () = waiting.asked() => return Ok(()),
        };
        self.greet(group.as_deref());
        let settings = Settings {
            task,
            workers: usize::try_from(self.exec_workers).unwrap_or(1),
            prefetch,
            count: self.count,
            receiver: self.receiver,
            quiet: self.quiet,
        };
        Run::new(settings, link, Pace::new(self.rate, self.quiet), stop).run().await
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
            Some(command) => Task::Run(Runner {
                command: Arc::from(command.as_str()),
                raw: self.raw,
                longest: self.exec_timeout,
                url: format!("ws://{}{}", url.authority(), url.target()).into(),
                stop: stop.clone(),
            }),
            None => {
                let (raw, json, channel) = (self.raw, self.json, self.channels.len() > 1);
                Task::Print(Printer { raw, json, channel, pipe: print::is_pipe() })
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

    /// With whom the messages are shared. Of the gateways that run one command, one is to run it for a message.
    fn group(&self) -> Option<String> {
        match (&self.group, &self.exec) {
            (Some(name), _) if name == "none" => None,
            (Some(name), _) => Some(name.clone()),
            (None, Some(command)) => Some(exec::command_name(command)),
            (None, None) => None,
        }
    }

    /// Says what it does, where a person reads along or nobody would expect it.
    fn greet(&self, group: Option<&str>) {
        let style = Style::stderr();
        if let Some(group) = group {
            output::note(&style.dim(format_args!(
                "wsmb: shares the messages with every receiver of group \"{group}\"; --group none for all"
            )));
        }
        if style.is_terminal() {
            let names: Vec<&str> = self.channels.iter().map(ChannelName::as_str).collect();
            output::note(&style.dim(format_args!("receiving from {}; Ctrl-C stops", names.join(", "))));
        }
    }

    /// A command takes long next to a round trip, so no more is taken than is worked on. With several channels one message is taken at a time, so
    /// that the preference is the broker's to decide each time; into a pipe, so that a reader who leaves has taken nothing more.
    fn prefetch(&self, pipe: bool) -> u32 {
        match (&self.exec, self.prefetch) {
            (Some(_), _) => self.exec_workers,
            (None, Some(prefetch)) => prefetch,
            (None, None) if pipe || self.channels.len() > 1 => 1,
            (None, None) => wsmb_core::limits::PREFETCH,
        }
    }
}

/// How long a command may run.
fn exec_timeout(text: &str) -> Result<Duration, String> {
    let timeout = arguments::duration(text)?;
    if timeout.is_zero() || timeout > limits::EXEC_LONGEST {
        return Err(format!("a command may run for at most {} hours", limits::EXEC_LONGEST.as_secs() / 3_600));
    }
    Ok(timeout)
}

/// Why a channel's name is certainly meant as a pattern or a list, which the broker would take literally.
fn pattern(name: &str) -> Option<String> {
    let advice = "name each channel as an argument of its own; if the channel is really called so, add --literal";
    if name.contains(',') {
        return Some(format!("\"{name}\" looks like a list of channels; {advice}"));
    }
    let mut levels = name.split('/');
    if levels.any(|level| matches!(level, "#" | "+" | "*" | "**")) {
        return Some(format!("\"{name}\" looks like a pattern, and receivers know no patterns; {advice}"));
    }
    None
}

#[cfg(test)]
mod tests;
