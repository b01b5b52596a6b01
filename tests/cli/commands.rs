//! The subcommands, with the real program, real sockets and a real store.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Broker, Running, run, run_with_input, until, wsmb};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn the_commands_that_serve_prints_work() {
    let mut broker = Broker::start();
    let printed = broker.running.stdout.seen.clone();
    let line = |part: &str| printed.iter().find(|line| line.contains(part)).unwrap().trim().to_owned();
    let shell = |line: String| {
        let mut shell = std::process::Command::new("sh");
        // The stored login is in this directory.
        shell.env("XDG_CONFIG_HOME", broker.directory.path().join(".config"));
        shell.arg("-c").arg(format!("exec {line}"));
        shell
    };
    let mut receive = Running::start(&mut shell(line("receive sms")));
    let sent = run(&mut shell(line("send sms"))).with(0);
    assert!(sent.stdout.starts_with("accepted: "), "{}", sent.stdout);
    assert_eq!(receive.stdout.next(), r#"{"receiver":"081234567890","message":"Your code is 402913"}"#);
    receive.terminate();
    receive.end().with(0);
    broker.running.terminate();
    broker.running.end().with(0);
}

#[test]
fn a_later_start_says_how_to_set_a_password_and_a_failed_first_start_creates_no_user() {
    let mut broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let address = broker.url.strip_prefix("ws://").unwrap();
    run(wsmb(directory.path()).args(["serve", "--listen", address]))
        .with(1)
        .with_stderr("the port is in use by another program");
    assert!(!directory.path().join("wsmb-data/.htpasswd").exists());

    run(wsmb(broker.directory.path()).args(["serve", "--listen", "127.0.0.1:0"]))
        .with(1)
        .with_stderr("in use by another broker");

    broker.running.terminate();
    broker.running.end().with(0);
    fs::remove_dir_all(broker.directory.path().join(".config")).unwrap();
    broker.restart();
    let login = broker.running.stdout.wait_for(" login ").trim().to_owned();
    let advice = broker.running.stdout.wait_for(" passwd ").trim().to_owned();
    let command = format!("printf 'a new one\\n' | {advice}");
    run(std::process::Command::new("sh").arg("-c").arg(command).current_dir(broker.directory.path())).with(0);
    // A running broker checks its password files every few seconds.
    until("the new password is in force", || {
        let login = format!("printf 'a new one\\n' | {login}");
        let mut shell = std::process::Command::new("sh");
        shell.env("XDG_CONFIG_HOME", broker.directory.path().join(".config")).arg("-c").arg(login);
        run(&mut shell).code == Some(0)
    });
    run(wsmb(broker.directory.path()).args(["ping", "--url", &broker.url])).with(0);
}

#[test]
fn sent_messages_are_received() {
    let broker = Broker::start();
    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "3"]));
    broker.send("sms", r#"{"a" : [1, "x"]}"#);
    broker.send("sms", "it's not JSON");
    broker.send("sms", "-5");
    let ended = receive.end().with(0);
    assert_eq!(ended.stdout, "{\"a\" : [1, \"x\"]}\n\"it's not JSON\"\n-5");
    until("all messages are confirmed", || broker.waiting("sms") == 0);
}

#[test]
fn messages_without_a_receiver_wait() {
    let broker = Broker::start();
    assert_eq!(broker.send("a", "one\ntwo"), "accepted: stored, no receiver has it yet");
    broker.send("b", "{}");
    let ended = run(&mut broker.client(&["receive", "a", "b", "--raw", "--count", "2"])).with(0);
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a\tone", "b\t{}", "two"]);
}

