//! SPEC sections 4 and 5: messages are verbatim within a dialect and translated between dialects, live and from the backlog.

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::{Client, messages_of};
use crate::legacy::Php;
use crate::raw::{Length, frame_with, opcode};

/// An envelope of exactly `size` bytes.
fn envelope_of(size: usize) -> String {
    let start = r#"{"command":"send-message","channel":"sms","data":[{"text":""#;
    let end = r#""}]}"#;
    format!("{start}{}{end}", "x".repeat(size - start.len() - end.len()))
}

#[test]
fn an_envelope_reaches_an_envelope_receiver_byte_for_byte() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    let pretty = "{\r\n\t\"channel\" : \"sms\",\n  \"command\":\"send-message\", \"unknown\": [1, {\"x\": null}],\n  \"data\": [ {\"b\":1.50, \"a\":\"\\u00e9é\\/\"} ]\n}\n ";
    let cases = [
        pretty.to_string(),
        envelope_of(125),
        envelope_of(126),
        envelope_of(65_535),
        envelope_of(65_536),
        envelope_of(1 << 20),
    ];
    for (index, text) in cases.iter().enumerate() {
        for first in [0x81, 0x82] {
            sender.raw().send(&frame_with(first, Length::Minimal, Some([9, 8, 7, 6]), text.as_bytes()));
            let frame = receiver.next_frame();
            assert_eq!(frame.opcode, opcode::TEXT, "case {index}: an envelope receiver must get a text frame");
            assert!(frame.payload == text.as_bytes(), "case {index} was changed\n{}", receiver.trace());
        }
    }
}

#[test]
fn the_php_clients_64_bit_length_is_accepted() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut php = Php::envelope(&broker);
    let text = envelope_of(65_535);
    php.send_envelope(&text);
    assert!(receiver.next_text() == text);
    let mut raw = Client::envelope(&broker);
    raw.raw().send(&frame_with(0x81, Length::Wide, Some([1, 2, 3, 4]), envelope_of(100).as_bytes()));
    assert_eq!(receiver.next_text(), envelope_of(100));
}

#[test]
fn a_fragmented_envelope_with_a_ping_in_between_arrives_whole() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    let text = r#"{"command":"send-message","channel":"sms","data":["é€😀"]}"#.as_bytes();
    let mask = Some([5, 6, 7, 8]);
    for (index, byte) in text.iter().enumerate() {
        let fin = if index + 1 == text.len() { 0x80 } else { 0 };
        let opcode = if index == 0 { opcode::TEXT } else { opcode::CONTINUATION };
        sender.raw().send(&frame_with(fin | opcode, Length::Minimal, mask, &[*byte]));
        if index == 20 {
            sender.raw().send_frame(opcode::PING, b"between");
        }
    }
    assert_eq!(receiver.next_text().as_bytes(), text);
    let pong = sender.next_frame();
    assert_eq!((pong.opcode, &pong.payload[..]), (opcode::PONG, &b"between"[..]));
}

#[test]
fn topic_frames_reach_topic_receivers_verbatim_text_as_text_and_binary_as_binary() {
    let broker = Broker::start();
    let mut receiver = Client::topic(&broker, "sms");
    let mut sender = Client::topic(&broker, "sms");
    let all_bytes: Vec<u8> = (0..=255).collect();
    let cases: [(u8, Vec<u8>); 7] = [
        (opcode::TEXT, b"plain text, no JSON".to_vec()),
        (opcode::TEXT, b"{\n \"a\" : 1 }".to_vec()),
        (opcode::TEXT, "é€😀".into()),
        (opcode::BINARY, all_bytes),
        (opcode::BINARY, b"{\"a\":1}".to_vec()),
        (opcode::TEXT, vec![b'x'; 65_535]),
        (opcode::BINARY, vec![0xff; 1 << 20]),
    ];
    for (index, (opcode, payload)) in cases.iter().enumerate() {
        sender.raw().send_frame(*opcode, payload);
        let frame = receiver.next_frame();
        assert!((frame.opcode, &frame.payload) == (*opcode, payload), "case {index} was changed\n{}", receiver.trace());
    }
    sender.expect_nothing_yet();
}

