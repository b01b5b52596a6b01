//! A receiver of several channels gets the messages of the channel that it names first: codes before bulk messages.

use std::ops::Range;

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::Head;

/// The number of bulk messages that wait.
const BULK: u64 = 2_000;

fn setup() -> Setup {
    Setup::default().defaults("receivers = 1")
}

/// Sends bulk messages, and returns when they are safe.
#[track_caller]
fn send_bulk(broker: &Broker, numbers: Range<u64>) {
    let mut sender = Client::envelope(broker);
    let last = numbers.end;
    for number in numbers {
        sender.publish("bulk", &json!(number));
    }
    sender.publish_safely("bulk", &json!(last), &format!("bulk {last}"));
}

#[track_caller]
fn send_code(broker: &Broker) {
    Client::envelope(broker).publish_safely("otp", &json!("code"), "code");
}

/// A receiver that names the channel of the codes first.
#[track_caller]
fn receiver(broker: &Broker, ack: &str) -> Client {
    let mut client = Client::envelope(broker).silent();
    client.command(&json!({"command": "receive-message", "channel": ["otp", "bulk"], "ack": ack}));
    client
}

/// Reads and confirms the next delivery, and returns its channel.
#[track_caller]
fn take(receiver: &mut Client) -> String {
    let delivery: Value = receiver.next_delivery();
    match delivery.get("delivery") {
        Some(name) => receiver.command(&json!({"command": "ack", "delivery": name})),
        None => receiver.confirm(),
    }
    delivery["channel"].as_str().expect("a channel").to_owned()
}

#[test]
fn a_code_is_the_next_delivery_though_thousands_wait() {
    for ack in ["manual", "auto"] {
        let broker = setup().start();
        let mut gateway = receiver(&broker, ack);
        send_bulk(&broker, 0..BULK);
        for _ in 0..3 {
            assert_eq!(take(&mut gateway), "bulk", "{ack}");
        }
        // One delivery is unconfirmed when the code comes.
        let unconfirmed = gateway.next_delivery();
        send_code(&broker);
        match unconfirmed.get("delivery") {
            Some(name) => gateway.command(&json!({"command": "ack", "delivery": name})),
            None => gateway.confirm(),
        }
        assert_eq!(take(&mut gateway), "otp", "{ack}");
        assert_eq!(take(&mut gateway), "bulk", "{ack}");
    }
}

#[test]
fn a_returning_receiver_gets_the_code_first() {
    for ack in ["manual", "auto"] {
        let broker = setup().start();
        send_bulk(&broker, 0..BULK);
        let mut gateway = receiver(&broker, ack);
        assert_eq!(gateway.next_delivery()["channel"], "bulk", "{ack}");
        gateway.vanish();
        send_code(&broker);
        let mut gateway = receiver(&broker, ack);
        assert_eq!(take(&mut gateway), "otp", "{ack}");
        assert_eq!(take(&mut gateway), "bulk", "{ack}");
    }
}

#[test]
fn stored_messages_come_in_the_order_of_the_list_after_a_restart() {
    for ack in ["manual", "auto"] {
        let broker = setup().start();
        send_bulk(&broker, 0..BULK);
        send_code(&broker);
        let broker = broker.stop_and_restart();
        let mut gateway = receiver(&broker, ack);
        assert_eq!(take(&mut gateway), "otp", "{ack}");
        assert_eq!(take(&mut gateway), "bulk", "{ack}");
    }
}

#[test]
fn a_legacy_client_with_two_channels_gets_all_messages_in_order() {
    let broker = setup().start();
    let mut old = Client::envelope_with(&broker, &Head::new("/"));
    old.command(&json!({"command": "receive-message", "channel": ["otp", "bulk"], "data": []}));
    send_bulk(&broker, 0..BULK);
    assert_eq!(old.numbers(BULK as usize + 1), (0..=BULK).collect::<Vec<_>>());
}

#[test]
fn fair_order_alternates_between_channels() {
    let broker = setup().start();
    let mut sender = Client::envelope(&broker);
    for number in 0..3 {
        sender.publish("a", &json!(number));
        sender.publish("b", &json!(number));
    }
    sender.sync();
    let mut gateway = Client::envelope(&broker);
    gateway.command(&json!({
        "command": "receive-message", "channel": ["a", "b"], "ack": "manual", "prefetch": 1, "order": "fair",
    }));
    let got: Vec<String> = (0..6).map(|_| take(&mut gateway)).collect();
    let first = if got[0] == "a" { ["a", "b"] } else { ["b", "a"] };
    assert_eq!(got, first.repeat(3));
    gateway.command(&json!({"command": "receive-message", "channel": ["a", "b"], "order": "random"}));
    assert_eq!(gateway.next_reply()["response_text"], json!("Malformed: 'order' must be \"list\" or \"fair\""));
}
