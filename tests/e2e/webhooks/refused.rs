//! Addresses that webhooks must not reach, and configurations that are refused.

use std::process::Command;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::{SECRET, lines};
use crate::broker::Setup;
use crate::http::publish;

#[test]
fn a_private_address_is_refused_by_literal_and_by_name() {
    let endpoint = Endpoint::with_status(200);
    let port = endpoint.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
        let lines = lines(&endpoint, "")
            .replace("allow_private = true", "")
            .replace(&endpoint.address.to_string(), &format!("{host}:{port}"));
        let broker = Setup::default().webhook(&lines).start();
        publish(&broker, "sms", "", "1");
        broker.wait_for_log("a webhook fails");
        let log = broker.log().text();
        assert!(
            log.contains("is not reachable from the internet") || log.contains("cannot be resolved"),
            "{host}: {log}"
        );
        endpoint.expect_nothing(Duration::ZERO);
    }
}

/// What `wsmb check` says about a webhook with these lines, and whether it found an error.
fn check(lines: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("wsmb.toml");
    let text = format!("[channel_defaults]\nkeep = false\n[store]\nurl = \"memory:\"\n[[webhook]]\n{lines}\n");
    std::fs::write(&path, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_wsmb"))
        .args(["check", "--config"])
        .arg(&path)
        .current_dir(dir.path())
        .output()
        .expect("wsmb");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (said.contains("webhook.") || said.contains("this [[webhook]]"), said)
}

#[test]
fn check_finds_mistakes_and_shows_no_secret() {
    let good = format!("channel = \"sms\"\nurl = \"http://127.0.0.1/x?key=s3cret\"\nsecret = \"{SECRET}\"\n");
    let (is_error, said) = check(&good);
    assert!(!is_error, "{said}");
    assert!(said.contains("keeps no messages") && said.contains("allow_private"), "{said}");
    assert!(!said.contains("s3cret") && !said.contains("MfKQ9r8G"), "{said}");
    for (from, to, expected) in [
        ("http://127.0.0.1/", "ftp://127.0.0.1/", "must be a URL like"),
        ("http://127.0.0.1/", "127.0.0.1/", "must be a URL like"),
        (SECRET, "whsec_s3cret", "random bytes in base64"),
        ("secret = ", "secret_file = ", "names"),
        ("channel = \"sms\"", "channel = \"sms.*\"", "without * and ?"),
        ("channel = \"sms\"", "", "has no channel"),
        ("channel = ", "timeout = \"1h\"\nchannel = ", "must be from"),
        ("channel = ", "concurrency = 0\nchannel = ", "must be a whole number"),
    ] {
        let (is_error, said) = check(&good.replace(from, to));
        assert!(is_error && said.contains(expected), "{to}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let (_, said) = check(&format!("{good}\n[[webhook]]\n{good}"));
    assert!(said.contains("is also named \"127.0.0.1/x\""), "{said}");
    for none in ["", "secret = []", "secret_file = \"\""] {
        let (_, said) = check(&format!("channel = \"sms\"\nurl = \"http://a.example/\"\n{none}"));
        assert!(said.contains("has no secret"), "{said}");
    }
}
