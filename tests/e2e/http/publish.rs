//! `POST /api/v1/channels/{channel}/messages`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Http, curl, publish, request};
use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::raw::{Head, Raw, basic};

/// A receiver with manual acknowledgement on `sms`.
#[track_caller]
fn gateway(broker: &Broker) -> Client {
    let mut gateway = Client::envelope(broker);
    gateway.subscribe_with("sms", &json!({"ack": "manual"}));
    gateway
}

#[test]
fn one_call_of_curl_sends_a_code_and_learns_that_it_was_delivered() {
    let broker = Setup::default().channel("sms", "receivers = 1\nttl = \"5m\"").start();
    let mut gateway = gateway(&broker);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            curl(
                &broker,
                &["-u", "app:secret", "-d", r#"{"receiver":"0812","message":"402913"}"#],
                "/api/v1/channels/sms/messages?wait=20s",
            )
        });
        let delivery = gateway.next_delivery();
        assert_eq!(delivery["data"], json!([{"receiver": "0812", "message": "402913"}]));
        gateway.command(&json!({"command": "ack", "delivery": delivery["delivery"]}));
        gateway.sync();
        sender.join().expect("a response")
    });
    let body: Value = serde_json::from_str(&sent.1).expect("JSON");
    assert_eq!((sent.0, &body["outcome"], &body["receivers"]), (200, &json!("delivered"), &json!(1)), "{body}");
    assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
}

