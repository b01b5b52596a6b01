//! Receivers that are too slow, and peers that are gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::raw::{Got, Head, Raw, opcode};

/// Sends until the broker has ended the receiver that does not read. The other receiver must get each message.
#[track_caller]
fn overflow(broker: &Broker, other: &mut Client) {
    let mut sender = Client::envelope(broker);
    let text = "x".repeat(64 << 10);
    for number in 0..1_000u32 {
        let message = json!({"number": number, "text": text});
        let reply = sender.publish_safely("sms", &message, &format!("number {number}"));
        assert_eq!(other.next_delivery()["data"][0]["number"], number, "{}", other.trace());
        if reply["receivers"] == 1 {
            return;
        }
        assert_eq!(reply["receivers"], 2, "{reply}");
    }
    panic!("a receiver that does not read is still connected after 64 MiB\n{}", broker.log().tail());
}

/// A receiver with a small buffer that does not read.
#[track_caller]
fn slow_receiver(broker: &Broker, head: &Head) -> Raw {
    let mut slow = Raw::connect_narrow(broker, 16 << 10).upgraded(head);
    slow.next_data();
    slow.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
    slow.send_text(r#"{"command":"ping"}"#);
    slow.next_data();
    slow
}

/// Reads up to the end. Returns the opcodes of the frames, the last frame, and the end.
#[track_caller]
fn read_to_end(slow: &mut Raw) -> (Vec<u8>, Option<crate::raw::Frame>, Got) {
    let (mut opcodes, mut last) = (Vec::new(), None);
    loop {
        match slow.next_by(Instant::now() + PATIENCE) {
            Got::Frame(frame) => {
                opcodes.push(frame.opcode);
                last = Some(frame);
            }
            end => return (opcodes, last, end),
        }
    }
}

#[test]
fn a_modern_receiver_that_does_not_read_is_ended_with_1008_and_others_are_not() {
    let broker = Setup::default().defaults("keep = false").start();
    let mut slow = slow_receiver(&broker, &Head::new("/").modern());
    let mut other = Client::receiver(&broker, "sms");
    overflow(&broker, &mut other);
    let (_, last, end) = read_to_end(&mut slow);
    let last = last.unwrap_or_else(|| panic!("no frame\n{}", slow.trace()));
    assert_eq!(last.close_code(), Some(1008), "{}", slow.trace());
    assert_eq!(&last.payload[2..], b"slow receiver");
    assert_eq!(end, Got::Fin);
    Client::envelope(&broker).publish("sms", &json!("still here"));
    assert_eq!(other.messages(1), ["\"still here\""]);
}

#[test]
fn a_legacy_receiver_that_does_not_read_is_ended_with_fin_and_others_are_not() {
    let broker = Setup::default().defaults("keep = false").start();
    let mut slow = slow_receiver(&broker, &Head::new("/"));
    let mut other = Client::receiver(&broker, "sms");
    overflow(&broker, &mut other);
    let (opcodes, _, end) = read_to_end(&mut slow);
    assert!(!opcodes.contains(&opcode::CLOSE), "an uninvited close frame\n{}", slow.trace());
    assert_eq!(end, Got::Fin, "{}", slow.trace());
    Client::envelope(&broker).publish("sms", &json!("still here"));
    assert_eq!(other.messages(1), ["\"still here\""]);
}

#[test]
fn a_receiver_of_kept_messages_that_does_not_read_loses_none() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let slow = slow_receiver(&broker, &Head::new("/").modern());
    let mut sender = Client::envelope(&broker);
    let text = "x".repeat(64 << 10);
    for number in 0..100u32 {
        sender.publish_safely("sms", &json!({"number": number, "text": text}), &format!("number {number}"));
    }
    slow.reset();
    let mut next = Client::receiver(&broker, "sms");
    let mut numbers: Vec<u64> = Vec::new();
    while numbers.len() < 100 {
        let message: Value = serde_json::from_str(&next.messages(1)[0]).unwrap();
        numbers.push(message["number"].as_u64().expect("a number"));
    }
    // The broker may see the new receiver before the end of the old one: then the messages that the old one had come later, in their order.
    let returned = numbers.iter().position(|number| *number == 0).expect("the first message");
    let had = numbers[returned..].iter().zip(0..).take_while(|(number, index)| *number == index).count();
    let returned: Vec<u64> = numbers.drain(returned..returned + had).collect();
    let in_order = |numbers: &[u64]| numbers.is_sorted_by(|a, b| a < b);
    assert!(in_order(&returned) && in_order(&numbers), "{returned:?}, {numbers:?}");
    assert_eq!(returned.len() + numbers.len(), 100);
}

#[test]
fn the_heartbeat_ends_a_dead_peer_and_no_idle_peer() {
    let broker = Setup::default().defaults("keep = false").server("heartbeat = \"1s\"").start();
    let began = Instant::now();
    // The peer reads nothing and answers no ping, as if its cable were unplugged.
    let gone = slow_receiver(&broker, &Head::new("/"));
    let mut quiet = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    for number in 0.. {
        let reply = sender.publish_safely("sms", &json!(number), &format!("number {number}"));
        assert_eq!(quiet.messages(1), [number.to_string()]);
        if reply["receivers"] == 1 {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "still connected after {:?}\n{}",
            began.elapsed(),
            broker.log().tail()
        );
        quiet.expect_nothing(Duration::from_millis(500));
    }
    assert!(
        began.elapsed() >= Duration::from_secs(15),
        "ended after {:?}, before the first ping was due",
        began.elapsed()
    );
    drop(gone);
}
