//! Listeners with TLS: the promises over it, the ends of connections, certificates that change, client certificates, other programs as clients.

mod clients;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, PATIENCE, Setup, USER};
use crate::client::Client;
use crate::raw::{Got, Head, Raw};
use crate::secure::{EVERYWHERE, Identity, SECTION, Stream};

/// A broker with a plain address and one with TLS.
struct Secured {
    broker: Broker,
    address: SocketAddr,
}

impl Secured {
    #[track_caller]
    fn start(setup: Setup, identity: &Identity) -> Self {
        Self::start_with(setup, identity, "", |_| {})
    }

    /// `lines`: more of the listener; `more`: more files.
    #[track_caller]
    fn start_with(setup: Setup, identity: &Identity, lines: &str, more: impl FnOnce(&std::path::Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        identity.store(dir.path());
        more(dir.path());
        let section = if lines.contains("[tls]") { "" } else { SECTION };
        let setup = setup.listener(&format!("tls = true\n{lines}\n{section}"));
        let broker = Broker::start_in(setup, Arc::new(dir), 0).unwrap_or_else(|failure| panic!("{failure}"));
        let address = broker.addresses()[1];
        Self { broker, address }
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    #[track_caller]
    fn connect(&self, identity: &Identity) -> Raw {
        let stream = Stream::secure(self.tcp(), identity.client()).expect("a handshake");
        Raw::on(stream, self.broker.log())
    }

    #[track_caller]
    fn client(&self, identity: &Identity) -> Client {
        let mut client = Client::over(self.connect(identity).upgraded(&Head::new("/").modern()));
        client.next_json();
        client
    }
}

/// Modules whose tests concern the bytes of a connection: acknowledgement, ends, backlog, slow receivers, old clients, restarts.
const OVER_TLS: [&str; 10] = [
    "bad_frames::",
    "connect_reply::",
    "dialects::",
    "ends::",
    "groups::",
    "kept::",
    "legacy_clients::",
    "manual_ack::",
    "receivers::",
    "slow::",
];

#[test]
fn the_promises_hold_over_tls() {
    if crate::secure::is_everywhere() {
        return;
    }
    let program = std::env::current_exe().expect("this program");
    // Two tests at a time, because the other tests run at the same time.
    let run = Command::new(program).args(OVER_TLS).arg("--test-threads=2").env(EVERYWHERE, "1").output();
    let run = run.expect("this program can be started");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    for module in OVER_TLS {
        assert!(said.contains(&format!("test {module}")), "no test of {module} has run:\n{said}");
    }
}

#[test]
fn a_large_message_is_complete_in_both_directions_however_the_records_arrive() {
    let identity = Identity::shared();
    let secured = Secured::start(Setup::default(), identity);
    let mut sender = secured.client(identity);
    let text: String = (0..1_040_000_u32).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    sender.publish_safely("sms", &json!(text), "large");
    // Kept in the backlog, then read by a client that reads slowly, in small pieces.
    let mut receiver = secured.connect(identity).upgraded(&Head::new("/ws?topic=sms").modern());
    std::thread::sleep(Duration::from_millis(100));
    let frame = receiver.next_data();
    assert_eq!(frame.text(), json!(text).to_string(), "{}", receiver.trace());
    // Live, from the plain address to the other.
    let mut plain = Client::envelope(&secured.broker);
    plain.publish("sms", &json!(text));
    assert_eq!(receiver.next_data().payload.len(), text.len() + 2);
}

#[test]
fn what_was_sent_before_an_end_without_announcement_is_processed() {
    let identity = Identity::shared();
    let secured = Secured::start(Setup::default(), identity);
    for number in 0..3 {
        let mut raw = secured.connect(identity).upgraded(&Head::new("/ws?topic=sms"));
        raw.send_text(&number.to_string());
        match number {
            0 => raw.cut(),
            1 => raw.finish(),
            _ => raw.reset(),
        }
    }
    let mut receiver = secured.client(identity);
    receiver.subscribe("sms");
    let mut numbers = receiver.numbers(3);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
}

/// The only message of a one-shot reader is confirmed by an announced end, and returns after one that an attacker on the path could have made.
#[test]
fn only_an_announced_end_confirms_the_message_of_a_one_shot_reader() {
    let identity = Identity::shared();
    let secured = Secured::start(Setup::default(), identity);
    Client::envelope(&secured.broker).publish_safely("sms", &json!(7), "seven");
    for is_announced in [false, true] {
        let mut reader = secured.connect(identity).upgraded(&Head::new("/ws?topic=sms"));
        assert_eq!(reader.next_data().text(), "7", "{}", reader.trace());
        if is_announced {
            reader.finish();
        } else {
            reader.cut();
        }
        assert_ne!(reader.next(), Got::Silence);
    }
    let mut next = Client::receiver(&secured.broker, "sms");
    next.expect_nothing(Duration::from_millis(300));
}

#[test]
fn the_broker_announces_the_end_of_legacy_and_modern_connections() {
    let identity = Identity::shared();
    let mut secured = Secured::start(Setup::default(), identity);
    let mut legacy = secured.connect(identity).upgraded(&Head::new("/ws?topic=a"));
    let mut modern = secured.connect(identity).upgraded(&Head::new("/ws?topic=a").modern());
    assert!(secured.broker.stop().success());
    // The reader of the tests takes an end without announcement for a reset.
    assert_eq!(legacy.next(), Got::Fin, "{}", legacy.trace());
    assert_eq!(modern.next_frame().close_code(), Some(1001), "{}", modern.trace());
    assert_eq!(modern.next(), Got::Fin, "{}", modern.trace());
}

#[test]
fn a_new_certificate_is_taken_over_while_connections_live() {
    let (old, new) = (Identity::new(|_| {}), Identity::new(|_| {}));
    let secured = Secured::start(Setup::default(), &old);
    let mut before = secured.client(&old);
    new.store(&secured.broker.dir());
    secured.broker.wait_for_log("the certificate was read again; new connections get it");
    before.sync();
    secured.client(&new).sync();
    assert!(Stream::secure(secured.tcp(), old.client()).is_err(), "the old certificate is still shown");
    // At SIGHUP, without waiting.
    old.store(&secured.broker.dir());
    secured.broker.reconfigure(|text| text);
    secured.broker.wait_for_log("certificates and trusted proxies are as configured now");
    secured.client(&old).sync();
    before.sync();
}

#[test]
fn an_unusable_pair_leaves_the_old_one_in_force_and_the_log_says_why() {
    let (good, other) = (Identity::new(|_| {}), Identity::new(|_| {}));
    let secured = Secured::start(Setup::default(), &good);
    let dir = secured.broker.dir();
    let expired = Identity::new(|params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
    let early = Identity::new(|params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let faults = [
        (String::new(), good.key.clone(), "there is no certificate in cert.pem"),
        (good.certificate.clone(), String::new(), "there is no key in key.pem"),
        (
            good.certificate.clone(),
            other.key.clone(),
            "the key in key.pem does not belong to the certificate in cert.pem",
        ),
        (expired.certificate, expired.key, "the certificate in cert.pem expired on 2020-02-29; renew it"),
        (
            early.certificate,
            early.key,
            "the certificate in cert.pem is not valid before 2090-01-01; check this machine's clock",
        ),
    ];
    for (certificate, key, sentence) in faults {
        Identity { certificate, key }.store(&dir);
        secured.broker.reconfigure(|text| text);
        secured
            .broker
            .wait_for_log(&format!("the new certificate is not used, the old one stays in force: {sentence}"));
        secured.client(&good).sync();
    }
    std::fs::remove_file(dir.join("key.pem")).expect("removed");
    good.store(&dir);
    std::fs::remove_file(dir.join("cert.pem")).expect("removed");
    secured.broker.wait_for_log("the old one stays in force: the certificate file cert.pem does not exist");
    secured.client(&good).sync();
    good.store(&dir);
    secured.broker.wait_for_log("the certificate was read again");
}

#[test]
fn a_broker_does_not_start_with_a_pair_that_it_cannot_use_but_with_one_that_has_expired() {
    let (one, other) = (Identity::new(|_| {}), Identity::new(|_| {}));
    let start = |identity: &Identity| {
        let dir = tempfile::tempdir().expect("a directory");
        identity.store(dir.path());
        Broker::start_in(Setup::default().listener(&format!("tls = true\n{SECTION}")), Arc::new(dir), 0)
    };
    let mixed = Identity { certificate: one.certificate.clone(), key: other.key };
    let failure = start(&mixed).err().expect("it does not start");
    assert!(failure.contains("does not belong to the certificate"), "{failure}");
    let expired = Identity::new(|params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
    let broker = start(&expired).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(broker.log().text().contains("expired on 2020-02-29; renew it"), "{}", broker.log().tail());
}

#[test]
fn clients_that_mistake_the_kind_of_a_port_are_told() {
    let identity = Identity::shared();
    let secured = Secured::start(Setup::default(), identity);
    for request in
        ["GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), String::from_utf8(Head::new("/").bytes()).expect("text")]
    {
        let mut stream = secured.tcp();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https:// or wss://"), "{answer}");
    }
    secured.broker.wait_for_log("a client does not speak TLS on a port for TLS");
    for _ in 0..3 {
        let stream = TcpStream::connect_timeout(&secured.broker.address(), PATIENCE).expect("a connection");
        assert!(Stream::secure(stream, identity.client()).is_err());
    }
    secured.broker.wait_for_log("the client speaks TLS on a port without TLS; use ws://");
    let log = secured.broker.log().text();
    assert_eq!(log.matches("the client speaks TLS").count(), 1, "the warning is repeated:\n{log}");
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_named_in_the_log() {
    let secured = Secured::start(Setup::default(), Identity::shared());
    assert!(Stream::secure(secured.tcp(), Identity::new(|_| {}).client()).is_err());
    secured.broker.wait_for_log("a client does not trust the certificate, and has left");
}

#[test]
fn handshakes_that_are_never_completed_delay_nobody() {
    let identity = Identity::shared();
    let secured = Secured::start(Setup::default().server("max_handshakes = 20"), identity);
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    let silent: Vec<TcpStream> = (0..60)
        .map(|number| {
            let mut stream = secured.tcp();
            stream.write_all(&hello[..number % hello.len()]).expect("sent");
            stream
        })
        .collect();
    let began = Instant::now();
    secured.client(identity).sync();
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    drop(silent);
}

/// Bytes that look random, the same for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn invalid_records_end_their_own_connection_only() {
    let identity = Identity::shared();
    let mut secured = Secured::start(Setup::default(), identity);
    let mut honest = secured.client(identity);
    for seed in 0..60 {
        // Records of each type and version, with a wrong length or content: instead of a hello, after it, and after the handshake.
        let mut bytes = vec![20 + (seed % 6) as u8, 3, (seed % 5) as u8, 0, (seed * 7 % 64) as u8];
        bytes.extend(noise(seed, 200));
        let mut stream = secured.tcp();
        stream.write_all(&[&[0x16], &bytes[1..]].concat()).expect("sent");
        let mut raw = secured.connect(identity);
        if seed % 2 == 0 {
            raw = raw.upgraded(&Head::new("/ws?topic=sms").modern());
        }
        raw.send_unencrypted(&bytes);
        assert_ne!(raw.next(), Got::Silence);
        stream.shutdown(std::net::Shutdown::Write).expect("a FIN");
        // An alert, or nothing.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    honest.sync();
    secured.broker.assert_alive();
    let log = secured.broker.log().text();
    assert!(!log.contains("panicked"), "{log}");
}

/// PROXY protocol version 2: TCP over IPv4, from 192.0.2.1:56324.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb";

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let identity = Identity::shared();
    let setup = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]");
    let secured = Secured::start_with(setup, identity, "proxy_protocol = true", |_| {});
    let mut stream = secured.tcp();
    // In two pieces, the second together with the start of the handshake.
    stream.write_all(&V2[..7]).expect("sent");
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(&V2[7..]).expect("sent");
    let stream = Stream::secure(stream, identity.client()).expect("a handshake");
    let mut raw = Raw::on(stream, secured.broker.log());
    raw.send(&Head::new("/").with("Authorization", &crate::raw::basic("app", "wrong")).bytes());
    assert!(raw.head().starts_with("HTTP/1.1 401 "), "{}", raw.trace());
    secured.broker.wait_for_log("login failed: client=192.0.2.1 ");
    assert!(Stream::secure(secured.tcp(), identity.client()).is_err(), "a handshake without the header");
    secured.broker.wait_for_log("does not begin with a PROXY protocol header");
}

type Authority = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority() -> Authority {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of the tests");
    Authority::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("an authority")
}

/// A client certificate with this common name.
fn certified(authority: &Authority, name: &str) -> Identity {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, authority).expect("a certificate").pem();
    Identity { certificate, key: key.serialize_pem() }
}

#[test]
fn the_common_name_of_a_client_certificate_is_the_user() {
    let identity = Identity::shared();
    let (ours, theirs) = (authority(), authority());
    let lines = format!(
        "{SECTION}client_ca = \"clients.pem\"\n[[permission]]\nuser = \"gateway-7\"\nreceive = [\"sms\"]\n[[permission]]\nuser = \"app\"\nsend = [\"*\"]\nreceive = [\"*\"]\n"
    );
    let store = |dir: &std::path::Path| std::fs::write(dir.join("clients.pem"), ours.as_ref().pem()).expect("written");
    let secured = Secured::start_with(Setup::default(), identity, &lines, store);
    let connect = |own: Option<&Identity>, head: &Head| {
        let stream = Stream::secure(secured.tcp(), identity.client_with(own)).expect("a handshake");
        let mut raw = Raw::on(stream, secured.broker.log());
        raw.send(&head.bytes());
        raw
    };
    let anonymous = |target: &str| Head::new(target).modern().without("Authorization");
    // A name that is in no list of users is a user, with the rights of its name.
    let gateway = certified(&ours, "gateway-7");
    let mut raw = connect(Some(&gateway), &anonymous("/ws?topic=sms"));
    assert!(raw.head().starts_with("HTTP/1.1 101 "), "{}", raw.trace());
    let mut raw = connect(Some(&gateway), &anonymous("/ws?topic=other"));
    assert!(raw.head().starts_with("HTTP/1.1 403 "), "{}", raw.trace());
    // Without a certificate, or with a name that no user can have, a password is needed.
    for own in [None, Some(&certified(&ours, "a:b"))] {
        let mut raw = connect(own, &anonymous("/ws?topic=sms"));
        assert!(raw.head().starts_with("HTTP/1.1 401 "), "{}", raw.trace());
        let mut raw = connect(own, &Head::new("/ws?topic=other").modern());
        assert!(raw.head().starts_with("HTTP/1.1 101 "), "{}", raw.trace());
    }
    // Credentials in the request take precedence, also wrong ones.
    let mut raw = connect(Some(&gateway), &Head::new("/ws?topic=other").modern());
    assert!(raw.head().starts_with("HTTP/1.1 101 "), "{}", raw.trace());
    let wrong = Head::new("/ws?topic=sms").with("Authorization", &crate::raw::basic(USER, "wrong"));
    let mut raw = connect(Some(&gateway), &wrong);
    assert!(raw.head().starts_with("HTTP/1.1 401 "), "{}", raw.trace());
    // A certificate of another authority ends the handshake. With TLS 1.3 the client learns of it when it reads.
    let stranger = Stream::secure(secured.tcp(), identity.client_with(Some(&certified(&theirs, "gateway-7"))));
    let refused = stranger.and_then(|mut stream| {
        stream.write_all(&anonymous("/ws?topic=sms").bytes())?;
        stream.read(&mut [0; 1])
    });
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_key_that_the_brokers_user_may_not_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
    Identity::shared().store(dir.path());
    let text = format!(
        "[server]\nlisten = \"tls://127.0.0.1:0\"\n{SECTION}[auth]\nanonymous = true\n[store]\nurl = \"memory:\"\n"
    );
    std::fs::write(dir.path().join("wsmb.toml"), text).expect("written");
    // A copy, because another user may not be able to reach the build directory.
    let program = dir.path().join("wsmb");
    std::fs::copy(env!("CARGO_BIN_EXE_wsmb"), &program).expect("a copy");
    let key = dir.path().join("key.pem");
    // SAFETY: the call has no requirements.
    let is_root = unsafe { libc::geteuid() } == 0;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(if is_root { 0o600 } else { 0 }))
        .expect("permissions");
    for command in ["check", "serve"] {
        let mut run = Command::new(&program);
        run.args([command, "--config", "wsmb.toml"]).current_dir(dir.path()).stdin(Stdio::null());
        if is_root {
            run.uid(65_534).gid(65_534);
        }
        let output = run.output().expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the key file key.pem cannot be read by the user that runs the broker"), "{said}");
        assert!(!output.status.success());
    }
}
