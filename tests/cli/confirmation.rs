//! `wsmb receive` confirms a message when it is processed: nothing is lost if a command, a receiver or a broker ends before that.

use std::fs;

use crate::harness::{Broker, Running, run, until};

#[test]
fn a_message_is_confirmed_if_its_command_succeeds_and_redelivered_if_it_fails() {
    let broker = Broker::start();
    broker.send("sms", r#"{"receiver":"0812","message":"a \"b\" $(c)"}"#);
    let command = r#"if [ -f failed ]; then printf '%s|%s|%s\n' "$WSMB_receiver" "$WSMB_message" "$WSMB_REDELIVERED"; cat; else touch failed; exit 3; fi"#;
    let ended = run(&mut broker.client(&["receive", "sms", "--exec", command, "--count", "1"])).with(0);
    assert_eq!(ended.stdout, "0812|a \"b\" $(c)|1\n{\"receiver\":\"0812\",\"message\":\"a \\\"b\\\" $(c)\"}");
    assert!(ended.stderr.contains("exit status 3 after"), "{}", ended.stderr);
    until("the message is removed from the store", || broker.waiting("sms") == 0);
}

#[test]
fn as_many_commands_run_at_once_as_there_are_workers() {
    let broker = Broker::start();
    for number in 1..=4 {
        broker.send("sms", &number.to_string());
    }
    // Each command waits until two have begun, which would never happen with one worker.
    let command = r#"read n; touch "begun-$n"; while [ $(ls begun-* | wc -l) -lt 2 ]; do sleep 0.01; done; echo "$n""#;
    let ended =
        run(&mut broker.client(&["receive", "sms", "--exec", command, "--workers", "2", "--count", "4"])).with(0);
    let mut numbers: Vec<&str> = ended.stdout.lines().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
}

#[test]
fn a_running_command_is_finished_before_the_receiver_stops() {
    let broker = Broker::start();
    broker.send("sms", "first");
    broker.send("sms", "second");
    let command = "touch started; while [ -f started ] && [ ! -f go ]; do sleep 0.01; done; cat > done";
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--exec", command]));
    let file = |name: &str| broker.directory.path().join(name);
    until("the command runs", || file("started").exists());
    receive.terminate();
    fs::write(file("go"), "").unwrap();
    receive.end().with(0);
    assert_eq!(fs::read_to_string(file("done")).unwrap(), "\"first\"\n");
    until("only the second waits", || broker.waiting("sms") == 1);
}

#[test]
fn a_killed_receiver_loses_nothing() {
    let broker = Broker::start();
    broker.send("sms", "precious");
    let command = "touch started; while [ -f started ] && [ ! -f go ]; do sleep 0.01; done";
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--group", "none", "--exec", command]));
    until("the command runs", || broker.directory.path().join("started").exists());
    receive.kill();
    let again = run(&mut broker.client(&["receive", "sms", "--count", "1", "--json"])).with(0);
    assert!(again.stdout.contains(r#""channel":"sms","attempt":2,"redelivered":true,"#), "{}", again.stdout);
    fs::write(broker.directory.path().join("go"), "").unwrap();
}

#[test]
fn a_receiver_reconnects_by_itself_and_reports_it_once() {
    let mut broker = Broker::start();
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "2"]));
    broker.send("sms", "before");
    assert_eq!(receive.stdout.next(), "\"before\"");
    // A message is printed before it is confirmed, and a broker that stops in between delivers it again.
    until("the message is confirmed", || broker.waiting("sms") == 0);
    broker.running.terminate();
    broker.running.end().with(0);
    receive.stderr.wait_for("reconnecting until it succeeds");
    broker.restart();
    receive.stderr.wait_for("wsmb: reconnected");
    broker.send("sms", "after");
    let ended = receive.end().with(0);
    assert_eq!(ended.stdout, "\"before\"\n\"after\"");
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
}

#[test]
fn a_command_that_ends_during_a_stop_of_the_broker_is_not_run_again() {
    let mut broker = Broker::start();
    broker.send("sms", "once");
    let command = "cat >> ran; while [ -f ran ] && [ ! -f go ]; do sleep 0.01; done";
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--exec", command]));
    let file = |broker: &Broker, name: &str| broker.directory.path().join(name);
    until("the command runs", || fs::read_to_string(file(&broker, "ran")).is_ok_and(|text| !text.is_empty()));
    broker.running.terminate();
    receive.stderr.wait_for("reconnecting until it succeeds");
    fs::write(file(&broker, "go"), "").unwrap();
    broker.running.end().with(0);
    assert_eq!(broker.waiting("sms"), 0);
    broker.restart();
    receive.stderr.wait_for("wsmb: reconnected");
    broker.send("sms", "next");
    until("the next message is confirmed", || broker.waiting("sms") == 0);
    assert_eq!(fs::read_to_string(file(&broker, "ran")).unwrap(), "\"once\"\n\"next\"\n");
}

#[test]
fn a_newer_receiver_with_the_same_name_replaces_the_older() {
    let broker = Broker::start();
    let mut first = Running::start(&mut broker.client(&["receive", "sms", "--receiver", "home"]));
    broker.send("sms", "one");
    assert_eq!(first.stdout.next(), "\"one\"");
    let mut second = Running::start(&mut broker.client(&["receive", "sms", "--receiver", "home"]));
    first.end().with(1).with_stderr("another receiver named \"home\" has connected and replaced this one");
    broker.send("sms", "two");
    assert_eq!(second.stdout.next(), "\"two\"");
}

#[test]
fn a_message_that_a_closed_pipe_did_not_accept_is_not_confirmed() {
    let broker = Broker::start();
    let mut receive = broker
        .client(&["receive", "sms"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(receive.stdout.take());
    broker.send("sms", "for nobody");
    let ended = receive.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(broker.waiting("sms"), 1);
}
