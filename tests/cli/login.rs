//! Stored logins, errors in JSON, hints and completions, which all commands share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Broker, Running, run, run_with_input, until, wsmb};

/// A client command without settings in the environment.
fn bare(broker: &Broker, arguments: &[&str]) -> std::process::Command {
    let mut command = wsmb(broker.directory.path());
    command.args(arguments);
    command
}

fn logins(directory: &Path) -> PathBuf {
    directory.join(".config/wsmb/contexts.toml")
}

#[test]
fn the_user_of_the_first_start_is_an_administrator() {
    let mut broker = Broker::start_with(&["--set", "log.level=debug"]);
    run(&mut broker.client(&["ping"])).with(0);
    broker.running.stderr.wait_for("is_admin=true");
}

#[test]
fn the_first_messages_need_no_password() {
    let mut broker = Broker::start();
    let greeting = broker.running.stdout.seen.join("\n");
    let password = broker.user.split_once(':').unwrap().1.to_owned();
    assert_eq!(greeting.matches(&password).count(), 1, "the password must be printed once: {greeting}");
    let file = logins(broker.directory.path());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let url = broker.url.clone();
    let mut receive = Running::start(&mut bare(&broker, &["receive", "sms", "--count", "1", "--url", &url]));
    run(&mut bare(&broker, &["send", "sms", "{}", "--url", &url])).with(0);
    assert_eq!(receive.end().with(0).stdout, "{}");
    let same = url.replace("127.0.0.1", "localhost");
    run(&mut bare(&broker, &["ping", "--url", &same])).with(0);

    // A broker that starts at another address replaces its stored login.
    broker.running.terminate();
    broker.running.end().with(0);
    let again = Running::start(bare(&broker, &["serve", "--listen", "127.0.0.1:0"]).env("LC_ALL", "C"));
    broker.running = again;
    let line = broker.running.stdout.wait_for("wsmb is listening on ");
    let moved = line.split_whitespace().last().unwrap().to_owned();
    broker.running.stdout.wait_for("wsmb send sms");
    run(&mut bare(&broker, &["ping", "--url", &moved])).with(0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&moved) && (moved == url || !text.contains(&url)), "{text}");

    // `wsmb passwd` of the same user changes the stored login too.
    let passwd = ["passwd", "wsmb-data/.htpasswd", "wsmb"];
    run_with_input(&mut bare(&broker, &passwd), "second\n")
        .with(0)
        .with_stderr("changed the password in the stored login");
    until("the second password is in force", || run(&mut bare(&broker, &["ping", "--url", &moved])).code == Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("\"second\""));
    // `wsmb passwd` of another user does not change the stored login. The refusal says what to do.
    run_with_input(bare(&broker, &passwd).env("XDG_CONFIG_HOME", "/nowhere"), "new\n").with(0);
    until("the new password is in force", || run(&mut bare(&broker, &["ping", "--url", &moved])).code == Some(1));
    run(&mut bare(&broker, &["ping", "--url", &moved]))
        .with(1)
        .with_stderr("refused the user wsmb or the password (401): store the right ones with `wsmb login`");
    run_with_input(&mut bare(&broker, &["login", &moved, "--user", "wsmb"]), "new\n").with(0);
    run(&mut bare(&broker, &["ping"])).with(0);
}

#[test]
fn the_three_commands_of_the_readme_send_a_message_without_a_password() {
    let readme = include_str!("../../README.md");
    let section = readme.split("## The first exchange").nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("its commands");
    let commands: [&str; 3] = block.lines().collect::<Vec<_>>().try_into().expect("three commands");
    assert!(!block.to_lowercase().contains("password") && !block.contains("--user"), "{block}");

    let directory = tempfile::tempdir().unwrap();
    // The test uses the built program and a free port.
    let shell = |line: &str, more: &str| {
        let line = line.replace("cargo run --release --", &format!("exec {}", env!("CARGO_BIN_EXE_wsmb")));
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("{line} {more}")).current_dir(directory.path());
        command.env("XDG_CONFIG_HOME", directory.path().join(".config"));
        command
    };
    let mut serve = Running::start(&mut shell(commands[0], "--listen 127.0.0.1:0"));
    let line = serve.stdout.wait_for("wsmb is listening on ");
    let url = format!("--url {}", line.split_whitespace().last().unwrap());
    let mut receive = Running::start(&mut shell(commands[1], &url));
    let sent = run(&mut shell(commands[2], &url)).with(0).stdout;
    assert!(sent.starts_with("accepted: "), "{sent}");
    assert_eq!(receive.stdout.next(), r#"{"receiver":"081234567890","message":"Your code is 402913"}"#);
}

