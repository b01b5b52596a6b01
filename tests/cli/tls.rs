//! The commands over TLS: `wss://`, the trusted certificates, each fault of a certificate, `wsmb cert`, and what `wsmb check` says of a certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

use crate::harness::{Broker, Ended, Running, run, run_with_input, wsmb};

/// Makes a certificate with its key in the files of the configuration.
fn make(directory: &Path, change: impl FnOnce(&mut rcgen::CertificateParams)) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(directory.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

const ARGUMENTS: [&str; 10] = [
    "--listen",
    "tls://127.0.0.1:0",
    "--set",
    "tls.certificate=cert.pem",
    "--set",
    "tls.key=key.pem",
    "--set",
    "auth.anonymous=true",
    "--set",
    "store.url=memory:",
];

/// Starts a broker with the certificate of the directory. Returns its address.
fn serve(directory: &Path) -> (Running, String) {
    let mut running = Running::start(wsmb(directory).arg("serve").args(ARGUMENTS));
    let line = running.stdout.wait_for("wsmb is listening on ");
    let url = line.split_whitespace().last().unwrap().to_owned();
    assert!(url.starts_with("wss://127.0.0.1:"), "{line}");
    (running, url)
}

/// `wsmb ping` with these arguments.
fn ping(directory: &Path, arguments: &[&str]) -> Ended {
    run(wsmb(directory).arg("ping").args(arguments).env("SSL_CERT_FILE", directory.join("authorities.pem")))
}

#[test]
fn commands_send_receive_and_measure_over_tls() {
    let home = tempfile::tempdir().unwrap();
    make(home.path(), |_| {});
    let (_broker, url) = serve(home.path());
    let client = |arguments: &[&str]| {
        let mut command = wsmb(home.path());
        command.args(arguments).env("WSMB_URL", &url).env("WSMB_CA", "cert.pem");
        command
    };
    run(&mut client(&["send", "sms", "first"])).with(0);
    let many: String =
        (0..2_000).map(|number| format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(900))).collect();
    run_with_input(&mut client(&["send", "sms", "-"]), &many).with(0);
    let received = run(&mut client(&["receive", "sms", "--count", "2001"])).with(0).stdout;
    assert_eq!(format!("{received}\n"), format!("\"first\"\n{many}"));
    // Acknowledged one by one, after a command.
    run(&mut client(&["send", "sms", "{\"a\":1}"])).with(0);
    let ran = run(&mut client(&["receive", "sms", "--exec", "cat", "--count", "1"])).with(0);
    assert!(ran.stdout.contains("{\"a\":1}"), "{}", ran.stdout);
    let large = format!("\"{}\"\n", "y".repeat(1_000_000));
    run_with_input(&mut client(&["send", "sms", "-"]), &large).with(0);
    assert_eq!(run(&mut client(&["receive", "sms", "--count", "1"])).with(0).stdout, large.trim_end());
}

#[cfg(feature = "bench")]
#[test]
fn the_load_generator_speaks_tls() {
    let home = tempfile::tempdir().unwrap();
    make(home.path(), |_| {});
    let (_broker, url) = serve(home.path());
    for workload in [
        &["p2p"][..],
        &["fanout", "--receivers", "5"],
        &["p2p", "--size", "200000", "--messages", "40"],
        &["confirmed"],
    ] {
        let mut command = wsmb(home.path());
        command.args(["bench", "--url", &url, "--ca", "cert.pem", "--seconds", "0.3", "--warm-up", "0", "--json"]);
        let report = run(command.args(workload)).with(0).stdout;
        assert!(report.contains("\"lost\":0"), "{report}");
    }
    run(wsmb(home.path()).args(["bench", "p2p", "--url", &url]).env("SSL_CERT_FILE", "cert.pem")).with(0);
}

/// An authority with this name.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Fails unless `wsmb ping` with these arguments fails with this sentence.
#[track_caller]
fn expect(home: &Path, arguments: &[&str], sentence: &str) {
    let said = ping(home, arguments).with(1).stderr;
    assert!(said.contains(sentence), "expected {sentence:?}: {said}");
}

