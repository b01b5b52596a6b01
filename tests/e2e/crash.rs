//! `kill -9` at many instants: every accepted message is delivered before or after the crash.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::{Client, messages_of};
use crate::raw::{Got, Head, Raw, opcode};

/// Unanswered publications of one sender at a time.
const WINDOW: u64 = 16;

/// Sends numbers from `start` on, each with an id, until the broker is gone. Counts and returns the accepted numbers.
fn send_until_the_end(mut raw: Raw, start: u64, accepted_so_far: &AtomicUsize) -> Vec<u64> {
    let mut accepted = Vec::new();
    let mut next = start;
    loop {
        while next < start + accepted.len() as u64 + WINDOW {
            let command = json!({"command": "send-message", "channel": "sms", "data": [next], "id": next.to_string()});
            if raw.try_send(&crate::raw::frame(opcode::TEXT, command.to_string().as_bytes())).is_err() {
                break;
            }
            next += 1;
        }
        match raw.next() {
            Got::Frame(frame) if frame.opcode == opcode::TEXT => {
                let reply: Value = serde_json::from_slice(&frame.payload).unwrap();
                if reply["command"] == "send-message" {
                    assert_eq!(reply["response_code"], "00", "{reply}");
                    accepted.push(reply["id"].as_str().and_then(|id| id.parse().ok()).unwrap());
                    accepted_so_far.fetch_add(1, Ordering::SeqCst);
                }
            }
            Got::Frame(_) => {}
            Got::Fin | Got::Reset => return accepted,
            Got::Silence => panic!("no reply and no end\n{}", raw.trace()),
        }
    }
}

/// Receives until the broker is gone, and returns the numbers.
fn receive_until_the_end(mut raw: Raw, answers_pings: bool) -> Vec<u64> {
    raw.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
    let mut numbers = Vec::new();
    loop {
        match raw.next() {
            Got::Frame(frame) if frame.opcode == opcode::PING => {
                if answers_pings && raw.try_send(&crate::raw::frame(opcode::PONG, &frame.payload)).is_err() {
                    return numbers;
                }
            }
            Got::Frame(frame) if frame.opcode == opcode::TEXT && !frame.text().contains("response_code") => {
                numbers.extend(messages_of(frame.text()).iter().map(|text| text.parse::<u64>().unwrap()));
            }
            Got::Frame(_) | Got::Silence => {}
            Got::Fin | Got::Reset => return numbers,
        }
    }
}

/// All messages that wait on the channel. A marker message ends them.
#[track_caller]
fn drain(broker: &Broker) -> Vec<u64> {
    const MARKER: u64 = u64::MAX;
    Client::envelope(broker).publish_safely("sms", &json!(MARKER), &format!("mark {:?}", broker.address()));
    let mut receiver = Client::receiver(broker, "sms");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&MARKER) {
        numbers.extend(messages_of(&receiver.next_text()).iter().map(|text| text.parse::<u64>().unwrap()));
    }
    numbers.pop();
    receiver.leave();
    numbers
}

#[track_caller]
fn assert_increasing(numbers: &[u64]) {
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {numbers:?}");
}

/// Two senders run; the broker is killed when `kill_after` messages have been accepted, and the next broker is drained.
/// `receiver` = whether a receiver confirms; `None`: there is no receiver.
#[track_caller]
fn crash_round(mut broker: Broker, kill_after: usize, receiver: Option<bool>) -> Broker {
    let counter = AtomicUsize::new(0);
    let connect = || Raw::upgrade(&broker, &Head::new("/").modern());
    let (mut senders, mut listeners) = (vec![connect(), connect()], Vec::new());
    listeners.extend(receiver.map(|confirms| (connect(), confirms)));
    let (accepted, before) = std::thread::scope(|scope| {
        let counter = &counter;
        let listening: Vec<_> = listeners
            .into_iter()
            .map(|(raw, confirms)| scope.spawn(move || receive_until_the_end(raw, confirms)))
            .collect();
        let sending: Vec<_> = senders
            .drain(..)
            .enumerate()
            .map(|(index, raw)| scope.spawn(move || send_until_the_end(raw, index as u64 * 1_000_000, counter)))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while counter.load(Ordering::SeqCst) < kill_after && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
        broker.kill();
        let accepted: Vec<Vec<u64>> = sending.into_iter().map(|thread| thread.join().unwrap()).collect();
        let before: Vec<u64> = listening.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (accepted, before)
    });
    let count: usize = accepted.iter().map(Vec::len).sum();
    assert!(count >= kill_after, "only {count} accepted\n{}", broker.log().tail());
    let broker = broker.kill_and_restart();
    let after = drain(&broker);
    let delivered: BTreeSet<u64> = before.iter().chain(&after).copied().collect();
    let lost: Vec<u64> = accepted.iter().flatten().filter(|number| !delivered.contains(number)).copied().collect();
    assert!(lost.is_empty(), "accepted and never delivered: {lost:?}\n{}", broker.log().tail());
    for sender in 0..2 {
        let of_sender = |number: &&u64| **number / 1_000_000 == sender;
        assert_increasing(&after.iter().filter(of_sender).copied().collect::<Vec<_>>());
        assert_increasing(&before.iter().filter(of_sender).copied().collect::<Vec<_>>());
    }
    broker
}

#[test]
fn no_accepted_message_is_lost_when_the_broker_is_killed_before_it_was_delivered() {
    for kill_after in [1, 10, 100, 400] {
        crash_round(Broker::start(), kill_after, None);
    }
}

#[test]
fn no_accepted_message_is_lost_when_the_broker_is_killed_between_delivery_and_confirmation() {
    for kill_after in [1, 30, 60] {
        crash_round(Broker::start(), kill_after, Some(false));
    }
}

#[test]
fn no_accepted_message_is_lost_when_the_broker_is_killed_amid_confirmations() {
    for kill_after in [1, 50, 300] {
        crash_round(Broker::start(), kill_after, Some(true));
        crash_round(
            Setup::default().defaults("receivers = 1").store("write_delay = \"20ms\"").start(),
            kill_after,
            Some(true),
        );
    }
}

#[test]
fn unconfirmed_messages_without_id_survive_an_orderly_stop() {
    let broker = Setup::default().store("write_delay = \"1m\"").start();
    let mut receiver = Client::envelope(&broker).silent();
    receiver.subscribe("sms");
    let mut sender = Client::envelope(&broker);
    for number in 0..10 {
        sender.publish("sms", &json!(number));
    }
    sender.sync();
    assert_eq!(receiver.numbers(10), (0..10).collect::<Vec<_>>());
    // The receiver reads nothing more, so it confirms nothing and does not close its connection.
    let broker = broker.stop_and_restart();
    assert_eq!(drain(&broker), (0..10).collect::<Vec<_>>());
}
