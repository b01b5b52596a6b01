//! Refused upgrade requests: invalid credentials and invalid heads, each with its status.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bad_input::assert_unharmed;
use crate::broker::{Broker, PASSWORD, USER};
use crate::client::Client;
use crate::raw::{Head, Raw, basic};

/// Sends bytes and returns the response: status, head, body. The broker ends the connection after the response.
#[track_caller]
pub fn response(broker: &Broker, request: &[u8]) -> (u16, String, String) {
    let mut raw = Raw::connect(broker);
    // The broker may answer and end before it has read all of a large request.
    let _ = raw.try_send(request);
    let bytes = raw.rest();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}\n{}", raw.trace()));
    let status =
        head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head:?}")), head.to_string(), body.to_string())
}

#[test]
fn bad_credentials_are_401_with_the_rejected_connect_reply() {
    let mut broker = Broker::start();
    let good = basic(USER, PASSWORD);
    let cases: [(&str, Option<String>); 14] = [
        ("none", None),
        ("empty", Some(String::new())),
        ("only the scheme", Some("Basic".into())),
        ("only the scheme and a blank", Some("Basic ".into())),
        ("no base64", Some("Basic ???".into())),
        ("base64 of no length", Some("Basic YXBwO".into())),
        ("no colon in it", Some("Basic YXBw".into())),
        ("not UTF-8", Some("Basic //46/w==".into())),
        ("another scheme", Some(good.replace("Basic", "Digest"))),
        ("a wrong password", Some(basic(USER, "wrong"))),
        ("an empty password", Some(basic(USER, ""))),
        ("an unknown user", Some(basic("nobody", PASSWORD))),
        ("an empty user", Some(basic("", PASSWORD))),
        ("a password with something behind it", Some(basic(USER, "secret2"))),
    ];
    for (name, value) in cases {
        for target in ["/", "/ws?topic=sms"] {
            let head = Head::new(target).without("Authorization");
            let head = value.iter().fold(head, |head, value| head.with("Authorization", value));
            let (status, head, body) = response(&broker, &head.bytes());
            assert_eq!(status, 401, "{name}: {head}");
            assert!(head.lines().any(|line| line == "WWW-Authenticate: Basic realm=\"wsmb\""), "{name}: {head}");
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{name}: {body:?}: {error}"));
            assert_eq!((&body["command"], &body["response_code"]), (&json!("connect"), &json!("01")), "{name}: {body}");
            assert_eq!(body["response_text"], "Rejected", "{name}: {body}");
            assert!(body["data"][0]["time_stamp"].is_string(), "{name}: {body}");
        }
        // A success resets the failures of this address, so the next case is not slowed.
        Client::envelope(&broker).leave();
    }
    assert_unharmed(&mut broker);
}

#[test]
fn repeated_failures_are_slowed_and_a_known_client_of_the_same_address_is_not() {
    let broker = Broker::start();
    Client::envelope(&broker).leave();
    let wrong = Head::new("/").with("Authorization", &basic(USER, "wrong")).bytes();
    let began = Instant::now();
    (0..6).for_each(|_| assert_eq!(response(&broker, &wrong).0, 401));
    assert!(began.elapsed() >= Duration::from_millis(500), "six failures took {:?}", began.elapsed());
    let mut waiting = Raw::connect(&broker);
    waiting.send(&wrong);
    let began = Instant::now();
    Client::envelope(&broker).leave();
    assert!(began.elapsed() < Duration::from_secs(1), "a known client waited {:?}", began.elapsed());
}

#[test]
fn a_password_may_contain_a_colon_and_the_scheme_any_case() {
    let broker = Broker::start();
    for value in [
        basic("colon", "pass:word"),
        basic(USER, PASSWORD).replace("Basic", "basic"),
        basic(USER, PASSWORD).replace("Basic", "BASIC "),
    ] {
        Client::envelope_with(&broker, &Head::new("/").modern().with("Authorization", &value));
    }
}

#[test]
fn bad_heads_get_their_status_and_an_explanation() {
    let mut broker = Broker::start();
    let long = "x".repeat(101);
    let mut cases: Vec<(&str, Vec<u8>, &[u16])> = Vec::new();
    for (name, target) in [
        ("a topic given twice", "/ws?topic=a&topic=b".to_string()),
        ("a topic given as topic and channel", "/ws?topic=a&channel=b".into()),
        ("an empty topic", "/ws?topic=".into()),
        ("a topic without value", "/ws?topic".into()),
        ("an empty channel", "/ws?channel=&x=1".into()),
        ("a topic of 101 characters", format!("/ws?topic={long}")),
        ("a control character", "/ws?topic=a%0Ab".into()),
        ("no UTF-8", "/ws?topic=%ff".into()),
    ] {
        cases.push((name, Head::new(&target).bytes(), &[400]));
    }
    let huge = "y".repeat(20_000);
    let numbered = (0..100).fold(Head::new("/"), |head, number| head.with(&format!("X-{number}"), "1"));
    cases.extend([
        ("no key", Head::new("/").without("Sec-WebSocket-Key").bytes(), &[400][..]),
        ("a version of the past", Head::new("/").with("Sec-WebSocket-Version", "8").bytes(), &[426, 400]),
        ("no version", Head::new("/").without("Sec-WebSocket-Version").bytes(), &[426, 400]),
        ("a POST", Head { method: "POST".into(), ..Head::new("/") }.bytes(), &[400, 405, 426]),
        ("no upgrade at all", Head::new("/").without("Upgrade").without("Connection").bytes(), &[400, 404, 426]),
        ("rubbish", b"\x16\x03\x01\x02\0\x01\0\r\n\r\n".to_vec(), &[400]),
        ("a head without end", [&b"GET / HTTP/1.1\r\nX: "[..], huge.as_bytes()].concat(), &[431]),
        ("a target without end", Head::new(&format!("/{huge}")).bytes(), &[414, 431]),
        ("a hundred headers", numbered.bytes(), &[431, 400]),
    ]);
    for (name, request, wanted) in cases {
        let (status, head, body) = response(&broker, &request);
        assert!(wanted.contains(&status), "{name}: {status}, wanted {wanted:?}: {head}");
        assert!(body.trim().contains(' '), "{name}: no explanation: {body:?}");
    }
    assert_unharmed(&mut broker);
}
