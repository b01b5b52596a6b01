//! Power cuts: the disk of a broker is recorded, and another broker starts on the contents that survive a cut.
//!
//! The test notes each event that a client sees with the length of the record at that time, so that one run can be cut at any point. The next broker must deliver
//! every message that was accepted before the cut, unless a receiver got it before the cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use faulty_disk::{Change, Contents, Disk, Random, Record, Shim, Survival};
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::{Client, messages_of};
use crate::raw::{Got, Head, Raw, frame, opcode};

/// The most unanswered publications of a sender.
const WINDOW: usize = 16;
/// Each sender's numbers begin at a multiple of this.
const SENDER_STEP: u64 = 1_000_000;
/// Messages that are sent again after a cut.
const REPEATED: usize = 10;

/// A third of the cuts is made within so many changes after a failed sync. In this time the store recovers and commits again.
const AFTER_FAILURE: u64 = 150;

/// An accepted or received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub channel: &'static str,
    pub number: u64,
    /// The length of the record at that time.
    pub at: u64,
}

/// The events that clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub accepted: Vec<Event>,
    pub received: Vec<Event>,
}

/// A directory on a recorded disk.
pub struct Machine {
    pub shim: Shim,
    pub directory: Arc<tempfile::TempDir>,
    tools: tempfile::TempDir,
    senders: AtomicUsize,
}

impl Machine {
    #[track_caller]
    pub fn new() -> Self {
        let (directory, tools) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let shim = Shim::new(tools.path(), directory.path()).expect("a recorded disk");
        Self { shim, directory: Arc::new(directory), tools, senders: AtomicUsize::new(0) }
    }

    /// Starts a broker on the disk.
    #[track_caller]
    pub fn start(&self, setup: &Setup) -> Broker {
        let setup = setup.clone().variables(self.shim.environment(true, None));
        Broker::start_in(setup, self.directory.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Sends to the channels `sms` and `received` until the broker is gone. `end` gets the broker and the counter of accepted messages, and must end the broker. A
    /// receiver of `received` acknowledges all deliveries.
    #[track_caller]
    pub fn load(
        &self,
        broker: Broker,
        received: &'static str,
        seen: &mut Seen,
        end: impl FnOnce(Broker, &AtomicUsize),
    ) {
        let connect = || Raw::upgrade(&broker, &Head::new("/").modern());
        let channels = ["sms", received];
        let senders: Vec<_> = channels
            .map(|channel| {
                let first = self.senders.fetch_add(1, Ordering::SeqCst) as u64 * SENDER_STEP;
                (connect(), channel, first)
            })
            .into();
        let receiver = connect();
        let counter = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let counter = &counter;
            let receiving = scope.spawn(move || self.receive(receiver, received));
            let sending: Vec<_> = senders
                .into_iter()
                .map(|(raw, channel, first)| scope.spawn(move || self.send(raw, channel, first, counter)))
                .collect();
            end(broker, counter);
            seen.accepted.extend(sending.into_iter().flat_map(|thread| thread.join().expect("a sender")));
            seen.received.extend(receiving.join().expect("a receiver"));
        });
    }

    fn send(&self, mut raw: Raw, channel: &'static str, first: u64, counter: &AtomicUsize) -> Vec<Event> {
        let (mut accepted, mut next, mut open) = (Vec::new(), first, 0);
        loop {
            while open < WINDOW {
                if raw.try_send(&frame(opcode::TEXT, publication(channel, next).to_string().as_bytes())).is_err() {
                    return accepted;
                }
                (next, open) = (next + 1, open + 1);
            }
            match raw.next_by(Instant::now() + PATIENCE) {
                Got::Frame(got) if got.opcode == opcode::TEXT => {
                    let reply: Value = serde_json::from_slice(&got.payload).expect("JSON");
                    if reply["command"] != "send-message" {
                        continue;
                    }
                    open -= 1;
                    if reply["response_code"] == "00" {
                        let number = reply["id"].as_str().and_then(|id| id.parse().ok()).expect("a numeric id");
                        accepted.push(Event { channel, number, at: self.shim.now() });
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Got::Frame(_) => {}
                Got::Fin | Got::Reset => return accepted,
                Got::Silence => panic!("no answer within {PATIENCE:?}\n{}", raw.trace()),
            }
        }
    }

    fn receive(&self, mut raw: Raw, channel: &'static str) -> Vec<Event> {
        raw.send_text(&json!({"command": "receive-message", "channel": channel, "ack": "manual"}).to_string());
        let mut received = Vec::new();
        loop {
            match raw.next() {
                Got::Frame(got) if got.opcode == opcode::TEXT => {
                    let delivery: Value = serde_json::from_slice(&got.payload).expect("JSON");
                    let Some(name) = delivery["delivery"].as_str() else { continue };
                    let at = self.shim.now();
                    let numbers = delivery["data"].as_array().expect("a list").iter().map(number_of);
                    received.extend(numbers.map(|number| Event { channel, number, at }));
                    let _ = raw.try_send(&frame(
                        opcode::TEXT,
                        json!({"command": "ack", "delivery": name}).to_string().as_bytes(),
                    ));
                }
                Got::Frame(got) if got.opcode == opcode::PING => drop(raw.try_send(&frame(opcode::PONG, &got.payload))),
                Got::Frame(_) | Got::Silence => {}
                Got::Fin | Got::Reset => return received,
            }
        }
    }

    /// Cuts the run at `count` points, and starts a broker on the remaining files each time, `at_once` brokers at a time. Fails if a broker breaks a promise.
    #[track_caller]
    pub fn cut(
        &self,
        seen: &Seen,
        Cuts { seed, count }: Cuts,
        at_once: usize,
        start: impl Fn(&Arc<tempfile::TempDir>) -> Result<Broker, String> + Sync,
    ) {
        let record = Record::read(self.shim.record()).expect("a record");
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(number) = Some(next.fetch_add(1, Ordering::SeqCst) as u64).filter(|it| *it < count) {
                        let seed = seed.wrapping_add(number);
                        let (at, survival, contents) = cut(&record, seed);
                        let place = format!(
                            "seed {seed}, {survival:?} of the unsynced data survived, cut at {at} of {}",
                            self.tools.path().display()
                        );
                        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
                        faulty_disk::write(&contents, directory.path()).expect("files");
                        let verdict = start(&directory).and_then(|broker| verdict(&broker, seen, at));
                        assert!(verdict.is_ok(), "{place}: {}", verdict.unwrap_err());
                    }
                });
            }
        });
    }
}

