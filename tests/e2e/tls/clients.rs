//! Other programs as clients, each with its own library for TLS.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::Secured;
use crate::broker::{PASSWORD, Setup, USER};
use crate::client::Client;
use crate::secure::Identity;

/// The output of `openssl s_client` with these arguments, which ends the connection after the handshake.
#[track_caller]
fn s_client(secured: &Secured, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &secured.address.to_string(), "-CAfile", "cert.pem"]).args(arguments);
    let mut child = command
        .current_dir(secured.broker.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("openssl cannot be started ({error}); install it (Debian: apt-get install openssl)")
        });
    // The answer to this request is the end of the connection, so that the ticket of TLS 1.3 has arrived.
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let output = child.wait_with_output().expect("its output");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn openssl_connects_with_both_versions_without_a_name_and_again_with_its_ticket() {
    let secured = Secured::start(Setup::default(), Identity::shared());
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [version, "-noservername", "-ign_eof"];
        let first = s_client(&secured, &[&arguments[..], &["-sess_out", "session.pem"]].concat());
        assert!(first.contains("\nNew, TLSv1.") && first.contains("Verify return code: 0 (ok)"), "{version}: {first}");
        assert!(first.contains("HTTP/1.1 200 ") && first.contains("\nok"), "{version}: {first}");
        let again = s_client(&secured, &[&arguments[..], &["-sess_in", "session.pem"]].concat());
        assert!(again.contains("\nReused, TLSv1."), "{version}: {again}");
    }
    let tickets = s_client(&secured, &["-tls1_3", "-ign_eof", "-msg"]);
    assert_eq!(tickets.matches("NewSessionTicket").count(), 1, "{tickets}");
    let old = s_client(&secured, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(old.contains(" alert "), "{old}");
}

/// A program in another language, with its library for TLS: sends, receives, and ends the connection.
#[track_caller]
fn run_script(secured: &Secured, program: &str, script: &str, arguments: &[&str]) -> String {
    let path = format!("{}/tests/e2e/{script}", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let output = Command::new(program)
        .arg(path)
        .arg(secured.address.port().to_string())
        .args(arguments)
        .current_dir(secured.broker.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started ({error}); `cargo xtask test` installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", secured.broker.log().tail());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn python_sends_and_receives_with_both_versions() {
    let secured = Secured::start(Setup::default(), Identity::shared());
    for version in ["1.2", "1.3"] {
        let said = run_script(&secured, "python3", "python/tls.py", &[version, USER, PASSWORD]);
        assert_eq!(said, format!("TLSv{version}\n100000 bytes came back\nended with close_notify\n"));
    }
}

#[test]
fn a_php_one_shot_reader_takes_its_message() {
    let secured = Secured::start(Setup::default(), Identity::shared());
    Client::envelope(&secured.broker).publish_safely("sms", &json!({"code": 402_913}), "code");
    let said = run_script(&secured, "php", "php/tls_reader.php", &["sms", USER, PASSWORD]);
    assert_eq!(said, "{\"code\":402913}");
    // PHP announces the end of the connection, and its TCP has acknowledged the message.
    let mut next = Client::receiver(&secured.broker, "sms");
    next.expect_nothing(Duration::from_millis(300));
}