#[test]
fn a_message_that_is_neither_received_nor_kept_is_no_success() {
    let broker = Broker::start_with(&["--set", "channel_defaults.keep=false"]);
    let sent = run(&mut broker.client(&["send", "sms", "x"])).with(3);
    assert_eq!(sent.stdout, "sent to nobody: the channel keeps no messages and has no receiver");
    assert_eq!(sent.stderr, "");
    let json = run(&mut broker.client(&["send", "sms", "x", "--json"])).with(3);
    assert!(json.stdout.contains(r#""receivers":0,"stored":false"#), "{}", json.stdout);
    let held = run(&mut broker.client(&["send", "sms", "x", "--delay", "60s"])).with(0);
    assert_eq!(held.stdout, "accepted: held until it is due");

    let mut receive = Running::start(&mut broker.client(&["receive", "sms", "--count", "1"]));
    until("the receiver is there", || {
        let sent = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n");
        let there = sent.code == Some(0);
        assert!(!there || sent.stdout == "accepted: 1 message (1 given to receivers)", "{}", sent.stdout);
        there
    });
    receive.end().with(0);
    let lines = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n2\n").with(3);
    let wanted = "accepted: 2 messages (2 sent to nobody: the channel keeps no messages and has no receiver)";
    assert_eq!(lines.stdout, wanted);
    run(&mut broker.client(&["send", "", "x"])).with(2);
    run(&mut broker.client(&["send", "sms", "x", "--user", "app:wrong"])).with(1);
}

#[test]
fn many_lines_arrive_in_order_and_empty_lines_are_skipped() {
    let broker = Broker::start();
    let lines: String = (1..=3000).map(|number| format!("{number}\r\n\n")).collect();
    let sent = run_with_input(&mut broker.client(&["send", "sms", "-"]), &lines).with(0);
    assert_eq!(sent.stdout, "accepted: 3000 messages (3000 stored for later)");
    let got = run(&mut broker.client(&["receive", "sms", "--count", "3000"])).with(0);
    let numbers: Vec<u32> = got.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=3000).collect::<Vec<_>>());
}

#[test]
fn a_message_with_a_repeated_id_is_not_delivered() {
    let broker = Broker::start();
    run(&mut broker.client(&["send", "sms", "x", "--id", "mine"])).with(0);
    let again = run(&mut broker.client(&["send", "sms", "x", "--id", "mine"])).with(0);
    assert!(again.stdout.starts_with("accepted before"), "{}", again.stdout);
    let json = run(&mut broker.client(&["send", "sms", "x", "--id", "mine", "--json"])).with(0);
    let reply: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&reply["response_code"], &reply["duplicate"]), (&"00".into(), &true.into()));
    assert_eq!(broker.waiting("sms"), 1);
}

#[test]
fn a_refusal_is_printed_with_its_code_and_fails() {
    let broker = Broker::start_with(&["--set", "channel_defaults.max_backlog=2"]);
    let lines = run_with_input(&mut broker.client(&["send", "sms", "-"]), "1\n2\n3\n");
    let lines = lines.with(1).with_stderr("line 3: refused: 06 Full");
    assert_eq!(lines.stdout, "accepted: 2 messages (2 stored for later); refused: 1");
    run(&mut broker.client(&["send", "sms", "4"])).with(1).with_stderr("refused: 06 Full");
}

/// The test is a broker that reads the message and ends the connection before it answers.
#[tokio::test]
async fn a_message_without_an_answer_is_sent_again_with_the_same_id() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut send = Running::start(wsmb(directory.path()).args(["send", "sms", "x", "--url", &url]));
    let mut ids = Vec::new();
    for attempt in 0..2 {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = tokio_tungstenite::accept_hdr_async(stream, Subprotocol).await.unwrap();
        let Message::Text(frame) = peer.next().await.unwrap().unwrap() else { panic!("a text frame") };
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap();
        assert_eq!(frame["data"], serde_json::json!(["x"]));
        let id = frame["id"].as_str().unwrap().to_owned();
        if attempt == 1 {
            let reply = serde_json::json!({
                "command": "send-message", "response_code": "00", "response_text": "Accepted", "id": id, "receivers": 1,
            });
            peer.send(Message::text(reply.to_string())).await.unwrap();
            // The closing handshake.
            while let Some(Ok(_)) = peer.next().await {}
        }
        ids.push(id);
    }
    assert_eq!(ids[0], ids[1]);
    let ended = tokio::task::spawn_blocking(move || send.end()).await.unwrap();
    let ended = ended.with(0).with_stderr("trying again for ");
    assert_eq!(ended.stdout, "accepted: 1 receiver");
}

struct Subprotocol;

