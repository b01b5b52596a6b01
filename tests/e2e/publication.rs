//! The members of `send-message`: `number_of_receiver`, `id`, `ttl`, `delay`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::{Head, basic};

#[test]
fn number_of_receiver_overrides_the_limit() {
    let broker = Setup::default().channel("sms", "receivers = 2\nkeep = false").start();
    let mut receivers: Vec<Client> = (0..4).map(|_| Client::receiver(&broker, "sms")).collect();
    let mut sender = Client::envelope(&broker);
    let cases = [
        (json!(0), 4),
        (json!(1), 1),
        (json!(3), 3),
        (json!(5), 4),
        (json!("0"), 4),
        (json!("3"), 3),
        (json!(-1), 1),
        (json!("-3"), 3),
        (json!(1.5), 2),
        (json!("abc"), 2),
        (json!(""), 2),
        (json!([]), 2),
        (json!({}), 2),
        (json!(null), 2),
        (json!(true), 2),
        (json!(1e99), 2),
    ];
    for (index, (value, wanted)) in cases.iter().enumerate() {
        let members = json!({"id": index.to_string(), "number_of_receiver": value});
        let reply = sender.request("sms", &json!(index), &members);
        assert_eq!(reply["response_code"], "00", "number_of_receiver {value}: {reply}");
        assert_eq!(reply["receivers"], *wanted, "number_of_receiver {value}: {reply}");
        for (position, receiver) in receivers.iter_mut().enumerate() {
            if position < *wanted {
                assert_eq!(receiver.numbers(1), [index as u64], "number_of_receiver {value}, receiver {position}");
            } else {
                receiver.expect_nothing_yet();
            }
        }
    }
}

#[test]
fn a_message_is_never_delivered_after_its_ttl() {
    let broker = Setup::default().channel("short", "ttl = \"1s\"").start();
    let mut sender = Client::envelope(&broker);
    let reply = sender.request("sms", &json!(0), &json!({"id": "a", "ttl": 1}));
    assert_eq!(reply["response_code"], "00", "{reply}");
    sender.publish_safely("sms", &json!(1), "b");
    sender.publish_safely("short", &json!(2), "c");
    let reply = sender.request("short", &json!(3), &json!({"id": "d", "ttl": 3600}));
    assert_eq!(reply["response_code"], "00", "{reply}");
    // The ttl must run out.
    std::thread::sleep(Duration::from_millis(1_300));
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1]);
    assert_eq!(Client::receiver(&broker, "short").numbers(1), [3], "the publication's ttl overrides the channel's");
}

#[test]
fn a_message_that_expired_in_flight_or_while_the_broker_was_down_is_not_delivered_again() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let mut receiver = Client::receiver(&broker, "flight").silent();
    sender.request("flight", &json!(0), &json!({"id": "a", "ttl": 1}));
    assert_eq!(receiver.numbers(1), [0]);
    sender.request("down", &json!(1), &json!({"id": "b", "ttl": 1}));
    std::thread::sleep(Duration::from_millis(1_300));
    receiver.vanish();
    sender.publish_safely("flight", &json!(2), "c");
    sender.publish_safely("down", &json!(3), "d");
    assert_eq!(Client::receiver(&broker, "flight").numbers(1), [2]);
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "down").numbers(1), [3]);
}

/// Publishes with a delay of a second, and fails if the message comes early.
#[track_caller]
fn assert_delayed(sender: &mut Client, receiver: &mut Client, channel: &str, stored: bool) {
    let began = Instant::now();
    let reply = sender.request(channel, &json!(1), &json!({"id": "delayed", "delay": 1}));
    assert_eq!(reply["response_code"], "00", "{reply}");
    assert_eq!(reply["stored"], stored, "{reply}");
    sender.publish(channel, &json!(2));
    assert_eq!(receiver.numbers(1), [2], "the delayed message delays the next one");
    assert_eq!(receiver.numbers(1), [1]);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(990), "delivered after {took:?}");
}

#[test]
fn a_delayed_message_comes_after_its_delay() {
    let broker = Broker::start();
    let (mut sender, mut receiver) = (Client::envelope(&broker), Client::receiver(&broker, "sms"));
    assert_delayed(&mut sender, &mut receiver, "sms", true);
}

#[test]
fn a_delayed_message_of_a_channel_that_keeps_nothing_goes_to_the_receivers_after_the_delay() {
    let broker = Setup::default().defaults("keep = false").start();
    let (mut sender, mut receiver) = (Client::envelope(&broker), Client::receiver(&broker, "sms"));
    assert_delayed(&mut sender, &mut receiver, "sms", false);
}

#[test]
fn a_delayed_message_survives_a_crash_and_stays_delayed() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let began = Instant::now();
    sender.request("sms", &json!(1), &json!({"id": "a", "delay": 3}));
    let broker = broker.kill_and_restart();
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [1]);
    // After a restart the wall clock decides, which is read in milliseconds.
    assert!(began.elapsed() >= Duration::from_millis(2_900), "delivered after {:?}", began.elapsed());
}

#[test]
fn a_repeated_id_is_accepted_and_not_delivered() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    let first = sender.publish_safely("sms", &json!(1), "same");
    assert_eq!(first.get("duplicate"), None, "{first}");
    for _ in 0..2 {
        let again = sender.publish_safely("sms", &json!(2), "same");
        assert_eq!(again["duplicate"], true, "{again}");
    }
    sender.publish_safely("sms", &json!(3), "other");
    assert_eq!(receiver.numbers(2), [1, 3]);
}

#[test]
fn each_user_has_separate_ids() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    sender.publish_safely("sms", &json!(1), "same");
    let head = Head::new("/").modern().with("Authorization", &basic("colon", "pass:word"));
    let reply = Client::envelope_with(&broker, &head).publish_safely("sms", &json!(2), "same");
    assert_eq!(reply.get("duplicate"), None, "{reply}");
    assert_eq!(receiver.numbers(2), [1, 2]);
}

#[test]
fn a_repeated_id_is_known_after_a_crash() {
    let broker = Broker::start();
    Client::envelope(&broker).publish_safely("sms", &json!(1), "same");
    let broker = broker.kill_and_restart();
    let again = Client::envelope(&broker).publish_safely("sms", &json!(1), "same");
    assert_eq!(again["duplicate"], true, "{again}");
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [1]);
    receiver.expect_nothing(Duration::from_millis(300));
}

#[test]
fn the_reply_contains_the_number_of_receivers() {
    let broker = Setup::default().channel("live", "keep = false").start();
    let mut sender = Client::envelope(&broker);
    let reply = |receivers: u32| -> Value {
        json!({"command":"send-message","response_code":"00","response_text":"Accepted","id":"id","receivers":receivers,"stored":false})
    };
    for count in 0..3u32 {
        let receivers: Vec<Client> = (0..count).map(|_| Client::receiver(&broker, "live")).collect();
        let mut wanted = reply(count);
        wanted["id"] = json!(format!("id {count}"));
        assert_eq!(sender.publish_safely("live", &json!(1), &format!("id {count}")), wanted);
        receivers.into_iter().for_each(Client::leave);
    }
}

#[test]
fn there_is_no_reply_without_an_id() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(1));
    sender.expect_nothing_yet();
}
