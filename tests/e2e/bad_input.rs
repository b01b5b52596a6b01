//! Invalid commands, each with its exact answer. The connection stays usable.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::client::Client;
use crate::raw::opcode;

/// A sent frame, and the members that its answer must have: `command`, `response_code` and `id`.
struct Case {
    name: &'static str,
    sent: String,
    command: Option<&'static str>,
    code: &'static str,
    id: Option<&'static str>,
}

fn case(
    name: &'static str,
    sent: impl Into<String>,
    command: Option<&'static str>,
    code: &'static str,
    id: Option<&'static str>,
) -> Case {
    Case { name, sent: sent.into(), command, code, id }
}

/// A malformed `send-message` with these members.
fn send(name: &'static str, members: &str) -> Case {
    case(name, format!(r#"{{"command":"send-message","id":"i",{members}}}"#), Some("send-message"), "02", Some("i"))
}

/// A malformed `receive-message` with these members.
fn receive(name: &'static str, members: &str) -> Case {
    case(name, format!(r#"{{"command":"receive-message",{members}}}"#), Some("receive-message"), "02", None)
}

fn unreadable_commands() -> Vec<Case> {
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        case("not JSON", "hello", None, "02", None),
        case("nothing", "", None, "02", None),
        case("white space", " \n ", None, "02", None),
        // The answer names the command as far as it can be read, so that a person finds the mistake.
        case("half an object", r#"{"command":"ping""#, Some("ping"), "02", None),
        case("rubbish behind the object", r#"{"command":"ping"} x"#, Some("ping"), "02", None),
        case("two objects", r#"{"command":"ping"}{"command":"ping"}"#, Some("ping"), "02", None),
        case("a trailing comma", r#"{"command":"ping",}"#, Some("ping"), "02", None),
        case("a number", "5", None, "02", None),
        case("a string", r#""ping""#, None, "02", None),
        case("null", "null", None, "02", None),
        case("true", "true", None, "02", None),
        case("an empty array", "[]", None, "02", None),
        case("an array of a command", r#"[{"command":"ping"}]"#, None, "02", None),
        case("a byte order mark", "\u{feff}{\"command\":\"ping\"}", None, "02", None),
        case("an array, deep", deep(100_000), None, "02", None),
        case("objects, deep", format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000)), None, "02", None),
        case("no command", "{}", None, "02", None),
        case("an id without command", r#"{"id":"i"}"#, None, "02", Some("i")),
        case("a number as command", r#"{"command":5}"#, None, "02", None),
        case("null as command", r#"{"command":null,"id":"i"}"#, None, "02", Some("i")),
        case("a list as command", r#"{"command":["ping"]}"#, None, "02", None),
        case("an unknown command", r#"{"command":"dance","id":"i"}"#, Some("dance"), "07", Some("i")),
        case("an empty command", r#"{"command":""}"#, Some(""), "07", None),
        case("a command in capitals", r#"{"command":"PING"}"#, Some("PING"), "07", None),
        case("two commands, the last wins", r#"{"command":"ping","command":"dance"}"#, Some("dance"), "07", None),
    ]
}

fn wrong_channels() -> Vec<Case> {
    let long = format!(r#""channel":"{}""#, "x".repeat(101));
    let mut cases = vec![
        send("no channel", r#""data":[1]"#),
        send("a list as channel", r#""channel":["sms"],"data":[1]"#),
        send("two channels, the last wins", r#""channel":"sms","channel":"","data":[1]"#),
    ];
    for (name, channel) in [
        ("an empty channel", r#""channel":"""#),
        ("101 characters", long.as_str()),
        ("null as channel", r#""channel":null"#),
        ("an object as channel", r#""channel":{}"#),
        ("true as channel", r#""channel":true"#),
        ("a control character", r#""channel":"a\nb""#),
        ("a NUL", r#""channel":"a\u0000b""#),
        ("half a surrogate pair", r#""channel":"\ud800""#),
    ] {
        cases.push(send(name, &format!(r#"{channel},"data":[1]"#)));
        cases.push(receive(name, channel));
    }
    cases.extend([
        receive("no channel", r#""data":[]"#),
        receive("a list with an empty name", r#""channel":["a",""]"#),
        receive("a list with a list", r#""channel":[["a"]]"#),
        receive("a list with null", r#""channel":[null]"#),
    ]);
    cases
}

fn wrong_members() -> Vec<Case> {
    let long = "x".repeat(129);
    let ours = r#""channel":"sms","data":[1]"#;
    let mut cases = vec![send("no data", r#""channel":"sms""#)];
    for (name, id) in
        [("a list as id", "[1]"), ("an object as id", "{}"), ("true as id", "true"), ("an empty id", r#""""#)]
    {
        cases.push(case(
            name,
            format!(r#"{{"command":"send-message",{ours},"id":{id}}}"#),
            Some("send-message"),
            "02",
            None,
        ));
    }
    cases.push(case(
        "an id of 129 bytes",
        format!(r#"{{"command":"send-message",{ours},"id":"{long}"}}"#),
        Some("send-message"),
        "02",
        None,
    ));
    for (name, member) in [
        ("a word as ttl", r#""ttl":"soon""#),
        ("a negative ttl", r#""ttl":-1"#),
        ("a list as ttl", r#""ttl":[]"#),
        ("true as ttl", r#""ttl":true"#),
        ("a word as delay", r#""delay":"soon""#),
        ("a negative delay", r#""delay":-1"#),
        ("an object as delay", r#""delay":{}"#),
    ] {
        cases.push(send(name, &format!("{ours},{member}")));
    }
    for (name, member) in [
        ("an unknown way of acknowledgement", r#""ack":"perhaps""#),
        ("a number as ack", r#""ack":1"#),
        ("a word as prefetch", r#""prefetch":"many""#),
        ("a negative prefetch", r#""prefetch":-1"#),
        ("a broken prefetch", r#""prefetch":1.5"#),
        ("a list as receiver", r#""receiver":[]"#),
        ("an object as receiver", r#""receiver":{}"#),
    ] {
        cases.push(receive(name, &format!(r#""channel":"sms",{member}"#)));
    }
    for command in ["ack", "nack"] {
        for delivery in [
            "",
            r#","delivery":null"#,
            r#","delivery":"""#,
            r#","delivery":"x""#,
            r#","delivery":[]"#,
            r#","delivery":"7""#,
        ] {
            let sent = format!(r#"{{"command":"{command}"{delivery}}}"#);
            cases.push(case("an answer to no delivery", sent, Some(command), "02", None));
        }
    }
    cases
}

fn too_much() -> Vec<Case> {
    let many = vec!["1"; 10_001].join(",");
    vec![case(
        "more messages than a publication may have",
        format!(r#"{{"command":"send-message","id":"i","channel":"sms","data":[{many}]}}"#),
        Some("send-message"),
        "04",
        Some("i"),
    )]
}

/// The first words of the answer with this code.
fn text_of(code: &str) -> &'static str {
    match code {
        "02" => "Malformed",
        "04" => "Too large",
        "07" => "Unknown command",
        _ => "no such case",
    }
}

/// The text of every invalid command.
pub fn invalid_commands() -> impl Iterator<Item = String> {
    cases().into_iter().map(|case| case.sent)
}

fn cases() -> Vec<Case> {
    [unreadable_commands(), wrong_channels(), wrong_members(), too_much()].into_iter().flatten().collect()
}

#[test]
fn every_bad_command_gets_its_answer_and_the_connection_stays_open() {
    let mut broker = Broker::start();
    let mut client = Client::envelope(&broker);
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        let shown: String = case.sent.chars().take(150).collect();
        for opcode in [opcode::TEXT, opcode::BINARY] {
            client.raw().send_frame(opcode, case.sent.as_bytes());
            client.command(&json!({"command": "ping", "channel": "the answer behind it"}));
            let reply = client.next_reply();
            if reply["command"] == "connect" {
                wrong.push(format!("{}: no answer to {shown}", case.name));
                continue;
            }
            let text = reply["response_text"].as_str().unwrap_or_default();
            let fine = reply["response_code"] == case.code
                && text.starts_with(text_of(case.code))
                && text.len() < 300
                && reply.get("command").and_then(Value::as_str) == case.command
                && reply.get("id").and_then(Value::as_str) == case.id;
            if !fine {
                wrong.push(format!(
                    "{}: {shown} was answered with {reply}; wanted {} {:?} {:?}",
                    case.name, case.code, case.command, case.id
                ));
            }
            assert_eq!(client.next_reply()["command"], "connect", "{}: {shown}: a second answer", case.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    drop(client);
    assert_unharmed(&mut broker);
}

#[test]
fn invalid_utf_8_in_a_binary_envelope_is_malformed() {
    let broker = Broker::start();
    let mut client = Client::envelope(&broker);
    client.raw().send_frame(opcode::BINARY, b"{\"command\":\"send-message\",\"channel\":\"sms\",\"data\":[\"\xff\"]}");
    assert_eq!(client.next_reply()["response_code"], "02");
    client.expect_nothing_yet();
}

#[test]
fn unusual_but_valid_commands_are_accepted() {
    let broker = Broker::start();
    let mut client = Client::envelope(&broker);
    let long = "é".repeat(100);
    for (index, sent) in [
        r#"{"command":"send-message","channel":42,"data":[1],"id":"ID"}"#.to_string(),
        format!(r#"{{"command":"send-message","channel":"{long}","data":[1],"id":"ID"}}"#),
        r#"{"command":"send-message","channel":"sms","data":[],"id":"ID"}"#.into(),
        r#"{"command":"send-message","channel":"sms","data":{},"id":"ID"}"#.into(),
        r#"{"command":"send-message","channel":"sms","data":null,"id":"ID"}"#.into(),
        r#"{"command":"send-message","channel":"","channel":"sms","data":[1],"data":[2],"id":"ID"}"#.into(),
        "\t{ \"\\u0063ommand\" : \"send\\u002dmessage\" , \"channel\":\"sms\", \"data\":[1],\"id\":\"ID\" }\r\n".into(),
        r#"{"command":"send-message","channel":"sms","data":[1],"id":"ID","ttl":3600,"delay":0,"time":{"unknown":[]}}"#
            .into(),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("id {index}");
        client.raw().send_text(&sent.replace("ID", &id));
        let reply = client.next_reply();
        assert_eq!((&reply["response_code"], &reply["id"]), (&json!("00"), &json!(id)), "{sent}: {reply}");
    }
    // The limit of nesting is higher than 100.
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    client.raw().send_text(&format!(r#"{{"command":"send-message","channel":"deep","data":{deep},"id":"deep"}}"#));
    assert_eq!(client.next_reply()["response_code"], "00");
}

/// Fails unless the broker serves another client, has not panicked, and has never used more memory than `BOUND`.
#[track_caller]
pub fn assert_unharmed(broker: &mut Broker) {
    const BOUND: u64 = 64 << 20;
    broker.assert_alive();
    let mut receiver = Client::receiver(broker, "unharmed");
    Client::envelope(broker).publish_safely(
        "unharmed",
        &json!("hello"),
        &format!("hello {:?}", std::time::Instant::now()),
    );
    assert_eq!(receiver.messages(1), ["\"hello\""]);
    let log = broker.log().text();
    assert!(!log.contains("panicked"), "{}", broker.log().tail());
    #[cfg(target_os = "linux")]
    assert!(broker.peak_memory() < BOUND, "{} KiB of memory", broker.peak_memory() >> 10);
}