#[test]
fn a_login_that_cannot_be_stored_is_printed_with_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".config"), "a file").unwrap();
    let mut serve = Running::start(wsmb(directory.path()).args(["serve", "--listen", "127.0.0.1:0"]));
    let receive = serve.stdout.wait_for("receive sms");
    assert!(receive.trim().starts_with("WSMB_USER=wsmb WSMB_PASSWORD="), "{receive}");
    serve.stderr.wait_for("cannot store the login in ");
    let mut receive =
        Running::start(std::process::Command::new("sh").arg("-c").arg(format!("exec env {}", receive.trim())));
    let send = serve.stdout.wait_for("send sms");
    run(std::process::Command::new("sh").arg("-c").arg(send.trim())).with(0);
    assert!(receive.stdout.next().contains("081234567890"));
}

#[test]
fn a_login_is_tried_stored_used_listed_and_removed() {
    let broker = Broker::start();
    fs::remove_file(logins(broker.directory.path())).unwrap();
    let (user, password) = broker.user.split_once(':').unwrap();
    let url = broker.url.clone();
    let login =
        |arguments: &[&str], input: &str| run_with_input(&mut bare(&broker, &[&["login"], arguments].concat()), input);
    login(&[&url, "--user", user], "wrong\n").with(1).with_stderr("nothing was stored");
    login(&[&url], "x\n").with(2).with_stderr("add --user NAME");
    login(&[&format!("ws://{user}:{password}@h")], "").with(2).with_stderr("omit the password in the address");
    login(&[&url, "--user", "a:b"], "").with(2).with_stderr("colon");
    login(&[&url, "--user", user], "\n").with(2).with_stderr("the password is empty");
    login(&[], "").with(2);
    assert!(!logins(broker.directory.path()).exists());
    assert_eq!(login(&["--list"], "").with(0).stderr, "no login is stored; `wsmb login URL --user NAME` stores one");

    let stored = login(&[&url, "--user", user, "--context", "home"], &format!("{password}\n")).with(0).stdout;
    assert!(stored.ends_with("; use this login with --context home") && !stored.contains(password), "{stored}");
    run(&mut bare(&broker, &["send", "sms", "x", "--context", "home"])).with(0);
    run(bare(&broker, &["send", "sms", "x"]).env("WSMB_CONTEXT", "home")).with(0);
    run(&mut bare(&broker, &["send", "sms", "x", "--url", &url])).with(0);
    run(bare(&broker, &["send", "sms", "x"]).env("WSMB_URL", &url)).with(0);
    run(&mut bare(&broker, &["ping", "--context", "hme"])).with(2).with_stderr("no login named hme");
    run(&mut bare(&broker, &["ping", "--context", "home", "--url", &url])).with(2);
    run(bare(&broker, &["ping"]).env("WSMB_CONTEXT", "home").env("WSMB_URL", &url)).with(2).with_stderr("unset one");
    // A stored password is not sent to another address.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other_url = format!("ws://{}", other.local_addr().unwrap());
    let mut ping = Running::start(&mut bare(&broker, &["ping", "--url", &other_url]));
    let (mut peer, _) = other.accept().unwrap();
    let mut head = [0; 4096];
    let read = std::io::Read::read(&mut peer, &mut head).unwrap();
    assert!(!String::from_utf8_lossy(&head[..read]).to_lowercase().contains("authorization"));
    drop(peer);
    ping.end().with(1);

    login(&[&url, "--user", user], &format!("{password}\n")).with(0);
    run(&mut bare(&broker, &["ping"])).with(0);
    let nobody = other_url.replace("127.0.0.1", "localhost");
    drop(other);
    login(&[&nobody, "--user", "app", "--context", "away"], "x\n").with(0).with_stderr("cannot verify the login");
    let list = login(&["--list"], "").with(0).stdout;
    let names: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["away", "default", "home"]);
    let objects = login(&["--list", "--json"], "").with(0).stdout;
    let first: serde_json::Value = serde_json::from_str(objects.lines().next().unwrap()).unwrap();
    assert_eq!((&first["context"], &first["user"]), (&"away".into(), &"app".into()));
    assert!(!list.contains(password) && !objects.contains(password));
    login(&["--remove", "home"], "").with(0);
    login(&["--remove", "home"], "").with(2).with_stderr("no login named home");
    fs::set_permissions(logins(broker.directory.path()), fs::Permissions::from_mode(0o644)).unwrap();
    run(&mut bare(&broker, &["ping"])).with(0).with_stderr("chmod 600");
    fs::write(logins(broker.directory.path()), "[x\n").unwrap();
    run(&mut bare(&broker, &["ping"])).with(1).with_stderr("contexts.toml:1: ");
    run(&mut broker.client(&["ping", "--url", &url])).with(0);
}

