//! SPEC section 3, "Client address": which proxies are trusted, the client's address in the throttle and the log, and the messages about wrongly
//! configured proxies. The tests write the headers of a proxy themselves; `tests/proxies` uses real proxies.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup};
use crate::raw::{Got, Head, KEY, Raw, basic, opcode};

/// The setup of a broker that trusts this machine and logs every connection.
fn trusting() -> Setup {
    Setup::default().server("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").store(DEBUG)
}

const DEBUG: &str = "[log]\nlevel = \"debug\"";

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb\x04\0\x01\0";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Sends bytes and returns the whole answer, up to the end of the connection.
#[track_caller]
fn answer(broker: &Broker, request: &[u8]) -> String {
    let mut raw = Raw::connect(broker);
    raw.send(request);
    String::from_utf8(raw.rest()).expect("text")
}

/// Waits until the log contains a connection of this client.
#[track_caller]
fn wait_for_client(broker: &Broker, peer: &str, proxied: bool) {
    broker.wait_for_log(&format!("user=app peer={peer} topic=None modern=true proxied={proxied}"));
}

#[test]
fn the_client_that_a_trusted_proxy_names_is_logged() {
    for (name, value, peer) in [
        ("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("Forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:4711\";proto=https", "[2001:db8::1]:4711"),
    ] {
        let broker = trusting().start();
        let _raw = Raw::upgrade(&broker, &Head::new("/").modern().with(name, value));
        wait_for_client(&broker, peer, true);
    }
}

#[test]
fn a_header_of_an_untrusted_peer_is_ignored_and_the_log_names_the_setting() {
    let broker = Setup::default().store(DEBUG).start();
    let raw = Raw::upgrade(&broker, &Head::new("/").modern().with("X-Forwarded-For", "192.0.2.1"));
    broker.wait_for_log("add \"127.0.0.1\" to server.trusted_proxies");
    // A connection with such a header counts as proxied, also if the header is not trusted.
    wait_for_client(&broker, &raw.local_address().to_string(), true);
    assert!(!broker.log().text().contains("192.0.2.1"), "{}", broker.log().tail());
}

#[test]
fn a_connection_with_any_sign_of_a_proxy_counts_as_proxied() {
    for (setup, head, proxied) in [
        (Setup::default(), Head::new("/"), false),
        (Setup::default(), Head::new("/").with("Via", "1.1 proxy"), true),
        (Setup::default(), Head::new("/").with("Forwarded", "for=unknown"), true),
        (Setup::default().server("trusted_proxies = \"127.0.0.0/8\""), Head::new("/"), true),
        (Setup::default().server("trusted_proxies = \"192.0.2.0/24\""), Head::new("/"), false),
    ] {
        let broker = setup.store(DEBUG).start();
        let _raw = Raw::upgrade(&broker, &head.modern());
        broker.wait_for_log(&format!("proxied={proxied}"));
    }
}

#[test]
fn the_proxy_protocol_names_the_client() {
    for (header, peer) in [(V1, Some("192.0.2.1:56324")), (V2, Some("192.0.2.1:56324")), (LOCAL, None)] {
        let broker = trusting().listener("proxy_protocol = true").start();
        let mut raw = Raw::connect_to(&broker, broker.addresses()[1]);
        // The header is sent in pieces.
        raw.send(&header[..5]);
        raw.send(&header[5..header.len() - 1]);
        raw.send(&header[header.len() - 1..]);
        let raw = raw.upgraded(&Head::new("/").modern());
        let peer = peer.map_or_else(|| raw.local_address().to_string(), str::to_owned);
        wait_for_client(&broker, &peer, true);
    }
}

#[test]
fn a_proxy_header_in_one_segment_with_the_request_and_a_frame_is_understood() {
    let broker = trusting().listener("proxy_protocol = true").start();
    let mut raw = Raw::connect_to(&broker, broker.addresses()[1]);
    let frame = crate::raw::frame(opcode::PING, b"after the head");
    raw.send(&[V1, &Head::new("/?topic=sms").modern().bytes(), &frame].concat());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(raw.next_frame().payload, b"after the head");
}

#[test]
fn behind_two_trusted_proxies_the_client_is_found() {
    let broker = trusting().listener("proxy_protocol = true").start();
    let mut raw = Raw::connect_to(&broker, broker.addresses()[1]);
    raw.send(b"PROXY TCP4 10.0.0.7 192.0.2.2 1000 443\r\n");
    let _raw = raw.upgraded(&Head::new("/").modern().with("X-Forwarded-For", "198.51.100.7"));
    wait_for_client(&broker, "198.51.100.7", true);
}

#[test]
fn a_proxy_header_of_an_untrusted_peer_is_read_and_ignored() {
    let broker = Setup::default().listener("proxy_protocol = true").store(DEBUG).start();
    let mut raw = Raw::connect_to(&broker, broker.addresses()[1]);
    raw.send(V1);
    let raw = raw.upgraded(&Head::new("/").modern());
    broker.wait_for_log("add \"127.0.0.1\" to server.trusted_proxies");
    wait_for_client(&broker, &raw.local_address().to_string(), true);
}