#[test]
fn without_wait_the_answer_comes_when_the_message_is_safe() {
    let broker = Broker::start();
    let stored = publish(&broker, "sms", "", "{\"a\":1}");
    let body = stored.json();
    assert_eq!((stored.status, &body["outcome"], &body["receivers"]), (202, &json!("stored"), &json!(0)), "{body}");
    assert_eq!(stored.header("content-type"), Some("application/json"));
    // It survives the death of the process.
    let broker = broker.kill_and_restart();
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.messages(1), [r#"{"a":1}"#]);
}

#[test]
fn wait_ends_with_the_outcome_or_after_its_time() {
    let broker = Setup::default()
        .channel("sms", "receivers = 1\nmax_deliveries = 1")
        .channel("letters", "receivers = 1\ndead_letter = \"dead\"")
        .start();
    let began = Instant::now();
    let late = publish(&broker, "sms", "?wait=300ms", "1");
    assert_eq!((late.status, &late.json()["outcome"]), (202, &json!("stored")));
    assert!(began.elapsed() >= Duration::from_millis(300));

    let expired = publish(&broker, "other", "?wait=20s&ttl=200ms", "1");
    assert_eq!((expired.status, &expired.json()["outcome"]), (410, &json!("expired")), "{expired:?}");
    assert_eq!(expired.header("content-type"), Some("application/problem+json"));

    // What the gateway rejects goes to the dead letters, or is dropped.
    for (channel, outcome) in [("letters", "dead"), ("sms", "dropped")] {
        let mut gateway = Client::envelope(&broker);
        gateway.subscribe_with(channel, &json!({"ack": "manual"}));
        let response = std::thread::scope(|scope| {
            let sender = scope.spawn(|| publish(&broker, channel, "?wait=20s", "7"));
            loop {
                let delivery = gateway.next_delivery();
                gateway.command(&json!({"command": "nack", "delivery": delivery["delivery"], "reject": true}));
                if delivery["data"] == json!([7]) {
                    break;
                }
            }
            gateway.sync();
            sender.join().expect("a response")
        });
        assert_eq!((response.status, &response.json()["outcome"]), (410, &json!(outcome)), "{response:?}");
    }
}

#[test]
fn a_channel_that_keeps_nothing_answers_who_got_it() {
    let broker = Setup::default().defaults("keep = false").start();
    let nobody = publish(&broker, "sms", "", "1");
    assert_eq!((nobody.status, &nobody.json()["outcome"]), (404, &json!("nobody")), "{nobody:?}");
    let mut receivers = [Client::receiver(&broker, "sms"), Client::topic(&broker, "sms")];
    receivers.iter_mut().for_each(Client::sync);
    let delivered = publish(&broker, "sms", "?wait=20s", r#"{"a" : 1}"#);
    assert_eq!((delivered.status, &delivered.json()["receivers"]), (200, &json!(2)), "{delivered:?}");
    assert_eq!(receivers[0].next_text(), r#"{"command":"send-message","channel":"sms","data":[{"a" : 1}]}"#);
    assert_eq!(receivers[1].next_text(), r#"{"a" : 1}"#);
    let delayed = publish(&broker, "sms", "?delay=1h", "1");
    assert_eq!((delayed.status, &delayed.json()["outcome"]), (202, &json!("delayed")), "{delayed:?}");
}

#[test]
fn a_key_that_is_sent_again_sends_nothing_again() {
    let broker = Broker::start();
    let send = |broker: &Broker| {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "\"order 71\"")];
        request(broker, "POST /api/v1/channels/sms/messages", &headers, "71")
    };
    let first = send(&broker);
    assert_eq!((first.status, first.json()), (202, json!({"id": "order 71", "outcome": "stored", "receivers": 0})));
    let broker = broker.stop_and_restart();
    let again = send(&broker);
    assert_eq!(again.json(), json!({"id": "order 71", "outcome": "stored", "receivers": 0, "duplicate": true}));
    // The id is the same as in the envelope dialect.
    let reply = Client::envelope(&broker).request("sms", &json!(71), &json!({"id": "order 71"}));
    assert_eq!((&reply["response_code"], &reply["duplicate"]), (&json!("00"), &json!(true)));
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [71]);
    receiver.expect_nothing_yet();
}

#[test]
fn the_content_type_says_what_the_body_is() {
    let broker = Broker::start();
    let send = |content_type: &str, body: &[u8]| {
        request(&broker, "POST /api/v1/channels/a%20b%2Fc/messages", &[("Content-Type", content_type)], body)
    };
    let mut topic = Client::topic(&broker, "a%20b%2Fc");
    topic.sync();
    for (content_type, body) in [("text/plain", &b"{"[..]), ("application/octet-stream", b"\x00\xff"), ("", b"x")] {
        assert_eq!(send(content_type, body).status, 202);
        let frame = topic.next_frame();
        assert_eq!(frame.payload, body);
        assert_eq!(frame.opcode, if content_type.contains("octet") { 2 } else { 1 });
    }
    let lines = send("application/x-ndjson", b"1\n{\"a\":2}\n\n3");
    assert_eq!(lines.status, 202, "{lines:?}");
    assert_eq!([(); 3].map(|()| topic.next_text()), ["1", "{\"a\":2}", "3"]);
    for (content_type, body, status) in [
        ("application/json", &b"{"[..], 400),
        ("application/json", b"", 400),
        ("application/x-www-form-urlencoded", b"receiver=0812", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("text/plain; charset=latin1", b"x", 415),
    ] {
        let response = send(content_type, body);
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.json()["status"], json!(status));
        assert!(response.json()["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{response:?}");
    }
    topic.expect_nothing_yet();
}

#[test]
fn refusals_have_their_status_and_code() {
    let broker = Setup::default()
        .server("max_message = \"2 KiB\"\nmemory_budget = \"64 MiB\"")
        .channel("small", "max_backlog = 1")
        .channel("closed", "")
        .auth("htpasswd = []\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\", \"slow:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n[[permission]]\nuser = \"slow\"\nsend = [\"sms\"]\n[[permission]]\nuser = \"app\"\nsend = [\"small\", \"sms\"]\n[[rate]]\nuser = \"slow\"\npublish = \"1/h\"")
        .start();
    let post = |channel: &str, query: &str, headers: &[(&str, &str)], body: &str| {
        let response = request(&broker, &format!("POST /api/v1/channels/{channel}/messages{query}"), headers, body);
        (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned(), response)
    };
    assert_eq!(post("small", "", &[], "1").0, 202);
    let is = |(status, code, response): (u16, String, super::Response), expected: (u16, &str)| {
        assert_eq!((status, &*code), expected, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        response
    };
    is(post("small", "", &[], "2"), (507, "06"));
    is(post("closed", "", &[], "1"), (403, "03"));
    is(post("sms", "?tll=5", &[], "1"), (400, "02"));
    is(post("sms", "?ttl=5&delay=10", &[], "1"), (410, "08"));
    is(post("sms", "", &[("Content-Type", "text/plain")], &"x".repeat(2049)), (413, "04"));
    let slow = basic("slow", "secret");
    assert_eq!(post("sms", "", &[("Authorization", &slow)], "1").0, 202);
    let slowed = is(post("sms", "", &[("Authorization", &slow)], "2"), (429, "09"));
    assert!(
        slowed.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait > 3_000)),
        "{slowed:?}"
    );
    let unauthorized = is(post("sms", "", &[("Authorization", &basic("app", "wrong"))], "1"), (401, "01"));
    assert_eq!(unauthorized.header("www-authenticate"), Some("Basic realm=\"wsmb\""));
    assert_eq!(post("sms", "", &[("Authorization", "")], "1").0, 401);
}

#[test]
fn resources_and_methods_that_do_not_exist_are_named() {
    let broker = Broker::start();
    let mut http = Http::connect(&broker);
    assert_eq!(http.request("GET /healthz", &[("Authorization", "")], "").body, "ok\n");
    let head = http_head(&broker, "/healthz");
    assert_eq!((head.0, &*head.1), (200, ""));
    assert_eq!(http.request("GET /readyz", &[("Authorization", "")], "").body, "ready\n");
    assert_eq!(http.request("GET /api/v1/nothing", &[], "").status, 404);
    assert_eq!(http.request("GET /dashboard/x", &[], "").status, 404);
    let wrong = http.request("PUT /api/v1/channels/sms/messages", &[], "");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, POST, DELETE")));
    assert_eq!(http.request("POST /api/v1/channels/%00/messages", &[], "1").status, 400);
    let long = format!("POST /api/v1/channels/{}/messages", "x".repeat(101));
    assert_eq!(http.request(&long, &[], "1").status, 400);
}

/// `HEAD` with curl, which checks that no body follows.
#[track_caller]
fn http_head(broker: &Broker, path: &str) -> (u16, String) {
    let (status, text) = curl(broker, &["--head", "-o", "/dev/null"], path);
    (status, text)
}

#[test]
fn a_page_of_another_origin_is_refused_and_a_listed_one_may_send() {
    let broker = Setup::default().server("origins = [\"https://app.example\"]").start();
    let from = |origin: &str, method: &str| {
        request(&broker, &format!("{method} /api/v1/channels/sms/messages"), &[("Origin", origin)], "1")
    };
    let foreign = from("https://evil.example", "POST");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None), "{foreign:?}");
    assert!(foreign.json()["detail"].as_str().is_some_and(|detail| detail.contains("server.origins")), "{foreign:?}");
    let listed = from("https://app.example", "POST");
    assert_eq!((listed.status, listed.header("access-control-allow-origin")), (202, Some("https://app.example")));
    assert_eq!(listed.header("access-control-expose-headers"), Some("retry-after"), "a page may read it");
    let asked = from("https://app.example", "OPTIONS");
    assert_eq!(
        (asked.status, asked.header("access-control-allow-methods")),
        (204, Some("GET, POST, DELETE")),
        "{asked:?}"
    );
    assert!(asked.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [1]);
    receiver.expect_nothing_yet();
}

