//! `wsmb send`: gives messages to a channel and waits until each is safe.
//!
//! Every message is a publication with a random id, so the exit code 0 means that the broker answers for it, and a repetition after a lost
//! connection doubles nothing. What is unanswered is bounded by number and by bytes.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connect::Connect;
use super::output::{self, count};
use super::{Failure, Outcome, arguments};
use crate::client::frames::{self, Frame, Reply, SendMessage};
use crate::client::{Backoff, Client, Error, Message, Options, Url};
use crate::limits;
use crate::message::ChannelName;

/// Send messages to a channel, and wait until the broker answers for them
///
/// Exit codes: 0, every message is safe: stored, or confirmed by a receiver, or, on a channel that is not kept, sent to a receiver. 1, a message was
/// refused, or it is not known what became of it. 2, misuse. 3, a message went to nobody: its channel is not kept and has no receiver. After a lost connection
/// messages are sent again under the same ids, so nothing arrives twice.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb send sms '{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}' --ttl 60s
  cat messages.jsonl | wsmb send sms -")]
pub(crate) struct Send {
    /// The channel
    #[arg(value_parser = arguments::channel)]
    channel: ChannelName,

    /// The message; text that is not JSON is sent as a JSON string. `-`: one message a line from standard input, empty lines passed over
    #[arg(allow_negative_numbers = true)]
    message: String,

    /// Never deliver it later than this (60s, 5m, 2h; 0 = it never expires) [default: as the channel is configured]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    ttl: Option<Duration>,

    /// Do not deliver it before this has passed
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    delay: Option<Duration>,

    /// To how many receivers; 0 = all [default: as the channel is configured]
    #[arg(long, value_name = "N")]
    receivers: Option<u32>,

    /// Your own id for the message: the broker takes a second one with it, within two minutes, for a repetition [default: random]
    #[arg(long, value_name = "ID", value_parser = arguments::name)]
    id: Option<String>,

    /// How long to wait for an answer, lost connections included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = arguments::send_timeout)]
    timeout: Duration,

    /// Print every answer of the broker as it stands, one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Send {
    pub(crate) async fn run(self) -> Outcome {
        let (url, options) = self.connect.resolve()?;
        let many = self.message == "-";
        if many && self.id.is_some() {
            return Err(Failure::misuse("--id names one message; with `-` every line gets an id of its own"));
        }
        let lines = if many { read_lines() } else { one_line(self.message.clone()) };
        let client = Client::connect(&url, &options).await?;
        let run = Run {
            settings: &self,
            url,
            options,
            prefix: random_prefix()?,
            many,
            unanswered: VecDeque::new(),
            lines_read: 0,
            tally: Tally::default(),
            progress: ProgressBar::hidden(),
            started: Instant::now(),
        };
        run.run(client, lines).await
    }
}

/// A publication on its way.
struct Pending {
    id: String,
    line: u64,
    frame: String,
}

/// What became of the messages.
#[derive(Default)]
struct Tally {
    given: u64,
    stored: u64,
    held: u64,
    nobody: u64,
    duplicate: u64,
    refused: u64,
}

struct Run<'a> {
    settings: &'a Send,
    url: Url,
    options: Options,
    prefix: String,
    many: bool,
    unanswered: VecDeque<Pending>,
    lines_read: u64,
    tally: Tally,
    progress: ProgressBar,
    started: Instant,
}

