//! `"ack":"manual"`: a receiver confirms or gives back each delivery by its name.

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::{Got, close_payload, opcode};

/// A receiver with manual acknowledgement.
#[track_caller]
fn receiver(broker: &Broker, channel: &str, prefetch: u32) -> Client {
    let mut client = Client::envelope(broker);
    client.subscribe_with(channel, &json!({"ack": "manual", "prefetch": prefetch}));
    client
}

/// The next delivery: its name, whether it is marked as redelivered, and its messages.
#[track_caller]
fn next(receiver: &mut Client) -> (String, bool, Value) {
    let delivery = receiver.next_delivery();
    let name = delivery["delivery"]
        .as_str()
        .unwrap_or_else(|| panic!("no name: {delivery}\n{}", receiver.trace()))
        .to_string();
    (name, delivery.get("redelivered").is_some_and(|mark| *mark == json!(true)), delivery["data"].clone())
}

#[track_caller]
fn answer(receiver: &mut Client, command: &str, delivery: &str) {
    receiver.command(&json!({"command": command, "delivery": delivery}));
    receiver.sync();
}

#[track_caller]
fn publish(broker: &Broker, channel: &str, numbers: std::ops::Range<u32>) {
    let mut sender = Client::envelope(broker);
    for number in numbers {
        sender.publish(channel, &json!(number));
    }
    sender.sync();
}

