//! Senders that wait for answers and receivers that acknowledge, both with a record of all messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::raw::{Got, Head, Raw, frame, opcode};

/// The timeout of every wait. Longer than the several timeouts after which the broker gives a database up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The most unanswered publications of a sender.
const WINDOW: usize = 8;

/// The pause between two bursts of a sender, so that ten seconds are some thousand messages.
const PACE: Duration = Duration::from_millis(10);

/// Each sender's numbers begin at a multiple of this.
pub const SENDER_STEP: u64 = 1_000_000;

/// The parameters of a sender.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The channel of the messages.
    pub channel: &'static str,
    /// The time to live of each message in seconds.
    pub ttl: Option<u64>,
    /// The size of each message in bytes, without its number.
    pub padding: usize,
}

/// A sent message and its answer.
#[derive(Clone, Debug)]
pub struct Publication {
    pub channel: &'static str,
    pub number: u64,
    pub expires: Option<Instant>,
    /// The code of the answer; `None` if the connection ended before the answer.
    pub code: Option<String>,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub channel: &'static str,
    pub number: u64,
    pub redelivered: bool,
    pub at: Instant,
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

/// Running senders.
pub struct Load {
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<Vec<Publication>>>,
}

impl Load {
    /// Starts one sender for each plan. `first` is the number of senders of earlier loads.
    #[track_caller]
    pub fn start(broker: &Broker, first: u64, plans: &[Plan]) -> Self {
        let counters = Arc::new(Counters::default());
        let threads = plans.iter().zip(first..).map(|(plan, index)| {
            let (raw, plan, counters) = (Raw::upgrade(broker, &Head::new("/").modern()), *plan, counters.clone());
            std::thread::spawn(move || {
                Sender { raw, plan, counters, sent: BTreeMap::new(), open: 0 }.run(index * SENDER_STEP)
            })
        });
        Self { threads: threads.collect(), counters }
    }

    /// Waits until `more` messages have been accepted.
    #[track_caller]
    pub fn accepted(&self, more: usize) {
        self.wait(&self.counters.accepted, more, "accepted");
    }

    /// Waits until `more` messages have been refused.
    #[track_caller]
    pub fn refused(&self, more: usize) {
        self.wait(&self.counters.refused, more, "refused");
    }

