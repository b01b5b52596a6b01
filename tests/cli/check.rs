//! `wsmb check` finds errors that would stop `wsmb serve`, and warns of problems that would occur later.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::harness::{Broker, Ended, run, run_with_input, wsmb};

/// Arguments that cause no error and no warning about ports and open files.
const NO_WARNINGS: [&str; 4] = ["--listen", "127.0.0.1:0", "--set", "server.max_connections=100"];

fn check(directory: &Path, arguments: &[&str]) -> Ended {
    run(wsmb(directory).arg("check").args(arguments))
}

fn check_file(directory: &Path, text: &str) -> Ended {
    fs::write(
        directory.join("wsmb.toml"),
        format!("[server]\nlisten = \"127.0.0.1:0\"\nmax_connections = 100\n{text}"),
    )
    .unwrap();
    check(directory, &["--config", "wsmb.toml"])
}

#[test]
fn a_port_in_use_is_an_error_unless_the_broker_of_this_configuration_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let listen = ["--listen", address.as_str(), "--listen", "127.0.0.1:0"];
    let taken = check(directory.path(), &listen).with(1).stdout;
    let error = format!("error: cannot listen on {address}: the port is in use by another program");
    assert!(taken.contains(&error) && taken.contains("the broker would not start: 1 error, "), "{taken}");
    drop(other);
    check(directory.path(), &listen).with(0);
    let twice = check(directory.path(), &["--listen", &address, "--listen", &address]).with(1).stdout;
    assert!(twice.contains("the address is named twice"), "{twice}");
    let absent = check(directory.path(), &["--listen", "203.0.113.254:1"]).with(1).stdout;
    assert!(absent.contains("this machine does not have that address"), "{absent}");

    let broker = Broker::start();
    let own = broker.url.strip_prefix("ws://").unwrap();
    let running = check(broker.directory.path(), &["--listen", own]).with(0).stdout;
    let fact = running.lines().find(|line| line.starts_with("running ")).unwrap();
    assert!(fact.contains("the broker of this configuration runs (") && fact.contains(own), "{running}");
    // The check of the port has not disturbed the broker.
    run(&mut broker.client(&["ping"])).with(0);
    let stranger = check(directory.path(), &["--listen", own]).with(1).stdout;
    assert!(stranger.contains("in use by another program"), "{stranger}");
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_and_no_file_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.join("file"), "").unwrap();
    let below_a_file = check(home, &[&NO_WARNINGS[..], &["--data-dir", "file/data"]].concat()).with(1).stdout;
    assert!(below_a_file.contains("error: cannot create file/data/wsmb.db: file is not a directory"), "{below_a_file}");

    fs::create_dir(home.join("closed")).unwrap();
    fs::set_permissions(home.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let check_as_user = |data_dir: &str| {
        let mut command = wsmb(home);
        command.arg("check").args(NO_WARNINGS).args(["--data-dir", data_dir]);
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } == 0 {
            // Root may write everywhere, so the check runs as `nobody` (65534).
            command.uid(65_534);
        }
        run(&mut command)
    };
    let closed = check_as_user("closed/deep/data").with(1).stdout;
    for file in ["closed/deep/data/wsmb.db", "closed/deep/data/.htpasswd"] {
        let error = format!("error: cannot write {file}: this user may not write to the directory closed (");
        assert!(closed.contains(&error), "{closed}");
    }
    fs::create_dir(home.join("open")).unwrap();
    fs::set_permissions(home.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    check_as_user("open/data").with(0);
    assert_eq!(fs::read_dir(home.join("open")).unwrap().count(), 0, "the check must not write");
}

#[test]
fn a_rule_that_matches_no_user_is_named() {
    let directory = tempfile::tempdir().unwrap();
    run_with_input(wsmb(directory.path()).args(["passwd", "users", "alice"]), "secret\n").with(0);
    let rules = |anonymous: bool| {
        format!(
            "[auth]\nhtpasswd = \"users\"\nusers = [\"bob:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\nanonymous = {anonymous}\n\
             [[permission]]\nuser = \"alcie\"\nsend = \"sms\"\n[[permission]]\nuser = \"ali*\"\nsend = \"sms\"\n\
             [[permission]]\nuser = \"bob\"\nsend = \"sms\"\n[[permission]]\nuser = \"\"\nreceive = \"sms\"\n"
        )
    };
    let named = |report: &str| -> Vec<String> {
        let lines = report.lines().filter(|line| line.contains(" matches no user, so the rule has no effect"));
        lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(named(&check_file(directory.path(), &rules(false)).with(0).stdout), ["alcie", ""]);
    assert_eq!(named(&check_file(directory.path(), &rules(true)).with(0).stdout), ["alcie"]);
}

#[test]
fn problems_that_occur_later_are_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let gateways =
        check_file(directory.path(), "[auth]\nanonymous = true\n[[channel]]\nname = \"sms\"\n").with(0).stdout;
    assert!(gateways.contains("warning: [[channel]] \"sms\": every receiver gets every message"), "{gateways}");
    assert!(gateways.contains("the broker would start; 1 warning"), "{gateways}");
    let short = "[auth]\nanonymous = true\n[[channel]]\nname = \"otp\"\nreceivers = 1\nttl = \"1m\"\nconfirm_within = \"20s\"\n";
    let short = check_file(directory.path(), short).with(0).stdout;
    assert!(short.contains("warning: [[channel]] \"otp\": the broker notices a dead receiver "), "{short}");
    let strict = run(wsmb(directory.path()).args(["check", "--config", "wsmb.toml", "--strict"])).with(1).stdout;
    assert!(strict.ends_with("the broker would start; 1 warning"), "{strict}");
}

#[test]
fn all_errors_are_listed_in_the_order_of_the_lines_also_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "[server]\nheartbeat = 1.5\nlistn = \"x\"\n[[channel]]\nname = \"a\"\nkeep = 1\n[log]\nlevel = \"loud\"\n";
    fs::write(directory.path().join("bad.toml"), text).unwrap();
    let arguments = ["--config", "bad.toml", "--set", "store.batch=0"];
    let output = check(directory.path(), &arguments).with(1).stdout;
    let lines: Vec<&str> = output.lines().collect();
    let places = [
        "bad.toml:2: server.heartbeat ",
        "bad.toml:3: there ",
        "bad.toml:6: channel.keep ",
        "bad.toml:8: log.level ",
        "--set store.batch: ",
    ];
    assert_eq!(lines.len(), places.len() + 1, "{output}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.starts_with(&format!("error: {place}")), "{line}");
    }
    assert_eq!(lines[5], "the broker would not start: 5 errors, 0 warnings");

    let objects = check(directory.path(), &[&arguments[..], &["--json"]].concat()).with(1).stdout;
    let objects: Vec<serde_json::Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 5);
    assert!(objects.iter().all(|object| object["kind"] == "error"), "{objects:?}");
    let first = &objects[0];
    assert_eq!(
        (&first["file"], &first["line"], &first["key"]),
        (&"bad.toml".into(), &2.into(), &"server.heartbeat".into())
    );
    assert!(objects[4]["file"].is_null() && objects[4]["text"].as_str().unwrap().starts_with("--set store.batch"));

    let fine = check(directory.path(), &[&NO_WARNINGS[..], &["--json", "--store", "memory:"]].concat()).with(0).stdout;
    let kinds: Vec<String> = fine
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(kinds.contains(&"fact".to_owned()) && kinds.contains(&"warning".to_owned()), "{fine}");
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
