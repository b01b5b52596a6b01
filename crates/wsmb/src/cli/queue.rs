//! `wsmb queue`: lists, shows, exports, removes and moves the messages in the store of a stopped broker.
//!
//! `copy` copies all messages to another store; `requeue` moves dead letters back. Never opens the store of a running broker.

mod copy;
mod requeue;
mod stopped;

use std::io::{BufRead, IsTerminal};
use std::time::SystemTime;

use base64::Engine as _;
use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use super::output::{self, Style, count};
use super::settings::Settings;
use super::{Failure, Outcome, arguments};
use wsmb_core::message::{ChannelName, DeadLetter, Kind, Message, MessageId, Timestamp, Why};
use wsmb_protocol::envelope::iso8601;
use wsmb_store::{ChannelInfo, Tools};

/// List, show, export, remove or move the messages in the store of a stopped broker
///
/// Uses the configured store. Stop the broker first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb queue list
  wsmb queue peek sms
  wsmb queue export sms > sms.jsonl
  wsmb queue purge sms
  wsmb queue requeue dead
  wsmb queue copy --from sqlite:old.db --to sqlite:new.db")]
pub(crate) struct Queue {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Peek(Peek),
    Purge(Purge),
    Export(Export),
    Requeue(requeue::Requeue),
    Copy(copy::Copy),
}