#[test]
fn requests_follow_each_other_on_a_connection_and_a_websocket_may_follow_them() {
    let broker = Broker::start();
    let mut http = Http::connect(&broker);
    for _ in 0..3 {
        http.send("POST /api/v1/channels/sms/messages", &[], "1");
    }
    for _ in 0..3 {
        assert_eq!(http.read().expect("a response").status, 202);
    }
    // A proxy that keeps connections open sends the next client's upgrade on this one.
    let raw = Raw::over(http.into_stream(), &broker).upgraded(&Head::new("/ws").modern());
    let mut client = Client::over(raw);
    client.subscribe("sms");
    assert_eq!(client.numbers(3), [1, 1, 1]);
}

#[test]
fn a_client_that_sends_and_leaves_at_once_has_sent() {
    let broker = Broker::start();
    let mut http = Http::connect(&broker);
    http.send("POST /api/v1/channels/sms/messages?wait=20s", &[], "1");
    http.finish();
    drop(http);
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.numbers(1), [1]);
}

#[test]
fn a_stop_answers_the_requests_that_wait() {
    let mut broker = Broker::start();
    let mut gateway = gateway(&broker);
    let mut http = Http::connect(&broker);
    http.send("POST /api/v1/channels/sms/messages?wait=60s", &[], "1");
    gateway.next_delivery();
    broker.signal(libc::SIGTERM);
    let response = http.read().expect("a response");
    assert_eq!((response.status, &response.json()["outcome"]), (202, &json!("stored")), "{response:?}");
    assert!(broker.wait().success());
}
