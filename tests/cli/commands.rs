//! `wsmb ping`, `queue`, `passwd` and `import`; the errors and the help of all subcommands.

use std::fs;

use crate::harness::{Broker, run, run_with_input, wsmb};

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
