//! The promises for kept messages (SPEC section 6).

use std::time::Duration;

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::{Client, messages_of};
use crate::legacy::{Java, Php, php_publish};
use crate::raw::{Head, Raw};

/// Sends each number as a publication with an id, and returns when all are safe.
#[track_caller]
fn publish_numbers(broker: &Broker, channel: &str, numbers: std::ops::Range<u64>) {
    let mut sender = Client::envelope(broker);
    for number in numbers.clone() {
        sender.command(
            &json!({"command": "send-message", "channel": channel, "data": [number], "id": format!("number {number}")}),
        );
    }
    for number in numbers {
        let reply = sender.next_reply();
        assert_eq!(reply["response_code"], "00", "{number}: {reply}");
    }
}

/// A receiver that reads but confirms nothing.
#[track_caller]
fn silent_receiver(broker: &Broker, channel: &str) -> Client {
    let mut client = Client::envelope(broker).silent();
    client.subscribe(channel);
    client
}

#[test]
fn messages_wait_for_a_receiver_and_come_in_order() {
    let broker = Broker::start();
    publish_numbers(&broker, "sms", 0..35);
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(35), (0..35).collect::<Vec<_>>());
    publish_numbers(&broker, "sms", 35..40);
    assert_eq!(receiver.numbers(5), (35..40).collect::<Vec<_>>());
}

#[test]
fn confirmed_messages_are_not_redelivered() {
    let broker = Broker::start();
    publish_numbers(&broker, "sms", 0..5);
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(5), [0, 1, 2, 3, 4]);
    receiver.confirm();
    receiver.vanish();
    let broker = broker.stop_and_restart();
    publish_numbers(&broker, "sms", 5..6);
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [5]);
}

#[test]
fn a_backlog_of_many_pages_comes_in_order_after_a_restart() {
    let broker = Setup::default().store("batch = 100").start();
    let mut sender = Client::envelope(&broker);
    for start in (0..3_000u64).step_by(100) {
        let numbers: Vec<u64> = (start..start + 100).collect();
        sender.command(&json!({"command": "send-message", "channel": "sms", "data": numbers, "id": start.to_string()}));
        assert_eq!(sender.next_reply()["response_code"], "00");
    }
    let broker = broker.stop_and_restart();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut all = Vec::new();
    while all.len() < 3_000 {
        all.extend(messages_of(&receiver.next_text()).iter().map(|text| text.parse::<u64>().unwrap()));
    }
    assert_eq!(all, (0..3_000).collect::<Vec<_>>());
}

#[test]
fn messages_of_a_vanished_receiver_return_in_their_old_order() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut first = Client::envelope(&broker).silent();
    first.subscribe_with("sms", &json!({"prefetch": 2}));
    let mut second = Client::receiver(&broker, "other");
    let mut sender = Client::envelope(&broker);
    for number in 0..4 {
        sender.publish("sms", &json!(number));
    }
    sender.sync();
    assert_eq!(first.numbers(2), [0, 1]);
    first.expect_nothing_yet();
    second.expect_nothing_yet();
    first.vanish();
    second.subscribe("sms");
    assert_eq!(second.numbers(4), [0, 1, 2, 3]);
}

#[test]
fn a_standby_receiver_gets_the_unconfirmed_messages_of_the_first() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut first = silent_receiver(&broker, "sms");
    let mut standby = Client::receiver(&broker, "sms");
    publish_all_in_one(&broker, &[0, 1, 2]);
    assert_eq!(first.numbers(3), [0, 1, 2]);
    standby.expect_nothing_yet();
    first.vanish();
    assert_eq!(standby.numbers(3), [0, 1, 2]);
}

/// One publication with these messages on `sms`.
#[track_caller]
fn publish_all_in_one(broker: &Broker, numbers: &[u64]) {
    let mut sender = Client::envelope(broker);
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": numbers}));
    sender.sync();
}

