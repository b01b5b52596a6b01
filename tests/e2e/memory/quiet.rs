//! The quiet pair: a sender and a receiver whose few kept messages must pass beside a flood, each once and in time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, PATIENCE};
use crate::client::{Client, messages_of};
use crate::raw::{Got, Head, Raw, basic, opcode};

/// The channel of the pair.
pub const CHANNEL: &str = "quiet";

/// The time from one message to the next.
const EVERY: Duration = Duration::from_millis(50);

/// A sender and a receiver that are connected.
pub struct Pair {
    sender: Client,
    receiver: Client,
    /// When each message was sent; its number is its index.
    sent: Mutex<Vec<Instant>>,
    /// Whether the sender has sent its last message.
    complete: AtomicBool,
}

/// What became of the messages of a pair.
#[derive(Default)]
pub struct Report {
    pub messages: usize,
    /// The time from the start of a send to the delivery, and to the answer 00.
    pub delivery: Vec<Duration>,
    pub reply: Vec<Duration>,
    /// Messages that were refused, lost or doubled, in words.
    pub faults: Vec<String>,
}

impl Pair {
    #[track_caller]
    pub fn connect(broker: &Broker) -> Self {
        let head = Head::new("/").modern().with("Authorization", &basic(super::QUIET, super::PASSWORD));
        let mut receiver = Client::envelope_with(broker, &head);
        receiver.subscribe(CHANNEL);
        let sender = Client::envelope_with(broker, &head);
        Self { sender, receiver, sent: Mutex::default(), complete: AtomicBool::new(false) }
    }

    /// Sends messages until `over` is true, and waits for the last ones.
    pub fn run(&mut self, over: &AtomicBool) -> Report {
        let Self { sender, receiver, sent, complete } = self;
        let (sent, complete) = (&*sent, &*complete);
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send(sender, sent, over)));
                complete.store(true, Ordering::SeqCst);
                result
            });
            let (delivery, mut faults) = receive(receiver, sent, complete);
            let (reply, more) =
                sending.join().and_then(|result| result).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            faults.extend(more);
            Report { messages: times(sent).len(), delivery, reply, faults }
        })
    }
}

fn times(sent: &Mutex<Vec<Instant>>) -> std::sync::MutexGuard<'_, Vec<Instant>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a message every [`EVERY`]. Returns the times to the answers, and the faults.
fn send(client: &mut Client, sent: &Mutex<Vec<Instant>>, over: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
    let raw = client.raw();
    let (mut replies, mut faults, mut next) = (Vec::new(), Vec::new(), Instant::now());
    let mut last = None;
    let mut answered = 0;
    loop {
        if over.load(Ordering::SeqCst) && last.is_none() {
            last = Some(Instant::now() + PATIENCE);
        }
        let count = times(sent).len();
        match last {
            None => {
                times(sent).push(Instant::now());
                raw.send_text(&format!(
                    r#"{{"command":"send-message","channel":"{CHANNEL}","data":[{count}],"id":"{count}"}}"#
                ));
                next = (next + EVERY).max(Instant::now());
            }
            Some(_) if answered == count => return (replies, faults),
            Some(deadline) if Instant::now() >= deadline => {
                faults.push(format!("{} of {count} messages were not answered", count - answered));
                return (replies, faults);
            }
            Some(_) => next = Instant::now() + EVERY,
        }
        while let Some(text) = read(raw, next) {
            let reply: Value = serde_json::from_str(&text).unwrap_or_default();
            let number: usize = reply["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(usize::MAX);
            answered += 1;
            match times(sent).get(number) {
                Some(began) if reply["response_code"] == "00" && reply.get("duplicate").is_none() => {
                    replies.push(began.elapsed());
                }
                _ => faults.push(format!("a message was answered with {text}")),
            }
        }
    }
}

/// Receives until the sender has finished and all of its messages are there. Returns the times to the deliveries, and the faults.
fn receive(client: &mut Client, sent: &Mutex<Vec<Instant>>, complete: &AtomicBool) -> (Vec<Duration>, Vec<String>) {
    let (mut deliveries, mut seen) = (Vec::new(), BTreeMap::<usize, usize>::new());
    let mut last = None;
    loop {
        if complete.load(Ordering::SeqCst) && last.is_none() {
            last = Some(Instant::now() + PATIENCE);
        }
        if last.is_some_and(|deadline| seen.len() == times(sent).len() || Instant::now() >= deadline) {
            break;
        }
        let Some(text) = read(client.raw(), Instant::now() + EVERY) else { continue };
        for message in messages_of(&text) {
            let number = message.parse().unwrap_or(usize::MAX);
            *seen.entry(number).or_default() += 1;
            deliveries.extend(times(sent).get(number).map(Instant::elapsed));
        }
    }
    // A message that was delivered twice has arrived by now.
    client.sync();
    for message in client.take_messages() {
        *seen.entry(message.parse().unwrap_or(usize::MAX)).or_default() += 1;
    }
    let count = times(sent).len();
    let mut faults: Vec<String> = (0..count)
        .filter(|number| !seen.contains_key(number))
        .map(|number| format!("message {number} is lost"))
        .collect();
    let odd = seen.iter().filter(|(number, times)| **number >= count || **times > 1);
    faults.extend(odd.map(|(number, times)| format!("message {number} was delivered {times} times")));
    (deliveries, faults)
}

/// The next text frame; `None` at the deadline. Answers pings. Fails if the broker ends the connection.
fn read(raw: &mut Raw, deadline: Instant) -> Option<String> {
    loop {
        match raw.next_by(deadline) {
            Got::Frame(frame) if frame.opcode == opcode::PING => raw.send_frame(opcode::PONG, &frame.payload),
            Got::Frame(frame) if frame.opcode == opcode::TEXT => return Some(frame.text().to_owned()),
            Got::Silence => return None,
            other => panic!("the quiet pair: expected a message, got {other:?}\n{}", raw.trace()),
        }
    }
}

/// The value that 99 of 100 of these times do not exceed; the longest of fewer than 100.
pub fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let above = times.len() / 100;
    times.len().checked_sub(above + 1).map(|index| times[index]).unwrap_or_default()
}

#[test]
fn the_99th_percentile_is_exceeded_by_one_in_a_hundred() {
    let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
    assert_eq!(p99(&mut times), Duration::from_millis(198));
    assert_eq!(p99(&mut times[..50]), Duration::from_millis(50));
    assert_eq!(p99(&mut []), Duration::ZERO);
}
