//! `wsmb serve`: the commands that it prints, and the first user.

use std::fs;

use crate::harness::{Broker, Running, run, until, wsmb};

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