#[test]
fn binary_stays_binary_in_the_backlog() {
    let broker = Broker::start();
    let mut sender = Client::topic(&broker, "sms");
    sender.raw().send_frame(opcode::BINARY, &[0, 159, 146, 150]);
    sender.raw().send_frame(opcode::BINARY, b"\"utf-8\"");
    sender.raw().send_text("text");
    sender.sync();
    sender.leave();
    let broker = broker.stop_and_restart();
    let mut receiver = Client::topic(&broker, "sms");
    let got: Vec<(u8, Vec<u8>)> =
        (0..3).map(|_| receiver.next_frame()).map(|frame| (frame.opcode, frame.payload)).collect();
    assert_eq!(got[0], (opcode::BINARY, vec![0, 159, 146, 150]));
    assert_eq!(got[1], (opcode::BINARY, b"\"utf-8\"".to_vec()));
    assert_eq!(got[2], (opcode::TEXT, b"text".to_vec()));
}

/// A topic client's opcode and payload, and the resulting `data` of an envelope receiver.
const TOPIC_TO_ENVELOPE: [(u8, &[u8], &str); 6] = [
    (opcode::TEXT, b"{ \"a\" : 1.50 }", "{ \"a\" : 1.50 }"),
    (opcode::TEXT, b"\"a string\"", "\"a string\""),
    (opcode::TEXT, b"no JSON, \"quoted\"", r#""no JSON, \"quoted\"""#),
    (opcode::TEXT, b"[1,2]", "[1,2]"),
    (opcode::BINARY, b"{\"binary\":true}", "{\"binary\":true}"),
    (opcode::BINARY, &[0xff, 0xfe], "\"data:application/octet-stream;base64,//4=\""),
];

#[test]
fn a_topic_frame_reaches_an_envelope_receiver_live() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    let mut sender = Client::topic(&broker, "sms");
    for (opcode, payload, wanted) in TOPIC_TO_ENVELOPE {
        sender.raw().send_frame(opcode, payload);
        assert_eq!(receiver.next_text(), format!(r#"{{"command":"send-message","channel":"sms","data":[{wanted}]}}"#));
    }
}

#[test]
fn a_topic_frame_reaches_an_envelope_receiver_from_the_backlog() {
    let broker = Broker::start();
    let mut sender = Client::topic(&broker, "sms");
    for (opcode, payload, _) in TOPIC_TO_ENVELOPE {
        sender.raw().send_frame(opcode, payload);
    }
    sender.sync();
    sender.leave();
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.messages(6), TOPIC_TO_ENVELOPE.map(|(_, _, wanted)| wanted.to_string()));
}

/// An envelope, and its messages as a topic receiver gets them.
const ENVELOPE: &str = r#"{"command":"send-message","channel":"sms","data":[ {"a" : 1.50}, "text", 7, null, [1, 2] ]}"#;
const AS_FRAMES: [&str; 5] = [r#"{"a" : 1.50}"#, r#""text""#, "7", "null", "[1, 2]"];

#[test]
fn an_envelope_reaches_a_topic_receiver_live_one_frame_each() {
    let broker = Broker::start();
    let mut receiver = Client::topic(&broker, "sms");
    Client::envelope(&broker).raw().send_text(ENVELOPE);
    assert_eq!(AS_FRAMES.map(|_| receiver.next_text()), AS_FRAMES);
}

#[test]
fn an_envelope_reaches_a_topic_receiver_from_the_backlog_one_frame_each() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    sender.raw().send_text(ENVELOPE);
    sender.sync();
    let mut receiver = Client::topic(&broker, "sms");
    assert_eq!(AS_FRAMES.map(|_| receiver.next_text()), AS_FRAMES);
}

#[test]
fn data_may_be_an_array_an_object_or_a_scalar() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    for data in [r#"{"a":[1]}"#, "5", r#""x""#, "null", "true"] {
        sender.raw().send_text(&format!(r#"{{"command":"send-message","channel":"sms","data":{data}}}"#));
    }
    sender.sync();
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.messages(5), [r#"{"a":[1]}"#, "5", r#""x""#, "null", "true"]);
}

#[test]
fn backlog_frames_have_the_exact_form_and_the_configured_batch() {
    let broker = Setup::default().store("batch = 2").start();
    let mut sender = Client::envelope(&broker);
    for number in 0..5 {
        sender.publish_safely("sms", &json!({"n": number}), &format!("id {number}"));
    }
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.next_text(), r#"{"command":"send-message","channel":"sms","data":[{"n":0},{"n":1}]}"#);
    assert_eq!(receiver.next_text(), r#"{"command":"send-message","channel":"sms","data":[{"n":2},{"n":3}]}"#);
    assert_eq!(receiver.next_text(), r#"{"command":"send-message","channel":"sms","data":[{"n":4}]}"#);
}

#[test]
fn messages_survive_the_store_verbatim() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let exact = r#"{ "é\u00e9" : "😀\ud83d\ude00", "n":1.0e+2 , "deep":[[[]]] }"#;
    sender.raw().send_text(&format!(r#"{{"command":"send-message","channel":"sms","id":"a","data":[{exact}]}}"#));
    assert_eq!(sender.next_reply()["response_code"], "00");
    let broker = broker.kill_and_restart();
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.messages(1), [exact]);
}

#[test]
fn channel_names_are_exact() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let long = "é".repeat(100);
    for name in ["sms", "SMS", " sms", "sms ", "%", "_", "é", "e\u{301}", "'; DROP TABLE mq_data; --", long.as_str()] {
        let mut receiver = Client::receiver(&broker, name);
        sender.publish(name, &json!(name));
        let delivery: Value = receiver.next_delivery();
        assert_eq!(delivery["data"], json!([name]));
        receiver.expect_nothing_yet();
        receiver.leave();
    }
}

#[test]
fn a_channel_given_as_a_number_means_its_decimal_text() {
    let broker = Broker::start();
    let mut receiver = Client::envelope(&broker);
    receiver.command(&json!({"command": "receive-message", "channel": 42}));
    receiver.sync();
    let mut sender = Client::envelope(&broker);
    sender.publish("42", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
    sender.command(&json!({"command": "send-message", "channel": 42, "data": [2]}));
    assert_eq!(messages_of(&receiver.next_text()), ["2"]);
}

#[test]
fn a_frame_that_can_be_read_in_two_ways_is_not_passed_on() {
    let broker = Setup::default().channel("live", "keep = false").start();
    for channel in ["live", "kept"] {
        let mut receiver = Client::receiver(&broker, channel);
        let mut sender = Client::envelope(&broker);
        let own = format!(r#"{{"command":"send-message","channel":"{channel}","data":[{{"n":1}}]}}"#);
        for forged in
            [r#""command":"connect","#, r#""d\u0061ta":[2],"#, r#""response_code":"05","#, r#""delivery":"1","#]
        {
            sender.raw().send_text(&own.replacen('{', &format!("{{{forged}"), 1));
            assert_eq!(receiver.next_text(), own, "{forged} on {channel}");
        }
        sender.raw().send_text(&own.replacen('{', "{\"more\" : 1,", 1));
        assert_eq!(receiver.next_text(), own.replacen('{', "{\"more\" : 1,", 1));
    }
}

#[test]
fn a_message_of_1_mib_in_fragments_of_64_bytes_arrives() {
    let broker = Broker::start();
    let mut receiver = Client::topic(&broker, "sms");
    let mut sender = Client::topic(&broker, "sms");
    let text = "x".repeat(1 << 20);
    let last = text.len() / 64 - 1;
    let fragments = text.as_bytes().chunks(64).enumerate().flat_map(|(number, part)| {
        let first = u8::from(number == 0) | if number == last { 0x80 } else { 0 };
        frame_with(first, Length::Minimal, Some([1, 2, 3, 4]), part)
    });
    sender.raw().send(&fragments.collect::<Vec<u8>>());
    assert!(receiver.next_text() == text);
}
