//! `wsmb receive --exec`: the fate of a message whose command fails, hangs, is killed, or ends while the broker is away.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{Broker, DEADLINE, Running, run, until, wsmb};

/// The group of the gateways and of [`next`], so that `next` gets the messages that they give back.
const GROUP: [&str; 2] = ["--group", "modems"];

fn gateway(broker: &Broker, command: &str, arguments: &[&str]) -> Running {
    Running::start(broker.client(&["receive", "sms", "--exec", command]).args(GROUP).args(arguments))
}

fn file(broker: &Broker, name: &str) -> PathBuf {
    broker.directory.path().join(name)
}

/// The content of a file that a command writes, once it ends with a newline.
fn written(broker: &Broker, name: &str) -> String {
    let mut text = String::new();
    until("the command has written", || {
        text = fs::read_to_string(file(broker, name)).unwrap_or_default();
        text.ends_with('\n')
    });
    text
}

/// Whether a process runs. A zombie does not.
fn is_alive(process: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// The next delivery of the channel.
fn next(broker: &Broker) -> serde_json::Value {
    let ended = run(broker.client(&["receive", "sms", "--json", "--count", "1"]).args(GROUP)).with(0);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_message_whose_command_fails_does_not_delay_others() {
    let broker = Broker::start();
    for message in ["bad", "good"] {
        broker.send("sms", message);
    }
    let command =
        r#"read m; case "$m" in *bad*) echo "no network" >&2; exit 3;; esac; echo "$m $WSMB_CHANNEL $WSMB_ATTEMPT""#;
    let ended = gateway(&broker, command, &["--count", "1"]).end().with(0);
    assert_eq!(ended.stdout, "\"good\" sms 1");
    assert!(ended.stderr.lines().any(|line| line == "no network"), "{}", ended.stderr);
    let failed = ended.stderr.lines().find(|line| line.contains("exit status 3")).unwrap();
    assert!(
        failed.contains(", channel sms, attempt 1: exit status 3 after 0.")
            && failed.ends_with("the broker delivers it again")
    );
    assert!(ended.stderr.contains("attempt 1: exit status 0 after 0."), "{}", ended.stderr);
    let again = next(&broker);
    assert_eq!((&again["data"], &again["redelivered"], &again["attempt"]), (&"bad".into(), &true.into(), &2.into()));
}

#[test]
fn a_failing_message_does_not_stop_the_workers_and_is_redelivered() {
    let broker = Broker::start();
    for number in 0..8 {
        broker.send("sms", &number.to_string());
    }
    let command = r#"read m; if [ "$m" = 0 ] && [ "$WSMB_ATTEMPT" -lt 3 ]; then exit 1; fi; echo "$m $WSMB_ATTEMPT $WSMB_REDELIVERED""#;
    let ended = gateway(&broker, command, &["--exec-workers", "2", "--count", "8"]).end().with(0);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.pop(), Some("0 3 1"), "the failing message must be last");
    lines.sort_unstable();
    assert_eq!(lines, ["1 1 0", "2 1 0", "3 1 0", "4 1 0", "5 1 0", "6 1 0", "7 1 0"]);
    until("all messages are confirmed", || broker.waiting("sms") == 0);
}

#[test]
fn dead_letters_contain_the_last_error_output_of_the_command() {
    let mut broker = Broker::start_with(&[
        "--set",
        "channel_defaults.dead_letter=dead",
        "--set",
        "channel_defaults.max_deliveries=2",
    ]);
    for message in ["fails", "rejected", "fine"] {
        broker.send("sms", message);
    }
    let command = r#"read m; case "$m" in
        *rejected*) echo "no such number" >&2; echo >&2; exit 65;;
        *fails*) printf 'line one\nno network\n' >&2; exit 1;;
        esac; echo "$m""#;
    let mut gateway = gateway(&broker, command, &[]);
    gateway.stderr.wait_for("rejected: the broker does not deliver it again");
    assert_eq!(gateway.stdout.next(), "\"fine\"");
    until("two messages are dead letters", || broker.waiting("dead") == 2 && broker.waiting("sms") == 0);
    gateway.terminate();
    gateway.end().with(0);
    broker.running.terminate();
    broker.running.end().with(0);
    let letters = broker.queue(&["export", "dead"]).with(0).stdout;
    let letter = |why: &str| letters.lines().find(|line| line.contains(why)).unwrap_or_else(|| panic!("{letters}"));
    assert!(letter("\"rejected\"").contains(r#""reason":"exit status 65: no such number""#), "{letters}");
    let dead = letter("\"max_deliveries\"");
    assert!(dead.contains(r#""reason":"exit status 1: no network""#) && dead.contains(r#""attempts":2"#), "{letters}");
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children_and_its_message_is_redelivered() {
    let broker = Broker::start();
    broker.send("sms", "1");
    let command = "if [ $WSMB_REDELIVERED = 1 ]; then echo \"again $WSMB_ATTEMPT\"; exit 0; fi; \
                   sleep 300 & echo $! > child; echo dialling >&2; wait";
    let ended = gateway(&broker, command, &["--exec-timeout", "1s", "--count", "1"]).end().with(0);
    assert_eq!(ended.stdout, "again 2");
    let said = "ended because it ran longer than 1 s (--exec-timeout) after ";
    assert!(
        ended.stderr.contains(said) && ended.stderr.contains("may have done a part of its work"),
        "{}",
        ended.stderr
    );
    assert!(!is_alive(&written(&broker, "child")), "the child process still runs");
}

#[test]
fn the_gateway_extends_the_delivery_of_a_long_command() {
    const ACK_TIMEOUT: Duration = Duration::from_secs(7);
    let broker =
        Broker::start_with(&["--set", "channel_defaults.ack_timeout=7s", "--set", "channel_defaults.receivers=1"]);
    let command = "echo run >> runs; while [ ! -f go ]; do sleep 0.02; done";
    let mut slow = gateway(&broker, command, &["--count", "1"]);
    slow.stderr.wait_for("shares the messages");
    broker.send("sms", "1");
    written(&broker, "runs");
    let begun = Instant::now();
    let mut other = Running::start(broker.client(&["receive", "sms"]).args(GROUP));
    until("the acknowledgement would be overdue", || begun.elapsed() > ACK_TIMEOUT + Duration::from_secs(2));
    fs::write(file(&broker, "go"), "").unwrap();
    slow.end().with(0);
    other.terminate();
    assert_eq!(other.end().with(0).stdout, "", "another receiver got the message");
    until("the message is confirmed", || broker.waiting("sms") == 0);
}

#[test]
fn a_stopping_gateway_waits_for_its_command_and_takes_no_more_messages() {
    let broker = Broker::start();
    for number in [1, 2] {
        broker.send("sms", &number.to_string());
    }
    let command = "echo $$ > runs; while [ ! -f go ]; do sleep 0.02; done; echo done";
    let mut gateway = gateway(&broker, command, &[]);
    written(&broker, "runs");
    gateway.terminate();
    gateway.stderr.wait_for("waiting for 1 command; press Ctrl-C again to end at once");
    fs::write(file(&broker, "go"), "").unwrap();
    assert_eq!(gateway.end().with(0).stdout, "done");
    until("the first message is confirmed", || broker.waiting("sms") == 1);
    let second = next(&broker);
    assert_eq!((&second["data"], &second["attempt"]), (&2.into(), &1.into()), "it was delivered before");
}

#[test]
fn a_second_signal_kills_the_commands_and_their_children() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let broker = Broker::start();
        broker.send("sms", "1");
        // The command and its child ignore SIGTERM.
        let command = "trap '' TERM; sleep 300 & echo $$ $! > processes; wait; sleep 300";
        let mut gateway = gateway(&broker, command, &[]);
        let processes = written(&broker, "processes");
        gateway.signal(signal);
        gateway.stderr.wait_for("press Ctrl-C again to end at once");
        let asked = Instant::now();
        // The gateway ignores a second signal within a second.
        until("a second signal counts", || asked.elapsed() > Duration::from_millis(1_100));
        gateway.signal(signal);
        gateway.end().with(1).with_stderr("ended because the gateway was stopped");
        assert!(!processes.split_whitespace().any(is_alive), "still running: {processes}");
        let again = next(&broker);
        assert_eq!((&again["redelivered"], &again["attempt"]), (&true.into(), &2.into()));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_command_of_a_killed_gateway_is_asked_to_end() {
    let broker = Broker::start();
    broker.send("sms", "1");
    let mut gateway = gateway(&broker, "exec sh -c 'echo $$ > process; exec sleep 300'", &[]);
    let process = written(&broker, "process");
    gateway.kill();
    until("the command has ended", || !is_alive(&process));
}

#[test]
fn a_command_that_ends_while_the_broker_is_away_is_not_run_again() {
    let mut broker = Broker::start();
    broker.send("sms", "1");
    let command = "echo \"$WSMB_ID\" >> runs; while [ ! -f go ]; do sleep 0.02; done; rm go; exit $(cat code)";
    let mut gateway = gateway(&broker, command, &[]);
    for (round, code) in [(1, "0"), (2, "65")] {
        until("the command runs", || {
            fs::read_to_string(file(&broker, "runs")).is_ok_and(|text| text.lines().count() == round)
        });
        broker.running.kill();
        gateway.stderr.wait_for("reconnecting until it succeeds");
        fs::write(file(&broker, "code"), code).unwrap();
        fs::write(file(&broker, "go"), "").unwrap();
        gateway.stderr.wait_for(&format!("exit status {code} after"));
        broker.restart();
        let said = gateway.stderr.wait_for("already finished, so it is only confirmed again");
        assert!(said.contains("attempt 2"), "{said}");
        until("the message is confirmed", || broker.waiting("sms") == 0);
        broker.send("sms", "next");
    }
    until("the third command runs", || fs::read_to_string(file(&broker, "runs")).unwrap().lines().count() == 3);
    fs::write(file(&broker, "code"), "0").unwrap();
    fs::write(file(&broker, "go"), "").unwrap();
    until("the message is confirmed", || broker.waiting("sms") == 0);
    let runs = fs::read_to_string(file(&broker, "runs")).unwrap();
    let ids: std::collections::BTreeSet<&str> = runs.lines().collect();
    assert_eq!((ids.len(), runs.lines().count()), (3, 3), "three messages, three commands: {runs}");
}

#[test]
fn a_gateway_that_stops_while_the_broker_is_away_confirms_when_it_is_back() {
    let mut broker = Broker::start();
    broker.send("sms", "1");
    let mut gateway = gateway(&broker, "echo $$ >> runs; while [ ! -f go ]; do sleep 0.02; done", &[]);
    written(&broker, "runs");
    broker.running.kill();
    gateway.stderr.wait_for("reconnecting until it succeeds");
    gateway.terminate();
    gateway.stderr.wait_for("waiting for 1 command");
    fs::write(file(&broker, "go"), "").unwrap();
    gateway.stderr.wait_for("exit status 0 after");
    broker.restart();
    let ended = gateway.end().with(0);
    assert!(ended.stderr.contains("already finished") || ended.stderr.contains("will deliver them again"));
    if ended.stderr.contains("already finished") {
        until("the message is confirmed", || broker.waiting("sms") == 0);
    }
    assert_eq!(written(&broker, "runs").lines().count(), 1);
}

#[test]
fn a_redelivery_during_its_command_waits_for_the_result() {
    let mut broker = Broker::start();
    broker.send("sms", "1");
    let command = "echo $$ >> runs; while [ ! -f go ]; do sleep 0.02; done";
    let mut gateway = gateway(&broker, command, &["--exec-workers", "4"]);
    written(&broker, "runs");
    broker.running.kill();
    gateway.stderr.wait_for("reconnecting until it succeeds");
    broker.restart();
    gateway.stderr.wait_for("wsmb: reconnected");
    // The second message is delivered after the first, so the first has been redelivered.
    broker.send("sms", "2");
    until("the other command runs", || written(&broker, "runs").lines().count() == 2);
    fs::write(file(&broker, "go"), "").unwrap();
    until("both messages are confirmed", || broker.waiting("sms") == 0);
    assert_eq!(written(&broker, "runs").lines().count(), 2, "the first command has run twice");
}

#[test]
fn fields_arrive_unchanged_and_an_invalid_field_is_omitted() {
    let broker = Broker::start();
    broker.send("sms", r#"{"receiver":89620012345678901234,"price":1.10,"text":"half \ud83d","bad":"x\u0000","a":{"b":"deep"},"ID":"mine","huge":1e400}"#);
    broker.send("sms", "no object");
    let command = r#"env | grep ^WSMB_ | grep -v '^WSMB_ID=\|^WSMB_URL=' | LC_ALL=C sort; echo "url ${WSMB_URL#ws://127.0.0.1:}"; echo "path $PATH""#;
    let mut client = broker.client(&["receive", "sms", "--exec", command, "--count", "2"]);
    client.env("WSMB_secret", "x").env("WSMB_PASSWORD", "p").env("PATH", "/usr/bin:/bin");
    let ended = run(&mut client).with(0);
    let port = broker.url.rsplit(':').next().unwrap();
    let known = ["WSMB_ATTEMPT=1", "WSMB_CHANNEL=sms", "WSMB_REDELIVERED=0"];
    let fields = [
        "WSMB_a_b=deep",
        "WSMB_huge=1e400",
        "WSMB_price=1.10",
        "WSMB_receiver=89620012345678901234",
        "WSMB_text=half \u{fffd}",
    ];
    let (url, path) = (format!("url {port}/"), "path /usr/bin:/bin".to_owned());
    let expected: Vec<&str> =
        known.iter().chain(&fields).copied().chain([&*url, &*path]).chain(known).chain([&*url, &*path]).collect();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected);
    for said in [
        "attempt 1: the field \"bad\" is omitted: a variable cannot contain a NUL",
        "the field \"ID\" is omitted: a message cannot set WSMB_ID",
        "the message is not a JSON object, so the command gets no fields",
    ] {
        assert!(ended.stderr.contains(said), "expected `{said}` in {}", ended.stderr);
    }
}

#[tokio::test]
async fn only_the_failed_message_of_a_publication_is_redelivered() {
    let broker = Broker::start();
    // The first gateway is busy until the second has a message too.
    let command = r#"read m; echo "$m" | tee -a ran; while [ "$m" = '"hold"' ] && [ ! -f go ]; do sleep 0.02; done
        if [ "$m" = 2 ] && [ ! -f failed ]; then touch failed; exit 1; fi"#;
    let mut gateways = [(); 2].map(|()| gateway(&broker, command, &[]));
    broker.send("sms", "hold");
    broker.send("sms", "\"ready\"");
    until("both gateways have a message", || {
        fs::read_to_string(broker.directory.path().join("ran")).is_ok_and(|ran| ran.lines().count() == 2)
    });
    fs::write(broker.directory.path().join("go"), "").unwrap();
    until("both messages are confirmed", || broker.waiting("sms") == 0);
    broker.send_together("sms", "[1,2,3]").await;
    let ran = || fs::read_to_string(broker.directory.path().join("ran")).unwrap();
    until("all commands have run", || ran().lines().count() >= 6 && broker.waiting("sms") == 0);
    for gateway in &mut gateways {
        gateway.terminate();
        gateway.end().with(0);
    }
    let mut done: Vec<String> = ran().lines().skip(2).map(str::to_owned).collect();
    done.sort_unstable();
    assert_eq!(done, ["1", "2", "2", "3"]);
}

#[test]
fn messages_beyond_the_rate_or_in_quiet_hours_wait_in_the_broker_and_expire_there() {
    let broker = Broker::start();
    for number in 1..=3 {
        broker.send("sms", &number.to_string());
    }
    let mut gateway = gateway(&broker, "cat", &["--rate", "2/h"]);
    gateway.stdout.wait_for("1");
    gateway.stdout.wait_for("2");
    until("two messages are confirmed", || broker.waiting("sms") == 1);
    gateway.terminate();
    assert_eq!(gateway.end().with(0).stdout, "1\n2");
    let third = next(&broker);
    assert_eq!((&third["data"], &third["attempt"]), (&3.into(), &1.into()), "it was delivered before");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hour = |offset: u64| format!("{:02}:{:02}", (now / 3_600 + offset) % 24, now / 60 % 60);
    let mut quiet = broker.client(&["receive", "sms", "--exec", "cat", "--quiet"]);
    let mut quiet = Running::start(quiet.arg(format!("{}-{}", hour(23), hour(2))).env("TZ", "UTC"));
    quiet.stderr.wait_for(&format!("quiet until {}; messages wait in the broker", hour(2)));
    let sent = run(&mut broker.client(&["send", "sms", "late", "--ttl", "1s"])).with(0);
    assert_eq!(sent.stdout, "accepted: stored, no receiver has it yet");
    until("the message expires", || broker.waiting("sms") == 0);
    quiet.terminate();
    assert_eq!(quiet.end().with(0).stdout, "");

    let mut awake = broker.client(&["receive", "sms", "--exec", "cat", "--count", "1", "--quiet"]);
    let mut awake = Running::start(awake.arg(format!("{}-{}", hour(2), hour(23))).env("TZ", "UTC"));
    broker.send("sms", "4");
    assert_eq!(awake.end().with(0).stdout, "4");
}

#[test]
fn a_gateway_names_the_group_that_it_shares_messages_with() {
    let broker = Broker::start();
    let mut gateway = Running::start(&mut broker.client(&["receive", "sms", "--exec", "/bin/cat -"]));
    gateway.stderr.wait_for(
        "shares the messages with the other receivers of the group \"cat\"; to get all messages: --group none",
    );
    gateway.terminate();
    gateway.end().with(0);
    broker.send("sms", "1");
    let alone =
        run(&mut broker.client(&["receive", "sms", "--exec", "cat", "--group", "none", "--count", "1"])).with(0);
    assert!(!alone.stderr.contains("shares"), "{}", alone.stderr);
}

#[test]
fn invalid_arguments_of_a_gateway_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["sms", "--rate", "20/m"][..], "--exec"),
        (&["sms", "--exec", "cat", "--rate", "20"], "20/m"),
        (&["sms", "--exec", "cat", "--quiet", "22-7"], "22:00-07:00"),
        (&["sms", "--exec", "cat", "--exec-timeout", "0"], "at most 24 hours"),
        (&["home/#"], "looks like a pattern"),
        (&["home/+/x"], "looks like a pattern"),
        (&["c1,c2"], "looks like a list of channels"),
    ] {
        run(wsmb(directory.path()).arg("receive").args(arguments).args(["--user", "a:b"])).with(2).with_stderr(said);
    }
}

#[test]
fn a_gateway_reconnects_soon_after_its_broker_starts() {
    let mut broker = Broker::start();
    let mut gateway = gateway(&broker, "cat", &[]);
    gateway.stderr.wait_for("shares the messages");
    broker.running.kill();
    gateway.stderr.wait_for("reconnecting until it succeeds");
    let away = Instant::now();
    // With an exponential back-off, the next attempt would be seconds away now.
    until("the broker has been away for some time", || away.elapsed() > Duration::from_secs(7));
    broker.restart();
    let back = Instant::now();
    gateway.stderr.wait_for("wsmb: reconnected");
    assert!(back.elapsed() < Duration::from_secs(2) && back.elapsed() < DEADLINE, "{:?}", back.elapsed());
}

#[test]
fn two_gateways_share_messages_that_a_page_gets_too() {
    let broker = Broker::start();
    // Each gateway writes its name.
    let command = r#"read m; echo "$GATEWAY $m" >> runs; echo "$m""#;
    let start = |name: &str| {
        let mut client = broker.client(&["receive", "sms", "--exec", command, "--group", "modems"]);
        let mut gateway = Running::start(client.env("GATEWAY", name));
        gateway.stderr.wait_for("shares the messages with the other receivers of the group \"modems\"");
        gateway
    };
    let mut gateways = [start("a"), start("b")];
    let mut page = Running::start(&mut broker.client(&["receive", "sms"]));
    until("the page and one of the gateways are connected", || broker.send("sms", "0").contains("2 receivers"));
    for number in 1..=6 {
        broker.send("sms", &number.to_string());
    }
    page.stdout.wait_for("6");
    until("all messages are confirmed", || broker.waiting("sms") == 0);
    for gateway in &mut gateways {
        gateway.terminate();
        gateway.end().with(0);
    }
    let runs = fs::read_to_string(file(&broker, "runs")).unwrap();
    for number in 1..=6 {
        let done = runs.lines().filter(|line| line.ends_with(&format!(" {number}"))).count();
        assert_eq!(done, 1, "message {number}: {runs}");
    }
}
