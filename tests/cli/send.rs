//! `wsmb send`: batches with bad lines, a broker that starts late, Ctrl-C.

use std::fs;
use std::io::Write as _;

use crate::harness::{Broker, Ended, Running, run, run_with_input, until, wsmb};

/// Runs `wsmb send sms` with these bytes on standard input.
fn send(broker: &Broker, arguments: &[&str], input: &[u8]) -> Ended {
    let file = broker.directory.path().join("input");
    fs::write(&file, input).unwrap();
    let mut command = broker.client(&["send", "sms"]);
    run(command.args(arguments).stdin(fs::File::open(file).unwrap()))
}

fn received(broker: &Broker, count: usize) -> String {
    run(&mut broker.client(&["receive", "sms", "--count", &count.to_string()])).with(0).stdout
}

#[test]
fn send_waits_for_a_broker_that_starts_late() {
    let mut broker = Broker::start();
    broker.running.terminate();
    broker.running.end().with(0);
    let mut one = Running::start(&mut broker.client(&["send", "sms", "1"]));
    let many = fs::File::open("/dev/null").unwrap();
    let mut many = Running::start(broker.client(&["send", "sms", "-"]).stdin(many));
    for waiting in [&mut one, &mut many] {
        let said = waiting.stderr.wait_for("trying again");
        assert!(said.contains("is the broker running?") && said.contains("for 30 seconds"), "{said}");
    }
    broker.restart();
    assert!(one.end().with(0).stdout.starts_with("accepted: "));
    many.end().with(0);
    assert_eq!(broker.waiting("sms"), 1);
}

#[test]
fn the_first_connection_is_tried_until_the_timeout_and_a_wrong_password_once() {
    let broker = Broker::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{nobody}");
    let start = std::time::Instant::now();
    run(wsmb(broker.directory.path()).args(["send", "sms", "x", "--timeout", "1s", "--url", &url]))
        .with(1)
        .with_stderr("trying again for 1 second")
        .with_stderr("wsmb: cannot reach");
    assert!(start.elapsed() >= std::time::Duration::from_secs(1));
    let input = "1\n";
    run_with_input(wsmb(broker.directory.path()).args(["send", "sms", "-", "--timeout", "0", "--url", &url]), input)
        .with(1)
        .with_stderr("; nothing was sent");
    let wrong = run(broker.client(&["send", "sms", "x"]).env("WSMB_USER", "app:wrong")).with(1);
    assert!(!wrong.stderr.contains("again"), "{}", wrong.stderr);
}

#[test]
fn a_line_that_is_too_large_is_refused_and_the_others_are_sent() {
    let broker = Broker::start_with(&["--set", "server.max_message=1KiB"]);
    let large = "x".repeat(2000);
    let one = send(&broker, &[&large, "--rejects", "one"], b"").with(1).with_stderr("refused: too large: ");
    assert_eq!((one.stderr.lines().count(), one.stdout.as_str()), (1, ""), "{}", one.stderr);
    // Three lines are refused; a good line follows each.
    let lines = format!("1\n{large}\n3\n{}\n5\n{large}y\n7\n", "z".repeat(1500));
    let batch = send(&broker, &["-", "--rejects", "refused"], lines.as_bytes()).with(1);
    assert!(
        batch.stdout.ends_with("refused: 3") && batch.stdout.starts_with("accepted: 4 messages"),
        "{}",
        batch.stdout
    );
    let mut places: Vec<&str> = batch.stderr.lines().filter(|line| line.contains("refused: too large: ")).collect();
    places.sort_unstable();
    assert!(places.len() == 3, "{}", batch.stderr);
    for (place, number) in places.iter().zip([2, 4, 6]) {
        assert!(place.contains(&format!("line {number}: ")), "{places:?}");
    }
    assert_eq!(received(&broker, 4), "1\n3\n5\n7");
    until("no message is left", || broker.waiting("sms") == 0);
    let rejects = fs::read_to_string(broker.directory.path().join("refused")).unwrap();
    assert_eq!(rejects.lines().filter(|line| line.starts_with("# line ")).count(), 3, "{rejects}");
    assert!(rejects.contains(&format!("\n{large}\n")) && rejects.contains(&format!("\n{large}y\n")));
}