/// The number and the seed of the cuts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// The seed of the first cut; each further cut has the next seed.
    seed: u64,
    count: u64,
}

impl Cuts {
    /// `usual` cuts from seed 1, unless `WSMB_CUTS` and `WSMB_SEED` say otherwise.
    pub fn of(usual: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        Self { seed: number("WSMB_SEED").unwrap_or(1), count: number("WSMB_CUTS").unwrap_or(usual) }
    }
}

/// One cut of a run: its position, the surviving part of the unsynced data, and the contents of the disk.
fn cut(record: &Record, seed: u64) -> (u64, Survival, Contents) {
    let mut random = Random::new(seed);
    let failures = record.0.iter().enumerate().filter(|(_, (_, change))| matches!(change, Change::SyncFailed { .. }));
    let failures: Vec<u64> = failures.map(|(index, _)| index as u64).collect();
    let length = record.0.len() as u64;
    // Most errors of a journal are after a failed sync, so a third of the cuts is made there.
    let end = match failures.get(random.below(3 * failures.len() as u64) as usize) {
        Some(failure) => (failure + random.below(AFTER_FAILURE)).min(length),
        None => random.below(length + 1),
    };
    let changes = &record.0[..end as usize];
    let survival = [Survival::Nothing, Survival::Some, Survival::Some, Survival::Everything][random.below(4) as usize];
    let mut disk = Disk::new(seed);
    changes.iter().for_each(|(_, change)| disk.apply(change));
    (changes.last().map_or(0, |(at, _)| *at), survival, disk.cut(survival))
}

fn text(number: u64) -> String {
    // Long enough that a short run fills SQLite's journal, which is then overwritten from its beginning.
    number.to_string().repeat(150)
}

fn publication(channel: &str, number: u64) -> Value {
    json!({"command": "send-message", "channel": channel, "data": [[number, text(number)]], "id": number.to_string()})
}

fn number_of(message: &Value) -> u64 {
    let number = message[0].as_u64().expect("a number");
    assert_eq!(message[1], text(number), "a message was changed");
    number
}

/// Compares the state of the broker after the cut with the events before the cut.
fn verdict(broker: &Broker, seen: &Seen, at: u64) -> Result<(), String> {
    let before = |events: &[Event]| events.iter().filter(|event| event.at <= at).copied().collect::<Vec<Event>>();
    let (accepted, received) = (before(&seen.accepted), before(&seen.received));
    let log = broker.log().text();
    if log.contains("ERROR") || log.contains("-wal is damaged") {
        return Err(format!("a power cut damages nothing that was synced, but the broker reports:\n{log}"));
    }
    let received: BTreeSet<u64> = received.iter().map(|event| event.number).collect();
    let waiting: Vec<&Event> = accepted.iter().filter(|event| !received.contains(&event.number)).collect();
    let mut sender = Client::envelope(broker);
    for event in waiting.iter().rev().take(REPEATED) {
        let reply = sender.request(
            event.channel,
            &json!([event.number, text(event.number)]),
            &json!({"id": event.number.to_string()}),
        );
        if reply["response_code"] != "00" || reply["duplicate"] != true {
            return Err(format!("{event:?} has been forgotten: {reply}\n{}", broker.log().tail()));
        }
    }
    let channels: BTreeSet<&str> = seen.accepted.iter().map(|event| event.channel).collect();
    let mut delivered = BTreeSet::new();
    for channel in channels {
        let mut last = std::collections::BTreeMap::new();
        for number in drain(broker, channel) {
            if !delivered.insert(number) {
                return Err(format!("{number} is delivered twice"));
            }
            if last.insert(number / SENDER_STEP, number).is_some_and(|before| before > number) {
                return Err(format!("{number} is delivered out of order"));
            }
        }
    }
    let lost: Vec<&&Event> = waiting.iter().filter(|event| !delivered.contains(&event.number)).collect();
    match lost.len() {
        0 => Ok(()),
        count => {
            Err(format!("{count} of {} are lost: {:?}\n{}", accepted.len(), &lost[..count.min(5)], broker.log().tail()))
        }
    }
}

/// All messages that wait on a channel. A marker message ends them.
fn drain(broker: &Broker, channel: &str) -> Vec<u64> {
    let marker = "the last one";
    Client::envelope(broker).publish_safely(channel, &json!(marker), &format!("marker {channel}"));
    let mut receiver = Client::receiver(broker, channel);
    let mut numbers = Vec::new();
    loop {
        for message in messages_of(&receiver.next_text()) {
            let message: Value = serde_json::from_str(&message).expect("JSON");
            if message == marker {
                return numbers;
            }
            numbers.push(number_of(&message));
        }
    }
}

/// Waits until `more` messages have been accepted.
#[track_caller]
pub fn until_accepted(counter: &AtomicUsize, more: usize) {
    let wanted = counter.load(Ordering::SeqCst) + more;
    let deadline = Instant::now() + 3 * PATIENCE;
    while counter.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "{counter:?} accepted instead of {wanted}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