#[test]
fn each_fault_of_a_certificate_has_its_sentence() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("authorities.pem"), authority("another").as_ref().pem()).unwrap();
    make(home, |_| {});
    let (broker, url) = serve(home);
    expect(
        home,
        &["--url", &url],
        "the server's certificate is self-signed; if it is the right one, copy it from the server and name it with --ca FILE",
    );
    expect(
        home,
        &["--url", &url.replace("wss:", "ws:")],
        "this port speaks TLS: use https:// or wss:// in the address",
    );
    expect(home, &["--url", &url, "--ca", "none.pem"], "the certificate file none.pem does not exist");
    expect(home, &["--url", &url, "--ca", "key.pem"], "there is no certificate in key.pem");
    ping(home, &["--url", &url, "--ca", "cert.pem"]).with(0);
    ping(home, &["--url", &url.replace("127.0.0.1", "localhost"), "--ca", "cert.pem"]).with(0);
    let without = run(wsmb(home)
        .args(["ping", "--url", &url])
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent"));
    without.with(1).with_stderr("this system has no certificate authorities").with_stderr("ca-certificates");
    drop(broker);

    for (change, sentence) in [
        (
            (|params| params.not_after = date_time_ymd(2020, 2, 29)) as fn(&mut rcgen::CertificateParams),
            "the server's certificate expired on 2020-02-29; have it renewed, or check this machine's clock",
        ),
        (
            |params| params.not_before = date_time_ymd(2090, 1, 1),
            "is not valid before 2090-01-01; check this machine's clock",
        ),
        (
            |params| params.subject_alt_names = vec![rcgen::SanType::DnsName("broker.example".try_into().unwrap())],
            "the server's certificate is not for 127.0.0.1, but for broker.example",
        ),
        (
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "the server's certificate is that of a certificate authority; make one for the server with `wsmb cert`",
        ),
    ] {
        make(home, change);
        let (_broker, url) = serve(home);
        expect(home, &["--url", &url, "--ca", "cert.pem"], sentence);
    }
}

#[test]
fn a_certificate_of_an_authority_is_trusted_with_the_authority() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let ours = authority("the authority");
    fs::write(home.join("authorities.pem"), authority("another").as_ref().pem()).unwrap();
    fs::write(home.join("ours.pem"), ours.as_ref().pem()).unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    fs::write(home.join("cert.pem"), params.signed_by(&key, &ours).unwrap().pem()).unwrap();
    fs::write(home.join("key.pem"), key.serialize_pem()).unwrap();
    let (_broker, url) = serve(home);
    expect(
        home,
        &["--url", &url],
        "was issued by \"the authority\", which is not trusted here; name the certificate of that authority with --ca FILE",
    );
    ping(home, &["--url", &url, "--ca", "ours.pem"]).with(0);
    let by_the_system = run(wsmb(home).args(["ping", "--url", &url]).env("SSL_CERT_FILE", home.join("ours.pem")));
    by_the_system.with(0);
}

#[test]
fn an_encrypted_address_of_a_plain_port_is_named() {
    let broker = Broker::start();
    let url = broker.url.replace("ws://", "wss://");
    fs::write(broker.directory.path().join("authorities.pem"), "").unwrap();
    make(broker.directory.path(), |_| {});
    let said = ping(broker.directory.path(), &["--url", &url, "--ca", "cert.pem"]).with(1).stderr;
    assert!(said.contains("the server does not speak TLS on this port; is it a port for ws://?"), "{said}");
}