#[test]
fn refused_lines_can_be_sent_again_from_the_rejects_file() {
    let broker = Broker::start_with(&["--set", "channel_defaults.max_backlog=30"]);
    let path = broker.directory.path().join("refused.txt");
    let lines: String = (1..=70).map(|number| format!("{number}\n")).collect();
    let plain = send(&broker, &["-"], lines.as_bytes()).with(1).with_stderr("20 messages more refused; --rejects FILE");
    assert_eq!(plain.stdout, "accepted: 30 messages (30 stored for later); refused: 40");
    received(&broker, 30);
    until("the channel has room", || broker.waiting("sms") == 0);
    send(&broker, &["-", "--rejects", "refused.txt"], lines.as_bytes()).with(1);
    let rejects = fs::read_to_string(&path).unwrap();
    assert_eq!(rejects.lines().count(), 1 + 2 * 40, "all refused lines, not only those printed");
    assert!(rejects.contains("\n# line 31: 06 Full"), "{rejects}");
    send(&broker, &["-", "--rejects", "refused.txt"], b"x").with(2).with_stderr("already contains messages");
    assert_eq!(fs::read_to_string(&path).unwrap(), rejects);

    received(&broker, 30);
    until("the channel has room again", || broker.waiting("sms") == 0);
    let again = send(&broker, &["-", "--rejects", "second.txt"], rejects.as_bytes()).with(1);
    assert_eq!(again.stdout, "accepted: 30 messages (30 stored for later); refused: 10");
    assert_eq!(received(&broker, 30), (31..=60).map(|number| number.to_string()).collect::<Vec<_>>().join("\n"));
    let second = fs::read(broker.directory.path().join("second.txt")).unwrap();
    until("the channel has room once more", || broker.waiting("sms") == 0);
    send(&broker, &["-", "--rejects", "third.txt"], &second).with(0);
    assert_eq!(fs::read_to_string(broker.directory.path().join("third.txt")).unwrap(), "", "no line was refused");
    // With a full disk the command ends, and says how many lines were sent.
    let full = send(&broker, &["-", "--rejects", "/dev/full"], b"{\n2\n").with(1);
    assert!(
        full.stderr.contains("cannot write the rejects file /dev/full: ") && full.stderr.contains("line 1 was sent"),
        "{}",
        full.stderr
    );
}

#[test]
fn a_line_that_looks_like_broken_json_is_refused_unless_text_is_given() {
    let broker = Broker::start();
    let input = b"\xef\xbb\xbf{\"a\":1}\r\n{\"receiver\":\"0812}\n[1,\n\xff\n {x\nplain {\n";
    let batch = send(&broker, &["-", "--rejects", "refused"], input).with(1);
    assert_eq!(batch.stdout, "accepted: 2 messages (2 stored for later); refused: 4");
    let mut lines = batch.stderr.lines();
    let reason = "refused: the message looks like JSON, but it is not: ";
    for (number, reason) in [(2, reason), (3, reason), (4, "refused: the line is not valid UTF-8"), (5, reason)] {
        let line = lines.next().unwrap();
        assert!(line.contains(&format!("line {number}: {reason}")), "{line}");
    }
    assert_eq!(received(&broker, 2), "{\"a\":1}\n\"plain {\"");
    let refused = fs::read(broker.directory.path().join("refused")).unwrap();
    let text = send(&broker, &["-", "--text"], &refused).with(1);
    assert_eq!(text.stdout, "accepted: 3 messages (3 stored for later); refused: 1");
    assert_eq!(received(&broker, 3), "\"{\\\"receiver\\\":\\\"0812}\"\n\"[1,\"\n\" {x\"");

    send(&broker, &["{\"a\""], b"").with(2).with_stderr("looks like JSON, but it is not: ").with_stderr("--text");
    send(&broker, &["{\"a\"", "--text"], b"").with(0);
    send(&broker, &["5", "--text"], b"").with(0);
    assert_eq!(received(&broker, 2), "\"{\\\"a\\\"\"\n\"5\"");
    send(&broker, &["-"], b"\xff\xfe{\0}\0\n\0").with(1).with_stderr("UTF-16");
    let objects = send(&broker, &["-", "--json"], b"{\n").with(1).stdout;
    let object: serde_json::Value = serde_json::from_str(&objects).unwrap();
    assert_eq!(object["line"], 1);
    assert!(object["error"].as_str().unwrap().contains("looks like JSON"), "{object}");
}

#[test]
fn ctrl_c_prints_how_many_messages_were_accepted() {
    let broker = Broker::start();
    let mut batch = Running::start(broker.client(&["send", "sms", "-"]).stdin(std::process::Stdio::piped()));
    let mut input = batch.child.stdin.take().unwrap();
    input.write_all(b"1\n{\n3\n4\n").unwrap();
    until("three messages have been sent", || broker.waiting("sms") == 3);
    batch.interrupt();
    batch
        .end()
        .with(1)
        .with_stderr("stopped by a signal; 3 messages accepted, 1 refused; no line after line 4 was sent");
    drop(input);

    // A broker that does not answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let mut waiting = Running::start(wsmb(broker.directory.path()).args(["send", "sms", "x", "--url", &url]));
    let peer = silent.accept().unwrap();
    waiting.interrupt();
    waiting.end().with(1).with_stderr("wsmb: stopped by a signal");
    drop(peer);
}

#[test]
fn an_id_from_the_content_makes_a_second_run_harmless() {
    let broker = Broker::start();
    let lines = "{\"n\":1}\n{\"n\":2}\n{\"n\":1}\n";
    let batch = |flags: &[&str]| {
        let arguments = [&["send", "sms", "-", "--id-from-content"], flags].concat();
        run_with_input(&mut broker.client(&arguments), lines).with(0).stdout
    };
    assert_eq!(batch(&[]), "accepted: 3 messages (2 stored for later, 1 accepted before)");
    assert_eq!(batch(&["--ttl", "1h"]), "accepted: 3 messages (3 accepted before)");
    let one = |message: &str| run(&mut broker.client(&["send", "sms", message, "--id-from-content"])).with(0).stdout;
    assert!(one("{\"n\":2}").starts_with("accepted before"));
    assert_eq!(one("{\"n\" :2}"), "accepted: stored, no receiver has it yet");
    assert_eq!(broker.waiting("sms"), 3);
    run(&mut broker.client(&["send", "sms", "x", "--id", "x", "--id-from-content"])).with(2);
}