impl Run<'_> {
    async fn run(mut self, mut client: Client, mut lines: mpsc::Receiver<Result<String, String>>) -> Outcome {
        let mut input_ended = false;
        let mut give_up = Instant::now() + self.settings.timeout;
        while !(input_ended && self.unanswered.is_empty()) {
            let room = self.unanswered.len() < limits::SEND_UNANSWERED && client.queued() < limits::SEND_QUEUE_BYTES;
            tokio::select! {
                line = lines.recv(), if room && !input_ended => match line {
                    Some(Ok(text)) => {
                        if self.unanswered.is_empty() {
                            give_up = Instant::now() + self.settings.timeout;
                        }
                        self.publish(&mut client, &text)?;
                    }
                    Some(Err(reason)) => return Err(self.stopped(&reason)),
                    None => input_ended = true,
                },
                message = client.next() => match message {
                    Ok(message) => {
                        if self.answered(&message)? {
                            give_up = Instant::now() + self.settings.timeout;
                        }
                    }
                    Err(error) => {
                        if self.unanswered.is_empty() {
                            give_up = Instant::now() + self.settings.timeout;
                        }
                        client = self.reconnect(error, give_up).await?;
                    }
                },
                () = tokio::time::sleep_until(give_up), if !self.unanswered.is_empty() => {
                    let seconds = self.settings.timeout.as_secs_f64();
                    return Err(self.stopped(&format!("no answer from the broker within {seconds} seconds")));
                }
            }
        }
        // Everything is answered; how the goodbye goes changes nothing about it.
        let _ = client.close().await;
        self.summary()
    }

    fn publish(&mut self, client: &mut Client, text: &str) -> Outcome {
        self.lines_read += 1;
        let text = text.trim_end_matches(['\r', '\n']);
        if self.many && text.trim().is_empty() {
            return Ok(());
        }
        let id = match &self.settings.id {
            Some(id) => id.clone(),
            None => format!("{}-{}", self.prefix, self.lines_read),
        };
        let message = frames::message_of(text);
        let frame = SendMessage::new(self.settings.channel.as_str(), &message)
            .id(&id)
            .ttl(self.settings.ttl)
            .delay(self.settings.delay)
            .receivers(self.settings.receivers)
            .to_json();
        client.queue_text(&frame)?;
        self.unanswered.push_back(Pending { id, line: self.lines_read, frame });
        Ok(())
    }

    /// Takes a frame of the broker. True: it answers one of ours.
    fn answered(&mut self, message: &Message) -> Result<bool, Failure> {
        let Frame::Reply(reply) = frames::parse(&message.payload).map_err(Failure::failed)? else {
            // Only a receiver gets deliveries, and this connection is none.
            return Ok(false);
        };
        let position = reply.id.as_deref().and_then(|id| self.unanswered.iter().position(|pending| pending.id == id));
        let Some(pending) = position.and_then(|position| self.unanswered.remove(position)) else {
            if reply.command.as_deref() == Some("connect") && reply.is_accepted() {
                return Ok(false);
            }
            return Err(self.stopped(&format!("the broker says: {} {}", reply.code, reply.text)));
        };
        let fate = Fate::of(&reply, self.settings.delay);
        self.tally.count(fate);
        self.show_progress();
        if self.settings.json {
            output::line(message.as_text().unwrap_or_default())?;
        }
        if fate == Fate::Refused {
            self.refused(&pending, &reply);
        } else if !self.many && !self.settings.json {
            output::line(&fate.to_string())?;
        }
        Ok(true)
    }

    /// Moves the bar, which appears only on a terminal, and only when this takes longer than a person likes to wait.
    fn show_progress(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if self.progress.is_hidden() && self.many && !self.settings.json && self.started.elapsed() > PATIENCE {
            self.progress = progress();
            self.progress.set_position(self.tally.accepted() + self.tally.refused);
        }
        self.progress.inc(1);
    }

    fn refused(&self, pending: &Pending, reply: &Reply<'_>) {
        /// More refusals than anybody reads are counted, and not shown one by one.
        const SHOWN: u64 = 20;
        let place = if self.many { format!("line {}: ", pending.line) } else { String::new() };
        if self.tally.refused <= SHOWN {
            self.progress.suspend(|| output::complain(&format!("{place}refused: {} {}", reply.code, reply.text)));
        }
    }

    /// Connects again, and sends again what is unanswered, under the same ids.
    async fn reconnect(&self, error: Error, give_up: Instant) -> Result<Client, Failure> {
        match error {
            Error::Closed { code: Some(1009), .. } => return Err(self.stopped(&self.too_large())),
            // The same frames would end the next connection as well.
            Error::Closed { code: Some(1002..=1011), .. } => return Err(self.stopped(&error.to_string())),
            _ => {}
        }
        let mut error = error;
        let mut backoff = Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_LONGEST);
        self.progress.suspend(|| output::note(&format!("wsmb: {error}; connecting again")));
        loop {
            let wait = backoff.failed();
            if Instant::now() + wait > give_up {
                return Err(self.stopped(&error.to_string()));
            }
            tokio::time::sleep(wait).await;
            match Client::connect(&self.url, &self.options).await {
                Ok(mut client) => {
                    for pending in &self.unanswered {
                        client.queue_text(&pending.frame)?;
                    }
                    return Ok(client);
                }
                Err(refusal) if refusal.is_refusal() => return Err(self.stopped(&refusal.to_string())),
                Err(again) => error = again,
            }
        }
    }

    /// The broker does not say which of the frames was too large for it; it is likely to be the largest.
    fn too_large(&self) -> String {
        let largest = self.unanswered.iter().max_by_key(|pending| pending.frame.len());
        let place = match largest {
            Some(pending) if self.many => format!(" (line {} has {} bytes)", pending.line, pending.frame.len()),
            Some(pending) => format!(" (it has {} bytes)", pending.frame.len()),
            None => String::new(),
        };
        format!("the broker refused a message as too large{place}; its server.max_message says how much it takes")
    }

    /// It cannot go on: why, and what is not certain.
    fn stopped(&self, reason: &str) -> Failure {
        self.progress.finish_and_clear();
        let unanswered = self.unanswered.len() as u64;
        match self.unanswered.front() {
            None => Failure::failed(reason),
            Some(_) if !self.many => {
                Failure::failed(format_args!("{reason}; the message may or may not have been accepted"))
            }
            Some(first) => Failure::failed(format_args!(
                "{reason}; {} accepted, {} from line {} on may or may not have been accepted",
                count(self.tally.accepted(), "message"),
                count(unanswered, "message"),
                first.line
            )),
        }
    }

    fn summary(&self) -> Outcome {
        self.progress.finish_and_clear();
        if self.many && !self.settings.json {
            output::line(&self.tally.to_string())?;
        }
        match (self.tally.refused, self.tally.nobody) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::Nobody),
            (_, _) => Err(Failure::Said),
        }
    }
}

