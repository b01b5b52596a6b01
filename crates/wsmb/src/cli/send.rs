//! `wsmb send`: sends messages to a channel, and waits until the broker has accepted each one.
//!
//! Every message is a publication with an id. So exit code 0 means that the broker has accepted the message, and a repetition after a lost connection is not
//! delivered twice. The number and the bytes of unanswered messages are bounded. A refused message never stops the rest of a batch.

mod ids;
mod input;
mod rejects;
mod tally;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use tokio::time::Instant;

use self::ids::{content_id, random_prefix};
use self::input::{InputLine, Lines};
use self::rejects::Rejects;
use self::tally::{Progress, SendResult, Tally};
use super::connect::Connect;
use super::output::{self, count};
use super::signals::Stop;
use super::{Failure, Outcome, arguments};
use crate::limits;
use wsmb_client::frames::{self, Frame, SendMessage};
use wsmb_client::{Backoff, Client, Error, Message, Options, Url};
use wsmb_core::message::ChannelName;

/// Send messages to a channel, and wait until the broker has accepted them
///
/// If the broker cannot be reached, or the connection is lost, this command tries again until --timeout is over. It uses the same ids, so that no message is
/// delivered twice.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb send sms '{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}' --ttl 60s
  wsmb send sms - --rejects refused.txt < messages.jsonl
  wsmb send sms - < refused.txt

Exit codes:
  0  every message was accepted: it is stored, sent to a receiver, held until it is due (--delay), or was accepted before (the same id)
  1  a message was refused, or it is unknown whether it was accepted
  2  the arguments are invalid; nothing was sent
  3  a message reached no receiver, and its channel keeps no messages")]
pub(crate) struct Send {
    /// Channel
    #[arg(value_parser = arguments::channel)]
    channel: ChannelName,

    /// Message; text that is not JSON is sent as a JSON string. With "-": each line of standard input is a message; empty lines are skipped
    #[arg(allow_negative_numbers = true)]
    message: String,

    /// Time to live: the broker never delivers the message later (60, 60s, 5m30s; 0 = never expires) [default: the ttl of the channel]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    ttl: Option<Duration>,

    /// Deliver the message after this time
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    delay: Option<Duration>,

    /// Deliver the message to this number of receivers; 0 = all [default: the receivers of the channel]
    #[arg(long, value_name = "N")]
    receivers: Option<u32>,

    /// Id of the message; a second message with this id within two minutes counts as a repetition, and is not delivered [default: random]
    #[arg(long, value_name = "ID", value_parser = arguments::name, conflicts_with = "id_from_content")]
    id: Option<String>,

    /// Compute the id from the channel and the message; the same message within two minutes counts as a repetition, and is not delivered
    ///
    /// The id is a hash (SHA-256) of the channel and the bytes of the message. Blanks in JSON change the id; --ttl, --delay and --receivers do not. Two equal
    /// lines of a batch are one message.
    #[arg(long)]
    id_from_content: bool,

    /// Send every message as a JSON string; without this option, a message that begins with { or [ and is not JSON is refused
    #[arg(long)]
    text: bool,

    /// Write each refused message and its reason into this file; to send these messages again: wsmb send CHANNEL - < FILE
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,

    /// Wait at most this time for a connection and for an answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = arguments::send_timeout)]
    timeout: Duration,

