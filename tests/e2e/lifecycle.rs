//! Start, reload and stop: signals, ports in use, stores in use.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::raw::{Head, Raw, basic};

/// Fails unless the broker refuses to start with exit status 1. Returns its output.
#[track_caller]
pub fn refusal(setup: Setup, dir: Arc<tempfile::TempDir>, port: u16) -> String {
    match Broker::start_in(setup, dir, port) {
        Ok(broker) => panic!("the broker has started:\n{}", broker.log().tail()),
        Err(said) => {
            assert!(!said.contains("panicked"), "{said}");
            assert!(said.contains("exit status: 1"), "{said}");
            said
        }
    }
}

/// Fails unless `said` contains each of `wanted`, ignoring case.
#[track_caller]
pub fn assert_says(said: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "{part:?} is not in the output: {said}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let broker = Broker::start();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let said = refusal(Setup::default(), dir, broker.address().port());
    assert_says(&said, &[&broker.address().to_string(), "in use"]);
}

#[test]
fn a_second_broker_on_the_same_store_is_refused_and_the_first_is_not_disturbed() {
    let mut broker = Broker::start();
    let said = refusal(broker.setup(), broker.shared_dir(), 0);
    assert_says(&said, &["wsmb.db"]);
    broker.assert_alive();
    Client::envelope(&broker).publish_safely("sms", &json!(1), "a");
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1], "the lock was not released");
}

#[test]
fn a_store_that_is_no_database_is_named() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(
        dir.path().join("wsmb.db"),
        "this is no database, but it is long enough to have a header. ".repeat(100),
    )
    .unwrap();
    assert_says(&refusal(Setup::default(), dir, 0), &["wsmb.db"]);
}

#[test]
fn a_mistyped_key_is_an_error_that_names_the_nearest_key() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let said = refusal(Setup::default().server("hearbeat = \"25s\""), dir, 0);
    assert_says(&said, &["hearbeat", "heartbeat"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wsmb"))
        .args(["serve", "--config", "no-such-file.toml"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_says(&String::from_utf8_lossy(&output.stderr), &["no-such-file.toml"]);
}

#[test]
fn sigterm_drains_commits_and_ends_with_0() {
    let mut broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    for number in 0..200 {
        sender.publish("sms", &json!(number));
    }
    sender.sync();
    let began = Instant::now();
    broker.signal(libc::SIGTERM);
    assert_eq!(sender.closed(), 1001);
    let status = broker.wait();
    assert_eq!(status.code(), Some(0), "{}", broker.log().tail());
    assert!(began.elapsed() < Duration::from_secs(10), "the end took {:?}", began.elapsed());
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(200), (0..200).collect::<Vec<_>>());
}

#[test]
fn sigint_stops_in_an_orderly_way() {
    let mut broker = Broker::start();
    broker.signal(libc::SIGINT);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log().tail());
}

#[test]
fn repeated_signals_within_a_moment_do_not_shorten_the_stop() {
    let mut broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms").silent();
    let mut sender = Client::envelope(&broker);
    sender.publish("sms", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
    for signal in [libc::SIGTERM, libc::SIGTERM, libc::SIGINT] {
        broker.signal(signal);
    }
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log().tail());
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1], "an unconfirmed message was not stored");
}

#[test]
fn a_second_signal_that_comes_later_ends_the_broker_at_once() {
    let mut broker = Setup::default().server("drain = \"10m\"").start();
    // The store is locked, so the message does not become safe and its sender waits for the answer. The stop waits for the sender.
    let other = rusqlite::Connection::open(broker.dir().join("wsmb.db")).unwrap();
    let mut receiver = Client::envelope(&broker);
    receiver.subscribe_with("sms", &json!({"ack": "manual"}));
    let mut sender = Client::envelope(&broker);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": [1], "id": "a"}));
    receiver.next_delivery();
    let asked = Instant::now();
    broker.signal(libc::SIGTERM);
    broker.wait_for_log("stopping");
    // A fixed pause, because no event reports the end of this time.
    std::thread::sleep(
        (wsmb_server::limits::SECOND_SIGNAL + Duration::from_millis(200)).saturating_sub(asked.elapsed()),
    );
    broker.assert_alive();
    broker.signal(libc::SIGINT);
    assert_eq!(broker.wait().code(), Some(1), "{}", broker.log().tail());
    broker.wait_for_log("second signal");
}