#[test]
fn the_name_comes_first_and_the_envelope_is_verbatim() {
    let broker = Broker::start();
    let mut receiver = receiver(&broker, "sms", 10);
    let sent = "{ \"command\":\"send-message\",\n\"extra\":1.0, \"channel\":\"sms\",\"data\":[ {\"a\" : 1} ] } ";
    Client::envelope(&broker).raw().send_text(sent);
    let text = receiver.next_text();
    let (_, rest) = text
        .strip_prefix(r#"{"delivery":""#)
        .and_then(|rest| rest.split_once(r#"","message_id":"1","#))
        .unwrap_or_else(|| panic!("{text}"));
    assert_eq!(rest.trim(), sent[1..].trim());
}

#[test]
fn an_acknowledged_delivery_is_settled_and_others_are_redelivered_with_a_mark() {
    let broker = Setup::default().defaults("receivers = 1").start();
    publish(&broker, "sms", 0..3);
    let mut first = receiver(&broker, "sms", 10);
    let deliveries: Vec<_> = (0..3).map(|_| next(&mut first)).collect();
    for (number, delivery) in deliveries.iter().enumerate() {
        assert_eq!((delivery.1, &delivery.2), (false, &json!([number])), "with manual ack each frame has one message");
    }
    answer(&mut first, "ack", &deliveries[1].0);
    first.vanish();
    let mut second = receiver(&broker, "sms", 10);
    let again = [next(&mut second), next(&mut second)];
    assert_eq!((again[0].1, &again[0].2), (true, &json!([0])));
    assert_eq!((again[1].1, &again[1].2), (true, &json!([2])));
    second.expect_nothing_yet();
}

#[test]
fn a_paused_receiver_may_acknowledge_its_deliveries() {
    let broker = Setup::default().defaults("receivers = 1").start();
    publish(&broker, "sms", 0..2);
    let mut gateway = receiver(&broker, "sms", 1);
    let (name, _, data) = next(&mut gateway);
    assert_eq!(data, json!([0]));
    let nothing: [&str; 0] = [];
    gateway.command(&json!({"command": "receive-message", "channel": nothing, "ack": "manual", "prefetch": 1}));
    answer(&mut gateway, "ack", &name);
    gateway.expect_nothing_yet();
    gateway.command(&json!({"command": "receive-message", "channel": ["sms"], "ack": "manual", "prefetch": 1}));
    let (_, redelivered, data) = next(&mut gateway);
    assert_eq!((redelivered, data), (false, json!([1])), "the second was not delivered before");
}

#[test]
fn an_orderly_end_confirms_nothing_in_manual_mode() {
    let broker = Broker::start();
    publish(&broker, "sms", 0..1);
    let mut first = receiver(&broker, "sms", 10);
    assert_eq!(next(&mut first).2, json!([0]));
    first.leave();
    let mut second = receiver(&broker, "sms", 10);
    let (_, redelivered, data) = next(&mut second);
    assert_eq!((redelivered, data), (true, json!([0])));
}

#[test]
fn a_refused_delivery_is_delayed_and_the_others_are_not() {
    let broker = Setup::default().defaults("receivers = 1").start();
    publish(&broker, "sms", 0..3);
    let mut receiver = receiver(&broker, "sms", 1);
    let (name, redelivered, data) = next(&mut receiver);
    assert_eq!((redelivered, data), (false, json!([0])));
    answer(&mut receiver, "nack", &name);
    for number in 1..3 {
        let (name, redelivered, data) = next(&mut receiver);
        assert_eq!((redelivered, data), (false, json!([number])), "a refused message delays the others");
        answer(&mut receiver, "ack", &name);
    }
    let (name, redelivered, data) = next(&mut receiver);
    assert_eq!((redelivered, data), (true, json!([0])));
    answer(&mut receiver, "ack", &name);
    receiver.expect_nothing_yet();
}

#[test]
fn prefetch_bounds_the_unconfirmed_messages() {
    let broker = Broker::start();
    publish(&broker, "sms", 0..5);
    let mut receiver = receiver(&broker, "sms", 2);
    let first = next(&mut receiver);
    assert_eq!(next(&mut receiver).2, json!([1]));
    receiver.expect_nothing(std::time::Duration::from_millis(300));
    answer(&mut receiver, "ack", &first.0);
    assert_eq!(next(&mut receiver).2, json!([2]));
    receiver.expect_nothing_yet();
}

#[test]
fn after_max_deliveries_a_message_goes_to_the_dead_letter_channel() {
    let broker = Setup::default().channel("sms", "max_deliveries = 2\ndead_letter = \"dead\"").start();
    publish(&broker, "sms", 0..2);
    let mut receiver = receiver(&broker, "sms", 1);
    let (name, redelivered, data) = next(&mut receiver);
    assert_eq!((redelivered, data), (false, json!([0])));
    answer(&mut receiver, "nack", &name);
    let (other, _, data) = next(&mut receiver);
    assert_eq!(data, json!([1]), "the next message is delayed");
    answer(&mut receiver, "ack", &other);
    let (name, redelivered, data) = next(&mut receiver);
    assert_eq!((redelivered, data), (true, json!([0])));
    answer(&mut receiver, "nack", &name);
    assert_eq!(Client::receiver(&broker, "dead").numbers(1), [0]);
}

#[test]
fn after_max_deliveries_without_dead_letter_channel_a_message_is_dropped() {
    let broker = Setup::default().channel("sms", "max_deliveries = 1").start();
    publish(&broker, "sms", 0..2);
    let mut receiver = receiver(&broker, "sms", 1);
    let (name, _, data) = next(&mut receiver);
    assert_eq!(data, json!([0]));
    answer(&mut receiver, "nack", &name);
    assert_eq!(next(&mut receiver).2, json!([1]));
    broker.wait_for_log("dropped a message");
    let log = broker.log().text();
    assert!(log.contains("WARN") && log.contains("why=max_deliveries") && log.contains("channel=sms"), "{log}");
}

#[test]
fn an_answer_to_an_unknown_delivery_is_malformed_and_changes_nothing() {
    let broker = Broker::start();
    let mut receiver = receiver(&broker, "sms", 10);
    publish(&broker, "sms", 0..1);
    let (name, ..) = next(&mut receiver);
    for command in ["ack", "nack"] {
        receiver.command(&json!({"command": command, "delivery": "123456789"}));
        let reply = receiver.next_reply();
        assert_eq!((&reply["command"], &reply["response_code"]), (&json!(command), &json!("02")), "{reply}");
    }
    answer(&mut receiver, "ack", &name);
    receiver.expect_nothing_yet();
    receiver.command(&json!({"command": "ack", "delivery": name}));
    assert_eq!(receiver.next_reply()["response_code"], "02", "a second answer to one delivery");
}

#[test]
fn an_answer_to_a_delivery_of_an_older_connection_settles_no_other_message() {
    let broker = Setup::default().defaults("receivers = 1").start();
    publish(&broker, "sms", 0..2);
    let mut first = receiver(&broker, "sms", 1);
    let (old, _, data) = next(&mut first);
    assert_eq!(data, json!([0]));
    answer(&mut first, "ack", &old);
    let (lost, _, data) = next(&mut first);
    assert_eq!(data, json!([1]));
    first.vanish();
    let broker = broker.stop_and_restart();
    publish(&broker, "sms", 2..3);
    let mut second = receiver(&broker, "sms", 1);
    let (name, redelivered, data) = next(&mut second);
    assert_eq!((redelivered, data), (true, json!([1])));
    assert!(name != old && name != lost, "{name} was the name of another delivery");
    for command in ["ack", "nack", "extend"] {
        for late in [&old, &lost] {
            second.command(&json!({"command": command, "delivery": late}));
            let reply = second.next_reply();
            assert_eq!((&reply["command"], &reply["response_code"]), (&json!(command), &json!("02")), "{reply}");
            assert!(reply["response_text"].as_str().is_some_and(|text| text.contains("not waiting")), "{reply}");
        }
    }
    second.expect_nothing_yet();
    answer(&mut second, "ack", &name);
    assert_eq!(next(&mut second).2, json!([2]), "a late answer has settled another message");
}

#[test]
fn a_redelivery_is_marked_after_a_crash() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let mut first = receiver(&broker, "sms", 10);
    sender.publish_safely("sms", &json!(0), "a");
    assert!(!next(&mut first).1);
    let broker = broker.kill_and_restart();
    let mut second = receiver(&broker, "sms", 10);
    let (_, redelivered, data) = next(&mut second);
    assert_eq!((redelivered, data), (true, json!([0])));
}

#[test]
fn a_redelivery_is_marked_after_an_orderly_restart() {
    let broker = Broker::start();
    publish(&broker, "sms", 0..1);
    let mut first = receiver(&broker, "sms", 10);
    assert!(!next(&mut first).1);
    let broker = broker.stop_and_restart();
    let (_, redelivered, data) = next(&mut receiver(&broker, "sms", 10));
    assert_eq!((redelivered, data), (true, json!([0])));
}

#[test]
fn a_pong_confirms_nothing_in_manual_mode() {
    let broker = Broker::start();
    publish(&broker, "sms", 0..1);
    let mut first = receiver(&broker, "sms", 10);
    next(&mut first);
    first.raw().send_frame(opcode::PONG, b"");
    first.raw().send_frame(opcode::PONG, b"1");
    first.sync();
    first.raw().send_frame(opcode::CLOSE, &close_payload(1000, ""));
    assert_ne!(first.raw().next(), Got::Silence);
    assert_eq!(next(&mut receiver(&broker, "sms", 10)).2, json!([0]));
}
