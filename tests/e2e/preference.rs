//! A receiver of several channels gets what waits in the one that it names first: the code before the bulk.

use std::ops::Range;

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::Head;

/// Messages that wait before the code comes.
const BULK: u64 = 2_000;

fn setup() -> Setup {
    Setup::default().defaults("receivers = 1")
}

/// Sends bulk messages, which are safe when this returns.
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

/// A receiver that prefers codes.
#[track_caller]
fn receiver(broker: &Broker, ack: &str) -> Client {
    let mut client = Client::envelope(broker).silent();
    client.command(&json!({"command": "receive-message", "channel": ["otp", "bulk"], "ack": ack}));
    client
}

/// The channel of the next delivery, which is confirmed.
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
fn with_thousands_waiting_the_code_is_the_next_one_handed_over() {
    for ack in ["manual", "auto"] {
        let broker = setup().start();
        let mut gateway = receiver(&broker, ack);
        send_bulk(&broker, 0..BULK);
        for _ in 0..3 {
            assert_eq!(take(&mut gateway), "bulk", "{ack}");
        }
        // One is in its hands.
        let in_hand = gateway.next_delivery();
        send_code(&broker);
        match in_hand.get("delivery") {
            Some(name) => gateway.command(&json!({"command": "ack", "delivery": name})),
            None => gateway.confirm(),
        }
        assert_eq!(take(&mut gateway), "otp", "{ack}");
        assert_eq!(take(&mut gateway), "bulk", "{ack}");
    }
}

#[test]
fn a_receiver_that_comes_back_gets_the_code_first() {
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
fn what_waits_in_the_store_after_a_restart_comes_in_the_order_of_the_list() {
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
fn an_old_client_with_two_channels_is_served_as_fast_as_it_confirms() {
    let broker = setup().start();
    let mut old = Client::envelope_with(&broker, &Head::new("/"));
    old.command(&json!({"command": "receive-message", "channel": ["otp", "bulk"], "data": []}));
    send_bulk(&broker, 0..BULK);
    assert_eq!(old.numbers(BULK as usize + 1), (0..=BULK).collect::<Vec<_>>());
}

#[test]
fn fair_channels_take_turns() {
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
