//! Tests of each field of each command: valid values, refused values, and error messages.

mod receivers;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::frame::{Opcode, encode, payload_start};
use crate::limits;
use wsmb_core::message::{ConnectionId, Dialect, Frame, Kind, Nack};

fn command(json: &str) -> Command<'static> {
    parse(json.as_bytes()).unwrap_or_else(|wrong| panic!("{json}: {wrong}"))
}

fn send(json: &str) -> Send<'static> {
    match command(json) {
        Command::Send(send) => send,
        other => panic!("{json}: {other:?}"),
    }
}

fn refused(frame: &[u8]) -> Malformed {
    parse(frame).expect_err("no valid command")
}

/// A `send-message` with more members.
fn send_with(members: &str) -> String {
    format!(r#"{{"command":"send-message","channel":"sms","data":[1]{members}}}"#)
}

fn messages<'a>(send: &'a Send<'_>) -> Vec<&'a str> {
    send.publication.bodies().map(|message| std::str::from_utf8(message).unwrap()).collect()
}

#[test]
fn a_publication_has_the_unchanged_frame_and_its_messages_are_slices_of_it() {
    let json = " { \"more\" : [[ ]] , \"command\":\"send-message\",\n\"channel\":\"sms\", \"data\" : [ {\"a\" : 1} ,\t\"b\",3 ] } ";
    let send = send(json);
    assert_eq!(send.publication.frame[0], 0x81, "a text frame, whatever the sender's opcode");
    assert_eq!(&send.publication.frame[payload_start(&send.publication.frame)..], json.as_bytes());
    assert_eq!(send.publication.dialect, Dialect::Envelope);
    assert_eq!(send.publication.channel.as_str(), "sms");
    assert_eq!(messages(&send), ["{\"a\" : 1}", "\"b\"", "3"]);
    assert_eq!(send.publication.kind, Kind::Text);
    let kept: Vec<_> = send.publication.payloads().collect();
    assert_eq!(kept[2], wsmb_core::message::Payload::text("3"));
    assert_eq!((send.receivers, send.id, send.ttl, send.delay), (None, None, None, None));
}

#[test]
fn data_is_a_list_of_messages_or_one_message() {
    for (data, expected) in [
        ("[]", vec![]),
        ("[ ]", vec![]),
        ("[1,[2],{}]", vec!["1", "[2]", "{}"]),
        ("{\"a\":[1]}", vec!["{\"a\":[1]}"]),
        ("\"text\"", vec!["\"text\""]),
        ("\"[1]\"", vec!["\"[1]\""]),
        ("\":[1]\"", vec!["\":[1]\""]),
        ("7", vec!["7"]),
        ("true", vec!["true"]),
        ("null", vec!["null"]),
        ("[null]", vec!["null"]),
        ("\"\"", vec!["\"\""]),
        ("[\"\\ud800\",\"ü\"]", vec!["\"\\ud800\"", "\"ü\""]),
    ] {
        for name in ["data", "d\\u0061ta"] {
            for space in ["", " ", "\r\n\t "] {
                let json = format!(
                    "{{\"command\":\"send-message\",\"channel\":\"sms\",\"{name}\"{space}:{space}{data}{space}}}"
                );
                assert_eq!(messages(&send(&json)), expected, "{json}");
            }
        }
    }
}

#[test]
fn of_two_members_with_the_same_name_the_last_one_counts() {
    let json = r#"{"command":"ping","command":"send-message","channel":null,"channel":"a","data":[1,2],"data":{"b":1},
        "id":[],"id":"x","channel":"sms","ttl":"no","ttl":1}"#;
    let send = send(json);
    assert_eq!(send.publication.channel.as_str(), "sms");
    assert_eq!(messages(&send), ["{\"b\":1}"]);
    assert_eq!((send.id.as_deref(), send.ttl), (Some("x"), Some(Duration::from_secs(1))));
}