#[test]
fn each_one_shot_reader_takes_one_message() {
    let broker = Broker::start();
    for dialect in ["/ws?topic=callback", "/"] {
        for number in 0..3 {
            php_publish(&broker, "callback", &number.to_string());
            let mut reader = Php::connect(&broker, dialect);
            if dialect == "/" {
                assert!(reader.message().contains("connect"));
                reader.send_envelope(r#"{"command":"receive-message","channel":"callback","data":[]}"#);
                let delivery = format!(r#"{{"command":"send-message","channel":"callback","data":[{number}]}}"#);
                assert_eq!(reader.one_shot(), delivery);
            } else {
                assert_eq!(reader.one_shot(), number.to_string());
            }
        }
    }
}

#[test]
fn a_waiting_one_shot_reader_takes_a_live_message() {
    let broker = Broker::start();
    for number in 0..3 {
        let reader = Php::connect(&broker, "/ws?topic=callback");
        php_publish(&broker, "callback", &number.to_string());
        assert_eq!(reader.one_shot(), number.to_string());
    }
}

#[test]
fn a_topic_publisher_that_gets_the_backlog_does_not_settle_it() {
    let broker = Broker::start();
    publish_all_in_one(&broker, &[0, 1]);
    // A topic publisher is a receiver too. It reads the first message, sends its own, and closes in an orderly way.
    let mut publisher = Java::connect(&broker, "sms");
    assert_eq!(publisher.text(), "0");
    publisher.send_and_close("2");
    let mut numbers = Client::receiver(&broker, "sms").numbers(3);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn an_end_with_unread_deliveries_is_not_orderly() {
    let broker = Broker::start();
    publish_all_in_one(&broker, &[0, 1, 2]);
    let raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
    // Three frames of three bytes are unread in the socket's buffer, so closing it sends RST.
    raw.wait_unread(9);
    drop(raw);
    assert_eq!(Client::receiver(&broker, "sms").numbers(3), [0, 1, 2]);
}

#[test]
fn every_receiver_gets_a_live_message_and_the_first_confirmation_settles_it() {
    let broker = Broker::start();
    let mut quick = Client::receiver(&broker, "sms");
    let mut silent = silent_receiver(&broker, "sms");
    publish_all_in_one(&broker, &[0]);
    assert_eq!(quick.numbers(1), [0]);
    assert_eq!(silent.numbers(1), [0]);
    quick.confirm();
    silent.vanish();
    quick.leave();
    publish_all_in_one(&broker, &[1]);
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1]);
}

#[test]
fn an_accepted_message_survives_a_crash_and_the_reply_says_that_it_is_stored() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let reply = sender.publish_safely("sms", &json!(0), "a");
    assert_eq!(
        reply,
        json!({"command":"send-message","response_code":"00","response_text":"Accepted","id":"a","receivers":0,"stored":true})
    );
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [0]);
}

#[test]
fn a_receivers_confirmation_makes_a_message_safe_without_the_store() {
    let broker = Setup::default().store("write_delay = \"1m\"").start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(0));
    assert_eq!(receiver.numbers(1), [0]);
    receiver.confirm();
    receiver.leave();
    let broker = broker.kill_and_restart();
    publish_all_in_one(&broker, &[1]);
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1], "a confirmed message came again");
}

#[test]
fn a_message_in_flight_is_written_when_its_confirmation_is_late() {
    let broker = Setup::default().store("write_delay = \"100ms\"").start();
    let mut receiver = silent_receiver(&broker, "sms");
    publish_all_in_one(&broker, &[0]);
    assert_eq!(receiver.numbers(1), [0]);
    // A fixed pause, because no event reports the end of the delay and the commit.
    std::thread::sleep(Duration::from_secs(2));
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [0]);
}

#[test]
fn the_memory_store_keeps_messages_while_the_broker_runs() {
    let broker = Setup::default().in_memory().start();
    publish_numbers(&broker, "sms", 0..20);
    let mut receiver = silent_receiver(&broker, "sms");
    let first = receiver.next_text();
    assert_eq!(messages_of(&first)[0], "0");
    receiver.vanish();
    assert_eq!(Client::receiver(&broker, "sms").numbers(20), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_full_backlog_refuses_the_sender_and_loses_nothing() {
    let broker = Setup::default().channel("sms", "max_backlog = 3").start();
    publish_numbers(&broker, "sms", 0..3);
    let mut sender = Client::envelope(&broker);
    let refused = sender.request("sms", &json!(3), &json!({"id": "one too many"}));
    assert_eq!((&refused["response_code"], &refused["id"]), (&json!("06"), &json!("one too many")), "{refused}");
    sender.publish("sms", &json!(4));
    assert_eq!(sender.next_reply()["response_code"], "06", "a refusal needs no id");
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(3), [0, 1, 2]);
    receiver.confirm();
    sender.publish_safely("sms", &json!(5), "again");
    assert_eq!(receiver.numbers(1), [5]);
}

#[test]
fn a_full_backlog_ends_a_topic_publisher() {
    // A topic publisher is a receiver too. A receiver that confirms nothing holds the backlog, so the publisher gets no message.
    let broker = Setup::default().channel("full", "max_backlog = 1\nreceivers = 1").start();
    let mut holder = Client::topic(&broker, "full").silent();
    let mut sender = Client::topic(&broker, "full");
    sender.raw().send_text("1");
    assert_eq!(holder.next_text(), "1");
    sender.raw().send_text("2");
    assert_eq!(sender.closed(), 1013);
}