#[test]
fn a_peer_that_never_ends_its_connection_does_not_delay_the_stop() {
    let mut broker = Broker::start();
    let _stays = Raw::upgrade(&broker, &Head::new("/"));
    let _half = Raw::connect(&broker);
    let _well_behaved = Client::receiver(&broker, "sms");
    broker.signal(libc::SIGTERM);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log().tail());
}

/// Tries to log in until the login succeeds (`wanted`) or fails (not `wanted`).
#[track_caller]
fn wait_for_login(broker: &Broker, user: &str, password: &str, wanted: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::connect(broker);
        raw.send(&Head::new("/").with("Authorization", &basic(user, password)).bytes());
        let head = raw.head();
        if head.starts_with("HTTP/1.1 101 ") == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{user} still gets {head:?}\n{}", broker.log().tail());
        // Failures slow down the next tries.
        std::thread::sleep(Duration::from_millis(100));
    }
}

const APP: &str = "app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
const COLON: &str = "colon:{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8=\n";

#[test]
fn sighup_reloads_the_passwords_and_ends_no_other_connection() {
    let broker = Setup::default().auth("htpasswd = [\"{dir}/users\"]").file("users", APP).start();
    wait_for_login(&broker, "colon", "pass:word", false);
    std::fs::write(broker.dir().join("users"), format!("{APP}{COLON}")).unwrap();
    broker.signal(libc::SIGHUP);
    wait_for_login(&broker, "colon", "pass:word", true);
    let head = Head::new("/").modern().with("Authorization", &basic("colon", "pass:word"));
    let mut receiver = Client::envelope_with(&broker, &head);
    receiver.subscribe("sms");
    std::fs::write(broker.dir().join("users"), COLON).unwrap();
    broker.signal(libc::SIGHUP);
    wait_for_login(&broker, "app", "secret", false);
    Client::envelope_with(&broker, &head).publish("sms", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
}

#[test]
fn a_missing_password_file_is_named_and_read_when_it_appears() {
    let broker = Setup::default().auth("htpasswd = [\"{dir}/users\"]").start();
    broker.wait_for_log("users");
    broker.wait_for_log("nobody can connect");
    wait_for_login(&broker, "app", "secret", false);
    // No signal is needed: the broker reads a file again when it changes.
    std::fs::write(broker.dir().join("users"), APP).unwrap();
    wait_for_login(&broker, "app", "secret", true);
}

#[test]
fn a_removed_password_file_is_logged_and_the_old_users_stay() {
    let broker = Setup::default().auth("htpasswd = [\"{dir}/users\"]").file("users", APP).start();
    std::fs::remove_file(broker.dir().join("users")).unwrap();
    broker.signal(libc::SIGHUP);
    broker.wait_for_log("users");
    wait_for_login(&broker, "app", "secret", true);
}

#[test]
fn the_log_contains_no_secrets_and_no_messages() {
    let broker = Setup::default().start();
    let mut receiver = Client::receiver(&broker, "sms");
    Client::envelope(&broker).publish("sms", &json!("Your code is 402913"));
    assert_eq!(receiver.messages(1), ["\"Your code is 402913\""]);
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").with("Authorization", &basic("app", "a-wrong-guess")).bytes());
    raw.rest();
    let mut raw = Raw::upgrade(&broker, &Head::new("/"));
    raw.send_text(r#"{"command":"send-message","channel":{},"data":["402913"]}"#);
    raw.next_data();
    let mut broker = broker;
    assert!(broker.stop().success());
    let log = broker.log().text();
    for secret in ["402913", "a-wrong-guess", "secret", &basic("app", "secret")[6..], "5en6G6MezRroT3XKqkdPOmY"] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
}

#[test]
fn environment_variables_override_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wsmb.toml"), "[server]\nlisten = \"not an address\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wsmb"))
        .args(["serve", "--config", "wsmb.toml"])
        .env("WSMB_SERVER__LISTEN", "203.0.113.254:1")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "the broker listens on an address that this machine does not have");
    assert_says(&String::from_utf8_lossy(&output.stderr), &["203.0.113.254:1"]);
}
