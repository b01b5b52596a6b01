//! A connection is ended within 5 s if its user, its password or a right that it uses is withdrawn (SPEC section 9.2), in each dialect.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::legacy::Php;
use crate::raw::{Got, Head, Raw, basic, opcode};

const APP: &str = "app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
/// The user `app` with the password `other`.
const APP_CHANGED: &str = "app:{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=\n";
const COLON: &str = "colon:{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8=\n";

const LIMIT: Duration = Duration::from_secs(5);

fn two_users() -> Setup {
    Setup::default()
        .auth("htpasswd = [\"{dir}/users\"]")
        .file("users", "app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\ncolon:{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8=\n")
}

fn as_colon(target: &str) -> Head {
    Head::new(target).with("Authorization", &basic("colon", "pass:word"))
}

/// Waits for the end of a connection. Returns the code of the close frame, if there is one. Pings are not answered.
#[track_caller]
pub fn end(raw: &mut Raw, deadline: Instant) -> Option<u16> {
    let mut code = None;
    loop {
        match raw.next_by(deadline) {
            Got::Frame(frame) if frame.opcode == opcode::CLOSE => code = frame.close_code(),
            Got::Frame(_) => {}
            Got::Fin | Got::Reset => return code,
            Got::Silence => panic!("still open\n{}", raw.trace()),
        }
    }
}

/// One connection of `app` of each kind, with the code of its expected close frame.
fn connections(broker: &Broker) -> [(Raw, Option<u16>); 4] {
    [
        (Client::receiver(broker, "a").into_raw(), Some(1008)),
        (Client::topic(broker, "b").into_raw(), Some(1008)),
        (Php::receiver(broker, "c").into_raw(), None),
        (Php::connect(broker, "/ws?topic=d").into_raw(), None),
    ]
}

#[test]
fn connections_of_a_removed_user_and_of_a_changed_password_are_ended_and_no_others() {
    for (what, users, signal) in [
        ("removed", COLON.to_owned(), false),
        ("removed, with a signal", COLON.to_owned(), true),
        ("another password", format!("{APP_CHANGED}{COLON}"), false),
    ] {
        let broker = two_users().start();
        let mut of_app = connections(&broker);
        let mut of_colon = Client::envelope_with(&broker, &as_colon("/").modern());
        of_colon.subscribe("z");
        std::fs::write(broker.dir().join("users"), users).unwrap();
        if signal {
            broker.signal(libc::SIGHUP);
        }
        let deadline = Instant::now() + LIMIT;
        for (raw, code) in &mut of_app {
            assert_eq!(end(raw, deadline), *code, "{what}\n{}", raw.trace());
        }
        of_colon.sync();
        broker.wait_for_log("whose user, password or right has been withdrawn connections=4");
        of_colon.sync();
    }
}

#[test]
fn unconfirmed_messages_of_a_removed_user_go_to_another_receiver() {
    let broker = two_users().channel("sms", "receivers = 1").start();
    let mut silent = Client::receiver(&broker, "sms").silent();
    let mut sender = Client::envelope_with(&broker, &as_colon("/").modern());
    sender.publish("sms", &json!(1));
    assert_eq!(silent.next_delivery()["data"][0], 1);
    let mut other = Client::envelope_with(&broker, &as_colon("/").modern());
    other.subscribe("sms");
    std::fs::write(broker.dir().join("users"), COLON).unwrap();
    assert_eq!(other.numbers(1), [1]);
    // A later message goes to the other receiver, too.
    sender.publish("sms", &json!(2));
    assert_eq!(other.numbers(1), [2]);
    assert_eq!(end(silent.raw(), Instant::now() + LIMIT), Some(1008));
}

#[test]
fn an_empty_password_file_ends_no_connection_and_a_byte_order_mark_is_ignored() {
    let broker = two_users().start();
    let mut client = Client::receiver(&broker, "sms");
    std::fs::write(broker.dir().join("users"), "").unwrap();
    broker.wait_for_log("is not used: it is empty");
    Client::envelope(&broker).publish("sms", &json!(1));
    assert_eq!(client.numbers(1), [1]);
    std::fs::write(broker.dir().join("users"), format!("\u{feff}{APP}")).unwrap();
    broker.wait_for_log("password files have changed");
    Client::envelope(&broker).publish("sms", &json!(2));
    assert_eq!(client.numbers(1), [2]);
}

#[test]
fn a_connection_that_loses_a_right_in_use_is_ended_and_later_requests_are_refused() {
    let broker = two_users().start();
    let mut of_app = connections(&broker);
    let mut sender = Client::envelope(&broker);
    sender.publish_safely("a", &json!(0), "before");
    let mut of_colon = Client::envelope_with(&broker, &as_colon("/").modern());
    of_colon.subscribe("a");
    broker.reconfigure(|text| {
        format!("{text}\n[[permission]]\nuser = \"app\"\nreceive = [\"c\"]\nsend = [\"d\"]\n[[permission]]\nuser = \"colon\"\nsend = \"*\"\nreceive = \"*\"\n")
    });
    let deadline = Instant::now() + LIMIT;
    for (at, (raw, code)) in of_app.iter_mut().enumerate().filter(|(at, _)| *at != 2) {
        assert_eq!(end(raw, deadline), *code, "{at}\n{}", raw.trace());
    }
    broker.wait_for_log("whose user, password or right has been withdrawn connections=3");
    // The receiver of c keeps its right.
    of_colon.publish("c", &json!("for c"));
    assert_eq!(Php::envelope(&broker).raw().next_by(Instant::now()), Got::Silence);
    let got = of_app[2].0.next_data();
    assert!(got.text().contains("for c"), "{got:?}");
    let mut again = Client::envelope(&broker);
    again.command(&json!({"command": "receive-message", "channel": "a"}));
    assert_eq!(again.next_json()["response_code"], "03");
    assert_eq!(sender.request("a", &json!(1), &json!({"id": "after"}))["response_code"], "03");
    // The message that `app` sent to channel a before was given to colon.
    assert_eq!(of_colon.numbers(1), [0]);
}

#[test]
fn anonymous_connections_end_when_they_are_no_longer_allowed() {
    let broker = two_users().auth("htpasswd = [\"{dir}/users\"]\nanonymous = true").start();
    let mut anonymous = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern().without("Authorization"));
    let mut known = Client::receiver(&broker, "sms");
    broker.reconfigure(|text| text.replace("anonymous = true", "anonymous = false"));
    assert_eq!(end(&mut anonymous, Instant::now() + LIMIT), Some(1008));
    known.sync();
}

#[test]
fn a_legacy_topic_publisher_that_may_not_send_is_ended_at_once_and_logged() {
    let broker = Setup::default().store("[[permission]]\nuser = \"app\"\nreceive = [\"sms\"]").start();
    for late in [Duration::ZERO, Duration::from_millis(100)] {
        let mut php = Php::connect(&broker, "/ws?topic=sms");
        std::thread::sleep(late);
        let began = Instant::now();
        php.send_topic("1");
        assert_eq!(end(php.raw(), Instant::now() + LIMIT), None);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    broker.wait_for_log("refused a topic connection: its user may not use the channel so");
    broker.wait_for_log("channel=\"sms\"");
    // A user who may neither send nor receive is refused at the upgrade.
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/ws?topic=other").bytes());
    let answer = String::from_utf8(raw.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.contains("may neither send to nor"), "{answer}");
}