#[test]
fn a_listener_with_proxy_protocol_refuses_connections_without_the_header() {
    let broker = trusting().listener("proxy_protocol = true").start();
    let mut raw = Raw::connect_to(&broker, broker.addresses()[1]);
    raw.send(&Head::new("/").bytes());
    assert_eq!(raw.rest(), b"", "the connection was answered");
    broker.wait_for_log(
        "the connection does not begin with a PROXY protocol header; this [[listener]] has proxy_protocol = true",
    );
    // A health check that only connects is not logged, and the other listener is not affected.
    Raw::connect_to(&broker, broker.addresses()[1]).finish();
    let _raw = Raw::upgrade(&broker, &Head::new("/").modern());
    assert_eq!(broker.log().text().matches("refused a connection").count(), 1, "{}", broker.log().tail());
}

#[test]
fn an_unexpected_proxy_header_is_explained_in_the_answer_and_in_the_log() {
    for header in [V1, V2] {
        let broker = Broker::start();
        let answer = answer(&broker, &[header, &Head::new("/").bytes()].concat());
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("proxy_protocol = true"), "{answer}");
        broker.wait_for_log("give the proxy a [[listener]] with proxy_protocol = true");
    }
}

#[test]
fn failed_logins_are_counted_by_client_and_not_by_proxy() {
    let broker = trusting().start();
    let attempt = |client: &str| {
        let head = Head::new("/").with("Authorization", &basic("app", "wrong")).with("X-Forwarded-For", client);
        let mut raw = Raw::connect(&broker);
        raw.send(&head.bytes());
        raw
    };
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(attempt("192.0.2.1").head().starts_with("HTTP/1.1 401 "));
    }
    assert!(begun.elapsed() >= Duration::from_millis(750), "the fourth and the fifth login were not slowed");
    // The sixth login is delayed by a second; another client behind the same proxy is not delayed.
    let mut slowed = attempt("192.0.2.1");
    assert!(attempt("192.0.2.2").head().starts_with("HTTP/1.1 401 "));
    assert_eq!(slowed.head_or_end(Duration::ZERO), Got::Silence, "either no client was slowed, or both were");
    assert!(slowed.head().starts_with("HTTP/1.1 401 "));
}

#[test]
fn a_reload_applies_trusted_proxies() {
    let broker = Setup::default().store(DEBUG).start();
    let text = std::fs::read_to_string(broker.config()).unwrap();
    std::fs::write(broker.config(), text.replace("[server]\n", "[server]\ntrusted_proxies = \"127.0.0.1\"\n")).unwrap();
    broker.signal(libc::SIGHUP);
    broker.wait_for_log("trusted proxies are as configured now");
    let _raw = Raw::upgrade(&broker, &Head::new("/").modern().with("X-Forwarded-For", "192.0.2.1"));
    wait_for_client(&broker, "192.0.2.1", true);
}

#[test]
fn a_request_without_upgrade_is_answered_and_logged_with_the_proxy_setting() {
    let broker = Broker::start();
    let good = String::from_utf8(Head::new("/broker").with("X-Forwarded-For", "192.0.2.1").bytes()).unwrap();
    for (request, wrong) in [
        (good.replace("HTTP/1.1", "HTTP/1.0"), "was made with HTTP/1.0"),
        (good.replace("Upgrade: websocket\r\n", ""), "has no header \"Upgrade: websocket\""),
        (good.replace("Connection: Upgrade", "Connection: close"), "has no header \"Connection: Upgrade\""),
    ] {
        let answer = answer(&broker, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
        for words in [wrong, "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;", "upgrade=websocket"] {
            assert!(answer.contains(words), "{words} is not in {answer}");
        }
    }
    broker.wait_for_log(
        "WARN a request for a WebSocket was made with HTTP/1.0, which has no upgrade; a proxy in front of",
    );
    // A request without WebSocket headers may come from a person with a browser, so only the answer explains the error.
    let plain = "GET / HTTP/1.1\r\nHost: h\r\n";
    assert!(answer(&broker, format!("{plain}Via: 1.1 x\r\n\r\n").as_bytes()).contains("proxy_http_version 1.1"));
    assert!(!answer(&broker, format!("{plain}\r\n").as_bytes()).contains("nginx"));
    let said = broker.log().text();
    assert_eq!(said.matches("a request for a WebSocket").count(), 1, "the line must be logged once:\n{said}");
}

/// `check.sh` of the PHP broker: `curl -i -N -H "Connection: Upgrade" -H "Upgrade: websocket" -H "Host: …" -H "Origin: htt" URL | grep "Ratchet"`.
/// If the answer does not contain the word, the script starts the PHP broker.
#[test]
fn the_watchdog_script_of_the_php_broker_finds_a_running_broker() {
    let broker = Broker::start();
    let head =
        "GET /message-broker.wss/ HTTP/1.1\r\nHost: www.domain.tld\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n";
    let asking = "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: htt\r\n\r\n";
    // The request without a proxy, and behind proxies that pass the upgrade headers on, drop them, or speak HTTP/2 with curl.
    for request in [
        format!("{head}{asking}"),
        format!("{head}X-Forwarded-For: 192.0.2.1\r\n{asking}"),
        format!("{head}Origin: htt\r\nConnection: close\r\n\r\n"),
        format!("{head}Origin: htt\r\nConnection: close\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        format!("{head}Sec-WebSocket-Version: 13\r\n{asking}"),
    ] {
        let answer = answer(&broker, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(answer.lines().any(|line| line.contains("Ratchet")), "{request}\n{answer}");
    }
    // A good upgrade reply must not contain the word.
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").with("Sec-WebSocket-Key", KEY).bytes());
    assert!(!raw.head().contains("Ratchet"));
}
