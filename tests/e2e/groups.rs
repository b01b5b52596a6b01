//! `"group"`: each message goes to one of the receivers that name the same group.

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;

/// A receiver of `sms` with manual acknowledgement, in this group.
#[track_caller]
fn gateway(broker: &Broker, group: &str) -> Client {
    let mut client = Client::envelope(broker);
    client.subscribe_with("sms", &json!({"ack": "manual", "group": group, "prefetch": 4}));
    client
}

/// The next delivery: its name, whether it is marked, and its messages.
#[track_caller]
fn next(receiver: &mut Client) -> (String, bool, Value) {
    let delivery = receiver.next_delivery();
    let name = delivery["delivery"].as_str().expect("a name").to_owned();
    (name, delivery.get("redelivered").is_some(), delivery["data"].clone())
}

#[track_caller]
fn answer(receiver: &mut Client, command: &str, delivery: &str) {
    receiver.command(&json!({"command": command, "delivery": delivery}));
    receiver.sync();
}

#[test]
fn each_message_goes_to_one_of_a_group_and_to_every_receiver_outside() {
    for keep in [true, false] {
        let broker = Setup::default().defaults(&format!("keep = {keep}")).start();
        let mut gateways = [gateway(&broker, "gateways"), gateway(&broker, "gateways")];
        let mut page = Client::receiver(&broker, "sms");
        let mut sender = Client::envelope(&broker);
        for number in 0..4 {
            sender.publish("sms", &json!(number));
        }
        assert_eq!(page.numbers(4), [0, 1, 2, 3]);
        assert_eq!(gateways[0].numbers(4), [0, 1, 2, 3]);
        gateways[1].expect_nothing_yet();
        let [first, mut second] = gateways;
        first.vanish();
        if keep {
            assert_eq!(second.numbers(4), [0, 1, 2, 3], "the first receiver had not confirmed them");
        }
        // Until the broker has noticed that the first receiver has gone, that one gets them.
        for number in 4.. {
            sender.publish("sms", &json!(number));
            assert_eq!(page.numbers(1), [number]);
            second.sync();
            if keep || !second.take_messages().is_empty() {
                break;
            }
            assert!(number < 10_000, "the second receiver never gets a message");
        }
    }
}

#[test]
fn dispatch_rotate_alternates_within_a_group() {
    let broker = Setup::default().defaults("dispatch = \"rotate\"").start();
    let mut gateways = [gateway(&broker, "gateways"), gateway(&broker, "gateways")];
    let mut sender = Client::envelope(&broker);
    for number in 0..6 {
        sender.publish("sms", &json!(number));
    }
    assert_eq!(gateways[0].numbers(3), [0, 2, 4]);
    assert_eq!(gateways[1].numbers(3), [1, 3, 5]);
}

#[test]
fn a_receiver_outside_a_group_settles_no_message_of_the_group() {
    let broker = Broker::start();
    let mut page = Client::receiver(&broker, "sms");
    let mut gateway_1 = gateway(&broker, "gateways");
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(1));
    assert_eq!(next(&mut gateway_1).2, json!([1]));
    assert_eq!(page.numbers(1), [1]);
    page.confirm();
    gateway_1.vanish();
    let mut gateway_2 = gateway(&broker, "gateways");
    let (delivery, marked, data) = next(&mut gateway_2);
    assert_eq!((marked, data), (true, json!([1])));
    answer(&mut gateway_2, "ack", &delivery);
    page.expect_nothing_yet();
    gateway_2.vanish();
    gateway(&broker, "gateways").expect_nothing_yet();
}

#[test]
fn unconfirmed_messages_of_a_group_survive_a_crash() {
    let broker = Broker::start();
    let mut page = Client::receiver(&broker, "sms");
    let mut gateway_1 = gateway(&broker, "gateways");
    let mut sender = Client::envelope(&broker);
    assert_eq!(
        sender.publish_safely("sms", &json!(1), "one")["stored"],
        json!(true),
        "the confirmation of the page does not count"
    );
    assert_eq!(next(&mut gateway_1).2, json!([1]));
    page.confirm();
    let broker = broker.kill_and_restart();
    let (_, marked, data) = next(&mut gateway(&broker, "gateways"));
    assert_eq!((marked, data), (true, json!([1])));
}

#[test]
fn an_empty_or_long_group_name_is_refused() {
    let broker = Broker::start();
    let mut client = Client::envelope(&broker);
    client.command(&json!({"command": "receive-message", "channel": "sms", "group": ""}));
    assert_eq!(
        client.next_reply()["response_text"],
        json!("Malformed: 'group' is empty; leave it out, or give it a value")
    );
    client.command(&json!({"command": "receive-message", "channel": "sms", "group": "x".repeat(129)}));
    assert_eq!(client.next_reply()["response_text"], json!("Malformed: 'group' is longer than 128 bytes"));
}