    /// Print each answer of the broker, one JSON object per line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Send {
    pub(crate) async fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let is_batch = self.message == "-";
        if is_batch && self.id.is_some() {
            return Err(Failure::misuse(
                "--id is for one message; with - each line gets a random id, or the id of its content with --id-from-content",
            ));
        }
        if !is_batch {
            // An invalid argument must be reported before anything is sent.
            self.message_of(self.message.trim_start_matches('\u{feff}')).map_err(Failure::Misuse)?;
        }
        let stop =
            Stop::listen().map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))?;
        let rejects = self.rejects.as_deref().map(Rejects::open).transpose()?;
        let lines = if is_batch { input::read_lines() } else { input::one_line(&self.message) };
        let run = SendLoop {
            settings: &self,
            url,
            options,
            prefix: random_prefix()?,
            is_batch,
            unanswered: VecDeque::new(),
            line: 0,
            smallest_refused: usize::MAX,
            tally: Tally::default(),
            rejects,
            progress: Progress::new(is_batch && !self.json),
            stop,
        };
        run.run(lines).await
    }

    /// Returns the JSON to send for a text.
    ///
    /// # Errors
    /// The text begins like a JSON object or list, but is not valid JSON.
    fn message_of(&self, text: &str) -> Result<Box<RawValue>, String> {
        if self.text {
            return Ok(frames::string(text));
        }
        match serde_json::from_str::<&RawValue>(text) {
            Ok(json) => Ok(json.to_owned()),
            Err(error) if text.trim_start().starts_with(['{', '[']) => {
                Err(format!("the message looks like JSON, but it is not: {error}; --text sends it as a JSON string"))
            }
            Err(_) => Ok(frames::string(text)),
        }
    }
}

/// A sent publication without an answer.
struct Pending {
    id: String,
    line: u64,
    frame: String,
    /// The line as it was read, if there is a rejects file.
    text: Option<String>,
    /// Whether the publication was sent before, on a connection that was lost.
    is_repeated: bool,
}

struct SendLoop<'a> {
    settings: &'a Send,
    url: Url,
    options: Options,
    prefix: String,
    is_batch: bool,
    unanswered: VecDeque<Pending>,
    /// The number of the last line that was read.
    line: u64,
    /// The size of the smallest frame that the broker has refused as too large, in bytes.
    smallest_refused: usize,
    tally: Tally,
    rejects: Option<Rejects>,
    progress: Progress,
    stop: Stop,
}

