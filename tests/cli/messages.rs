//! `wsmb send` to `wsmb receive`: every message arrives once, in order, or its sender learns why not.

use crate::harness::{Broker, Running, run, run_with_input, until, wsmb};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn sent_messages_are_received() {
    let broker = Broker::start();
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "3"]));
    broker.send("sms", r#"{"a" : [1, "x"]}"#);
    broker.send("sms", "it's not JSON");
    broker.send("sms", "-5");
    let ended = receive.end().with(0);
    assert_eq!(ended.stdout, "{\"a\" : [1, \"x\"]}\n\"it's not JSON\"\n-5");
    until("all messages are confirmed", || broker.waiting("sms") == 0);
}

#[test]
fn messages_without_a_receiver_wait() {
    let broker = Broker::start();
    assert_eq!(broker.send("a", "one\ntwo"), "accepted: stored, no receiver has it yet");
    broker.send("b", "{}");
    let ended = run(&mut broker.client(&["receive", "a", "b", "--raw", "--count", "2"])).with(0);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a\tone", "b\t{}", "two"]);
}

#[test]
fn a_message_that_is_neither_received_nor_kept_is_no_success() {
    let broker = Broker::start_with(&["--set", "channel_defaults.keep=false"]);
    let sent = run(&mut broker.client(&["send", "sms", "x"])).with(3);
    assert_eq!(sent.stdout, "sent to nobody: the channel keeps no messages and has no receiver");
    assert_eq!(sent.stderr, "");
    let json = run(&mut broker.client(&["send", "sms", "x", "--json"])).with(3);
    assert!(json.stdout.contains(r#""receivers":0,"stored":false"#), "{}", json.stdout);
    let held = run(&mut broker.client(&["send", "sms", "x", "--delay", "60s"])).with(0);
    assert_eq!(held.stdout, "accepted: held until it is due");

    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "1"]));
    until("the receiver is there", || {
        let sent = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n");
        let there = sent.code == Some(0);
        assert!(!there || sent.stdout == "accepted: 1 message (1 given to receivers)", "{}", sent.stdout);
        there
    });
    receive.end().with(0);
    let lines = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n2\n").with(3);
    let wanted = "accepted: 2 messages (2 sent to nobody: the channel keeps no messages and has no receiver)";
    assert_eq!(lines.stdout, wanted);
    run(&mut broker.client(&["send", "", "x"])).with(2);
    run(&mut broker.client(&["send", "sms", "x", "--user", "app:wrong"])).with(1);
}

#[test]
fn many_lines_arrive_in_order_and_empty_lines_are_skipped() {
    let broker = Broker::start();
    let lines: String = (1..=3000).map(|number| format!("{number}\r\n\n")).collect();
    let sent = run_with_input(&mut broker.client(&["send", "sms", "-"]), &lines).with(0);
    assert_eq!(sent.stdout, "accepted: 3000 messages (3000 stored for later)");
    let got = run(&mut broker.client(&["receive", "sms", "--count", "3000"])).with(0);
    let numbers: Vec<u32> = got.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=3000).collect::<Vec<_>>());
}

#[test]
fn a_message_with_a_repeated_id_is_not_delivered() {
    let broker = Broker::start();
    run(&mut broker.client(&["send", "sms", "x", "--id", "mine"])).with(0);
    let again = run(&mut broker.client(&["send", "sms", "x", "--id", "mine"])).with(0);
    assert!(again.stdout.starts_with("accepted before"), "{}", again.stdout);
    let json = run(&mut broker.client(&["send", "sms", "x", "--id", "mine", "--json"])).with(0);
    let reply: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&reply["response_code"], &reply["duplicate"]), (&"00".into(), &true.into()));
    assert_eq!(broker.waiting("sms"), 1);
}

#[test]
fn a_refusal_is_printed_with_its_code_and_fails() {
    let broker = Broker::start_with(&["--set", "channel_defaults.max_backlog=2"]);
    let lines = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n2\n3\n");
    let lines = lines.with(1).with_stderr("line 3: refused: 06 Full");
    assert_eq!(lines.stdout, "accepted: 2 messages (2 stored for later); refused: 1");
    run(&mut broker.client(&["send", "sms", "4"])).with(1).with_stderr("refused: 06 Full");
}

/// The test is a broker that reads the message and ends the connection before it answers.
#[tokio::test]
async fn a_message_without_an_answer_is_sent_again_with_the_same_id() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut send = Running::start(wsmb(directory.path()).args(["send", "sms", "x", "--url", &url]));
    let mut ids = Vec::new();
    for attempt in 0..2 {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = tokio_tungstenite::accept_hdr_async(stream, Subprotocol).await.unwrap();
        let Message::Text(frame) = peer.next().await.unwrap().unwrap() else { panic!("a text frame") };
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(frame["data"], serde_json::json!(["x"]));
        let id = frame["id"].as_str().unwrap().to_owned();
        if attempt == 1 {
            let reply = serde_json::json!({
                "command": "send-message", "response_code": "00", "response_text": "Accepted", "id": id, "receivers": 1,
            });
            peer.send(Message::text(reply.to_string())).await.unwrap();
            // The closing handshake.
            while let Some(Ok(_)) = peer.next().await {}
        }
        ids.push(id);
    }
    assert_eq!(ids[0], ids[1]);
    let ended = tokio::task::spawn_blocking(move || send.end()).await.unwrap();
    let ended = ended.with(0).with_stderr("trying again for ");
    assert_eq!(ended.stdout, "accepted: 1 receiver");
}

struct Subprotocol;

impl tokio_tungstenite::tungstenite::handshake::server::Callback for Subprotocol {
    fn on_request(
        self,
        _: &tokio_tungstenite::tungstenite::handshake::server::Request,
        mut response: tokio_tungstenite::tungstenite::handshake::server::Response,
    ) -> Result<
        tokio_tungstenite::tungstenite::handshake::server::Response,
        tokio_tungstenite::tungstenite::handshake::server::ErrorResponse,
    > {
        response.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().unwrap());
        Ok(response)
    }
}