impl tokio_tungstenite::tungstenite::handshake::server::Callback for Subprotocol {
    fn on_request(
        self,
        _: &tokio_tungstenite::tungstenite::handshake::server::Request,
        mut response: tokio_tungstenite::tungstenite::handshake::server::Response,
    ) -> Result<
        tokio_tungstenite::tungstenite::handshake::server::Response,
        tokio_tungstenite::tungstenite::handshake::server::ErrorResponse,
    > {
        response.headers_mut().insert("Sec-WebSocket-Protocol", "wsmb.v1".parse().unwrap());
        Ok(response)
    }
}

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

#[test]
fn ping_prints_the_round_trip_time() {
    let broker = Broker::start();
    let ended = run(&mut broker.client(&["ping", "sms"])).with(0);
    assert!(ended.stdout.contains(" ms") && ended.stdout.contains("00 Accepted"), "{}", ended.stdout);
    let ended = run(&mut broker.client(&["ping", "--json"])).with(0);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["response_code"], "00");
    assert!(answer["round_trip_ms"].as_f64().unwrap() < 30_000.0);
}

#[test]
fn the_queue_of_a_stopped_broker_can_be_listed_exported_and_purged() {
    let mut broker = Broker::start();
    for message in ["{\"n\":1}", "two", "3"] {
        broker.send("sms", message);
    }
    broker.send("other", "x");
    for action in [&["list"][..], &["peek", "sms"], &["export"], &["purge", "sms", "--yes"]] {
        broker
            .queue(action)
            .with(1)
            .with_stderr(&format!("is in use by a broker (process {})", broker.running.child.id()))
            .with_stderr("; stop the broker first, because this command needs the store for itself");
    }
    assert_eq!(broker.waiting("sms"), 3);

    broker.running.terminate();
    broker.running.end().with(0);
    assert_queue(&broker);
    broker.queue(&["purge", "sms"]).with(2).with_stderr("add --yes");
    assert_eq!(broker.queue(&["purge", "sms", "--yes"]).with(0).stdout, "removed 3 messages from sms");
    assert_eq!((broker.waiting("sms"), broker.waiting("other")), (0, 1));
    broker.queue(&["purge", "other", "--yes"]).with(0);
    assert_eq!(broker.queue(&["list"]).with(0).stdout, "no messages are waiting");
    broker.queue(&["list", "--store", "sqlite:nowhere.db"]).with(1).with_stderr("there is no store at nowhere.db");
    assert!(!broker.directory.path().join("nowhere.db").exists());
}

fn assert_queue(broker: &Broker) {
    let list = broker.queue(&["list"]).with(0).stdout;
    assert!(list.contains("sms") && list.contains("other"), "{list}");
    assert_eq!(broker.waiting("sms"), 3);
    let peek = broker.queue(&["peek", "sms", "--count", "2"]).with(0).stdout;
    assert!(
        peek.contains("{\"n\":1}") && peek.contains("\"two\"") && peek.contains("there are more messages"),
        "{peek}"
    );
    let export = broker.queue(&["export", "sms"]).with(0).stdout;
    let messages: Vec<serde_json::Value> = export
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages, [serde_json::json!({"n":1}), "two".into(), 3.into()]);
    assert_eq!(broker.queue(&["export"]).with(0).stdout.lines().count(), 4);
}

#[test]
fn passwd_adds_changes_verifies_and_removes_users() {
    let directory = tempfile::tempdir().unwrap();
    let passwd = |arguments: &[&str], input: &str| {
        run_with_input(wsmb(directory.path()).arg("passwd").arg("users").args(arguments), input)
    };
    assert_eq!(passwd(&["app"], "secret\n").with(0).stdout, "created users with the user app");
    assert_eq!(passwd(&["other"], "x\n").with(0).stdout, "added the user other to users");
    assert_eq!(passwd(&["app"], "new: one\n").with(0).stdout, "changed the password of the user app in users");
    passwd(&["app", "--verify"], "new: one\n").with(0);
    passwd(&["app", "--verify"], "secret\n").with(1).with_stderr("this is not the password of the user app");
    fs::write(directory.path().join("word"), "new: one\nmore\n").unwrap();
    passwd(&["app", "--verify", "--password-file", "word"], "").with(0);
    passwd(&["nobody", "--verify"], "x\n").with(1).with_stderr("no user nobody");
    passwd(&["bad:name"], "x\n").with(1).with_stderr("colon");
    passwd(&["app"], "\n").with(1).with_stderr("empty");
    passwd(&["app", "--delete"], "").with(0);
    passwd(&["app", "--delete"], "").with(1).with_stderr("no user app");
    let text = fs::read_to_string(directory.path().join("users")).unwrap();
    assert!(text.starts_with("other:$2y$") && text.lines().count() == 1, "{text}");
    passwd(&["other", "--delete"], "").with(0);
    // The comment tells a broker that the file was not emptied by mistake.
    assert_eq!(fs::read_to_string(directory.path().join("users")).unwrap(), "# no users\n");
}

