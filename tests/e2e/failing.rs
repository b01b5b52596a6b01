//! A message that fails does not delay other messages: nack with its members, rejection, and deliveries without an answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;

#[track_caller]
fn receiver(broker: &Broker, prefetch: u32) -> Client {
    let mut client = Client::envelope(broker);
    client.subscribe_with("sms", &json!({"ack": "manual", "prefetch": prefetch}));
    client
}

#[track_caller]
fn publish(broker: &Broker, message: &str) {
    let mut sender = Client::envelope(broker);
    sender.publish("sms", &json!(message));
    sender.sync();
}

/// Reads the next delivery, which must contain `message`. Returns its name and whether it is marked as redelivered.
#[track_caller]
fn expect(receiver: &mut Client, message: &str) -> (String, bool) {
    let delivery = receiver.next_delivery();
    assert_eq!(delivery["data"], json!([message]), "{delivery}");
    (delivery["delivery"].as_str().unwrap_or_default().to_owned(), delivery["redelivered"] == json!(true))
}

fn answer(receiver: &mut Client, command: &str, delivery: &str, members: &Value) {
    let mut answer = json!({"command": command, "delivery": delivery});
    if let (Some(answer), Some(members)) = (answer.as_object_mut(), members.as_object()) {
        answer.extend(members.clone());
    }
    receiver.command(&answer);
    receiver.sync();
}

#[test]
fn a_message_that_one_receiver_gives_back_goes_to_another_at_once() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let (mut first, mut second) = (receiver(&broker, 1), receiver(&broker, 1));
    publish(&broker, "bad");
    let (name, _) = expect(&mut first, "bad");
    answer(&mut first, "nack", &name, &json!({}));
    let (name, redelivered) = expect(&mut second, "bad");
    assert!(redelivered);
    answer(&mut second, "ack", &name, &json!({}));
    first.expect_nothing_yet();
}

#[test]
fn retry_after_delays_one_message_and_no_other() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut gateway = receiver(&broker, 1);
    publish(&broker, "bad");
    let (name, _) = expect(&mut gateway, "bad");
    let start = Instant::now();
    answer(&mut gateway, "nack", &name, &json!({"retry_after": 1.5, "reason": "no network"}));
    publish(&broker, "good");
    let (name, _) = expect(&mut gateway, "good");
    answer(&mut gateway, "ack", &name, &json!({}));
    let (name, redelivered) = expect(&mut gateway, "bad");
    assert!(redelivered && start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());
    answer(&mut gateway, "ack", &name, &json!({}));
}

#[test]
fn a_held_message_survives_a_crash() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut gateway = receiver(&broker, 1);
    publish(&broker, "bad");
    let (name, _) = expect(&mut gateway, "bad");
    answer(&mut gateway, "nack", &name, &json!({"retry_after": 3_600}));
    // The store commits in order, so with this reply the earlier change is committed too.
    Client::envelope(&broker).publish_safely("other", &json!(1), "a");
    let broker = broker.kill_and_restart();
    let (_, redelivered) = expect(&mut receiver(&broker, 1), "bad");
    assert!(redelivered, "a restart ends the hold, so the message is redelivered at once");
}

#[test]
fn a_delivery_names_its_attempt_also_after_a_restart_and_a_crash() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut ids = std::collections::BTreeSet::new();
    let mut attempt = |broker: &Broker| {
        let mut gateway = receiver(broker, 1);
        let delivery = gateway.next_delivery();
        assert_eq!(delivery["data"], json!(["bad"]), "{delivery}");
        gateway.vanish();
        Client::envelope(broker).publish_safely("other", &json!(1), "a");
        ids.insert(delivery["message_id"].as_str().unwrap().to_owned());
        (delivery["redelivered"].clone(), delivery["attempt"].clone())
    };
    publish(&broker, "bad");
    assert_eq!(attempt(&broker), (Value::Null, Value::Null));
    assert_eq!(attempt(&broker), (json!(true), json!(2)));
    let broker = broker.stop_and_restart();
    assert_eq!(attempt(&broker), (json!(true), json!(3)));
    let broker = broker.kill_and_restart();
    let (mark, number) = attempt(&broker);
    assert!(mark == json!(true) && number.as_u64().unwrap() >= 2, "{mark} {number}");
    assert_eq!(ids.len(), 1, "the message_id must stay the same");
}

