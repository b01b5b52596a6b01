//! `wsmb receive`: takes messages from channels, and prints them or runs a command for each.
//!
//! A delivery is acknowledged when its lines have been written, or its commands have succeeded, and never before. What waits here is bounded by
//! the prefetch that the broker was asked for; what has not been acknowledged goes back to the broker when this ends.

mod link;
mod work;

use clap::Args;
use tokio::task::JoinSet;

use self::link::{Link, Taken};
use self::work::{Done, Item, Worker};
use super::connect::Connect;
use super::output::{self, Style};
use super::signals::Stop;
use super::{Failure, Outcome, arguments};
use crate::client::{Error, frames};
use crate::limits;
use crate::message::ChannelName;

/// Receive the messages of one or more channels
///
/// Prints one message a line, or runs a command for each. A message is confirmed when its line has been written or its command has
/// ended with 0, so nothing is lost when this is killed. A lost connection is made again, without end; only the first has to succeed.
/// Ctrl-C (or SIGTERM) lets running commands finish.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb receive sms
  wsmb receive sms --count 1 --raw
  wsmb receive sms --exec 'gammu sendsms TEXT \"$WSMB_receiver\" -text \"$WSMB_message\"'

A command gets the message on its standard input, and every field of it that is a text, a number, true or false as WSMB_field
(what is not a letter or a digit becomes _); WSMB_CHANNEL is the channel, WSMB_REDELIVERED is 1 if the message may have come
before. Put the variables in double quotes: then nothing in a message can become a part of your command. A message whose command fails
is tried again after half a second, then after longer and longer pauses; channel_defaults.max_deliveries in the broker's configuration
bounds how often.")]
pub(crate) struct Receive {
    /// The channels
    #[arg(required = true, value_parser = arguments::channel)]
    channels: Vec<ChannelName>,

    /// Run this shell command for each message: exit code 0 confirms the message, any other gives it back, to be tried again
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// How many commands run at once
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::EXEC_WORKERS)))]
    workers: u32,

    /// End after so many messages (messages that were sent together are never taken apart)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// A name for this receiver: a new one with the same name takes the old one's place at once
    #[arg(long, value_name = "ID", value_parser = arguments::name)]
    receiver: Option<String>,

    /// Give a message that is a JSON string as its text, without quotes and escapes
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Print objects with channel, redelivered and message
    #[arg(long, conflicts_with = "exec")]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Receive {
    pub(crate) async fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let stop =
            Stop::listen().map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))?;
        if self.channels.len() > limits::SUBSCRIPTIONS {
            return Err(Failure::misuse(format_args!("at most {} channels at once", limits::SUBSCRIPTIONS)));
        }
        let channels = self.channels.iter().map(ChannelName::as_str);
        let subscription = frames::receive_message(channels, self.prefetch(), self.receiver.as_deref());
        let mut waiting = stop.clone();
        let link = tokio::select! {
            link = Link::connect(url, options, subscription) => link?,
            () = waiting.asked() => return Ok(()),
        };
        if Style::stderr().is_terminal() {
            let names: Vec<&str> = self.channels.iter().map(ChannelName::as_str).collect();
            output::note(&Style::stderr().dim(format_args!("receiving from {}; Ctrl-C stops", names.join(", "))));
        }
        let worker = Worker::new(self.exec.clone(), self.raw, self.json, stop.clone());
        let workers = usize::try_from(self.workers).unwrap_or(1);
        let run = Run {
            link,
            worker,
            workers,
            count: self.count,
            stop,
            running: JoinSet::new(),
            started: 0,
            done: 0,
            back: 0,
        };
        run.run(self.receiver.as_deref()).await
    }

    /// A command takes long next to a round trip, so no more is taken than is worked on, and a message whose command fails
    /// is the next one again. Printing is quick, and takes what the broker gives.
    fn prefetch(&self) -> u32 {
        let most = if self.exec.is_some() { self.workers } else { limits::PREFETCH };
        self.count.map_or(most, |count| u32::try_from(count).unwrap_or(u32::MAX).min(most))
    }
}

/// The loop of one `receive`.
struct Run {
    link: Link,
    worker: Worker,
    workers: usize,
    count: Option<u64>,
    stop: Stop,
    running: JoinSet<Result<Done, Failure>>,
    /// Messages that were given to a worker.
    started: u64,
    /// Messages that were done with.
    done: u64,
    /// Messages that were given back.
    back: u64,
}

impl Run {
    async fn run(mut self, receiver: Option<&str>) -> Outcome {
        let outcome = loop {
            let stopping = self.stop.is_asked() || self.is_enough();
            if stopping && self.running.is_empty() {
                break Ok(());
            }
            if !stopping {
                self.start();
            }
            tokio::select! {
                biased;
                () = self.stop.asked(), if !stopping => {}
                Some(result) = self.running.join_next(), if !self.running.is_empty() => {
                    match result.map_err(Failure::failed).and_then(|done| done) {
                        Ok(done) => self.finished(&done)?,
                        Err(failure) => break Err(failure),
                    }
                }
                taken = self.link.take() => match taken {
                    Taken::Something => {}
                    Taken::Replaced => {
                        let name = receiver.unwrap_or_default();
                        break Err(Failure::failed(format_args!("another receiver named {name} has taken this one's place")));
                    }
                    Taken::Refused(reason) => break Err(Failure::Failed(reason)),
                },
            }
        };
        self.link.close().await;
        match outcome {
            // Whoever read our output has gone (`| head`): that is an end, not a failure. What was not written was not acknowledged.
            Err(Failure::Said) => Ok(()),
            other => other,
        }
    }

    fn is_enough(&self) -> bool {
        self.count.is_some_and(|count| self.done >= count)
    }

    /// Gives what waits to the workers that are free.
    fn start(&mut self) {
        while self.running.len() < self.workers {
            let under_way = self.started - self.done - self.back;
            let wanted = self.count.map(|count| count.saturating_sub(self.done + under_way));
            let items = if self.worker.prints() { self.take_all(wanted) } else { self.take_one(wanted) };
            if items.is_empty() {
                return;
            }
            self.started += items.iter().map(Item::messages).sum::<u64>();
            let worker = self.worker.clone();
            self.running.spawn(async move { worker.work(items).await });
        }
    }

    fn take_one(&mut self, wanted: Option<u64>) -> Vec<Item> {
        if wanted == Some(0) { Vec::new() } else { self.link.pop().into_iter().collect() }
    }

    /// Everything that waits, for one write.
    fn take_all(&mut self, wanted: Option<u64>) -> Vec<Item> {
        let mut items = Vec::new();
        let mut messages = 0;
        while wanted.is_none_or(|wanted| messages < wanted) {
            let Some(item) = self.link.pop() else { break };
            messages += item.messages();
            items.push(item);
        }
        items
    }

    fn finished(&mut self, done: &Done) -> Outcome {
        for (item, success) in &done.items {
            if *success {
                self.done += item.messages();
            } else {
                self.back += item.messages();
            }
            self.link.acknowledge(item, *success)?;
        }
        Ok(())
    }
}

/// A receiver with our name has come: taking the place back would only start a quarrel.
fn is_replaced(error: &Error) -> bool {
    matches!(error, Error::Closed { code: Some(1008), reason } if reason == "replaced")
}

#[cfg(test)]
mod tests;