#[test]
fn check_distinguishes_errors_and_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str]| run(wsmb(directory.path()).arg("check").args(arguments));
    // A small limit of connections avoids the warning about the number of open files.
    let few = ["--set", "server.max_connections=100", "--listen", "127.0.0.1:0"];
    let fresh = check(&few).with(0);
    assert!(
        fresh.stdout.contains("the broker would start; no warnings")
            && fresh.stdout.contains("the first start makes a user"),
        "{}",
        fresh.stdout
    );
    assert!(!directory.path().join("wsmb-data").exists(), "the check must not write");
    let exposed = [&few[..], &["--listen", "0.0.0.0:0"]].concat();
    assert!(check(&exposed).with(0).stdout.contains("warning: "));
    check(&[&exposed[..], &["--strict"]].concat()).with(1);
    fs::write(directory.path().join("bad.toml"), "[server]\nlisten = \"127.0.0.1:1\"\nheartbaet = \"25s\"\n").unwrap();
    let listeners = "[server]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n[[listener]]\naddress = \"[::1]:0\"\nproxy_protocol = true\n";
    fs::write(directory.path().join("proxies.toml"), listeners).unwrap();
    let behind = check(&["--config", "proxies.toml"]).with(0).stdout;
    for words in ["127.0.0.1:0, [::1]:0 (PROXY protocol)", "trusts proxies", "10.0.0.0/8"] {
        assert!(behind.contains(words), "{words}: {behind}");
    }
    let admins = "[auth]\nusers = [\"app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\nadmins = [\"app\", \"nobody\"]\n[server]\nlisten = \"127.0.0.1:0\"\norigins = [\"https://app.example\"]\n";
    fs::write(directory.path().join("admins.toml"), admins).unwrap();
    let with_admins = check(&["--config", "admins.toml"]).with(0).stdout;
    for words in ["app, nobody", "auth.admins: there is no user \"nobody\"", "https://app.example"] {
        assert!(with_admins.contains(words), "{words}: {with_admins}");
    }
    assert!(!with_admins.contains("no user \"app\""), "{with_admins}");
    assert!(fresh.stdout.contains("administrators  wsmb"), "{}", fresh.stdout);
    let bad = check(&["--config", "bad.toml", "--json"]).with(1);
    let report: serde_json::Value = serde_json::from_str(&bad.stdout).unwrap();
    let error = report["text"].as_str().unwrap();
    assert!(error.contains("bad.toml:3") && error.contains("heartbeat"), "{error}");
    run(wsmb(directory.path()).args(["serve", "--config", "bad.toml"])).with(1).with_stderr("heartbeat");
    fs::create_dir(directory.path().join("wsmb-data")).unwrap();
    fs::write(
        directory.path().join("wsmb-data/wsmb.db"),
        "this is no database, but it is long enough to be read as one",
    )
    .unwrap();
    let damaged = check(&few).with(1);
    assert!(damaged.stdout.contains("error: the store "), "{}", damaged.stdout);
}