/// List the channels that have waiting messages
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb queue list --json")]
struct List {
    /// Channel [default: all channels]
    #[arg(value_parser = arguments::channel)]
    channel: Option<ChannelName>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Show the oldest messages of a channel without removing them
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb queue peek sms --count 3")]
struct Peek {
    /// Channel
    #[arg(value_parser = arguments::channel)]
    channel: ChannelName,
    /// Show at most this number of messages
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Remove all waiting messages of a channel
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb queue purge sms --yes")]
struct Purge {
    /// Channel
    #[arg(value_parser = arguments::channel)]
    channel: ChannelName,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Write the waiting messages to standard output, one JSON object per line
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  wsmb queue export > backup.jsonl")]
struct Export {
    /// Channel [default: all channels]
    #[arg(value_parser = arguments::channel)]
    channel: Option<ChannelName>,
    #[command(flatten)]
    settings: Settings,
}

impl Queue {
    pub(crate) fn run(&self) -> Outcome {
        let outcome = match &self.action {
            Action::List(list) => list.run(),
            Action::Peek(peek) => peek.run(),
            Action::Purge(purge) => purge.run(),
            Action::Export(export) => export.run(),
            Action::Requeue(requeue) => requeue.run(),
            Action::Copy(copy) => copy.run(),
        };
        match outcome {
            // The reader has closed the pipe (`| head`), which is no failure.
            Err(Failure::Reported) => Ok(()),
            other => other,
        }
    }
}

/// Opens the configured store, runs `work` on it, and closes it.
fn with_store<T>(settings: &Settings, work: impl FnOnce(&mut dyn Tools) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut store = stopped::open(&settings.load(&[])?)?;
    let outcome = work(&mut store);
    let closed = store.close().map_err(Failure::failed);
    outcome.and_then(|value| closed.map(|()| value))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl List {
    fn run(&self) -> Outcome {
        let mut channels = with_store(&self.settings, |store| store.channels().map_err(Failure::failed))?;
        channels.retain(|info| self.channel.as_ref().is_none_or(|wanted| *wanted == info.channel));
        if self.json {
            for info in &channels {
                let object = serde_json::json!({
                    "channel": info.channel.as_str(), "messages": info.messages, "bytes": info.bytes,
                    "oldest": iso8601(info.oldest),
                });
                output::line(&object.to_string())?;
            }
            return Ok(());
        }
        if channels.is_empty() {
            return output::line("no messages are waiting");
        }
        let width = channels.iter().map(|info| info.channel.as_str().chars().count()).max().unwrap_or(0).max(7);
        let style = Style::stdout();
        output::line(&style.dim(format_args!("{:width$}  {:>10}  {:>10}  oldest", "channel", "messages", "size")))?;
        channels.iter().try_for_each(|info| output::line(&row(info, width, now())))
    }
}

fn row(info: &ChannelInfo, width: usize, now: Timestamp) -> String {
    let (name, messages, size) = (output::printable(info.channel.as_str()), info.messages, bytes(info.bytes));
    format!("{name:width$}  {messages:>10}  {size:>10}  {} ago", elapsed(info.oldest, now))
}

impl Peek {
    fn run(&self) -> Outcome {
        let page = with_store(&self.settings, |store| {
            store.peek(&self.channel, usize::from(self.count)).map_err(Failure::failed)
        })?;
        if self.json {
            return page.messages.iter().try_for_each(|message| output::line(&export_line(message)));
        }
        if page.messages.is_empty() {
            return output::line(&format!("no messages are waiting in {}", self.channel));
        }
        let (style, now) = (Style::stdout(), now());
        for message in &page.messages {
            let heading = format!("#{} {}", message.id.0, state(message, now));
            output::line(&format!("{}  {}", style.dim(heading), payload_line(message)))?;
        }
        if !page.complete {
            output::line(&style.dim("there are more messages; `wsmb queue list` shows how many"))?;
        }
        Ok(())
    }
}

/// Describes a message: age, expiry, due time, deliveries, and why it is a dead letter.
fn state(message: &Message, now: Timestamp) -> String {
    let mut text = format!("{} ago", elapsed(message.created, now));
    match message.expires {
        Some(expires) if expires <= now => text.push_str(", expired"),
        Some(expires) => text.push_str(&format!(", expires in {}", elapsed(now, expires))),
        None => {}
    }
    if let Some(due) = message.due.filter(|due| *due > now) {
        text.push_str(&format!(", due in {}", elapsed(now, due)));
    }
    if message.deliveries > 0 {
        text.push_str(&format!(", delivered {}", count(u64::from(message.deliveries), "time")));
    }
    if let Some(dead) = &message.dead {
        text.push_str(&dead_letter_text(dead));
    }
    text
}

/// Describes why a message is a dead letter, and the channel that it comes from.
fn dead_letter_text(dead: &DeadLetter) -> String {
    let why = match dead.why {
        Why::MaxDeliveries => "given up",
        Why::Rejected => "rejected",
        Why::Expired => "expired",
    };
    let (channel, attempts) = (output::printable(dead.channel.as_str()), u64::from(dead.attempts));
    let reason =
        dead.reason.as_ref().map(|reason| format!(": {}", output::printable(&reason.replace(['\n', '\r'], " "))));
    format!(", {why} in {channel} after {}{}", count(attempts, "attempt"), reason.unwrap_or_default())
}

/// Returns the message as one line, with escaped control characters.
fn payload_line(message: &Message) -> String {
    match message.payload.as_text() {
        Some(text) => output::printable(&text.replace(['\n', '\r'], " ")),
        None => format!("({} bytes of binary data)", message.payload.bytes.len()),
    }
}

impl Purge {
    fn run(&self) -> Outcome {
        let channel = &self.channel;
        let removed = with_store(&self.settings, |store| {
            if !self.yes {
                let channels = store.channels().map_err(Failure::failed)?;
                let waiting = channels.iter().find(|info| info.channel == *channel).map_or(0, |info| info.messages);
                if !self.confirmed(waiting)? {
                    return Err(Failure::failed("nothing was removed"));
                }
            }
            store.purge(channel).map_err(Failure::failed)
        })?;
        if self.json {
            let object = serde_json::json!({ "channel": channel.as_str(), "by": "command", "removed": removed });
            return output::line(&object.to_string());
        }
        output::line(&format!("removed {} from {channel}", count(removed, "message")))
    }

    fn confirmed(&self, waiting: u64) -> Result<bool, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::misuse(
                "there is no terminal to ask for confirmation; add --yes to remove the messages",
            ));
        }
        output::note(&format!(
            "This removes {} from {} for ever. Type yes to continue:",
            count(waiting, "message"),
            self.channel
        ));
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(Failure::failed)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

impl Export {
    fn run(&self) -> Outcome {
        with_store(&self.settings, |store| {
            let is_wanted =
                |message: &&Message| self.channel.as_ref().is_none_or(|channel| message.channel == *channel);
            let mut after = MessageId(0);
            loop {
                let page = store.scan(after).map_err(Failure::failed)?;
                page.messages.iter().filter(is_wanted).try_for_each(|message| output::line(&export_line(message)))?;
                match page.messages.last() {
                    Some(last) if !page.complete => after = last.id,
                    _ => return Ok(()),
                }
            }
        })
    }
}

/// Returns a message with all its properties as one line of JSON. The payload is in `message` if it is JSON, else in `text`, else in `base64`.
fn export_line(message: &Message) -> String {
    #[derive(serde::Serialize)]
    struct Dead<'a> {
        why: &'a str,
        channel: &'a str,
        attempts: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    }
    #[derive(serde::Serialize)]
    struct Exported<'a> {
        id: u64,
        channel: &'a str,
        created: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        due: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        receivers: Option<u32>,
        deliveries: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        dead_letter: Option<Dead<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    }
    let text = message.payload.as_text().filter(|_| message.payload.kind == Kind::Text);
    // In JSON a line break can only stand between tokens, where a blank has the same meaning.
    let joined = text.map(|text| text.replace(['\n', '\r'], " "));
    let json = joined.as_deref().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let line = Exported {
        id: message.id.0,
        channel: message.channel.as_str(),
        created: iso8601(message.created),
        expires: message.expires.map(iso8601),
        due: message.due.map(iso8601),
        receivers: message.receivers,
        deliveries: message.deliveries,
        dead_letter: message.dead.as_ref().map(|dead| Dead {
            why: dead.why.as_str(),
            channel: dead.channel.as_str(),
            attempts: dead.attempts,
            reason: dead.reason.as_deref(),
        }),
        message: json,
        text: text.filter(|_| json.is_none()),
        base64: text.is_none().then(|| base64::engine::general_purpose::STANDARD.encode(&message.payload.bytes)),
    };
    // invariant: every member is a string, a number or valid JSON, so the serialization cannot fail
    serde_json::to_string(&line).expect("plain values")
}

/// Returns the time between two moments in seconds, minutes, hours or days.
fn elapsed(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.since(from).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Returns a number of bytes in B, KiB or MiB.
fn bytes(number: u64) -> String {
    match number {
        0..10_240 => format!("{number} B"),
        10_240..10_485_760 => format!("{} KiB", number / 1_024),
        _ => format!("{} MiB", number / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_core::message::Payload;

    fn message(payload: Payload) -> Message {
        Message {
            id: MessageId(7),
            channel: ChannelName::parse("sms").unwrap(),
            payload,
            created: Timestamp(0),
            expires: Some(Timestamp(60_000)),
            due: None,
            receivers: None,
            publication: None,
            deliveries: 2,
            dead: None,
        }
    }

    #[test]
    fn an_exported_message_is_one_line_with_all_properties() {
        let line = export_line(&message(Payload::text("{\"a\":\n 1.50}")));
        assert_eq!(
            line,
            r#"{"id":7,"channel":"sms","created":"1970-01-01T00:00:00.000Z","expires":"1970-01-01T00:01:00.000Z","deliveries":2,"message":{"a":  1.50}}"#
        );
        assert!(export_line(&message(Payload::text("not\njson"))).ends_with(r#""text":"not\njson"}"#));
        let binary = Payload { bytes: vec![0, 255].into(), kind: Kind::Binary };
        assert!(export_line(&message(binary)).ends_with(r#""base64":"AP8="}"#));
    }

    #[test]
    fn a_shown_message_has_no_control_characters() {
        let text = payload_line(&message(Payload::text("a\u{1b}[31m\u{9b}b\nc")));
        assert_eq!(text, "a\\u{1b}[31m\\u{9b}b c");
    }

    #[test]
    fn the_state_has_age_expiry_and_deliveries() {
        assert_eq!(
            state(&message(Payload::text("x")), Timestamp(10_000)),
            "10 s ago, expires in 50 s, delivered 2 times"
        );
        assert_eq!(state(&message(Payload::text("x")), Timestamp(60_000)), "60 s ago, expired, delivered 2 times");
    }

    #[test]
    fn ages_and_sizes_have_fitting_units() {
        let ages = [0, 119, 120, 7_200, 172_800].map(|seconds| elapsed(Timestamp(0), Timestamp(seconds * 1_000)));
        assert_eq!(ages, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
        assert_eq!([10, 10_240, 10_485_760].map(bytes), ["10 B", "10 KiB", "10 MiB"]);
    }
}
