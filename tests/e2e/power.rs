//! Power cuts: the disk of a broker is recorded, and another broker starts on what a cut leaves.
//!
//! Each event that a client sees is noted with the length of the record at that time, so one run can be cut at any place. The next broker must deliver every message
//! that was accepted before the cut, unless a receiver got it before the cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use faulty_disk::{Change, Contents, Disk, Random, Record, Shim, Survival};
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::{Client, messages_of};
use crate::raw::{Got, Head, Raw, frame, opcode};

/// Unanswered publications of one sender at a time.
const WINDOW: usize = 16;
/// Each sender's numbers begin at a multiple of this.
const SENDER: u64 = 1_000_000;
/// Messages that are sent once more after a cut.
const REPEATED: usize = 10;

/// Changes after a sync that failed among which a third of the cuts are made: until the store is well again, and some commits.
const AFTER_FAILURE: u64 = 150;

/// A message as its sender or its receiver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub channel: &'static str,
    pub number: u64,
    /// The length of the record at that time.
    pub at: u64,
}

/// What clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub accepted: Vec<Sight>,
    pub received: Vec<Sight>,
}

/// A directory on a disk that is recorded.
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
        let shim = Shim::new(tools.path(), directory.path()).expect("a disk that is recorded");
        Self { shim, directory: Arc::new(directory), tools, senders: AtomicUsize::new(0) }
    }

    /// Starts a broker on the disk.
    #[track_caller]
    pub fn start(&self, setup: &Setup) -> Broker {
        let setup = setup.clone().variables(self.shim.environment(true, None));
        Broker::start_in(setup, self.directory.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Sends to all channels until `end` returns, and then until the broker is gone; `end` gets a counter of what was accepted and ends the broker. A receiver on
    /// `received` acknowledges all that it gets.
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
                let first = self.senders.fetch_add(1, Ordering::SeqCst) as u64 * SENDER;
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

    fn send(&self, mut raw: Raw, channel: &'static str, first: u64, counter: &AtomicUsize) -> Vec<Sight> {
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
                        let number = reply["id"].as_str().and_then(|id| id.parse().ok()).expect("an id of ours");
                        accepted.push(Sight { channel, number, at: self.shim.now() });
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }
                Got::Frame(_) => {}
                Got::Fin | Got::Reset => return accepted,
                Got::Silence => panic!("no answer within {PATIENCE:?}\n{}", raw.trace()),
            }
        }
    }

    fn receive(&self, mut raw: Raw, channel: &'static str) -> Vec<Sight> {
        raw.send_text(&json!({"command": "receive-message", "channel": channel, "ack": "manual"}).to_string());
        let mut received = Vec::new();
        loop {
            match raw.next() {
                Got::Frame(got) if got.opcode == opcode::TEXT => {
                    let delivery: Value = serde_json::from_slice(&got.payload).expect("JSON");
                    let Some(name) = delivery["delivery"].as_str() else { continue };
                    let at = self.shim.now();
                    let numbers = delivery["data"].as_array().expect("a list").iter().map(number_of);
                    received.extend(numbers.map(|number| Sight { channel, number, at }));
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

    /// Cuts the run at so many places, and lets `start` start a broker on what is left each time, so many at once.
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
                            "seed {seed}, {survival:?} of what was not synced, cut at {at} of {}",
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

/// The cuts that a test makes of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// Decides where the first cut is, and what is left; each further cut has the next one.
    seed: u64,
    count: u64,
}

impl Cuts {
    /// So many, or as many as `WSMB_CUTS` says; `WSMB_SEED` is the first seed.
    pub fn of(usual: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        Self { seed: number("WSMB_SEED").unwrap_or(1), count: number("WSMB_CUTS").unwrap_or(usual) }
    }
}

/// One cut of a run: where, which kind, and what is left.
fn cut(record: &Record, seed: u64) -> (u64, Survival, Contents) {
    let mut random = Random::new(seed);
    let failures = record.0.iter().enumerate().filter(|(_, (_, change))| matches!(change, Change::SyncFailed { .. }));
    let failures: Vec<u64> = failures.map(|(index, _)| index as u64).collect();
    let length = record.0.len() as u64;
    // A journal breaks behind a sync that failed, so a third of the cuts is made there.
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
    // Long enough that a short run fills SQLite's journal, and it begins anew.
    number.to_string().repeat(150)
}

fn publication(channel: &str, number: u64) -> Value {
    json!({"command": "send-message", "channel": channel, "data": [[number, text(number)]], "id": number.to_string()})
}

fn number_of(message: &Value) -> u64 {
    let number = message[0].as_u64().expect("a number");
    assert_eq!(message[1], text(number), "a message is not what was sent");
    number
}

/// What the broker after the cut has to say to what was seen before it.
fn verdict(broker: &Broker, seen: &Seen, at: u64) -> Result<(), String> {
    let before = |sights: &[Sight]| sights.iter().filter(|sight| sight.at <= at).copied().collect::<Vec<Sight>>();
    let (accepted, received) = (before(&seen.accepted), before(&seen.received));
    let log = broker.log().text();
    if log.contains("ERROR") || log.contains("-wal is damaged") {
        return Err(format!("a power cut spoils nothing that was safe, but the broker says:\n{log}"));
    }
    let received: BTreeSet<u64> = received.iter().map(|sight| sight.number).collect();
    let waiting: Vec<&Sight> = accepted.iter().filter(|sight| !received.contains(&sight.number)).collect();
    let mut sender = Client::envelope(broker);
    for sight in waiting.iter().rev().take(REPEATED) {
        let reply = sender.request(
            sight.channel,
            &json!([sight.number, text(sight.number)]),
            &json!({"id": sight.number.to_string()}),
        );
        if reply["response_code"] != "00" || reply["duplicate"] != true {
            return Err(format!("{sight:?} is not known any more: {reply}\n{}", broker.log().tail()));
        }
    }
    let channels: BTreeSet<&str> = seen.accepted.iter().map(|sight| sight.channel).collect();
    let mut delivered = BTreeSet::new();
    for channel in channels {
        let mut last = std::collections::BTreeMap::new();
        for number in drain(broker, channel) {
            if !delivered.insert(number) {
                return Err(format!("{number} is delivered twice"));
            }
            if last.insert(number / SENDER, number).is_some_and(|before| before > number) {
                return Err(format!("{number} is delivered out of order"));
            }
        }
    }
    let lost: Vec<&&Sight> = waiting.iter().filter(|sight| !delivered.contains(&sight.number)).collect();
    match lost.len() {
        0 => Ok(()),
        count => {
            Err(format!("{count} of {} are lost: {:?}\n{}", accepted.len(), &lost[..count.min(5)], broker.log().tail()))
        }
    }
}

/// Everything that waits on a channel, up to a message of our own behind it.
fn drain(broker: &Broker, channel: &str) -> Vec<u64> {
    let mark = "the last one";
    Client::envelope(broker).publish_safely(channel, &json!(mark), &format!("mark {channel}"));
    let mut receiver = Client::receiver(broker, channel);
    let mut numbers = Vec::new();
    loop {
        for message in messages_of(&receiver.next_text()) {
            let message: Value = serde_json::from_str(&message).expect("JSON");
            if message == mark {
                return numbers;
            }
            numbers.push(number_of(&message));
        }
    }
}

/// Waits until so many more have been accepted.
#[track_caller]
pub fn until_accepted(counter: &AtomicUsize, more: usize) {
    let wanted = counter.load(Ordering::SeqCst) + more;
    let deadline = Instant::now() + 3 * PATIENCE;
    while counter.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "{counter:?} accepted, and not {wanted}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
