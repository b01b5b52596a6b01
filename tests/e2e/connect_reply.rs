//! The connect reply of a legacy envelope connection contains the result of the first frame, for senders that read one frame and leave.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::legacy::Php;
use crate::raw::{Got, Head, Raw, opcode};

/// The connect reply to a client that sends `first` as its first frame.
#[track_caller]
fn connect_reply(broker: &Broker, first: &str) -> Value {
    let mut php = Php::connect(broker, "/");
    php.send_envelope(first);
    let reply = php.message();
    serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{reply}: {error}"))
}

/// Fails unless the connect reply has this code and its text begins with `text`.
#[track_caller]
fn assert_reply(broker: &Broker, first: &str, code: &str, text: &str) {
    let reply = connect_reply(broker, first);
    assert_eq!((&reply["command"], &reply["response_code"]), (&json!("connect"), &json!(code)), "{first}: {reply}");
    assert!(reply["response_text"].as_str().is_some_and(|said| said.starts_with(text)), "{first}: {reply}");
    assert!(reply["data"][0]["time_stamp"].is_string(), "{first}: {reply}");
}

fn message(channel: &str) -> String {
    json!({"command": "send-message", "channel": channel, "data": [{"n": 1}]}).to_string()
}

#[test]
fn the_connect_reply_says_whether_the_first_frame_was_accepted() {
    let broker = Setup::default()
        .channel("full", "max_backlog = 1")
        .channel("live", "keep = false")
        .auth(
            "htpasswd = []\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n\
             [[permission]]\nuser = \"app\"\nsend = [\"sms\", \"full\", \"live\"]\nreceive = [\"sms\"]",
        )
        .start();
    assert_reply(&broker, &message("sms"), "00", "Accepted");
    assert_reply(&broker, &message("live"), "00", "Accepted");
    assert_reply(&broker, &message("full"), "00", "Accepted");
    assert_reply(&broker, &message("full"), "06", "Full: channel \"full\" keeps 1 messages");
    assert_reply(&broker, &message("secret"), "03", "Forbidden: user \"app\" may not send to channel \"secret\"");
    let two = json!({"command": "send-message", "channel": "sms", "data": [1, 2]});
    assert_reply(&broker, &two.to_string(), "00", "Accepted");
    let late = json!({"command": "send-message", "channel": "sms", "data": [1], "delay": 60, "ttl": 1});
    assert_reply(&broker, &late.to_string(), "08", "Expired: ");
    let none = json!({"command": "send-message", "channel": "sms", "data": []});
    assert_reply(&broker, &none.to_string(), "00", "Accepted");
    let many = json!({"command": "send-message", "channel": "sms", "data": vec![1; 10_001]});
    assert_reply(&broker, &many.to_string(), "04", "Too large: ");
    assert_reply(&broker, "hello", "02", "Malformed: the frame is not JSON");
    assert_reply(&broker, r#"{"command":"dance"}"#, "07", "Unknown command");
    assert_reply(&broker, r#"{"command":"receive-message","channel":"full"}"#, "03", "Forbidden: ");
    assert_reply(&broker, r#"{"command":"receive-message","channel":"sms"}"#, "00", "Accepted");
    assert_reply(&broker, r#"{"command":"ack","delivery":"7-7"}"#, "02", "Malformed: ");
    assert_reply(&broker, r#"{"command":"ping"}"#, "00", "Accepted");
}

#[test]
fn a_refusal_in_the_connect_reply_is_not_repeated() {
    let broker = Setup::default().channel("full", "max_backlog = 1").start();
    Client::envelope(&broker).publish_safely("full", &json!(0), "a");
    for first in [message("full"), "hello".to_owned()] {
        let mut php = Php::connect(&broker, "/");
        php.send_envelope(&first);
        assert!(php.message().contains("\"connect\""));
        php.send_envelope(r#"{"command":"send-message","channel":"sms","data":[1],"id":"next"}"#);
        let next = php.message();
        assert!(next.contains(r#""response_code":"00""#) && next.contains(r#""id":"next""#), "{next}");
    }
}

#[test]
fn with_an_id_the_connect_reply_comes_before_the_answer() {
    let broker = Broker::start();
    for (id, channel, code) in [("a", "sms", "00"), ("b", "", "02")] {
        let mut php = Php::connect(&broker, "/");
        php.send_envelope(&json!({"command": "send-message", "channel": channel, "data": [1], "id": id}).to_string());
        let greeting: Value = serde_json::from_str(&php.message()).unwrap();
        assert_eq!((&greeting["command"], &greeting["response_code"]), (&json!("connect"), &json!("00")));
        let answer: Value = serde_json::from_str(&php.message()).unwrap();
        assert_eq!((&answer["id"], &answer["response_code"]), (&json!(id), &json!(code)), "{answer}");
    }
}

#[test]
fn a_client_that_reads_before_it_sends_gets_the_connect_reply_after_half_a_second() {
    let broker = Broker::start();
    let began = Instant::now();
    let mut php = Php::connect(&broker, "/");
    let reply = php.message();
    let waited = began.elapsed();
    assert!(reply.contains(r#""response_code":"00""#), "{reply}");
    assert!(waited >= Duration::from_millis(450), "after {waited:?}");
    // The next frame is not the first frame any more.
    php.send_envelope("hello");
    let refusal = php.message();
    assert!(!refusal.contains("connect") && refusal.contains(r#""response_code":"02""#), "{refusal}");
    // A modern client gets its connect reply at once.
    assert!(
        (0..20).any(|_| {
            let began = Instant::now();
            Client::envelope(&broker);
            began.elapsed() < Duration::from_millis(400)
        }),
        "the connect reply of a modern client is held"
    );
}

#[test]
fn a_message_that_is_not_safe_after_5_s_is_not_called_accepted() {
    let broker = Broker::start();
    // The receiver confirms nothing, and another program locks the store.
    let mut receiver = Client::receiver(&broker, "sms").silent();
    let lock = Connection::open(broker.dir().join("wsmb.db")).expect("the broker's file");
    lock.busy_timeout(PATIENCE).expect("a timeout");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    let began = Instant::now();
    let mut php = Php::connect(&broker, "/");
    php.send_envelope(&message("sms"));
    assert_eq!(receiver.messages(1), [r#"{"n":1}"#]);
    let reply = php.message();
    let waited = began.elapsed();
    let wanted = r#""command":"connect","response_code":"05","response_text":"Unavailable: not yet safe; may still be delivered""#;
    assert!(reply.contains(wanted), "{reply}");
    assert!(waited >= Duration::from_millis(4_900), "after {waited:?}");
    lock.execute_batch("COMMIT").expect("released");
    // The message becomes safe now, but no second answer follows.
    broker.wait_for_log("can be written again");
    php.send_envelope(r#"{"command":"send-message","channel":"other","data":[2],"id":"next"}"#);
    let next = php.message();
    assert!(next.contains(r#""id":"next""#), "{next}");
}

#[test]
fn deliveries_come_after_the_connect_reply() {
    let broker = Broker::start();
    Client::envelope(&broker).publish_safely("sms", &json!(1), "a");
    let mut raw = Raw::upgrade(&broker, &Head::new("/"));
    // Both in one segment: the subscription delivers before the publication is safe.
    let frames = [
        crate::raw::frame(opcode::TEXT, message("other").as_bytes()),
        crate::raw::frame(opcode::TEXT, br#"{"command":"receive-message","channel":"sms"}"#),
    ];
    raw.send(&frames.concat());
    assert!(raw.next_data().text().contains(r#""command":"connect","response_code":"00""#), "{}", raw.trace());
    assert_eq!(raw.next_data().text(), r#"{"command":"send-message","channel":"sms","data":[1]}"#);
}

/// How a client ends the connection right after its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Fin,
    Close,
    CloseAndFin,
}

/// Sends these frames and the end at once, and returns the replies up to the broker's FIN. A close frame must be answered after the replies.
#[track_caller]
fn sent_with_end(broker: &Broker, head: &Head, frames: &[&str], end: End) -> Vec<Value> {
    let mut raw = Raw::upgrade(broker, head);
    let mut bytes: Vec<u8> = frames.iter().flat_map(|text| crate::raw::frame(opcode::TEXT, text.as_bytes())).collect();
    if end != End::Fin {
        bytes.extend(crate::raw::frame(opcode::CLOSE, &1000_u16.to_be_bytes()));
    }
    raw.send(&bytes);
    if end != End::Close {
        raw.finish();
    }
    let mut found = Vec::new();
    let mut closed = false;
    loop {
        match raw.next() {
            Got::Frame(frame) if frame.opcode == opcode::TEXT && !closed => {
                found.push(serde_json::from_str(frame.text()).unwrap());
            }
            Got::Frame(frame) if frame.opcode == opcode::CLOSE && !closed => {
                assert_eq!(frame.payload, 1000_u16.to_be_bytes());
                closed = true;
            }
            Got::Fin => {
                assert_eq!(closed, end != End::Fin, "{}", raw.trace());
                return found;
            }
            other => panic!("{other:?}\n{}", raw.trace()),
        }
    }
}

#[test]
fn an_end_right_after_a_request_loses_no_answer() {
    let broker = Broker::start();
    let codes = |replies: &[Value]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        replies.iter().map(|reply| (text(&reply["id"]), text(&reply["response_code"]))).collect()
    };
    let ok = |id: &str| (id.to_owned(), "00".to_owned());
    let ends = [End::Fin, End::Close, End::CloseAndFin];
    for (round, end) in (0..30).zip(ends.into_iter().cycle()) {
        let with_id = |id: &str| {
            let id = format!("{id}{round}");
            json!({"command": "send-message", "channel": "sms", "data": [1], "id": id}).to_string()
        };
        for head in [Head::new("/"), Head::new("/").modern()] {
            let modern = if head.bytes() == Head::new("/").bytes() { "a" } else { "b" };
            let replies = sent_with_end(&broker, &head, &[&with_id(modern), &with_id(&format!("{modern}x"))], end);
            let wanted = [ok(""), ok(&format!("{modern}{round}")), ok(&format!("{modern}x{round}"))];
            assert_eq!(codes(&replies), wanted, "{end:?}");
        }
        let replies = sent_with_end(&broker, &Head::new("/"), &[&message("sms")], end);
        assert_eq!(codes(&replies), [ok("")], "{end:?}");
        let replies = sent_with_end(&broker, &Head::new("/"), &[r#"{"command":"ping"}"#], end);
        assert_eq!(codes(&replies), [ok("")], "{end:?}");
    }
}

#[test]
fn a_client_that_has_finished_sending_receives_no_more_and_is_ended() {
    let broker = Broker::start();
    let lock = Connection::open(broker.dir().join("wsmb.db")).expect("the broker's file");
    lock.busy_timeout(PATIENCE).expect("a timeout");
    let mut holder = Client::receiver(&broker, "held").silent();
    let mut raw = Raw::upgrade(&broker, &Head::new("/").modern());
    raw.next_frame();
    lock.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    raw.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
    // The message is in flight to a receiver that confirms nothing, and cannot be stored, so it never becomes safe.
    raw.send_text(r#"{"command":"send-message","channel":"held","data":[1],"id":"never"}"#);
    raw.finish();
    assert_eq!(holder.messages(1), ["1"]);
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(2));
    assert_eq!(receiver.numbers(1), [2], "the finished client is no receiver any more");
    let began = Instant::now();
    assert_eq!(raw.next(), Got::Fin, "{}", raw.trace());
    assert!(began.elapsed() < Duration::from_secs(10), "ended after {:?}", began.elapsed());
    lock.execute_batch("COMMIT").expect("released");
}
