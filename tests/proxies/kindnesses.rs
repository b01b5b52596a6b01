//! What the old clients need (SPEC sections 3 and 12) still reaches them through a proxy, and a proxy without its settings is found out.

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::legacy::{Java, Php, php_publish, php_send};
use crate::raw::{Head, Raw};
use crate::ways::{Proxy, Way};

fn behind(way: Way) -> (Broker, Option<Proxy>) {
    let mut broker = way.setup().start();
    let proxy = Proxy::start(way, &broker);
    broker.go_through(proxy.as_ref().map(Proxy::address));
    (broker, proxy)
}

#[test]
fn the_php_scripts_and_the_java_gateway_exchange_messages() {
    for way in Way::PROXIES {
        let (broker, _proxy) = behind(way);
        let mut receiver = Php::receiver(&broker, "sms");
        php_send(&broker, r#"{"command":"send-message","channel":"sms","data":[{"text":"é€😀"}]}"#);
        assert_eq!(receiver.message(), r#"{"command":"send-message","channel":"sms","data":[{"text":"é€😀"}]}"#);
        receiver.answer_one_ping();
        let mut gateway = Java::connect(&broker, "one time");
        php_publish(&broker, "one+time", "{\"command\":\"echo\"}");
        assert_eq!(gateway.text(), "{\"command\":\"echo\"}", "{way:?}");
        gateway.keep_alive();
    }
}

/// Why the example has lines about the case of headers: without them the PHP scripts, which compare it, can't connect.
#[test]
fn haproxy_keeps_the_case_of_headers_only_where_it_is_told_to() {
    for (left_out, keeps) in [("", true), ("option h1-case-adjust-bogus-client", false)] {
        let mut broker = Way::HaproxyHttp.setup().start();
        let proxy = Proxy::start_edited(Way::HaproxyHttp, &broker, &[(left_out, "")]).expect("a proxy");
        broker.go_through(Some(proxy.address()));
        let mut raw = Raw::connect(&broker);
        raw.send(&Head::new("/").bytes());
        let head = raw.head();
        for line in ["\r\nSec-WebSocket-Accept: ", "\r\nConnection: Upgrade\r\n", "\r\nUpgrade: websocket\r\n"] {
            assert_eq!(head.contains(line), keeps, "{line:?} in {head}");
        }
    }
}

#[test]
fn what_is_sent_and_dropped_at_once_arrives() {
    for way in Way::PROXIES {
        let (broker, _proxy) = behind(way);
        let mut receiver = Client::receiver(&broker, "sms");
        for number in 0..20 {
            php_publish(&broker, "sms", &number.to_string());
            assert_eq!(receiver.numbers(1), [number], "{way:?}");
        }
    }
}

#[test]
fn a_large_message_goes_through_whole() {
    for way in Way::PROXIES {
        let (broker, _proxy) = behind(way);
        let mut receiver = Client::receiver(&broker, "sms");
        let text = json!("x".repeat(900_000));
        Client::envelope(&broker).publish("sms", &text);
        assert!(receiver.messages(1) == [text.to_string()], "{way:?}");
    }
}

#[test]
fn the_script_that_starts_the_php_broker_is_content_behind_a_proxy() {
    // HAProxy that reads HTTP refuses such a request itself, as it did in front of the PHP broker.
    for way in Way::PROXIES.into_iter().filter(|way| *way != Way::HaproxyHttp) {
        let (broker, _proxy) = behind(way);
        let mut raw = Raw::connect(&broker);
        raw.send(
            b"GET /message-broker.wss/ HTTP/1.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nConnection: Upgrade\r\n\
              Upgrade: websocket\r\nHost: www.domain.tld\r\nOrigin: htt\r\n\r\n",
        );
        let head = raw.head();
        assert!(head.contains("Ratchet"), "{way:?}: {head}");
    }
}

#[test]
fn an_nginx_without_the_settings_is_found_out() {
    for (left_out, sentence) in [
        ("proxy_http_version 1.1;", "was made with HTTP/1.0, which has no upgrade"),
        ("proxy_set_header Upgrade $http_upgrade;", "has no header \"Upgrade: websocket\""),
        ("proxy_set_header Connection \"upgrade\";", "has no header \"Connection: Upgrade\""),
    ] {
        let mut broker = Setup::default().start();
        let proxy = Proxy::start_edited(Way::Nginx, &broker, &[(left_out, "")]).expect("a proxy");
        broker.go_through(Some(proxy.address()));
        let mut raw = Raw::connect(&broker);
        raw.send(&Head::new("/").with("Connection", "close, Upgrade").bytes());
        let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 426 "), "{left_out}: {answer}");
        assert!(answer.contains(sentence) && answer.contains(left_out), "{left_out}: {answer}");
        broker.wait_for_log(sentence);
    }
}

#[test]
fn without_its_proxy_header_haproxy_is_told_what_is_missing() {
    let mut broker = Way::HaproxyTcp(2).setup().start();
    let proxy = Proxy::start_edited(Way::HaproxyTcp(2), &broker, &[("send-proxy-v2", "")]).expect("a proxy");
    broker.go_through(Some(proxy.address()));
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").bytes());
    assert_eq!(raw.rest(), b"");
    broker.wait_for_log("the connection does not begin with a PROXY protocol header");
}
