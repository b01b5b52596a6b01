//! The legacy clients (SPEC sections 3 and 12) work behind a proxy, and a wrongly configured proxy is reported.

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::legacy::{Java, Php, php_publish, php_send};
use crate::raw::{Head, Raw};
use crate::routes::{Proxy, Route};

fn behind(route: Route) -> (Broker, Option<Proxy>) {
    let mut broker = route.setup().start();
    let proxy = Proxy::start(route, &broker);
    broker.set_proxy(proxy.as_ref().map(Proxy::address));
    (broker, proxy)
}

#[test]
fn the_php_scripts_and_the_java_gateway_exchange_messages() {
    for route in Route::PROXIES {
        let (broker, _proxy) = behind(route);
        let mut receiver = Php::receiver(&broker, "sms");
        php_send(&broker, r#"{"command":"send-message","channel":"sms","data":[{"text":"é€😀"}]}"#);
        assert_eq!(receiver.message(), r#"{"command":"send-message","channel":"sms","data":[{"text":"é€😀"}]}"#);
        receiver.answer_one_ping();
        let mut gateway = Java::connect(&broker, "one time");
        php_publish(&broker, "one+time", "{\"command\":\"echo\"}");
        assert_eq!(gateway.text(), "{\"command\":\"echo\"}", "{route:?}");
        gateway.keep_alive();
    }
}

/// The PHP scripts compare the case of headers, so the example needs its lines about the case.
#[test]
fn haproxy_keeps_the_case_of_headers_only_with_the_option() {
    for (left_out, keeps) in [("", true), ("option h1-case-adjust-bogus-client", false)] {
        let mut broker = Route::HaproxyHttp.setup().start();
        let proxy = Proxy::start_edited(Route::HaproxyHttp, &broker, &[(left_out, "")]).expect("a proxy");
        broker.set_proxy(Some(proxy.address()));
        let mut raw = Raw::connect(&broker);
        raw.send(&Head::new("/").bytes());
        let head = raw.head();
        for line in ["\r\nSec-WebSocket-Accept: ", "\r\nConnection: Upgrade\r\n", "\r\nUpgrade: websocket\r\n"] {
            assert_eq!(head.contains(line), keeps, "{line:?} in {head}");
        }
    }
}

#[test]
fn a_message_arrives_though_its_sender_closes_at_once() {
    for route in Route::PROXIES {
        let (broker, _proxy) = behind(route);
        let mut receiver = Client::receiver(&broker, "sms");
        for number in 0..20 {
            php_publish(&broker, "sms", &number.to_string());
            assert_eq!(receiver.numbers(1), [number], "{route:?}");
        }
    }
}

#[test]
fn a_large_message_is_passed_on_unchanged() {
    for route in Route::PROXIES {
        let (broker, _proxy) = behind(route);
        let mut receiver = Client::receiver(&broker, "sms");
        let text = json!("x".repeat(900_000));
        Client::envelope(&broker).publish("sms", &text);
        assert!(receiver.messages(1) == [text.to_string()], "{route:?}");
    }
}

#[test]
fn the_watchdog_script_of_the_php_broker_works_behind_a_proxy() {
    // HAProxy in HTTP mode refuses such a request itself, also in front of the PHP broker.
    for route in Route::PROXIES.into_iter().filter(|route| *route != Route::HaproxyHttp) {
        let (broker, _proxy) = behind(route);
        let mut raw = Raw::connect(&broker);
        raw.send(
            b"GET /message-broker.wss/ HTTP/1.1\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nConnection: Upgrade\r\n\
              Upgrade: websocket\r\nHost: www.domain.tld\r\nOrigin: htt\r\n\r\n",
        );
        let head = raw.head();
        assert!(head.contains("Ratchet"), "{route:?}: {head}");
    }
}

#[test]
fn an_nginx_without_a_setting_is_reported_with_the_setting() {
    for (left_out, sentence) in [
        ("proxy_http_version 1.1;", "was made with HTTP/1.0, which has no upgrade"),
        ("proxy_set_header Upgrade $http_upgrade;", "has no header \"Upgrade: websocket\""),
        ("proxy_set_header Connection \"upgrade\";", "has no header \"Connection: Upgrade\""),
    ] {
        let mut broker = Setup::default().start();
        let proxy = Proxy::start_edited(Route::Nginx, &broker, &[(left_out, "")]).expect("a proxy");
        broker.set_proxy(Some(proxy.address()));
        let mut raw = Raw::connect(&broker);
        raw.send(&Head::new("/").with("Connection", "close, Upgrade").bytes());
        let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 426 "), "{left_out}: {answer}");
        assert!(answer.contains(sentence) && answer.contains(left_out), "{left_out}: {answer}");
        broker.wait_for_log(sentence);
    }
}

#[test]
fn a_haproxy_without_the_proxy_header_is_reported() {
    let mut broker = Route::HaproxyTcp(2).setup().start();
    let proxy = Proxy::start_edited(Route::HaproxyTcp(2), &broker, &[("send-proxy-v2", "")]).expect("a proxy");
    broker.set_proxy(Some(proxy.address()));
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").bytes());
    assert_eq!(raw.rest(), b"");
    broker.wait_for_log("the connection does not begin with a PROXY protocol header");
}