#[test]
fn frames_that_are_not_commands_are_malformed_with_a_reason() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep_data = send_with(&format!(",\"x\":{}", deep(limits::JSON_DEPTH)));
    let deep_message = format!(r#"{{"command":"send-message","channel":"c","data":[{}]}}"#, "{\"a\":".repeat(100_000));
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "the frame is empty"),
        (b" \n".to_vec(), "the frame is empty"),
        (b"hello".to_vec(), "not JSON"),
        (b"{".to_vec(), "not JSON"),
        (b"{}x".to_vec(), "not JSON"),
        (b"{}{}".to_vec(), "not JSON"),
        (b"{'command':'ping'}".to_vec(), "not JSON"),
        (br#"{"command":"ping",}"#.to_vec(), "not JSON"),
        (b"{\"command\":\"pi\nng\"}".to_vec(), "not JSON"),
        (b"[1".to_vec(), "not JSON"),
        (b"\"ping\"".to_vec(), "the frame is a string; a command is a JSON object"),
        (b"7".to_vec(), "the frame is a number"),
        (b"null".to_vec(), "the frame is null"),
        (b"true".to_vec(), "the frame is a boolean"),
        (b" [] ".to_vec(), "the frame is a list"),
        (b"\xef\xbb\xbf{\"command\":\"ping\"}".to_vec(), "byte order mark"),
        (b"{\"command\":\"ping\",\"x\":\"\xff\"}".to_vec(), "not UTF-8"),
        (deep(1_000_000).into_bytes(), "more than 128 deep"),
        (deep_data.into_bytes(), "more than 128 deep"),
        (deep_message.into_bytes(), "more than 128 deep"),
        (b"{}".to_vec(), "'command' is missing"),
        (br#"{"command":7}"#.to_vec(), "'command' must be a string, not a number"),
        (br#"{"command":null}"#.to_vec(), "'command' must be a string, not null"),
        (br#"{"command":["ping"]}"#.to_vec(), "'command' must be a string, not a list"),
    ];
    for (frame, words) in table {
        let wrong = refused(&frame);
        let name = String::from_utf8_lossy(&frame[..frame.len().min(80)]).into_owned();
        assert_eq!(wrong.code, Code::Malformed, "{name}");
        assert!(wrong.text.contains(words), "{name}: {}", wrong.text);
        assert!(wrong.text.len() < 200, "{name}: {}", wrong.text);
    }
    command(&send_with(&format!(",\"x\":{}", deep(limits::JSON_DEPTH - 1))));
}

#[test]
fn the_command_is_compared_exactly_and_the_answer_names_an_unknown_one() {
    for (name, echoed) in [("Ping", true), ("", true), ("subscribe", true), (&"x".repeat(200), false)] {
        let wrong = refused(json!({"command": name, "id": "7"}).to_string().as_bytes());
        assert_eq!(wrong.code, Code::UnknownCommand);
        assert_eq!(wrong.command.as_deref(), echoed.then_some(name));
        assert_eq!(wrong.id.as_deref(), Some("7"));
    }
    assert!(matches!(command(r#"{"command":"p\u0069ng"}"#), Command::Ping));
    assert!(matches!(command(r#"{"command":"ping","channel":null,"id":[],"data":7}"#), Command::Ping));
}

#[test]
fn an_error_has_command_and_id_if_they_can_be_read() {
    for (json, name, id) in [
        (r#"{"command":"send-message","id":"a"}"#, Some("send-message"), Some("a")),
        (r#"{"id":7,"command":"ack"}"#, Some("ack"), Some("7")),
        (r#"{"command":"send-message","id":"a","data":[}"#, Some("send-message"), Some("a")),
        (r#"{"id":"a","command":1}"#, None, Some("a")),
        (r#"{"command":"nack","id":{}}"#, Some("nack"), None),
        ("[]", None, None),
    ] {
        let wrong = refused(json.as_bytes());
        assert_eq!((wrong.command.as_deref(), wrong.id.as_deref()), (name, id), "{json}");
        let answer: Value =
            serde_json::from_str(&refusal(wrong.command.as_deref(), wrong.code, &wrong.text, wrong.id.as_deref()))
                .unwrap();
        assert_eq!(answer["response_code"], "02");
        assert!(answer["response_text"].as_str().unwrap().starts_with("Malformed: "));
    }
}

#[test]
fn a_channel_is_a_name_or_a_number() {
    let hundred = "ü".repeat(wsmb_core::limits::CHANNEL_NAME_CHARS);
    for (json, name) in [
        ("\"sms\"", "sms"),
        ("\" sms \"", " sms "),
        ("\"gr\\u00fcn\"", "grün"),
        ("7", "7"),
        ("-1", "-1"),
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        (&format!("\"{hundred}\""), &hundred),
    ] {
        let sent = send(&format!(r#"{{"command":"send-message","data":1,"channel":{json}}}"#));
        assert_eq!(sent.publication.channel.as_str(), name);
        match command(&format!(r#"{{"command":"receive-message","channel":{json}}}"#)) {
            Command::Receive { channels, .. } => assert_eq!(channels, [sent.publication.channel.into_owned()]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_channel_is_recognised_by_its_name_and_not_by_escapes() {
    let mut parser = Parser::default();
    let mut channel = |json: &str| {
        let frame = format!(r#"{{"command":"send-message","data":1,"channel":{json}}}"#);
        let frame = Frame::Shared(encode(Opcode::Text, frame.as_bytes()));
        match parser.parse(Kind::Text, &frame) {
            Ok(Command::Send(send)) => send.publication.channel.as_str().to_owned(),
            Err(wrong) => wrong.text,
            other => panic!("{json}: {other:?}"),
        }
    };
    for (json, expected) in [
        (r#""sms""#, "sms"),
        (r#""sms""#, "sms"),
        (r#""sm""#, "sm"),
        (r#""a\\u0062""#, r"a\u0062"),
        (r#""a\u0062""#, "ab"),
        (r#""ab""#, "ab"),
        ("7", "7"),
        (r#""7""#, "7"),
        ("7", "7"),
        (r#""""#, "'channel' is empty; a channel name has at least one character"),
        (r#""7""#, "7"),
    ] {
        assert_eq!(channel(json), expected, "{json}");
    }
}

#[test]
fn an_invalid_channel_is_refused_with_the_rule() {
    for (json, words) in [
        ("null", "'channel' must be a string or a number, not null"),
        ("{}", "'channel' must be a string or a number, not an object"),
        ("true", "'channel' must be a string or a number, not a boolean"),
        ("\"\"", "'channel' is empty"),
        ("\"a\\nb\"", "control character"),
        ("\"\\ud800\"", "'channel' contains half of a surrogate pair"),
        ("\"caf\\ude00\"", "'channel' contains half of a surrogate pair"),
        (&format!("\"{}\"", "x".repeat(101)), "at most 100 characters"),
        (&"1".repeat(101), "at most 100 characters"),
    ] {
        for command in ["send-message", "receive-message"] {
            let wrong = refused(format!(r#"{{"command":"{command}","data":1,"channel":{json}}}"#).as_bytes());
            assert_eq!((wrong.code, wrong.command.as_deref()), (Code::Malformed, Some(command)));
            assert!(wrong.text.contains(words), "{json}: {}", wrong.text);
        }
    }
    for command in ["send-message", "receive-message"] {
        let wrong = refused(format!(r#"{{"command":"{command}","data":1}}"#).as_bytes());
        assert_eq!(wrong.text, "'channel' is missing");
    }
    let wrong = refused(br#"{"command":"send-message","data":1,"channel":["a"]}"#);
    assert_eq!(wrong.text, "'channel' must be a string or a number, not a list");
}

#[test]
fn number_of_receiver_is_an_integer_or_ignored() {
    for (json, expected) in [
        ("0", Some(0)),
        ("1", Some(1)),
        ("5", Some(5)),
        ("\"2\"", Some(2)),
        ("-1", Some(1)),
        ("\"-3\"", Some(3)),
        ("\"+3\"", Some(3)),
        ("-0", Some(0)),
        ("\"007\"", Some(7)),
        ("99999999999999999999", Some(u32::MAX)),
        ("1.5", None),
        ("2.0", None),
        ("\"abc\"", None),
        ("\"\"", None),
        ("\"-\"", None),
        ("\"--1\"", None),
        ("\" 2\"", None),
        ("\"1.5\"", None),
        ("[]", None),
        ("[1]", None),
        ("{}", None),
        ("1e99", None),
        ("null", None),
        ("true", None),
    ] {
        assert_eq!(send(&send_with(&format!(",\"number_of_receiver\":{json}"))).receivers, expected, "{json}");
    }
}

#[test]
fn ttl_and_delay_are_seconds() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    for (json, expected) in [
        ("0", Duration::ZERO),
        ("-0.0", Duration::ZERO),
        ("60", Duration::from_secs(60)),
        ("1.5", Duration::from_millis(1_500)),
        ("25e-1", Duration::from_millis(2_500)),
        ("1e18", century),
        ("1e99", century),
        ("1e999", century),
    ] {
        let sent = send(&send_with(&format!(",\"ttl\":{json}")));
        assert_eq!((sent.ttl, sent.delay), (Some(expected), None), "{json}");
        let sent = send(&send_with(&format!(",\"delay\":{json}")));
        assert_eq!((sent.ttl, sent.delay), (None, Some(expected)), "{json}");
    }
    for (json, words) in [
        ("-1", "must not be negative"),
        ("-1e-9", "must not be negative"),
        ("\"60\"", "must be a number of seconds, not a string"),
        ("null", "must be a number of seconds, not null"),
        ("[]", "must be a number of seconds, not a list"),
        ("true", "must be a number of seconds, not a boolean"),
    ] {
        for field in ["ttl", "delay"] {
            let wrong = refused(send_with(&format!(",\"{field}\":{json}")).as_bytes());
            assert_eq!(wrong.code, Code::Malformed);
            assert_eq!(wrong.text, format!("'{field}' {words}"));
        }
    }
}

#[test]
fn an_id_is_a_short_string_or_a_number() {
    let longest = "x".repeat(wsmb_core::limits::NAME_BYTES);
    for (json, expected) in [("\"a\"", "a"), ("7", "7"), ("\"\\u0061\"", "a"), (&format!("\"{longest}\""), &longest)] {
        assert_eq!(send(&send_with(&format!(",\"id\":{json}"))).id.as_deref(), Some(expected));
    }
    for json in ["\"\"", "null", "[]", "{}", "false", &format!("\"{longest}x\"")] {
        let wrong = refused(send_with(&format!(",\"id\":{json}")).as_bytes());
        assert_eq!((wrong.code, wrong.id), (Code::Malformed, None), "{json}");
        assert!(wrong.text.starts_with("'id' "), "{}", wrong.text);
    }
}

#[test]
fn a_publication_has_a_bounded_number_of_messages() {
    let of = |count: usize| {
        let data = vec!["1"; count].join(",");
        format!(r#"{{"command":"send-message","channel":"c","id":"x","data":[{data}]}}"#)
    };
    assert_eq!(
        send(&of(wsmb_core::limits::PUBLICATION_MESSAGES)).publication.messages.len(),
        wsmb_core::limits::PUBLICATION_MESSAGES
    );
    let wrong = refused(of(wsmb_core::limits::PUBLICATION_MESSAGES + 1).as_bytes());
    assert_eq!((wrong.code, wrong.id.as_deref()), (Code::TooLarge, Some("x")));
    assert_eq!(wrong.text, "'data' has more than 10000 messages");
    assert_eq!(refused(br#"{"command":"send-message","channel":"c"}"#).text, "'data' is missing");
}

#[test]
fn the_documented_commands_parse_and_the_documented_errors_are_given() {
    let blocks = include_str!("../../../../docs/protocol.md").split("```wsmb\n").skip(1);
    let mut lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines()).peekable();
    let mut errors = 0;
    while let Some(line) = lines.next() {
        let Some(frame) = line.strip_prefix("> ") else { continue };
        let answer = lines.peek().and_then(|line| line.strip_prefix("< ")).unwrap_or_default();
        // `…` is the name of the last delivery.
        if let Err(wrong) = parse(frame.replace('…', "1f-17").as_bytes()) {
            let found = refusal(wrong.command.as_deref(), wrong.code, &wrong.text, wrong.id.as_deref());
            assert_eq!(found, answer);
            errors += 1;
        } else {
            // A refresh is refused in the example because its client has no token.
            assert!(!answer.contains("Malformed") || frame.contains("\"refresh\""), "{frame}");
        }
    }
    assert_eq!(errors, 5);
}

/// Any JSON value with little nesting.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\[\\]{}:,\"\\\\a-zü ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z\"\\[]{0,3}", inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn messages_are_the_elements_of_the_parsed_tree(data in value(), other in value(), pretty in any::<bool>()) {
        let whole = json!({"command": "send-message", "channel": "sms", "x": other, "data": data});
        let json = if pretty { serde_json::to_string_pretty(&whole).unwrap() } else { whole.to_string() };
        let expected = match data {
            Value::Array(elements) => elements,
            one => vec![one],
        };
        let sent = send(&json);
        let found: Vec<Value> = messages(&sent).into_iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn every_type_in_every_field_gets_an_answer(
        command in prop_oneof![
            Just("send-message"), Just("receive-message"), Just("ack"), Just("nack"), Just("extend"), Just("ping")
        ],
        members in prop::collection::vec(
            (
                prop_oneof![
                    Just("channel"), Just("data"), Just("id"), Just("ttl"), Just("delay"), Just("ack"), Just("prefetch"),
                    Just("receiver"), Just("group"), Just("order"), Just("delivery"), Just("retry_after"), Just("reject"), Just("reason"), Just("number_of_receiver"), Just("command"),
                ],
                value(),
            ),
            0..8,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut json = format!("{{\"command\":\"{command}\"");
        for (name, value) in members {
            json.push_str(&format!(",\"{name}\":{value}"));
        }
        json.push('}');
        if let Err(wrong) = parse(json.as_bytes()) {
            prop_assert!(!wrong.text.is_empty() && wrong.text.len() < 200);
        }
        prop_assert!(parse(&json.as_bytes()[..cut.index(json.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&bytes);
    }
}