#[test]
fn a_rejected_message_goes_to_the_dead_letters_at_once() {
    let broker = Setup::default().channel("sms", "receivers = 1\ndead_letter = \"dead\"").start();
    let (mut first, mut second) = (receiver(&broker, 1), receiver(&broker, 1));
    publish(&broker, "bad");
    let (name, _) = expect(&mut first, "bad");
    answer(&mut first, "nack", &name, &json!({"reject": true, "reason": "no such number"}));
    assert_eq!(Client::receiver(&broker, "dead").messages(1), ["\"bad\""]);
    second.expect_nothing_yet();
}

#[test]
fn a_dead_letter_names_its_cause_also_after_a_restart() {
    let broker = Setup::default().channel("sms", "receivers = 1\nmax_deliveries = 1\ndead_letter = \"dead\"").start();
    let mut gateway = receiver(&broker, 2);
    publish(&broker, "bad");
    publish(&broker, "worse");
    let (bad, worse) = (expect(&mut gateway, "bad").0, expect(&mut gateway, "worse").0);
    answer(&mut gateway, "nack", &bad, &json!({"reason": "exit status 1"}));
    answer(&mut gateway, "nack", &worse, &json!({"reject": true}));
    let letters = |broker: &Broker| {
        let mut reader = Client::envelope(broker);
        reader.subscribe_with("dead", &json!({"ack": "manual"}));
        let letters = [reader.next_delivery(), reader.next_delivery()];
        reader.vanish();
        letters.map(|letter| (letter["data"].clone(), letter["dead_letter"].clone()))
    };
    let expected = [
        (json!(["bad"]), json!({"why": "max_deliveries", "channel": "sms", "attempts": 1, "reason": "exit status 1"})),
        (json!(["worse"]), json!({"why": "rejected", "channel": "sms", "attempts": 1})),
    ];
    assert_eq!(letters(&broker), expected);
    let broker = broker.stop_and_restart();
    assert_eq!(letters(&broker), expected);
}

#[test]
fn a_rejected_message_without_dead_letters_is_dropped_and_logged() {
    let broker = Setup::default().channel("sms", "receivers = 1").start();
    let mut gateway = receiver(&broker, 1);
    publish(&broker, "bad");
    let (name, _) = expect(&mut gateway, "bad");
    answer(&mut gateway, "nack", &name, &json!({"reject": true, "reason": "no\nsuch"}));
    broker.wait_for_log("dropped a message");
    let log = broker.log().text();
    let line = log.lines().find(|line| line.contains("dropped a message")).unwrap_or_default();
    assert!(line.contains("why=rejected") && line.contains("attempts=1") && line.contains("no\\nsuch"), "{line}");
}

#[test]
fn a_delivery_that_is_not_answered_in_time_goes_to_another_receiver() {
    let broker = Setup::default().channel("sms", "receivers = 1\nack_timeout = \"1s\"").start();
    let (mut hung, mut other) = (receiver(&broker, 1), receiver(&broker, 1));
    publish(&broker, "slow");
    let (name, _) = expect(&mut hung, "slow");
    let (second, redelivered) = expect(&mut other, "slow");
    assert!(redelivered);
    answer(&mut other, "ack", &second, &json!({}));
    hung.command(&json!({"command": "ack", "delivery": name}));
    assert_eq!(hung.next_reply()["response_code"], "02");
    broker.wait_for_log("has not answered a delivery within ack_timeout");
}

#[test]
fn an_extended_delivery_stays_with_its_receiver() {
    let broker = Setup::default().channel("sms", "receivers = 1\nack_timeout = \"1s\"").start();
    let (mut slow, mut other) = (receiver(&broker, 1), receiver(&broker, 1));
    publish(&broker, "work");
    let (name, _) = expect(&mut slow, "work");
    for _ in 0..6 {
        other.expect_nothing(Duration::from_millis(400));
        answer(&mut slow, "extend", &name, &json!({}));
    }
    answer(&mut slow, "ack", &name, &json!({}));
    other.expect_nothing_yet();
}

#[test]
fn a_message_moves_from_a_frozen_receiver_to_a_standby_receiver() {
    let broker = Setup::default().channel("sms", "receivers = 1\nttl = \"60s\"\nconfirm_within = \"1s\"").start();
    let mut frozen = Client::receiver(&broker, "sms").silent();
    let mut standby = Client::receiver(&broker, "sms");
    publish(&broker, "402913");
    assert_eq!(frozen.messages(1), ["\"402913\""]);
    assert_eq!(standby.messages(1), ["\"402913\""], "the frozen receiver did not confirm in time");
    publish(&broker, "718281");
    assert_eq!(standby.messages(1), ["\"718281\""], "the frozen receiver gets no new message");
    frozen.expect_nothing(Duration::from_millis(200));
}
