//! `Origin` (SPEC section 3): which web pages may connect. Programs that are no browsers always may.

use crate::broker::{Broker, Setup};
use crate::legacy::{Esp32, Php};
use crate::raw::{Head, Raw};

/// The status and the body of the answer to an upgrade request.
#[track_caller]
fn answer(broker: &Broker, head: &Head) -> (u16, String) {
    let mut raw = Raw::connect(broker);
    raw.send(&head.bytes());
    let text = raw.head();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = if status == 101 { String::new() } else { String::from_utf8_lossy(&raw.rest()).into_owned() };
    (status, body)
}

fn page(origin: &str, host: &str) -> Head {
    Head::new("/").with("Host", host).with("Origin", origin)
}

#[test]
fn a_page_of_another_host_is_refused_until_it_is_configured() {
    let broker = Broker::start();
    let head = page("https://app.example", "broker.example");
    let (status, body) = answer(&broker, &head);
    assert_eq!(status, 403, "{body}");
    assert!(
        body.contains("add \"https://app.example\" to server.origins: origins = [\"https://app.example\"]"),
        "{body}"
    );
    broker.wait_for_log("WARN refused a connection: a web page of \"https://app.example\" may not connect");
    // The answer does not depend on the credentials.
    assert_eq!(answer(&broker, &head.clone().without("Authorization")).0, 403);
    broker.reconfigure(|text| text.replace("[server]\n", "[server]\norigins = [\"https://app.example\"]\n"));
    broker.wait_for_log("reloaded");
    assert_eq!(answer(&broker, &head).0, 101);
    for other in
        ["http://app.example", "https://app.example:444", "https://evil.example", "null", "http://", "https://a b"]
    {
        assert_eq!(answer(&broker, &page(other, "broker.example")).0, 403, "{other}");
    }
}

#[test]
fn a_page_of_the_broker_s_host_may_connect_also_behind_proxies() {
    let broker = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").start();
    for (origin, host) in [
        ("http://127.0.0.1:8888", "127.0.0.1:8888"),
        ("https://broker.example", "broker.example"),
        ("https://broker.example:8443", "broker.example:8443"),
        ("https://broker.example:8443", "broker.example"),
        ("http://[::1]:8888", "[::1]:8888"),
    ] {
        assert_eq!(answer(&broker, &page(origin, host)).0, 101, "{origin} {host}");
    }
    assert_eq!(answer(&broker, &page("http://broker.example:1", "broker.example:2")).0, 403);
    let behind = page("https://broker.example", "127.0.0.1:8888").with("X-Forwarded-Host", "broker.example");
    assert_eq!(answer(&broker, &behind).0, 101);
    let nobody_trusted = Broker::start();
    assert_eq!(answer(&nobody_trusted, &behind).0, 403);
}

/// The headers that other programs send: `(program, Host, Origin)`.
const PROGRAMS: &[(&str, &str, Option<&str>)] = &[
    ("the PHP scripts, textalk/websocket, Ratchet's client", "127.0.0.1", None),
    ("OTP-Pi (Java-WebSocket)", "127.0.0.1:8888", None),
    ("Node's ws, .NET, Go's gorilla, tungstenite", "broker.example:8888", None),
    ("Python's websocket-client: the address that it was given", "127.0.0.1:8888", Some("http://127.0.0.1:8888")),
    ("Python's websocket-client, wss://", "broker.example", Some("https://broker.example")),
    ("arduinoWebSockets", "192.0.2.7:8888", Some("file://")),
    ("Ionic, Capacitor", "broker.example", Some("capacitor://localhost")),
    ("Electron", "broker.example", Some("app://wsmb")),
    ("an extension of a browser", "broker.example", Some("chrome-extension://abcdef")),
];

#[test]
fn programs_may_connect_with_any_origin_that_they_send() {
    let broker = Broker::start();
    for (program, host, origin) in PROGRAMS {
        let head = Head::new("/").with("Host", host);
        let head = origin.iter().fold(head, |head, origin| head.with("Origin", origin));
        assert_eq!(answer(&broker, &head).0, 101, "{program}");
    }
    Php::envelope(&broker);
    Esp32::connect(&broker, "sms");
}

#[test]
fn without_a_password_a_page_needs_a_configured_origin_or_a_local_host() {
    let broker = Setup::default()
        .auth("htpasswd = []\nanonymous = true")
        .server("origins = [\"http://app.example:8888\"]")
        .start();
    for (origin, host, status) in [
        ("http://evil.example:8888", "evil.example:8888", 403),
        ("http://app.example:8888", "app.example:8888", 101),
        ("http://127.0.0.1:8888", "127.0.0.1:8888", 101),
        ("http://localhost:8888", "localhost:8888", 101),
        ("file://", "evil.example:8888", 101),
    ] {
        let head = page(origin, host).without("Authorization");
        assert_eq!(answer(&broker, &head).0, status, "{origin}");
    }
    assert_eq!(answer(&broker, &Head::new("/").without("Authorization")).0, 101, "no Origin");
}