/// What became of a message, as its answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Duplicate,
    /// So many receivers have it.
    Given(u64),
    Stored,
    /// In the broker's memory until it is due.
    Held,
    Nobody,
}

impl Fate {
    /// `delay`: what the message was sent with.
    fn of(reply: &Reply<'_>, delay: Option<Duration>) -> Self {
        let is_delayed = delay.is_some_and(|delay| !delay.is_zero());
        match (reply.receivers, reply.stored) {
            _ if !reply.is_accepted() => Self::Refused,
            _ if reply.duplicate => Self::Duplicate,
            (receivers @ 1.., _) => Self::Given(receivers),
            (0, _) if is_delayed => Self::Held,
            (0, true) => Self::Stored,
            (0, false) => Self::Nobody,
        }
    }
}

/// For a person who has sent one message.
impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Duplicate => "accepted before: a message with this id is known, and nobody gets it again",
            Self::Given(receivers) => return write!(f, "accepted: {}", count(*receivers, "receiver")),
            Self::Stored => "accepted: stored, no receiver has it yet",
            Self::Held => "accepted: held until it is due",
            Self::Nobody => "sent to nobody: the channel is not kept and has no receiver",
        })
    }
}

impl Tally {
    fn count(&mut self, fate: Fate) {
        *match fate {
            Fate::Refused => &mut self.refused,
            Fate::Duplicate => &mut self.duplicate,
            Fate::Given(_) => &mut self.given,
            Fate::Stored => &mut self.stored,
            Fate::Held => &mut self.held,
            Fate::Nobody => &mut self.nobody,
        } += 1;
    }