#[test]
fn a_login_keeps_its_certificate_and_is_never_sent_unencrypted() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    make(home, |_| {});
    fs::write(
        home.join("wsmb.toml"),
        "[server]\nlisten = \"tls://127.0.0.1:0\"\n[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n[auth]\nhtpasswd = []\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n[store]\nurl = \"memory:\"\n",
    )
    .unwrap();
    let mut running = Running::start(wsmb(home).args(["serve", "--config", "wsmb.toml"]));
    let line = running.stdout.wait_for("wsmb is listening on ");
    let url = line.split_whitespace().last().unwrap();
    let login = |arguments: &[&str]| {
        run_with_input(wsmb(home).args(["login", url, "--user", "app"]).args(arguments), "secret\n")
    };
    run_with_input(wsmb(home).args(["login", url, "--user", "app"]).env("SSL_CERT_FILE", "/nonexistent"), "secret\n")
        .with(1)
        .with_stderr("nothing was stored");
    login(&["--ca", "cert.pem"]).with(0);
    // From another directory: the path was stored as an absolute one.
    let elsewhere = home.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let stored = |arguments: &[&str]| run(wsmb(home).current_dir(&elsewhere).args(arguments));
    stored(&["ping"]).with(0);
    stored(&["ping", "--url", url]).with(0);
    stored(&["ping", "--context", "default"]).with(0);
    let plain = stored(&["ping", "--url", &url.replace("wss://", "ws://")]).with(1).stderr;
    assert!(plain.contains("this port speaks TLS"), "{plain}");
    // A plain server at this address would not get the password.
    drop(running);
    let address = url.strip_prefix("wss://").unwrap();
    let spy = std::net::TcpListener::bind(address).unwrap();
    let waiting = std::thread::spawn(move || {
        let (mut stream, _) = spy.accept().unwrap();
        let mut request = vec![0; 4_096];
        let count = std::io::Read::read(&mut stream, &mut request).unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    stored(&["ping", "--url", &format!("ws://{address}")]).with(1);
    let request = waiting.join().unwrap();
    assert!(request.starts_with("GET / HTTP/1.1") && !request.contains("Authorization"), "{request}");
}

#[test]
fn a_made_certificate_serves_its_names_and_is_not_replaced_by_accident() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let said =
        run(wsmb(home).args(["cert", "broker.lan", "127.0.0.1", "--certificate", "cert.pem", "--key", "key.pem"]))
            .with(0)
            .stdout;
    assert!(said.contains("made a certificate for broker.lan, 127.0.0.1, valid until 20"), "{said}");
    assert!(
        said.contains("listen = [\"127.0.0.1:8888\", \"tls://0.0.0.0:8443\"]\n\n[tls]\ncertificate = \"/"),
        "{said}"
    );
    let mode = |name: &str| fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("key.pem"), mode("cert.pem") & 0o200), (0o600, 0o200));
    let printed = said.lines().find_map(|line| line.trim().strip_prefix("SHA-256")).unwrap().trim();
    let openssl = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", "cert.pem"])
        .current_dir(home)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(openssl.stdout).unwrap().trim().split_once('=').unwrap().1, printed);

    let again = run(wsmb(home).args(["cert", "--certificate", "cert.pem", "--key", "other.pem"])).with(1);
    again.with_stderr("cert.pem exists already").with_stderr("add --force");
    assert!(!home.join("other.pem").exists());
    fs::set_permissions(home.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    run(wsmb(home).args(["cert", "--certificate", "cert.pem", "--key", "key.pem", "--force"])).with(0);
    assert_eq!(mode("key.pem"), 0o600);
    run(wsmb(home).args(["cert", "a b"])).with(2).with_stderr("`a b` is not a host name or an IP address");
    run(wsmb(home).args(["cert", "--key", "x", "--certificate", "x"])).with(2).with_stderr("different files");
    // The default names.
    let (_broker, url) = serve(home);
    ping(home, &["--url", &url, "--ca", "cert.pem"]).with(0);
    ping(home, &["--url", &url.replace("127.0.0.1", "localhost"), "--ca", "cert.pem"]).with(0);
}

#[test]
fn a_check_shows_the_days_left_and_each_fault() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let check = || run(wsmb(home).arg("check").args(ARGUMENTS));
    let said = check().with(1).stdout;
    assert!(said.contains("error: the certificate file cert.pem does not exist"), "{said}");
    make(home, |_| {});
    let said = check().with(0).stdout;
    assert!(said.contains("listens on      127.0.0.1:0 (TLS)"), "{said}");
    assert!(
        said.contains("certificate     cert.pem: valid until 4096-01-01, ") && said.contains(" days left"),
        "{said}"
    );
    make(home, |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(5));
    let said = check().with(0).stdout;
    assert!(
        said.contains("5 days left\n") && said.contains("warning: the certificate in cert.pem expires in 5 days, on "),
        "{said}"
    );
    make(home, |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(20));
    let said = check().with(0).stdout;
    assert!(!said.contains("expires in"), "{said}");
    make(home, |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(-3));
    let said = check().with(0).stdout;
    assert!(said.contains("warning: the certificate in cert.pem expired on "), "{said}");
    make(home, |params| params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(3));
    let said = check().with(0).stdout;
    assert!(said.contains("is not valid before ") && said.contains("check this machine's clock"), "{said}");
    let key = fs::read(home.join("key.pem")).unwrap();
    make(home, |_| {});
    fs::write(home.join("key.pem"), key).unwrap();
    let said = check().with(1).stdout;
    assert!(said.contains("error: the key in key.pem does not belong to the certificate in cert.pem"), "{said}");
}

/// The time from 1970 to so many days and an hour after now.
fn since_1970(days: i64) -> std::time::Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now + std::time::Duration::from_secs(3_600);
    let days_only = std::time::Duration::from_secs(86_400 * days.unsigned_abs());
    if days < 0 { now - days_only } else { now + days_only }
}
