//! Webhooks: the broker posts messages to an HTTP server.

mod docs;
mod endpoint;
mod failures;
mod refused;
mod secure;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::http::publish;
use endpoint::{Call, Endpoint, Reply};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW_SECRET: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

/// The lines of a `[[webhook]]` for the channel `sms`.
fn lines(endpoint: &Endpoint, more: &str) -> String {
    format!(
        "channel = \"sms\"\nurl = \"http://{}/hook?key=1\"\nsecret = \"{SECRET}\"\nallow_private = true\n{more}",
        endpoint.address
    )
}

/// A broker that posts the messages of `sms`, each to one receiver.
#[track_caller]
fn broker(endpoint: &Endpoint, more: &str) -> Broker {
    Setup::default().defaults("receivers = 1").webhook(&lines(endpoint, more)).start()
}

/// A Python with the package `standardwebhooks`.
fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("standardwebhooks");
        let python = folder.join("bin/python");
        let run = |command: &mut Command| {
            let output = command.output().expect("python3; `cargo xtask test` installs it");
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "standardwebhooks==1.1.0"]));
        python
    };
    PYTHON.get_or_init(make).clone()
}

/// Whether the reference implementation accepts the request with this secret.
#[track_caller]
fn verifies(call: &Call, secret: &str) -> bool {
    let program = "import json, sys\nfrom standardwebhooks import Webhook, WebhookVerificationError\nsecret, headers, body = json.load(sys.stdin)\ntry:\n    Webhook(secret).verify(body, headers)\n    print('good')\nexcept WebhookVerificationError:\n    print('bad')\n";
    let headers: serde_json::Map<_, _> =
        call.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut child = Command::new(python())
        .args(["-c", program])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python");
    let input = json!([secret, headers, call.body]).to_string();
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), input.as_bytes()).expect("input");
    let output = child.wait_with_output().expect("output");
    match String::from_utf8_lossy(&output.stdout).trim() {
        "good" => true,
        "bad" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn a_message_is_posted_and_its_senders_learn_of_it() {
    let endpoint = Endpoint::with_status(204);
    let broker = broker(&endpoint, "");
    let mut sender = Client::envelope(&broker);
    sender.publish_safely("sms", &json!({"receiver": "0812", "text": "é"}), "1");
    let call = endpoint.next(&broker);
    assert_eq!(call.line, "POST /hook?key=1 HTTP/1.1");
    assert_eq!(call.header("content-type"), "application/json");
    assert_eq!(call.header("host"), endpoint.address.to_string());
    assert!(call.header("webhook-id").starts_with("msg_"), "{call:?}");
    let body = json!({"type": "message", "channel": "sms", "attempt": 1, "data": {"receiver": "0812", "text": "é"}});
    assert_eq!(call.json(), body);
    let response = publish(&broker, "sms", "?wait=20s", "2");
    assert_eq!((response.status, &response.json()["outcome"]), (200, &json!("delivered")), "{response:?}");
    let second = endpoint.next(&broker);
    assert_eq!(second.data(), json!(2));
    assert_ne!(second.header("webhook-id"), call.header("webhook-id"));
    // Acknowledged, so no other receiver gets them.
    Client::receiver(&broker, "sms").expect_nothing_yet();
}

#[test]
fn every_kind_of_message_is_posted_one_by_one() {
    let endpoint = Endpoint::with_status(200);
    let broker = broker(&endpoint, "");
    let mut sender = Client::envelope(&broker);
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": [1, "text", {"a": [null]}]}));
    assert_eq!(endpoint.data(&broker, 3), [json!(1), json!("text"), json!({"a": [null]})]);
    Client::topic(&broker, "sms").raw().send_frame(crate::raw::opcode::BINARY, b"\xff");
    assert_eq!(endpoint.next(&broker).data(), json!("data:application/octet-stream;base64,/w=="));
}

#[test]
fn signatures_are_those_of_the_reference_implementation_while_secrets_rotate() {
    let endpoint = Endpoint::with_status(200);
    let two = lines(&endpoint, "")
        .replace(&format!("secret = \"{SECRET}\""), &format!("secret_file = \"new\"\nsecret = [\"{SECRET}\"]"));
    let broker = Setup::default().file("new", concat!("whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "\n"));
    let broker = broker.webhook(&two).start();
    publish(&broker, "sms", "", r#"{"text":"é"}"#);
    let both = endpoint.next(&broker);
    assert_eq!(both.header("webhook-signature").split(' ').count(), 2, "{both:?}");
    let other = NEW_SECRET.replace("AQID", "AQIE");
    assert_eq!([SECRET, NEW_SECRET, &other].map(|secret| verifies(&both, secret)), [true, true, false]);
    let forged = Call { body: both.body.replace("é", "e"), ..both };
    assert!(!verifies(&forged, SECRET));
    broker.reconfigure(|text| text.replace(&format!("secret = [\"{SECRET}\"]"), ""));
    broker.wait_for_log("reloaded");
    publish(&broker, "sms", "", "1");
    let new = endpoint.next(&broker);
    assert_eq!([SECRET, NEW_SECRET].map(|secret| verifies(&new, secret)), [false, true]);
}

#[test]
fn a_backlog_is_posted_in_order_over_one_connection() {
    let endpoint = Endpoint::with_status(200);
    let broker = Setup::default().start();
    for number in 0..200 {
        publish(&broker, "sms", "", &number.to_string());
    }
    let webhook = lines(&endpoint, "name = \"shop\"");
    broker.reconfigure(|text| format!("{text}\n[[webhook]]\n{webhook}\n"));
    let calls: Vec<Call> = (0..200).map(|_| endpoint.next(&broker)).collect();
    let data: Vec<_> = calls.iter().map(Call::data).collect();
    assert_eq!(data, (0..200).map(|number| json!(number)).collect::<Vec<_>>());
    assert!(calls.iter().all(|call| call.connection == 0), "the connection is kept");
}

#[test]
fn channels_are_posted_at_the_same_time_up_to_the_limit() {
    let endpoint = Endpoint::start(|call| if call.data() == json!(3) { Reply::Status(200) } else { Reply::Silence });
    let three = |limit: &str| lines(&endpoint, limit).replace("\"sms\"", "[\"a\", \"b\", \"c\"]");
    let broker = Setup::default().webhook(&three("concurrency = 2\ntimeout = \"2s\"")).start();
    for (channel, number) in [("a", "1"), ("b", "2")] {
        publish(&broker, channel, "", number);
    }
    let mut first = endpoint.data(&broker, 2);
    first.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(first, [json!(1), json!(2)]);
    publish(&broker, "c", "", "3");
    endpoint.expect_nothing(Duration::from_millis(300));
    // The others have timed out.
    assert_eq!(endpoint.next(&broker).data(), json!(3));
}

#[test]
fn a_reload_adds_changes_and_removes_webhooks() {
    let (first, second) = (Endpoint::with_status(200), Endpoint::with_status(200));
    let broker = Broker::start();
    publish(&broker, "sms", "", "1");
    let (old, new) = (lines(&first, "name = \"shop\""), lines(&second, "name = \"shop\""));
    broker.reconfigure(|text| format!("{text}\n[[webhook]]\n{old}\n"));
    assert_eq!(first.next(&broker).data(), json!(1));
    broker.reconfigure(|text| text.replace(&first.address.to_string(), &second.address.to_string()));
    let gone = |count| move |log: String| log.matches("reloaded").count() >= count;
    wait_for(&broker, gone(2));
    publish(&broker, "sms", "?wait=20s", "2");
    assert_eq!(second.next(&broker).data(), json!(2));
    broker.reconfigure(|text| text.replace(&format!("[[webhook]]\n{new}"), ""));
    wait_for(&broker, gone(3));
    let mut receiver = Client::receiver(&broker, "sms");
    publish(&broker, "sms", "", "3");
    assert_eq!(receiver.messages(1), ["3"]);
    first.expect_nothing(Duration::ZERO);
    second.expect_nothing(Duration::ZERO);
}

/// Waits until `is_so` is true for the log.
#[track_caller]
fn wait_for(broker: &Broker, is_so: impl Fn(String) -> bool) {
    let end = std::time::Instant::now() + crate::broker::PATIENCE;
    while !is_so(broker.log().text()) {
        assert!(std::time::Instant::now() < end, "{}", broker.log().tail());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn permissions_do_not_concern_webhooks() {
    let endpoint = Endpoint::with_status(200);
    let broker = Setup::default().webhook(&lines(&endpoint, "name = \"shop\"")).start();
    publish(&broker, "sms", "?wait=20s", "1");
    assert_eq!(endpoint.next(&broker).data(), json!(1));
    broker.reconfigure(|text| {
        text.replace("[store]", "[[permission]]\nuser = \"*\"\nsend = [\"*\"]\nreceive = []\n[store]")
    });
    broker.wait_for_log("reloaded");
    // The session was not ended.
    assert_eq!(publish(&broker, "sms", "?wait=20s", "2").json()["outcome"], json!("delivered"));
    assert_eq!(endpoint.next(&broker).data(), json!(2));
}
