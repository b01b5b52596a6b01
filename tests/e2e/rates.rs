//! `[[rate]]`: how often a user may publish and connect (SPEC 6.10).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::raw::{Head, Raw, basic};

/// A broker with two users: `app`, with a rate, and `other` without one.
fn broker(rate: &str) -> Broker {
    let users = "htpasswd = []\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\", \"other:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]";
    Setup::default().auth(&format!("{users}\n[[rate]]\nuser = \"app\"\n{rate}")).start()
}

fn head(target: &str, user: &str) -> Head {
    Head::new(target).with("Authorization", &basic(user, "secret"))
}

#[test]
fn a_publication_above_the_rate_is_refused_and_accepted_later() {
    let broker = broker("publish = \"5/s\"");
    let mut app = Client::envelope_with(&broker, &head("/", "app"));
    let started = Instant::now();
    let send = |app: &mut Client, number: usize| app.request("sms", &json!(number), &json!({"id": number.to_string()}));
    let mut refused = None;
    for number in 0.. {
        let reply = send(&mut app, number);
        if reply["response_code"] != "00" {
            refused = Some((number, reply));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "nothing is refused");
    }
    let (number, reply) = refused.expect("a refusal");
    assert!(number >= 5, "a burst of one second is allowed, and {number} were accepted");
    assert_eq!((&reply["response_code"], &reply["id"]), (&json!("09"), &json!(number.to_string())), "{reply}");
    let text = reply["response_text"].as_str().expect("a text");
    assert!(text.starts_with("Slow down: user \"app\" may publish again in "), "{text}");
    let mut other = Client::envelope_with(&broker, &head("/", "other"));
    for number in 0..20 {
        assert_eq!(send(&mut other, number)["response_code"], "00", "another user is not concerned");
    }
    // The id of a refused publication may be used again.
    while send(&mut app, number)["response_code"] != "00" {
        assert!(started.elapsed() < PATIENCE, "the user may never publish again");
    }
    broker.wait_for_log("a user has reached its rate");
}

#[test]
fn a_topic_connection_above_the_rate_is_read_slowly_and_loses_nothing() {
    let broker = broker("publish = \"20/s\"");
    let mut receiver = Client::envelope_with(&broker, &head("/", "other"));
    receiver.subscribe("sms");
    let mut app = Client::over(Raw::upgrade(&broker, &head("/ws?topic=sms", "app").modern()));
    let mut send = |numbers: std::ops::Range<u64>| numbers.for_each(|number| app.raw().send_text(&number.to_string()));
    let started = Instant::now();
    send(0..30);
    assert_eq!(receiver.numbers(30), (0..30).collect::<Vec<_>>());
    send(30..60);
    assert_eq!(receiver.numbers(30), (30..60).collect::<Vec<_>>());
    let time = started.elapsed();
    assert!(time >= Duration::from_millis(400), "{time:?}: 30 messages are 10 more than a second allows at once");
}

#[test]
fn a_new_topic_connection_above_the_rate_is_answered_429() {
    let broker = broker("publish = \"1/m\"");
    let mut app = Client::over(Raw::upgrade(&broker, &head("/ws?topic=sms", "app").modern()));
    app.raw().send_text("1");
    let mut receiver = Client::envelope_with(&broker, &head("/", "other"));
    receiver.subscribe("sms");
    assert_eq!(receiver.numbers(1), [1]);
    let mut second = Raw::connect(&broker);
    second.send(&head("/ws?topic=sms", "app").bytes());
    let answer = second.head();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    // A command can be refused, so an envelope connection is welcome.
    Client::envelope_with(&broker, &head("/", "app"));
}

#[test]
fn a_user_who_connects_above_the_rate_is_answered_429() {
    let broker = broker("connect = \"2/h\"");
    for _ in 0..2 {
        Client::envelope_with(&broker, &head("/", "app")).leave();
    }
    let mut third = Raw::connect(&broker);
    third.send(&head("/", "app").bytes());
    let answer = third.head();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    for _ in 0..5 {
        Client::envelope_with(&broker, &head("/", "other")).leave();
    }
}