    fn accepted(&self) -> u64 {
        self.given + self.stored + self.held + self.nobody + self.duplicate
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "accepted: {}", count(self.accepted(), "message"))?;
        let parts = [
            (self.given, "given to receivers"),
            (self.stored, "stored for later"),
            (self.held, "held until they are due"),
            (self.nobody, "sent to nobody: the channel is not kept and has no receiver"),
            (self.duplicate, "accepted before"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        if !parts.is_empty() {
            write!(f, " ({})", parts.join(", "))?;
        }
        if self.refused > 0 {
            write!(f, "; refused: {}", self.refused)?;
        }
        Ok(())
    }
}

/// So that no two runs ever use the same id.
fn random_prefix() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::from(Error::NoRandomness(error)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A bar that stays hidden where there is no terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} accepted, {per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn one_line(message: String) -> mpsc::Receiver<Result<String, String>> {
    let (sender, receiver) = mpsc::channel(1);
    // A new channel has room for one.
    let _ = sender.try_send(Ok(message));
    receiver
}

/// Reads standard input on a thread of its own: reading blocks, and nothing can interrupt it.
fn read_lines() -> mpsc::Receiver<Result<String, String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut number = 0_u64;
        loop {
            number += 1;
            let line = read_line(&mut input, limits::SEND_LINE).map_err(|reason| format!("line {number}: {reason}"));
            let Some(line) = line.transpose() else { return };
            let last = line.is_err();
            if sender.blocking_send(line).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// One line with its ending; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, longest: usize) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    let bound = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    let read = input.by_ref().take(bound).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    if read == 0 {
        return Ok(None);
    }
    if line.len() > longest {
        return Err(format!("it is longer than {longest} bytes"));
    }
    String::from_utf8(line).map(Some).map_err(|_| "it is not valid UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(rest: &str, delay: u64) -> Fate {
        let json = format!(r#"{{"command":"send-message","response_code":"00","id":"x",{rest}}}"#);
        match frames::parse(json.as_bytes()).unwrap() {
            Frame::Reply(reply) => Fate::of(&reply, Some(Duration::from_secs(delay))),
            Frame::Delivery(delivery) => panic!("{delivery:?}"),
        }
    }

    #[test]
    fn an_answer_is_said_in_words() {
        let answer = |rest: &str| fate(rest, 0).to_string();
        assert_eq!(answer(r#""receivers":1,"stored":true"#), "accepted: 1 receiver");
        assert_eq!(answer(r#""receivers":2,"stored":false"#), "accepted: 2 receivers");
        assert_eq!(answer(r#""receivers":0,"stored":true"#), "accepted: stored, no receiver has it yet");
        assert!(answer(r#""receivers":0,"stored":false"#).starts_with("sent to nobody"));
        assert!(answer(r#""receivers":0,"stored":true,"duplicate":true"#).contains("before"));
        assert_eq!(fate(r#""receivers":0,"stored":false"#, 5), Fate::Held, "a delayed one has time to find a receiver");
        assert_eq!(fate(r#""receivers":0,"stored":true"#, 5), Fate::Held);
    }

    #[test]
    fn a_tally_names_only_what_happened() {
        let tally = Tally { given: 2, stored: 1, ..Tally::default() };
        assert_eq!(tally.to_string(), "accepted: 3 messages (2 given to receivers, 1 stored for later)");
        let tally = Tally { refused: 4, ..Tally::default() };
        assert_eq!(tally.to_string(), "accepted: 0 messages; refused: 4");
    }

    #[test]
    fn a_line_is_bounded_and_is_text() {
        let mut input = &b"one\r\ntwo\n\nlast"[..];
        let lines: Vec<String> = std::iter::from_fn(|| read_line(&mut input, 5).unwrap()).collect();
        assert_eq!(lines, ["one\r\n", "two\n", "\n", "last"]);
        assert!(read_line(&mut &b"123456\n"[..], 5).unwrap_err().contains("longer"));
        assert!(read_line(&mut &b"\xff\n"[..], 5).unwrap_err().contains("UTF-8"));
    }
}