#[test]
fn the_old_configuration_becomes_a_valid_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let old = format!("[server]\nport = {port}\n\n[database]\nkeep_data = false\n");
    fs::write(directory.path().join("config.ini"), old).unwrap();
    let import = |arguments: &[&str]| run(wsmb(directory.path()).arg("import").args(arguments));
    import(&["config.ini", "-o", "wsmb.toml"]).with(0).with_stderr("wrote wsmb.toml");
    import(&["config.ini", "-o", "wsmb.toml"]).with(1).with_stderr("cannot write wsmb.toml");
    let text = fs::read_to_string(directory.path().join("wsmb.toml")).unwrap();
    assert_eq!(import(&["config.ini"]).with(0).stdout.trim_end(), text.trim_end());
    let checked = run(wsmb(directory.path()).args(["check", "--config", "wsmb.toml"])).with(0);
    assert!(checked.stdout.contains(&format!(":{port}")), "{}", checked.stdout);
    fs::write(directory.path().join("both.ini"), "[server]\nkeep_data=false\n").unwrap();
    let safe = import(&["both.ini"]).with(0).with_stderr("write keep = false there");
    assert!(
        safe.stdout.contains("\nkeep = true\n") && safe.stdout.contains("write keep = false there"),
        "{}",
        safe.stdout
    );
    let told = import(&["both.ini", "--keep", "no"]).with(0).with_stderr("as you chose");
    assert!(told.stdout.contains("\nkeep = false\n"), "{}", told.stdout);
    import(&["missing.ini"]).with(1).with_stderr("cannot read missing.ini");
}

#[test]
fn client_commands_explain_why_they_fail() {
    let broker = Broker::start();
    // A directory without a stored login.
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // A port without a listener.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in [&["send", "sms", "x"][..], &["receive", "sms"], &["ping"]] {
        // `send` would try again.
        let at_once: &[&str] = if command[0] == "send" { &["--timeout", "0"] } else { &[] };
        run(wsmb(directory).args(command).args(at_once).args(["--url", &format!("ws://{nobody}")]))
            .with(1)
            .with_stderr(&format!(
                "cannot reach {nobody}: connection refused - is the broker running? start it with `wsmb serve`"
            ));
        run(wsmb(directory).args(command).args(["--url", &broker.url])).with(1).with_stderr(
            " requires a user and a password (401): store them with `wsmb login`, or set --user and WSMB_PASSWORD",
        );
        run(wsmb(directory).args(command).args(["--url", "ws://h?topic=x"])).with(2).with_stderr("names a topic");
        run(wsmb(directory).args(command).args(["--user", "app"])).with(2).with_stderr("set WSMB_PASSWORD");
    }
    run(wsmb(directory)
        .args(["send", "sms", "x", "--url", &broker.url, "--user", "wsmb"])
        .env("WSMB_PASSWORD", "wrong"))
    .with(1)
    .with_stderr("refused the user wsmb or the password (401)");
}

#[test]
fn the_demo_fits_80_columns_and_ends_with_commands_to_try() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(wsmb(directory.path()).args(["demo", "--fast"]).env("TMPDIR", directory.path())).with(0);
    assert!(ended.stdout.contains("14 sent = 13 confirmed + 1 expired"), "{}", ended.stdout);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the demo leaves files");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let long: Vec<&&str> = lines.iter().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:#?}");
    // The same three lines as in the general help.
    let help = run(wsmb(directory.path()).arg("--help")).with(0).stdout;
    let last = &lines[lines.len() - 3..];
    assert!(help.contains(&last.join("\n")), "{last:#?}");
    assert!(last[0].contains("wsmb serve") && last[1].contains("receive") && last[2].contains("send"), "{last:#?}");
}

#[test]
fn the_demo_pauses_and_leaves_no_files_when_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Running::start(wsmb(directory.path()).arg("demo").env("TMPDIR", directory.path()));
    assert_eq!(demo.stdout.next(), "");
    let chapter = demo.stdout.next();
    let shown = Instant::now();
    let line = demo.stdout.next();
    assert!(shown.elapsed() > Duration::from_secs(2), "too fast to read: {chapter}\n{line}");
    assert!(demo.stdout.next().contains("gateway"));
    demo.terminate();
    demo.end().with(1).with_stderr("the demo was interrupted");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let directory = tempfile::tempdir().unwrap();
    for command in
        ["serve", "send", "receive", "ping", "login", "passwd", "check", "queue", "import", "demo", "completions"]
    {
        let help = run(wsmb(directory.path()).args([command, "--help"])).with(0).stdout;
        assert!(help.contains("Example") && help.contains(&format!("wsmb {command}")), "{help}");
    }
    run(wsmb(directory.path()).arg("--version")).with(0);
    run(&mut wsmb(directory.path())).with(2);
    run(wsmb(directory.path()).arg("nonsense")).with(2);
}
