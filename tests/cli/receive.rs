//! `wsmb receive` that prints: the format of a line, and no message is taken that is not used.

use std::time::{Duration, Instant};

use crate::harness::{Broker, Running, run, until};

fn next(broker: &Broker) -> serde_json::Value {
    let ended = run(&mut broker.client(&["receive", "sms", "--json", "--count", "1"])).with(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn with_several_channels_a_line_names_the_channel() {
    let broker = Broker::start();
    broker.send("bulk", "1");
    broker.send("otp", "2");
    let ended = run(&mut broker.client(&["receive", "otp", "bulk", "--count", "2"])).with(0);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["bulk\t1", "otp\t2"]);
}

#[test]
fn json_contains_all_members_of_a_delivery() {
    let broker = Broker::start();
    broker.send("sms", r#"{"a" : 1.10}"#);
    let ended = run(&mut broker.client(&["receive", "sms", "--json", "--count", "1"])).with(0);
    assert!(ended.stdout.contains(r#""channel":"sms","attempt":1,"redelivered":false,"time":"20"#), "{}", ended.stdout);
    assert!(ended.stdout.ends_with(r#","data":{"a" : 1.10}}"#), "{}", ended.stdout);
    let line: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(line["id"].as_str().unwrap().starts_with("1-"), "{line}");
}

#[test]
fn a_reader_that_closes_the_pipe_takes_no_further_message() {
    let broker = Broker::start();
    for number in 1..=4 {
        broker.send("sms", &number.to_string());
    }
    let head = format!("{} receive sms | head -n 2", env!("CARGO_BIN_EXE_wsmb"));
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(head).env("WSMB_URL", &broker.url).env("WSMB_USER", &broker.user);
    let ended = run(&mut shell).with(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("1\n2", ""));
    until("two messages are confirmed, and two wait", || broker.waiting("sms") == 2);
    assert_eq!(next(&broker)["data"], 3);
}

#[test]
fn a_message_in_an_unread_pipe_is_not_confirmed() {
    let broker = Broker::start();
    for number in 1..=4 {
        broker.send("sms", &number.to_string());
    }
    // The reader takes two lines, and ends much later (after 20 s if this test fails).
    let reader =
        r#"{ read a; read b; echo "$a $b"; n=0; while [ ! -f go ] && [ $((n+=1)) -lt 1000 ]; do sleep 0.02; done; }"#;
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!("{} receive sms | {reader}", env!("CARGO_BIN_EXE_wsmb")));
    shell.current_dir(broker.directory.path()).env("WSMB_URL", &broker.url).env("WSMB_USER", &broker.user);
    let mut running = Running::start(&mut shell);
    assert_eq!(running.stdout.next(), "1 2");
    let begun = Instant::now();
    until("the third message is in the pipe", || begun.elapsed() > Duration::from_secs(1));
    until("two messages are confirmed, and two wait", || broker.waiting("sms") == 2);
    std::fs::write(broker.directory.path().join("go"), "").unwrap();
    running.end().with(0);
    assert_eq!(next(&broker)["data"], 3);
}

#[test]
fn a_count_is_exact_and_the_next_message_is_never_taken() {
    let broker = Broker::start();
    for number in 1..=3 {
        broker.send("sms", &number.to_string());
    }
    let ended = run(&mut broker.client(&["receive", "sms", "--count", "2", "--prefetch", "64"])).with(0);
    assert_eq!(ended.stdout, "1\n2");
    let third = next(&broker);
    assert_eq!((&third["data"], &third["attempt"], &third["redelivered"]), (&3.into(), &1.into(), &false.into()));
}

#[tokio::test]
async fn messages_of_one_publication_are_counted_separately() {
    let broker = Broker::start();
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "2"]));
    // If the receiver connects before the messages are sent, they are one delivery; otherwise each is a delivery.
    broker.send_together("sms", "[1,2,3]").await;
    let ended = tokio::task::spawn_blocking(move || receive.end().with(0)).await.unwrap();
    assert_eq!(ended.stdout, "1\n2");
    until("the third waits", || broker.waiting("sms") == 1);
    assert_eq!(next(&broker)["data"], 3);
}