impl SendLoop<'_> {
    async fn run(mut self, mut lines: Lines) -> Outcome {
        let mut client = self.connect(None, self.deadline()).await?;
        let mut stop = self.stop.clone();
        let (mut input_ended, mut interrupted) = (false, false);
        let mut give_up = self.deadline();
        self.progress.start();
        while !(input_ended && self.unanswered.is_empty()) {
            let room = self.unanswered.len() < limits::SEND_UNANSWERED && client.queued() < limits::SEND_QUEUE_BYTES;
            tokio::select! {
                () = stop.requested(), if !interrupted => {
                    (input_ended, interrupted) = (true, true);
                    give_up = give_up.min(Instant::now() + limits::SEND_STOP);
                }
                line = lines.recv(), if room && !input_ended => match line {
                    Some(Ok(line)) => {
                        if self.unanswered.is_empty() {
                            give_up = self.deadline();
                        }
                        self.publish(&mut client, line)?;
                    }
                    Some(Err(reason)) => return Err(self.stopped(&reason)),
                    None => input_ended = true,
                },
                message = client.next() => match message {
                    Ok(message) => {
                        if self.answered(&message)? && !interrupted {
                            give_up = self.deadline();
                        }
                    }
                    Err(error) => {
                        if self.unanswered.is_empty() {
                            give_up = self.deadline();
                        }
                        client = self.reconnect(error, give_up).await?;
                    }
                },
                () = tokio::time::sleep_until(give_up), if !self.unanswered.is_empty() => {
                    return Err(self.stopped(self.no_answer()));
                }
            }
        }
        // A failed close changes nothing: every message is answered.
        let _ = client.close().await;
        if self.stop.is_requested() { Err(self.stopped(INTERRUPTED)) } else { self.summary() }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    fn no_answer(&self) -> String {
        if self.stop.is_requested() {
            INTERRUPTED.to_owned()
        } else {
            format!("no answer from the broker within {} seconds", self.settings.timeout.as_secs_f64())
        }
    }

    fn publish(&mut self, client: &mut Client, line: InputLine) -> Outcome {
        self.line = line.number;
        let text = match line.text {
            Ok(text) => text,
            Err(unusable) => return self.refuse(line.number, &unusable.reason, unusable.bytes.as_deref()),
        };
        let message = match self.settings.message_of(&text) {
            Ok(message) => message,
            Err(reason) => return self.refuse(line.number, &reason, Some(text.as_bytes())),
        };
        let id = self.id(line.number, &message);
        let frame = SendMessage::new(self.settings.channel.as_str(), &message)
            .id(&id)
            .ttl(self.settings.ttl)
            .delay(self.settings.delay)
            .receivers(self.settings.receivers)
            .to_json();
        if frame.len() >= self.smallest_refused {
            return self.refuse(line.number, &too_large(frame.len()), Some(text.as_bytes()));
        }
        client.queue_text(&frame)?;
        let text = self.rejects.is_some().then_some(text);
        self.unanswered.push_back(Pending { id, line: line.number, frame, text, is_repeated: false });
        Ok(())
    }

    fn id(&self, line: u64, message: &RawValue) -> String {
        match &self.settings.id {
            Some(id) => id.clone(),
            None if self.settings.id_from_content => content_id(&self.settings.channel, message),
            None => format!("{}-{line}", self.prefix),
        }
    }

    /// Processes a frame from the broker. Returns whether the frame answers a publication.
    fn answered(&mut self, message: &Message) -> Result<bool, Failure> {
        let Frame::Reply(reply) = frames::parse(&message.payload).map_err(Failure::failed)? else {
            // A delivery, which only a receiver gets.
            return Ok(false);
        };
        let position = reply.id.as_deref().and_then(|id| self.unanswered.iter().position(|pending| pending.id == id));
        let Some(pending) = position.and_then(|position| self.unanswered.remove(position)) else {
            if reply.command.as_deref() == Some("connect") && reply.is_accepted() {
                return Ok(false);
            }
            return Err(self.stopped(format_args!("the broker answered: {} {}", reply.code, reply.text)));
        };
        if self.settings.json {
            output::line(message.as_text().unwrap_or_default())?;
        }
        let result = SendResult::of(&reply, self.settings.delay, pending.is_repeated);
        if result == SendResult::Refused {
            self.refused(
                pending.line,
                &format!("{} {}", reply.code, reply.text),
                pending.text.as_deref().map(str::as_bytes),
            )?;
        } else {
            self.tally.count(result);
            if !self.is_batch && !self.settings.json {
                output::line(&result.to_string())?;
            }
        }
        self.progress.show(&self.tally);
        Ok(true)
    }

    /// Reports a message that is refused before it is sent.
    fn refuse(&mut self, line: u64, reason: &str, text: Option<&[u8]>) -> Outcome {
        if self.settings.json {
            output::line(&serde_json::json!({ "line": line, "error": reason }).to_string())?;
        }
        self.refused(line, reason, text)
    }

    fn refused(&mut self, line: u64, reason: &str, text: Option<&[u8]>) -> Outcome {
        self.tally.count(SendResult::Refused);
        let kept = self.rejects.as_mut().map_or(Ok(()), |rejects| rejects.add(line, reason, text));
        let place = if self.is_batch { format!("line {line}: ") } else { String::new() };
        if self.tally.refused <= limits::SEND_REFUSALS_SHOWN {
            self.progress.suspend(|| output::print_error(&format!("{place}refused: {reason}")));
        }
        // A rejects file must contain every refused message, so a failed write ends the command.
        kept.map_err(|error| self.stopped(error))
    }

    /// Reconnects, and sends the unanswered publications again with the same ids.
    async fn reconnect(&mut self, error: Error, give_up: Instant) -> Result<Client, Failure> {
        match error {
            Error::Closed { code: Some(1009), .. } if !self.unanswered.is_empty() => {
                self.refuse_largest()?;
                return self.connect(None, self.deadline()).await;
            }
            // The same frames would end the next connection, too.
            Error::Closed { code: Some(1002..=1011), .. } => return Err(self.stopped(error)),
            _ => {}
        }
        self.connect(Some(error), give_up).await
    }

    /// Refuses the largest unanswered publication: the broker has closed the connection because of a too large frame, and does not say which one.
    fn refuse_largest(&mut self) -> Outcome {
        let largest = (0..self.unanswered.len()).max_by_key(|index| self.unanswered[*index].frame.len());
        let Some(pending) = largest.and_then(|index| self.unanswered.remove(index)) else { return Ok(()) };
        self.smallest_refused = pending.frame.len();
        self.refuse(pending.line, &too_large(pending.frame.len()), pending.text.as_deref().map(str::as_bytes))
    }

    /// Connects, and retries with back-off until `give_up`. `failed`: why the previous connection ended.
    async fn connect(&mut self, failed: Option<Error>, give_up: Instant) -> Result<Client, Failure> {
        /// The shortest timeout of an attempt: less time is not enough for a handshake.
        const SHORTEST: Duration = Duration::from_secs(1);
        let mut backoff = Backoff::new(limits::RECONNECT_FIRST, limits::SEND_RECONNECT_LONGEST);
        let mut stop = self.stop.clone();
        let mut reason = failed;
        let mut is_logged = false;
        loop {
            if let Some(error) = &reason {
                let left = give_up.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(self.stopped(error));
                }
                if !std::mem::replace(&mut is_logged, true) {
                    let seconds = left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
                    let text = format!("wsmb: {error}; trying again for {}", count(seconds, "second"));
                    self.progress.suspend(|| output::note(&text));
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.failed().min(left)) => {}
                    () = stop.requested() => return Err(self.stopped(INTERRUPTED)),
                }
            }
            let left = give_up.saturating_duration_since(Instant::now()).max(SHORTEST);
            let options = Options { connect_timeout: self.options.connect_timeout.min(left), ..self.options.clone() };
            let connected = tokio::select! {
                connected = Client::connect(&self.url, &options) => connected,
                () = stop.requested() => return Err(self.stopped(INTERRUPTED)),
            };
            match connected {
                Ok(mut client) => {
                    for pending in &mut self.unanswered {
                        pending.is_repeated = true;
                        client.queue_text(&pending.frame)?;
                    }
                    return Ok(client);
                }
                Err(refusal) if refusal.is_refusal() => return Err(self.stopped(refusal)),
                Err(again) => reason = Some(again),
            }
        }
    }

    /// Returns the failure for an early end: the reason, the counts so far, and the messages whose state is unknown.
    fn stopped(&self, reason: impl fmt::Display) -> Failure {
        self.progress.end();
        let unanswered = self.unanswered.len() as u64;
        let first = self.unanswered.iter().map(|pending| pending.line).min();
        if !self.is_batch {
            return match first {
                Some(_) => Failure::failed(format_args!("{reason}; the message may or may not have been accepted")),
                None => Failure::failed(reason),
            };
        }
        if self.line == 0 {
            return Failure::failed(format_args!("{reason}; nothing was sent"));
        }
        let accepted = count(self.tally.accepted(), "message");
        let refused = if self.tally.refused > 0 { format!(", {} refused", self.tally.refused) } else { String::new() };
        let uncertain = match first {
            Some(first) => {
                format!(", {} from line {first} on may or may not have been accepted", count(unanswered, "message"))
            }
            None => String::new(),
        };
        Failure::failed(format_args!(
            "{reason}; {accepted} accepted{refused}{uncertain}; no line after line {} was sent",
            self.line
        ))
    }

    fn summary(&self) -> Outcome {
        self.progress.end();
        if self.is_batch && !self.settings.json {
            output::line(&self.tally.to_string())?;
        }
        if self.rejects.is_none() && self.tally.refused > limits::SEND_REFUSALS_SHOWN {
            let rest = self.tally.refused - limits::SEND_REFUSALS_SHOWN;
            output::note(&format!(
                "wsmb: {} more refused; --rejects FILE writes all of them into a file",
                count(rest, "message")
            ));
        }
        match (self.tally.refused, self.tally.no_receiver) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::NoReceiver),
            (_, _) => Err(Failure::Reported),
        }
    }
}

/// The reason if a signal ends the command.
const INTERRUPTED: &str = "stopped by a signal";

fn too_large(bytes: usize) -> String {
    format!("too large: the frame of the message has {bytes} bytes, more than the broker accepts (server.max_message)")
}
