//! The client's own address, through real proxies.
//!
//! Every client of a test is on this machine; so clients come from different addresses of it, all of which mean this machine on Linux.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::broker::{Broker, Setup};
use crate::raw::{Got, Head, Raw, basic};
use crate::ways::{Proxy, Way};

/// A connection that comes from `from`.
#[track_caller]
fn connect(broker: &Broker, from: &str) -> Raw {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let from: IpAddr = from.parse().expect("an address");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this machine");
    socket.connect(&broker.address().into()).expect("a connection");
    Raw::over(socket.into(), broker)
}

fn behind(way: Way) -> (Broker, Option<Proxy>) {
    let mut broker = way.setup().start();
    let proxy = Proxy::start(way, &broker);
    broker.go_through(proxy.as_ref().map(Proxy::address));
    (broker, proxy)
}

#[test]
fn the_log_shows_the_client_and_not_the_proxy() {
    for way in Way::PROXIES.into_iter().chain([Way::Direct]) {
        let (broker, _proxy) = behind(way);
        let mut raw = connect(&broker, "127.0.0.77");
        let port = raw.local_address().port();
        // What a client says itself is worth nothing.
        let head = Head::new("/").modern();
        let head = if way == Way::Direct { head } else { head.with("X-Forwarded-For", "192.0.2.66") };
        raw = raw.upgraded(&head);
        drop(raw);
        let peer = match way {
            // HAProxy does not look into the request here: what is in it comes from the client, who is not trusted.
            Way::HaproxyTcp(_) | Way::Direct => format!("127.0.0.77:{port}"),
            _ => "127.0.0.77".to_owned(),
        };
        broker.wait_for_log(&format!("user=app peer={peer} topic=None modern=true proxied={}", way != Way::Direct));
        assert!(!broker.log().text().contains("WARN a peer"), "{way:?}\n{}", broker.log().tail());
    }
}

#[test]
fn failed_logins_slow_their_own_client_only() {
    for way in Way::PROXIES {
        let (broker, _proxy) = behind(way);
        let attempt = |from: &str| {
            let mut raw = connect(&broker, from);
            raw.send(&Head::new("/").with("Authorization", &basic("app", "wrong")).bytes());
            raw
        };
        for _ in 0..5 {
            assert!(attempt("127.0.0.77").head().starts_with("HTTP/1.1 401 "), "{way:?}");
        }
        let mut slowed = attempt("127.0.0.77");
        assert!(attempt("127.0.0.78").head().starts_with("HTTP/1.1 401 "), "{way:?}");
        assert_eq!(slowed.head_or_end(Duration::ZERO), Got::Silence, "{way:?}: it was not slowed, or both were");
        assert!(slowed.head().starts_with("HTTP/1.1 401 "), "{way:?}");
    }
}

#[test]
fn a_proxy_that_nobody_trusts_is_told_about() {
    let mut broker = Setup::default().store("[log]\nlevel = \"debug\"").start();
    let proxy = Proxy::start(Way::Nginx, &broker).expect("a proxy");
    broker.go_through(Some(proxy.address()));
    let _raw = Raw::upgrade(&broker, &Head::new("/").modern());
    broker.wait_for_log("add \"127.0.0.1\" to server.trusted_proxies");
    broker.wait_for_log("proxied=true");
}
