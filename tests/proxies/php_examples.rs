//! The PHP examples behind proxies: below a path of nginx, and with TLS and invalid certificates.

use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, Issuer, KeyPair, date_time_ymd};

use crate::broker::{PASSWORD, USER};
use crate::client::Client;
use crate::routes::{Proxy, Route};

/// Runs an example to its end.
fn run(name: &str, arguments: &[&str], authority: Option<&Path>) -> Output {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("examples").join(name);
    let mut command = Command::new("php");
    command.args(["-d", "display_errors=stderr", "-d", "error_reporting=-1"]).arg(path).args(arguments);
    command.envs([("WSMB_USER", USER), ("WSMB_PASSWORD", PASSWORD), ("WSMB_TIMEOUT", "0.5")]);
    if let Some(authority) = authority {
        command.env("WSMB_CA", authority);
    }
    command.output().expect("php; `cargo xtask test` installs it")
}

/// The output on both streams.
fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].concat().try_into().expect("text")
}

#[test]
fn the_examples_work_behind_every_proxy_and_below_a_path_of_nginx() {
    for route in Route::PROXIES {
        let broker = route.setup().start();
        let proxy = Proxy::start(route, &broker).expect("a proxy");
        let address = format!("ws://{}", proxy.address());
        let sent = run("send.php", &[&address, "sms", "1.10"], None);
        assert_eq!(said(&sent), "accepted: it waits for a receiver\n", "{route:?}");
        let received = run("receive.php", &[&address, "sms", "1"], None);
        assert_eq!(said(&received), "1.10\n", "{route:?}");
    }
    let broker = Route::Nginx.setup().start();
    let proxy = Proxy::start_edited(Route::Nginx, &broker, &[("location / {", "location /broker/ {")]).expect("nginx");
    let address = format!("ws://{}", proxy.address());
    assert_eq!(said(&run("send.php", &[&address, "sms", "1"], None)), "refused: HTTP/1.1 404 Not Found\n");
    let address = format!("{address}/broker/");
    assert_eq!(said(&run("send.php", &[&address, "sms", "1"], None)), "accepted: it waits for a receiver\n");
    assert_eq!(said(&run("receive.php", &[&address, "sms", "1"], None)), "1\n");
}

/// A certificate for these names and its key, signed by an authority or by itself.
fn certificate(names: &[&str], years: (i32, i32), issuer: Option<&Issuer<'_, KeyPair>>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "a broker");
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn the_sender_explains_why_a_certificate_is_invalid() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority of the test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    std::fs::write(file("ca.pem"), authority.pem()).expect("a file");
    let known = file("ca.pem");

    let (good, here) = ((2020, 4000), &["127.0.0.1"][..]);
    let accepted = "accepted: it waits for a receiver";
    let table = [
        ("good", certificate(here, good, Some(&authority)), Some(&*known), accepted),
        (
            "unknown",
            certificate(here, good, Some(&authority)),
            None,
            "is signed by \"the authority of the test\", which this computer does not know; ",
        ),
        ("expired", certificate(here, (2019, 2020), Some(&authority)), Some(&known), " expired on 2020-01-01; "),
        ("early", certificate(here, (3000, 4000), Some(&authority)), Some(&known), " is not valid before 3000-01-01; "),
        (
            "other",
            certificate(&["b.example", "*.c.example"], good, Some(&authority)),
            Some(&known),
            " is for \"b.example\", \"*.c.example\", not for \"127.0.0.1\"; ",
        ),
        ("own", certificate(here, good, None), None, " is signed by itself; "),
        (
            "no file",
            certificate(here, good, None),
            Some(Path::new("missing.pem")),
            "cannot read the certificates in \"missing.pem\" (WSMB_CA)",
        ),
    ];
    let broker = Route::Nginx.setup().start();
    for (name, (certificate, key), trusted, wanted) in table {
        std::fs::write(file("server.pem"), certificate).expect("a file");
        std::fs::write(file("key.pem"), key).expect("a file");
        let path = dir.path().display();
        let tls =
            format!(" ssl;\nssl_certificate {path}/server.pem;\nssl_certificate_key {path}/key.pem;\nlocation / {{");
        let proxy = Proxy::start_edited(Route::Nginx, &broker, &[(";\nlocation / {", &tls)]).expect("nginx");
        let address = format!("wss://{}", proxy.address());
        let output = run("send.php", &[&address, "sms", "1"], trusted);
        let said = said(&output);
        assert!(said.contains(wanted), "{name}: {said}");
        assert_eq!(output.status.code(), Some(i32::from(wanted != accepted)), "{name}");
        assert!(wanted == accepted || said.lines().count() == 1, "{name}: more than one line: {said}");
    }
    // A server without TLS.
    let proxy = Proxy::start(Route::Nginx, &broker).expect("nginx");
    let plain = said(&run("send.php", &[&format!("wss://{}", proxy.address()), "sms", "1"], Some(&known)));
    assert!(plain.starts_with("no TLS with 127.0.0.1:"), "{plain}");
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.messages(1), ["1"]);
}
