//! Real PHP on plain sockets, like the scripts on shared hosts. `cargo xtask test` installs PHP; without it these tests fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;

/// Starts one of the scripts in `tests/e2e/php`.
#[track_caller]
fn php(broker: &Broker, script: &str, arguments: &[&str]) -> Child {
    let path = format!("{}/tests/e2e/php/{script}", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let started = Command::new("php")
        .arg(path)
        .arg(broker.address().port().to_string())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    started
        .unwrap_or_else(|error| panic!("php cannot be started ({error}); install it (Debian: apt-get install php-cli)"))
}

/// The output of a script, which must have succeeded.
#[track_caller]
fn output(broker: &Broker, child: Child) -> String {
    let output = child.wait_with_output().expect("the script's output");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}\n{}", output.status, broker.log().tail());
    String::from_utf8(output.stdout).expect("text")
}

/// Sends lines with `sender.php`.
#[track_caller]
fn send(broker: &Broker, channel: &str, lines: &[String]) {
    let mut sender = php(broker, "sender.php", &[channel]);
    sender.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    output(broker, sender);
}

fn messages(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| json!({"number": number, "text": "Your code is é€😀"}).to_string()).collect()
}

/// Parses the lines that a receiver printed.
fn parsed(lines: &str) -> Vec<serde_json::Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wanted(range: std::ops::Range<u32>) -> Vec<serde_json::Value> {
    parsed(&messages(range).join("\n"))
}

#[test]
fn php_sends_to_php_live_and_from_the_backlog() {
    let broker = Broker::start();
    send(&broker, "sms", &messages(0..5));
    let receiver = php(&broker, "receiver.php", &["sms", "10"]);
    send(&broker, "sms", &messages(5..10));
    assert_eq!(parsed(&output(&broker, receiver)), wanted(0..10));
    send(&broker, "sms", &messages(10..11));
    let next = php(&broker, "receiver.php", &["sms", "1"]);
    assert_eq!(parsed(&output(&broker, next)), wanted(10..11), "a confirmed message was delivered again");
}

#[test]
fn a_php_receiver_that_is_killed_loses_nothing() {
    let broker = Broker::start();
    let mut first = php(&broker, "receiver.php", &["sms", "1000"]);
    send(&broker, "sms", &messages(0..1));
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(parsed(&line), wanted(0..1));
    first.kill().unwrap();
    first.wait().unwrap();
    send(&broker, "sms", &messages(1..4));
    // The printed message may be delivered again, because its confirmation may have been too late.
    let mut last = Client::receiver(&broker, "sms");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&3) {
        let delivery = last.next_delivery();
        numbers.extend(delivery["data"].as_array().unwrap().iter().map(|message| message["number"].as_u64().unwrap()));
    }
    assert!(numbers == [1, 2, 3] || numbers == [0, 1, 2, 3], "{numbers:?}");
}

/// The waiting messages: all that a receiver gets before `marker`.
#[track_caller]
fn waiting(broker: &Broker, marker: u32) -> Vec<u64> {
    send(broker, "sms", &messages(marker..marker + 1));
    let mut last = Client::receiver(broker, "sms");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&u64::from(marker)) {
        let delivery = last.next_delivery();
        numbers.extend(delivery["data"].as_array().unwrap().iter().map(|message| message["number"].as_u64().unwrap()));
    }
    numbers.pop();
    numbers
}

#[test]
fn a_php_script_that_reads_one_frame_of_many_takes_that_frame_only() {
    let broker = Broker::start();
    send(&broker, "sms", &messages(0..100));
    let seen: Vec<u64> = (0..6)
        .map(|_| {
            let text = output(&broker, php(&broker, "one_shot.php", &["sms"]));
            parsed(&text)[0]["number"].as_u64().unwrap()
        })
        .collect();
    // On a loaded machine a ping may arrive before the script leaves. Then its message is delivered again, but no other message.
    assert!(seen[0] == 0 && seen.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1), "{seen:?}");
    assert!(seen[5] >= 2, "most messages were delivered twice: {seen:?}");
    let left = waiting(&broker, 100);
    assert!(left[0] == seen[5] || left[0] == seen[5] + 1, "{seen:?} were read, and {left:?} wait");
    assert_eq!(left, (left[0]..100).collect::<Vec<_>>());
}

#[test]
fn a_php_receiver_that_is_killed_amid_a_backlog_loses_nothing() {
    let broker = Broker::start();
    send(&broker, "sms", &messages(0..30));
    // The script reads frames of ten messages, and is killed while it prints.
    let mut first = php(&broker, "receiver.php", &["sms", "1000"]);
    let mut printed = BufReader::new(first.stdout.take().unwrap());
    for _ in 0..3 {
        printed.read_line(&mut String::new()).unwrap();
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    let handled = 3 + rest.lines().count() as u64;
    let left = waiting(&broker, 30);
    assert!(left.first().is_none_or(|first| *first <= handled), "{handled} were printed, and {left:?} wait");
    assert_eq!(left, (30 - left.len() as u64..30).collect::<Vec<_>>(), "not once each and in order");
}

#[test]
fn a_php_receiver_survives_an_orderly_restart_of_the_broker() {
    let broker = Broker::start();
    let mut receiver = php(&broker, "receiver.php", &["sms", "2"]);
    send(&broker, "sms", &messages(0..1));
    let mut printed = BufReader::new(receiver.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(parsed(&line), wanted(0..1));
    // The script's blocking read sees FIN, and the script reconnects when the next broker listens.
    let broker = broker.stop_and_restart();
    send(&broker, "sms", &messages(1..2));
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(parsed(&line), wanted(1..2));
    output(&broker, receiver);
}

#[test]
fn php_publishes_and_waits_for_its_answer() {
    let broker = Broker::start();
    let mut gateway = Client::topic(&broker, "requests");
    let text = r#"{"command":"echo","callback_topic":"the answer"}"#;
    output(&broker, php(&broker, "publisher.php", &["requests", text]));
    assert_eq!(gateway.next_text(), text);
    let mut answering = Client::topic(&broker, "the+answer");
    answering.raw().send_text("{\"answer\":42}");
    answering.leave();
    assert_eq!(output(&broker, php(&broker, "one_shot.php", &["the answer"])), "{\"answer\":42}");
}

#[test]
fn php_prints_the_result_of_its_message() {
    let broker = Setup::default().channel("full", "max_backlog = 1").start();
    let code = |channel: &str| {
        let said = output(&broker, php(&broker, "one_frame_sender.php", &[channel, "{\"n\":1}"]));
        let reply: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{said}: {error}"));
        assert_eq!(reply["command"], "connect", "{said}");
        reply["response_code"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!([code("full"), code("full"), code(""), code("sms")], ["00", "06", "02", "00"]);
    let mut receiver = Client::receiver(&broker, "full");
    assert_eq!(receiver.messages(1), ["{\"n\":1}"], "exactly one message was accepted");
}

#[test]
fn php_sends_65_535_bytes_with_its_long_length() {
    let broker = Broker::start();
    let mut receiver = Client::topic(&broker, "sms");
    let text = "x".repeat(65_535);
    output(&broker, php(&broker, "publisher.php", &["sms", &text]));
    assert!(receiver.next_text() == text);
}
