//! What is done with a delivery: its lines are written, or a command is run for each of its messages.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::super::exec::{self, Job};
use super::super::output;
use super::super::signals::Stop;
use super::Failure;
use crate::client::frames::Delivery;
use crate::limits;

/// One delivery, taken from its frame.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What to acknowledge.
    pub delivery: Option<String>,
    /// The connection that it came from.
    pub generation: u64,
    channel: String,
    redelivered: bool,
    /// JSON texts.
    messages: Vec<String>,
}

impl Item {
    pub(super) fn new(delivery: &Delivery<'_>, generation: u64) -> Self {
        Self {
            delivery: delivery.delivery.as_deref().map(str::to_owned),
            generation,
            channel: delivery.channel.to_string(),
            redelivered: delivery.redelivered,
            messages: delivery.messages.iter().map(|message| message.get().to_owned()).collect(),
        }
    }

    /// How many messages it carries.
    pub(super) fn messages(&self) -> u64 {
        self.messages.len() as u64
    }
}

/// What a worker came to: each delivery, and whether it is done with (else it goes back).
pub(super) struct Done {
    pub items: Vec<(Item, bool)>,
}

/// Does the work; clones share one count of failures.
#[derive(Clone)]
pub(super) struct Worker {
    command: Option<Arc<str>>,
    raw: bool,
    json: bool,
    stop: Stop,
    failures: Arc<AtomicU32>,
}

impl Worker {
    pub(super) fn new(command: Option<String>, raw: bool, json: bool, stop: Stop) -> Self {
        Self { command: command.map(Arc::from), raw, json, stop, failures: Arc::default() }
    }

    /// It writes lines, and many deliveries at once are as good as one.
    pub(super) fn prints(&self) -> bool {
        self.command.is_none()
    }

    pub(super) async fn work(mut self, items: Vec<Item>) -> Result<Done, Failure> {
        let Some(command) = self.command.clone() else { return self.print(items).await };
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            let success = self.run_all(&command, &item).await;
            done.push((item, success));
        }
        Ok(Done { items: done })
    }

    async fn print(self, items: Vec<Item>) -> Result<Done, Failure> {
        let terminal = std::io::stdout().is_terminal();
        let mut text = String::new();
        for item in &items {
            for message in &item.messages {
                let line = self.line(item, message);
                // A file or a program gets what was sent; a terminal must not obey it.
                text.push_str(&if terminal { output::printable(&line) } else { line });
                text.push('\n');
            }
        }
        // A full pipe blocks, and pings must be answered meanwhile.
        let written = tokio::task::spawn_blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        });
        written.await.map_err(Failure::failed)?.map_err(|error| output::write_failed(&error))?;
        Ok(Done { items: items.into_iter().map(|item| (item, true)).collect() })
    }

    fn line(&self, item: &Item, message: &str) -> String {
        if self.json {
            let channel = serde_json::Value::from(item.channel.as_str());
            let message = one_line(message);
            return format!(r#"{{"channel":{channel},"redelivered":{},"message":{message}}}"#, item.redelivered);
        }
        if self.raw { plain(message) } else { one_line(message) }
    }

    /// Runs the command for each message of a delivery; the first that fails ends it, and all of it goes back.
    async fn run_all(&mut self, command: &str, item: &Item) -> bool {
        for message in &item.messages {
            let text = if self.raw { plain(message) } else { one_line(message) };
            let job = Job::new(&item.channel, item.redelivered, message, text);
            let reason = match exec::run(command, &job).await {
                Ok(status) if status.success() => continue,
                Ok(status) => format!("the command ended with {status}"),
                Err(error) => format!("the command could not be started: {error}"),
            };
            let pause = pause(self.failures.fetch_add(1, Ordering::Relaxed));
            output::note(&format!("wsmb: {reason}; the message goes back after {} s", pause.as_secs_f64()));
            // Somebody who wants to stop is not kept waiting.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.asked() => {}
            }
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        true
    }
}

/// How long a message is kept back when so many commands have failed before it without one success.
fn pause(failures: u32) -> Duration {
    limits::EXEC_PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(limits::EXEC_PAUSE_LONGEST)
}

/// The message on one line. A line break in a JSON text stands between its tokens, never inside a string: a blank means the same.
fn one_line(json: &str) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json.to_owned() }
}

/// The text of a JSON string; anything else as it stands.
fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| one_line(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fits_on_one_line_and_means_the_same() {
        let pretty = "{\n  \"a\": \"x\\ny\",\r\n  \"b\": [1]\n}";
        let line = one_line(pretty);
        assert!(!line.contains(['\n', '\r']));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(pretty));
        assert_eq!(one_line("{\"a\" : 1}"), "{\"a\" : 1}");
    }

    #[test]
    fn raw_gives_the_text_of_a_string_and_leaves_the_rest() {
        assert_eq!(plain(r#""say \"hi\" \u00e9""#), "say \"hi\" é");
        assert_eq!(plain("{\"a\":1}"), "{\"a\":1}");
    }

    #[test]
    fn a_failing_command_is_run_less_and_less_often() {
        let pauses: Vec<u128> = (0..9).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(pause(u32::MAX), limits::EXEC_PAUSE_LONGEST);
    }

    #[test]
    fn json_lines_name_the_channel() {
        let (_ask, stop) = Stop::never();
        let worker = Worker::new(None, false, true, stop);
        let item = Item {
            delivery: None,
            generation: 0,
            channel: "a\"b".to_owned(),
            redelivered: true,
            messages: vec!["{\"x\":\n1}".to_owned()],
        };
        assert_eq!(
            worker.line(&item, &item.messages[0]),
            r#"{"channel":"a\"b","redelivered":true,"message":{"x": 1}}"#
        );
    }
}