#[test]
fn with_json_an_error_is_an_object() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{nobody}");
    let table: &[(&[&str], i64, &str)] = &[
        (&["send", "sms", "x", "--json", "--timeout", "0", "--url", &url], 1, "cannot reach "),
        (&["send", "sms", "{x", "--json"], 2, "the message looks like JSON"),
        (&["send", "sms", "--json"], 2, "the following required arguments were not provided"),
        (&["ping", "--json", "--url", &url], 1, "cannot reach "),
        (&["ping", "--json", "--url", "http://x"], 2, "the address must begin with ws://"),
        (&["ping", "--json", "--context", "x"], 2, "there is no login named x"),
        (&["receive", "sms", "--json", "--url", &url], 1, "cannot reach "),
        (&["queue", "list", "--json", "--store", "sqlite:none.db"], 1, "there is no store at none.db"),
        (&["subscribe", "sms", "--json"], 2, "there is no command subscribe"),
    ];
    for (arguments, code, reason) in table {
        let ended = run(wsmb(directory.path()).args(*arguments)).with(i32::try_from(*code).unwrap());
        let objects: Vec<serde_json::Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [object] = &objects[..] else { panic!("{arguments:?}: {}", ended.stdout) };
        let error = object["error"].as_str().unwrap();
        assert!(error.contains(reason) && object["exit_code"] == *code, "{arguments:?}: {object}");
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
    let plain = run(wsmb(directory.path()).args(["ping", "--url", &url])).with(1);
    assert_eq!(plain.stdout, "");
}

#[test]
fn durations_have_the_same_format_everywhere() {
    let broker = Broker::start_with(&["--set", "channel_defaults.ttl=1h", "--set", "server.drain=5"]);
    for ttl in ["5", "5s", "5m30s", "1h 30m", "0"] {
        run(&mut broker.client(&["send", "sms", "x", "--ttl", ttl, "--timeout", "1m30s"])).with(0);
        let setting = format!("channel_defaults.ttl={ttl}");
        run(&mut bare(&broker, &["check", "--set", &setting, "--listen", "127.0.0.1:0"])).with(0);
        let file = broker.directory.path().join("times.toml");
        fs::write(
            &file,
            format!("[channel_defaults]\nttl = \"{ttl}\"\n[server]\nheartbeat = 20\nlisten = \"127.0.0.1:0\"\n"),
        )
        .unwrap();
        run(&mut bare(&broker, &["check", "--config", "times.toml"])).with(0);
    }
    run(&mut broker.client(&["send", "sms", "x", "--ttl", "30s5m"])).with(2).with_stderr("5m30s");
}

#[test]
fn an_error_in_the_configuration_suggests_the_correction() {
    let directory = tempfile::tempdir().unwrap();
    let serve = |text: &str| {
        fs::write(directory.path().join("wsmb.toml"), text).unwrap();
        run(wsmb(directory.path()).args(["serve", "--config", "wsmb.toml"])).with(1).stderr
    };
    let right = "write \"127.0.0.1:8888\" for this machine only, or \"0.0.0.0:8888\" for every address";
    assert!(serve("[server]\nlisten = 8888\n").contains(right));
    let outside = serve("listen = 8888\n");
    assert!(
        outside.contains("listen is not in a section; write it below [server]") && outside.contains(right),
        "{outside}"
    );
    assert!(!serve("[server]\nbanana = 1\n").contains("the nearest is"));
    assert!(serve("[server]\nlistn = \"x\"\n").contains("the nearest is server.listen"));
    let flag = run(wsmb(directory.path()).args(["serve", "--listen", "8888"])).with(1).stderr;
    assert!(flag.contains(right), "{flag}");
}

#[test]
fn command_names_of_other_programs_get_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    for (typed, right) in [
        ("publish", "wsmb send CHANNEL MESSAGE"),
        ("pub", "wsmb send CHANNEL MESSAGE"),
        ("subscribe", "wsmb receive CHANNEL"),
        ("sub", "wsmb receive CHANNEL"),
    ] {
        let hint = format!("there is no command {typed}; type: {right}");
        run(wsmb(directory.path()).args([typed, "sms", "hello"])).with(2).with_stderr(&hint);
    }
}

#[test]
fn shells_can_complete_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(wsmb(directory.path()).args(["completions", shell])).with(0).stdout;
        assert!(script.contains("wsmb") && script.contains("password-file") && script.contains("receive"), "{shell}");
        fs::write(directory.path().join(shell), script).unwrap();
    }
    let completed =
        "source ./bash && COMP_WORDS=(wsmb rec) COMP_CWORD=1 && _wsmb wsmb rec wsmb && echo \"${COMPREPLY[@]}\"";
    let found = run(std::process::Command::new("bash").arg("-c").arg(completed).current_dir(directory.path())).with(0);
    assert_eq!(found.stdout, "receive");
    run(wsmb(directory.path()).args(["completions", "cmd"])).with(2);
}