    #[track_caller]
    fn wait(&self, counter: &AtomicUsize, more: usize, what: &str) {
        let wanted = counter.load(Ordering::SeqCst) + more;
        let deadline = Instant::now() + PATIENCE;
        while counter.load(Ordering::SeqCst) < wanted {
            let (accepted, refused) = (&self.counters.accepted, &self.counters.refused);
            assert!(Instant::now() < deadline, "not {more} more {what}: {accepted:?} accepted, {refused:?} refused");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the senders after their last answers, and returns the publications.
    #[track_caller]
    pub fn finish(self) -> Vec<Publication> {
        self.counters.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a sender")).collect()
    }
}

struct Sender {
    raw: Raw,
    plan: Plan,
    counters: Arc<Counters>,
    sent: BTreeMap<u64, Publication>,
    open: usize,
}

impl Sender {
    /// Sends until it is stopped or the broker is gone.
    fn run(mut self, start: u64) -> Vec<Publication> {
        let padding = crate::servers::noise(self.plan.padding);
        let mut next = start;
        loop {
            let stop = self.counters.stop.load(Ordering::SeqCst);
            if stop && self.open == 0 {
                break;
            }
            while !stop && self.open < WINDOW {
                if !self.send(next, &padding) {
                    return self.sent.into_values().collect();
                }
                next += 1;
            }
            if !self.read_answer() {
                break;
            }
        }
        self.sent.into_values().collect()
    }

    fn send(&mut self, number: u64, padding: &str) -> bool {
        let Plan { channel, ttl, .. } = self.plan;
        let mut command = json!({"command": "send-message", "channel": channel, "data": [[number, padding]], "id": number.to_string()});
        if let Some(ttl) = ttl {
            command["ttl"] = json!(ttl);
        }
        let expires = ttl.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        self.sent.insert(number, Publication { channel, number, expires, code: None });
        self.open += 1;
        self.raw.try_send(&frame(opcode::TEXT, command.to_string().as_bytes())).is_ok()
    }

    /// Reads one frame and records an answer; `false` if the broker is gone.
    fn read_answer(&mut self) -> bool {
        match self.raw.next_by(Instant::now() + PATIENCE) {
            Got::Frame(got) if got.opcode == opcode::PING => {
                self.raw.try_send(&frame(opcode::PONG, &got.payload)).is_ok()
            }
            Got::Frame(got) if got.opcode == opcode::TEXT => {
                let reply: Value = serde_json::from_slice(&got.payload).expect("JSON");
                if reply["command"] != "send-message" {
                    return true;
                }
                let number: u64 = reply["id"].as_str().and_then(|id| id.parse().ok()).expect("a numeric id");
                let code = reply["response_code"].as_str().expect("a code").to_owned();
                let counter = if code == "00" { &self.counters.accepted } else { &self.counters.refused };
                counter.fetch_add(1, Ordering::SeqCst);
                self.sent.get_mut(&number).expect("a sent message").code = Some(code);
                self.open -= 1;
                if self.open == 0 {
                    // This pause sets the rate of the load.
                    std::thread::sleep(PACE);
                }
                true
            }
            Got::Frame(_) => true,
            Got::Fin | Got::Reset => false,
            Got::Silence => panic!("no answer within {PATIENCE:?}\n{}", self.raw.trace()),
        }
    }
}

/// A running receiver, which acknowledges each message, and gives every fiftieth back once.
pub struct Receiver {
    stop: Arc<AtomicBool>,
    /// The time of the last message, or of the start.
    last: Arc<Mutex<Instant>>,
    thread: JoinHandle<Vec<Delivery>>,
}

impl Receiver {
    /// Starts a receiver of this channel.
    #[track_caller]
    pub fn start(broker: &Broker, channel: &'static str) -> Self {
        let mut raw = Raw::upgrade(broker, &Head::new("/").modern());
        raw.send_text(&json!({"command": "receive-message", "channel": channel, "ack": "manual"}).to_string());
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Instant::now())));
        let (stopped, last_message) = (stop.clone(), last.clone());
        let thread = std::thread::spawn(move || {
            let mut deliveries = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let known = deliveries.len();
                if !receive(&mut raw, channel, &mut deliveries) {
                    break;
                }
                if deliveries.len() > known {
                    *last_message.lock().expect("no thread panics while it holds the lock") = Instant::now();
                }
            }
            deliveries
        });
        Self { stop, last, thread }
    }

    /// Waits until no message has come for `time`.
    #[track_caller]
    pub fn wait_until_idle(&self, time: Duration) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = *self.last.lock().expect("no thread panics while it holds the lock");
            let since = last.elapsed();
            if since >= time {
                return;
            }
            assert!(Instant::now() < deadline, "messages still come");
            std::thread::sleep(time.saturating_sub(since));
        }
    }

    /// Stops the receiver and returns its deliveries.
    #[track_caller]
    pub fn finish(self) -> Vec<Delivery> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("a receiver")
    }
}

/// Processes one frame, if one comes within 50 ms; `false` if the broker is gone.
fn receive(raw: &mut Raw, channel: &'static str, deliveries: &mut Vec<Delivery>) -> bool {
    let got = match raw.next_by(Instant::now() + Duration::from_millis(50)) {
        Got::Frame(got) => got,
        Got::Silence => return true,
        Got::Fin | Got::Reset => return false,
    };
    if got.opcode == opcode::PING {
        return raw.try_send(&frame(opcode::PONG, &got.payload)).is_ok();
    }
    if got.opcode != opcode::TEXT {
        return true;
    }
    let value: Value = serde_json::from_slice(&got.payload).expect("JSON");
    let Some(name) = value["delivery"].as_str() else { return true };
    let redelivered = value["redelivered"] == json!(true);
    let messages = value["data"].as_array().expect("a list");
    let numbers: Vec<u64> = messages.iter().map(|message| message[0].as_u64().expect("a number")).collect();
    let gives_back = !redelivered && numbers.iter().any(|number| number % 50 == 49);
    let at = Instant::now();
    deliveries.extend(numbers.into_iter().map(|number| Delivery { channel, number, redelivered, at }));
    let command = if gives_back { "nack" } else { "ack" };
    let answer = json!({"command": command, "delivery": name}).to_string();
    raw.try_send(&frame(opcode::TEXT, answer.as_bytes())).is_ok()
}
