//! `dead_letter_expired`: an expired message becomes a dead letter, whether it was in memory, in flight, or only in the store.

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;

/// The messages and the `dead_letter` members of the dead letters; fails unless there are exactly `count`.
fn letters(broker: &Broker, count: usize) -> Vec<(Value, Value)> {
    let mut reader = Client::envelope(broker);
    reader.subscribe_with("dead", &json!({"ack": "manual", "prefetch": 256}));
    let letters: Vec<Value> = (0..count).map(|_| reader.next_delivery()).collect();
    reader.expect_nothing_yet();
    reader.vanish();
    letters.into_iter().map(|letter| (letter["data"][0].clone(), letter["dead_letter"].clone())).collect()
}

fn expired(number: u64, attempts: u64) -> (Value, Value) {
    (json!(number), json!({"why": "expired", "channel": "sms", "attempts": attempts}))
}

fn setup(ttl: &str) -> Setup {
    let policy = format!("receivers = 1\nttl = \"{ttl}\"\ndead_letter = \"dead\"\ndead_letter_expired = true");
    Setup::default().channel("sms", &policy)
}

#[test]
fn expired_messages_become_dead_letters_in_order() {
    let broker = setup("1s").start();
    let mut sender = Client::envelope(&broker);
    for number in 0..200 {
        sender.publish("sms", &json!(number));
    }
    sender.sync();
    let expected: Vec<_> = (0..200).map(|number| expired(number, 0)).collect();
    assert_eq!(letters(&broker, 200), expected);
}

#[test]
fn messages_that_expire_across_a_crash_become_dead_letters_once() {
    let broker = setup("1s").start();
    let mut sender = Client::envelope(&broker);
    for number in 0..50 {
        sender.publish_safely("sms", &json!(number), &number.to_string());
    }
    let broker = broker.kill_and_restart();
    let expected: Vec<_> = (0..50).map(|number| expired(number, 0)).collect();
    assert_eq!(letters(&broker, 50), expected);
    let broker = broker.kill_and_restart();
    let again: Vec<Value> = letters(&broker, 50).into_iter().map(|(number, _)| number).collect();
    assert_eq!(again, (0..50).map(|number| json!(number)).collect::<Vec<_>>());
}

#[test]
fn a_message_that_expires_in_flight_becomes_a_dead_letter_when_its_receiver_vanishes() {
    let broker = setup("1s").start();
    let mut gateway = Client::envelope(&broker);
    gateway.subscribe_with("sms", &json!({"ack": "manual", "prefetch": 1}));
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(7));
    sender.publish("sms", &json!(8));
    sender.sync();
    assert_eq!(gateway.next_delivery()["data"], json!([7]));
    // The second message was sent later, so the first one has expired too.
    assert_eq!(letters(&broker, 1), [expired(8, 0)]);
    gateway.vanish();
    assert_eq!(letters(&broker, 2), [expired(8, 0), expired(7, 1)]);
}
