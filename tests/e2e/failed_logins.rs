//! The log line of a failed login, and the fail2ban filter for it in docs/deploying.md.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::broker::{Broker, Setup, USER};
use crate::raw::{Head, Raw, basic};

/// Tries to log in through a trusted proxy that names `client`.
#[track_caller]
fn log_in(broker: &Broker, client: &str, user: &str, password: &str) {
    let head = Head::new("/").with("Authorization", &basic(user, password)).with("X-Forwarded-For", client);
    let mut raw = Raw::connect(broker);
    raw.send(&head.bytes());
    raw.rest();
}

/// The `failregex` of the documentation.
fn failregex() -> String {
    let page = include_str!("../../docs/deploying.md");
    let line = page.lines().find_map(|line| line.strip_prefix("failregex = ")).expect("failregex in docs/deploying.md");
    line.trim().to_owned()
}

/// The host that the filter finds in each line; `None` if the line does not match. Like fail2ban, the script removes the time from the line, replaces
/// `<HOST>` with a group, and searches with Python's `re`.
#[track_caller]
fn banned(lines: &[String]) -> Vec<Option<String>> {
    let script = r#"
import re, sys
lines = sys.stdin.read().split('\n')
host = r'(?:\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?)'
pattern = re.compile(lines[0].replace('<HOST>', host))
for line in lines[1:]:
    line = re.sub(r'\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})', '', line, count=1)
    found = pattern.search(line)
    print((found.group('ip4') or found.group('ip6')) if found else '-')
"#;
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, which fail2ban is written in");
    let input = [&[failregex()], lines].concat().join("\n");
    python.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let found = String::from_utf8(output.stdout).unwrap();
    found.lines().map(|host| (host != "-").then(|| host.to_owned())).collect()
}

#[test]
fn each_failure_is_a_line_that_the_documented_filter_matches() {
    let broker = Setup::default().server("trusted_proxies = \"127.0.0.1\"").start();
    log_in(&broker, "192.0.2.1", USER, "wrong");
    log_in(&broker, "2001:db8::7", "nobody", "wrong");
    log_in(
        &broker,
        "192.0.2.3",
        "x\" reason=\"wrong password\" withheld=0\nWARN login failed: client=6.6.6.6 user=",
        "wrong",
    );
    for expected in [
        "WARN login failed: client=192.0.2.1 user=\"app\" reason=\"wrong password\" withheld=0\n",
        "WARN login failed: client=2001:db8::7 user=\"nobody\" reason=\"unknown user\" withheld=0\n",
        "WARN login failed: client=192.0.2.3 user=\"x\\\" reason=\\\"wrong password\\\" withheld=0\\nWARN login failed\" reason=\"unknown user\"",
    ] {
        broker.wait_for_log(expected);
    }
    // A request without credentials is no guess, so the filter must not match its line.
    let mut raw = Raw::connect(&broker);
    raw.send(&Head::new("/").without("Authorization").with("X-Forwarded-For", "192.0.2.4").bytes());
    raw.rest();
    broker.wait_for_log("WARN login failed: client=192.0.2.4 user=\"\" reason=\"no credentials\"");
    Raw::upgrade(&broker, &Head::new("/").with("X-Forwarded-For", "192.0.2.5"));

    let text = broker.log().text();
    let lines: Vec<String> = text.lines().filter(|line| line.contains("login failed")).map(str::to_owned).collect();
    let hosts = [Some("192.0.2.1"), Some("2001:db8::7"), Some("192.0.2.3"), None];
    assert_eq!(banned(&lines), hosts.map(|host| host.map(str::to_owned)), "{lines:#?}");
    // A line with the prefix of systemd's journal, and a line of another kind that contains a client's text.
    let journal: Vec<String> = lines.iter().map(|line| format!("pi wsmb[812]: {line}")).collect();
    assert_eq!(banned(&journal[..1]), [Some("192.0.2.1".to_owned())]);
    let forged = "2026-11-28T10:00:00.000000Z  WARN dropped a message channel=WARN login failed: client=6.6.6.6 user=\"x\" reason=\"wrong password\" withheld=0";
    assert_eq!(banned(&[forged.to_owned()]), [None]);
}

#[test]
fn lines_of_failed_logins_are_bounded_and_contain_no_password() {
    let broker = Broker::start();
    for number in 0..40 {
        let mut raw = Raw::connect(&broker);
        raw.send(&Head::new("/").with("Authorization", &basic(&format!("user-{number}"), "a-wrong-guess")).bytes());
        raw.rest();
    }
    let text = broker.log().text();
    let lines = text.lines().filter(|line| line.contains("login failed")).count();
    assert!((1..=20).contains(&lines), "{lines} lines:\n{text}");
    assert!(!text.contains("a-wrong-guess"), "{text}");
}
