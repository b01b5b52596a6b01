//! The handshake (SPEC section 3) and the connect reply (section 4).

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::broker::{Broker, PASSWORD, PATIENCE, USER};
use crate::client::Client;
use crate::legacy::Php;
use crate::raw::{Head, KEY, Raw, accept, basic, opcode};

/// Fails unless `text` is exactly this connect reply, with any time stamp.
#[track_caller]
fn assert_connect_reply(text: &str, code: &str, name: &str) {
    let start =
        format!(r#"{{"command":"connect","response_code":"{code}","response_text":"{name}","data":[{{"time_stamp":""#);
    let stamp = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix(r#""}]}"#));
    let stamp = stamp.unwrap_or_else(|| panic!("not the connect reply: {text}"));
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999Z", "the time stamp of {text}");
}

#[test]
fn the_connect_reply_is_the_first_frame_and_exact() {
    let broker = Broker::start();
    for head in [Head::new("/").modern(), Head::new("/"), Head::new("/any/proxy/prefix?x=1").modern()] {
        let mut raw = Raw::upgrade(&broker, &head);
        let frame = raw.next_data();
        assert_eq!((frame.fin, frame.opcode), (true, opcode::TEXT), "{}", raw.trace());
        assert_connect_reply(frame.text(), "00", "Accepted");
    }
}

#[test]
fn the_upgrade_reply_contains_all_that_old_clients_need() {
    let broker = Broker::start();
    for head in [
        Head::new("/"),
        Head::new("/ws?topic=sms"),
        Head::new("/").modern(),
        Head::new("/").with("Sec-WebSocket-Protocol", "arduino"),
    ] {
        let mut raw = Raw::connect(&broker);
        raw.send(&head.bytes());
        let reply = raw.head();
        assert!(reply.len() < 1_024, "{} bytes", reply.len());
        let mut lines = reply.lines();
        assert_eq!(lines.next(), Some("HTTP/1.1 101 Switching Protocols"));
        let headers: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        for wanted in ["Connection: Upgrade", "Upgrade: websocket", &format!("Sec-WebSocket-Accept: {}", accept(KEY))] {
            assert!(headers.contains(&wanted), "no `{wanted}` in {reply}");
        }
        let protocol = headers.iter().find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-protocol:"));
        let modern = head.headers.iter().any(|(_, value)| value == "wsmb.v1");
        assert_eq!(protocol.copied(), modern.then_some("Sec-WebSocket-Protocol: wsmb.v1"), "{reply}");
    }
}

#[test]
fn the_subprotocol_is_found_in_a_list() {
    let broker = Broker::start();
    let head = Head::new("/").with("Sec-WebSocket-Protocol", "soap, wsmb.v1 ,x");
    let mut raw = Raw::connect(&broker);
    raw.send(&head.bytes());
    let reply = raw.head();
    assert!(reply.contains("Sec-WebSocket-Protocol: wsmb.v1\r\n"), "{reply}");
}

#[test]
fn the_connect_reply_answers_a_ping_as_a_legacy_clients_first_frame() {
    let broker = Broker::start();
    let mut php = Php::connect(&broker, "/");
    php.send_envelope(r#"{"command":"ping","channel":"sms"}"#);
    assert_connect_reply(&php.message(), "00", "Accepted");
    php.send_envelope(r#"{"command":"no-such-command"}"#);
    let next: Value = serde_json::from_str(&php.message()).unwrap();
    assert_eq!(next["response_code"], "07", "the ping was answered twice: {next}");
}

#[test]
fn every_later_ping_is_answered() {
    let broker = Broker::start();
    let mut client = Client::envelope(&broker);
    for _ in 0..3 {
        client.command(&json!({"command": "ping", "channel": "sms"}));
        assert_connect_reply(&client.next_text(), "00", "Accepted");
    }
}

#[test]
fn a_receiver_stays_a_receiver_after_ping_and_send_message() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms");
    receiver.command(&json!({"command": "ping", "channel": "other"}));
    assert_eq!(receiver.next_json()["command"], "connect");
    receiver.publish_safely("other", &json!(0), "a");
    Client::envelope(&broker).publish("sms", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
}

#[test]
fn topics_are_taken_from_the_query_and_decoded() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "one time");
    for target in
        ["/?topic=one%20time", "/ws?a=b&topic=one+time", "/ws?channel=one+time", "/x/y/z?channel=one%20time&c=d"]
    {
        let mut sender = Client::over(Raw::upgrade(&broker, &Head::new(target).modern()));
        sender.raw().send_text(&format!("\"{target}\""));
        assert_eq!(receiver.messages(1), [format!("\"{target}\"")]);
        sender.leave();
    }
}

#[test]
fn a_topic_connection_gets_no_connect_reply() {
    let broker = Broker::start();
    let mut client = Client::topic(&broker, "sms");
    client.expect_nothing(std::time::Duration::from_millis(300));
}

#[test]
fn tungstenite_speaks_both_dialects() {
    let broker = Broker::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = |target: &str| {
        let mut request = format!("ws://{}{target}", broker.address()).into_client_request().unwrap();
        request.headers_mut().insert("Authorization", basic(USER, PASSWORD).parse().unwrap());
        request.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().unwrap());
        request
    };
    let conversation = async {
        let (mut envelope, _) = tokio_tungstenite::connect_async(request("/")).await?;
        let first = envelope.next().await.unwrap()?;
        assert_connect_reply(first.to_text()?, "00", "Accepted");
        envelope.send(Message::text(r#"{"command":"receive-message","channel":"sms"}"#)).await?;
        let (mut topic, _) = tokio_tungstenite::connect_async(request("/?topic=sms")).await?;
        topic.send(Message::text("{\"a\": 1}")).await?;
        let delivery = envelope.next().await.unwrap()?;
        assert_eq!(delivery.to_text()?, r#"{"command":"send-message","channel":"sms","data":[{"a": 1}]}"#);
        topic.close(None).await?;
        envelope.close(None).await
    };
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, conversation).await });
    ended.expect("in time").expect("a conversation without errors");
}
