//! The three exceptions for legacy connections (SPEC section 3), without which a real client fails, and the ordinary work of the legacy clients.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::legacy::{Esp32, Java, Php, PhpRead, php_head, php_publish, php_send};
use crate::raw::{Got, Raw, opcode};

#[test]
fn the_connect_reply_comes_at_least_50_ms_after_the_head() {
    let broker = Broker::start();
    // A client that reads 15 ms late gets an early frame together with the head. On a loaded machine the pause may be longer than the broker's 50 ms;
    // then the attempt proves nothing and is repeated.
    for _ in 0..100 {
        let began = Instant::now();
        let (mut php, lost) = Php::connect_slowly(&broker, "/", Duration::from_millis(15));
        if began.elapsed() < Duration::from_millis(45) {
            assert!(lost.is_empty(), "lost with the head: {}", lost.escape_ascii());
            let reply = php.message();
            assert!(reply.contains("connect"), "{reply}");
            assert!(began.elapsed() >= Duration::from_millis(45), "the connect reply came after {:?}", began.elapsed());
            return;
        }
    }
    panic!("this machine is too slow for the test");
}

#[test]
fn the_backlog_of_a_topic_comes_at_least_50_ms_after_the_head() {
    let broker = Broker::start();
    Client::envelope(&broker).publish_safely("sms", &json!({"n": 1}), "a");
    for _ in 0..100 {
        let began = Instant::now();
        let (mut php, lost) = Php::connect_slowly(&broker, "/ws?topic=sms", Duration::from_millis(15));
        if began.elapsed() < Duration::from_millis(45) {
            assert!(lost.is_empty(), "lost with the head: {}", lost.escape_ascii());
            assert_eq!(php.message(), r#"{"n":1}"#);
            return;
        }
        php.raw().finish();
    }
    panic!("this machine is too slow for the test");
}

#[test]
fn the_clients_first_frame_ends_the_hold() {
    let broker = Broker::start();
    let quick = (0..20).any(|_| {
        let mut raw = Raw::connect(&broker);
        raw.send(&php_head("/"));
        raw.head();
        let began = Instant::now();
        raw.send_frame(opcode::BINARY, br#"{"command":"ping","channel":"sms"}"#);
        raw.next_frame();
        began.elapsed() < Duration::from_millis(40)
    });
    assert!(quick, "every answer to a first frame was late");
}

#[test]
fn a_stopping_broker_sends_1001_to_modern_clients_and_no_close_frame_to_legacy_clients() {
    let mut broker = Broker::start();
    let mut envelope = Php::receiver(&broker, "sms");
    let mut topic = Php::connect(&broker, "/ws?topic=sms");
    let mut modern = Client::receiver(&broker, "sms");
    broker.signal(libc::SIGTERM);
    assert_eq!(modern.closed(), 1001);
    // The raw peer tells FIN from RST; `Php::read` does not.
    for php in [&mut envelope, &mut topic] {
        assert_eq!(php.raw().next(), Got::Fin, "{}", php.raw().trace());
    }
    // The real clients end at once, too.
    drop((envelope, topic, modern));
    let status = broker.wait();
    assert_eq!(status.code(), Some(0), "{}", broker.log().tail());
}

#[test]
fn a_clients_own_close_frame_is_answered() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    raw.send(&php_head("/ws?topic=sms"));
    raw.head();
    raw.send_frame(opcode::CLOSE, &crate::raw::close_payload(1000, "bye"));
    assert_eq!(raw.next_frame().close_code(), Some(1000), "{}", raw.trace());
    assert_eq!(raw.next(), Got::Fin, "{}", raw.trace());
}

#[test]
fn confirmation_pings_have_a_payload_and_an_empty_pong_answers_them() {
    let broker = Setup::default().defaults("receivers = 1").start();
    let mut php = Php::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    for round in 0..3 {
        sender.publish("sms", &json!(round));
        assert!(php.message().contains(&format!("[{round}]")));
        // `Php::read` fails on an empty ping. It leaves a ping with the payload "0" unanswered, so the message would be delivered again.
        php.answer_one_ping();
    }
    drop(php);
    let mut next = Client::receiver(&broker, "sms");
    sender.publish("sms", &json!(99));
    assert_eq!(next.numbers(1), [99]);
}

#[test]
fn an_empty_topic_message_is_not_forwarded() {
    let broker = Broker::start();
    let mut php = Php::connect(&broker, "/ws?topic=sms");
    let mut modern = Client::topic(&broker, "sms");
    let mut sender = Client::topic(&broker, "sms");
    for opcode in [opcode::TEXT, opcode::BINARY] {
        sender.raw().send_frame(opcode, b"");
    }
    sender.raw().send_text("not empty");
    assert_eq!(php.message(), "not empty");
    assert_eq!(modern.next_text(), "not empty");
}

#[test]
fn messages_of_a_script_that_sends_and_leaves_are_processed() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    for round in 0..5 {
        php_send(&broker, &format!(r#"{{"command":"send-message","channel":"sms","data":[{round}]}}"#));
        assert_eq!(receiver.numbers(1), [round]);
        // The broker writes the held connect reply to a closed socket, so the write may fail before the frame is read.
        let mut hasty = Php::connect(&broker, "/");
        hasty.send_envelope(&format!(r#"{{"command":"send-message","channel":"sms","data":[{}]}}"#, 100 + round));
        drop(hasty);
        assert_eq!(receiver.numbers(1), [100 + round]);
        php_publish(&broker, "sms", &(200 + round).to_string());
        assert_eq!(receiver.numbers(1), [200 + round]);
    }
}

#[test]
fn messages_of_a_publisher_that_resets_its_connection_are_processed() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut backlog = Client::topic(&broker, "sms");
    for round in 0..5 {
        // A topic publisher is a receiver too. Closing a socket with unread bytes sends RST.
        let mut php = Php::connect(&broker, "/ws?topic=sms");
        backlog.raw().send_text("\"unread\"");
        assert_eq!(receiver.messages(1), ["\"unread\""]);
        php.send_topic(&round.to_string());
        drop(php);
        assert_eq!(receiver.numbers(1), [round]);
        assert_eq!(backlog.next_text(), round.to_string());
    }
}

#[test]
fn the_java_gateway_receives_and_answers() {
    let broker = Broker::start();
    let mut java = Java::connect(&broker, "otp requests");
    java.keep_alive();
    let request = r#"{"command":"send-sms","data":{"date_time":1763800000,"id":71,"receiver":"0812","message":"Your code is 402913"}}"#;
    php_publish(&broker, "otp+requests", request);
    assert_eq!(java.text(), request);
    let mut binary = Client::topic(&broker, "otp+requests");
    binary.raw().send_frame(opcode::BINARY, b"\0\x01");
    php_publish(&broker, "otp+requests", "{\"command\":\"echo\"}");
    assert_eq!(java.text(), "{\"command\":\"echo\"}", "a binary frame must be ignored");
    java.keep_alive();
    let mut callback = Client::receiver(&broker, "callback");
    Java::connect(&broker, "callback").send_and_close("{\"done\":true}");
    assert_eq!(callback.messages(1), ["{\"done\":true}"]);
    drop(broker);
    assert_ne!(java.raw().next(), Got::Silence);
}

#[test]
fn the_esp32_gateway_receives_and_answers() {
    let broker = Broker::start();
    let mut esp32 = Esp32::connect(&broker, "sms");
    php_publish(&broker, "sms", "{\"id\":1}");
    assert_eq!(esp32.text(), "{\"id\":1}");
    let mut receiver = Client::receiver(&broker, "answers");
    Esp32::connect(&broker, "answers").send_and_close("{\"id\":2}");
    assert_eq!(receiver.messages(1), ["{\"id\":2}"]);
}

#[test]
fn backlog_frames_fit_the_esp32() {
    let broker = Setup::default().store("batch = 1000").start();
    let mut sender = Client::envelope(&broker);
    let text = "x".repeat(1_000);
    for number in 0..50 {
        sender.publish_safely("sms", &json!({"number": number, "text": text}), &format!("id {number}"));
    }
    let mut raw = Raw::upgrade(&broker, &crate::raw::Head::new("/"));
    raw.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
    let mut seen = 0;
    while seen < 50 {
        let frame = raw.next_data();
        assert!(frame.payload.len() <= 15 << 10, "a frame of {} bytes\n{}", frame.payload.len(), raw.trace());
        let value: Value = serde_json::from_slice(&frame.payload).unwrap();
        seen += if value["command"] == "send-message" { value["data"].as_array().unwrap().len() } else { 0 };
    }
}

#[test]
fn a_reply_waits_for_a_requester_that_subscribes_later() {
    let broker = Broker::start();
    php_publish(&broker, "requests", r#"{"command":"echo","callback_topic":"reply-7","callback_delay":0}"#);
    Java::connect(&broker, "reply-7").send_and_close(r#"{"answer":7}"#);
    let reader = Php::connect(&broker, "/ws?topic=reply-7");
    assert_eq!(reader.one_shot(), r#"{"answer":7}"#);
}

#[test]
fn a_waiting_one_shot_reader_gets_no_ping_within_ten_seconds() {
    let broker = Setup::default().server("heartbeat = \"1s\"").start();
    let mut reader = Php::connect(&broker, "/ws?topic=callback");
    match reader.raw().next_by(Instant::now() + Duration::from_secs(10)) {
        Got::Silence => {}
        other => panic!("expected ten quiet seconds, got {other:?}\n{}", reader.raw().trace()),
    }
    php_publish(&broker, "callback", "\"at last\"");
    assert_eq!(reader.read(Instant::now() + PATIENCE), PhpRead::Message("\"at last\"".into()));
}
