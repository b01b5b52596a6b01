//! The client's address behind real proxies.
//!
//! All clients are on this machine, so they use different addresses in 127.0.0.0/8, which Linux assigns to this machine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::broker::{Broker, Setup};
use crate::raw::{Got, Head, Raw, basic};
use crate::routes::{Proxy, Route};

/// A connection from the address `from`.
#[track_caller]
fn connect(broker: &Broker, from: &str) -> Raw {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let from: IpAddr = from.parse().expect("an address");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this machine");
    socket.connect(&broker.address().into()).expect("a connection");
    Raw::over(socket.into(), broker)
}

fn behind(route: Route) -> (Broker, Option<Proxy>) {
    let mut broker = route.setup().start();
    let proxy = Proxy::start(route, &broker);
    broker.set_proxy(proxy.as_ref().map(Proxy::address));
    (broker, proxy)
}

#[test]
fn the_log_shows_the_client_and_not_the_proxy() {
    for route in Route::PROXIES.into_iter().chain([Route::Direct]) {
        let (broker, _proxy) = behind(route);
        let mut raw = connect(&broker, "127.0.0.77");
        let port = raw.local_address().port();
        // A proxy must replace the client's own header.
        let head = Head::new("/").modern();
        let head = if route == Route::Direct { head } else { head.with("X-Forwarded-For", "192.0.2.66") };
        raw = raw.upgraded(&head);
        drop(raw);
        let peer = match route {
            // HAProxy passes the request on unchanged, so its headers come from the client, which is not trusted.
            Route::HaproxyTcp(_) | Route::Direct => format!("127.0.0.77:{port}"),
            _ => "127.0.0.77".to_owned(),
        };
        broker.wait_for_log(&format!("user=app peer={peer} topic=None modern=true proxied={}", route != Route::Direct));
        assert!(!broker.log().text().contains("WARN a peer"), "{route:?}\n{}", broker.log().tail());
    }
}

#[test]
fn failed_logins_slow_their_own_client_only() {
    for route in Route::PROXIES {
        let (broker, _proxy) = behind(route);
        let attempt = |from: &str| {
            let mut raw = connect(&broker, from);
            raw.send(&Head::new("/").with("Authorization", &basic("app", "wrong")).bytes());
            raw
        };
        for _ in 0..5 {
            assert!(attempt("127.0.0.77").head().starts_with("HTTP/1.1 401 "), "{route:?}");
        }
        let mut slowed = attempt("127.0.0.77");
        assert!(attempt("127.0.0.78").head().starts_with("HTTP/1.1 401 "), "{route:?}");
        assert_eq!(slowed.head_or_end(Duration::ZERO), Got::Silence, "{route:?}: none or both were slowed");
        assert!(slowed.head().starts_with("HTTP/1.1 401 "), "{route:?}");
    }
}

#[test]
fn an_untrusted_proxy_is_logged_with_the_setting() {
    let mut broker = Setup::default().store("[log]\nlevel = \"debug\"").start();
    let proxy = Proxy::start(Route::Nginx, &broker).expect("a proxy");
    broker.set_proxy(Some(proxy.address()));
    let _raw = Raw::upgrade(&broker, &Head::new("/").modern());
    broker.wait_for_log("add \"127.0.0.1\" to server.trusted_proxies");
    broker.wait_for_log("proxied=true");
}
