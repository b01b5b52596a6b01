//! Tests of the arguments of `wsmb receive`.

use clap::Parser;

use super::link::is_replaced;
use super::*;
use wsmb_client::Error;

#[derive(Parser)]
struct TestCommand {
    #[command(flatten)]
    receive: Receive,
}

fn parsed(arguments: &[&str]) -> Receive {
    TestCommand::try_parse_from([&["wsmb"], arguments].concat()).unwrap().receive
}

#[test]
fn the_default_prefetch_depends_on_output_channels_and_workers() {
    assert_eq!(parsed(&["sms"]).prefetch(false), wsmb_core::limits::PREFETCH);
    assert_eq!(parsed(&["sms"]).prefetch(true), 1);
    assert_eq!(parsed(&["sms", "--prefetch", "9"]).prefetch(true), 9);
    assert_eq!(parsed(&["otp", "bulk"]).prefetch(false), 1, "the broker applies the preference to each message");
    assert_eq!(parsed(&["sms", "--exec", "true"]).prefetch(false), 1);
    assert_eq!(parsed(&["sms", "--exec", "true", "--exec-workers", "8"]).prefetch(false), 8);
}

#[test]
fn receivers_share_messages_by_default_only_with_exec() {
    let group = |arguments: &[&str]| parsed(arguments).group();
    assert_eq!(group(&["sms"]), None);
    assert_eq!(group(&["sms", "--group", "a"]).as_deref(), Some("a"));
    assert_eq!(group(&["sms", "--exec", "/usr/bin/send-sms x"]).as_deref(), Some("send-sms"));
    assert_eq!(group(&["sms", "--exec", "send-sms", "--group", "b"]).as_deref(), Some("b"));
    assert_eq!(group(&["sms", "--exec", "send-sms", "--group", "none"]), None);
    let json = parsed(&["otp", "bulk", "--order", "fair", "--receiver", "home"]).subscription(Some("g")).to_json(3);
    let expected = serde_json::json!({
        "command": "receive-message", "channel": ["otp", "bulk"], "ack": "manual", "prefetch": 3,
        "receiver": "home", "group": "g", "order": "fair", "data": [],
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
    let paused = parsed(&["otp"]).subscription(None).to_json(0);
    assert!(paused.contains(r#""channel":[],"ack":"manual","prefetch":1"#), "{paused}");
}

#[test]
fn names_that_look_like_patterns_or_lists_are_refused() {
    for name in ["home/#", "#", "+", "home/+/x", "+/x", "home/*", "user/**/x", "c1,c2"] {
        assert!(pattern(name).is_some_and(|reason| reason.contains("--literal")), "{name}");
    }
    for name in ["sms", "home/door", "c#", "a+b", "50*", "issue #7", "a*b"] {
        assert_eq!(pattern(name), None, "{name}");
    }
    assert!(parsed(&["a,b"]).check_channels().is_err());
    assert!(parsed(&["a,b", "--literal"]).check_channels().is_ok());
}

#[test]
fn the_exec_timeout_is_at_most_a_day() {
    assert_eq!(exec_timeout("5m"), Ok(Duration::from_secs(300)));
    assert!(exec_timeout("0s").is_err() && exec_timeout("25h").is_err());
}

#[test]
fn only_the_reason_replaced_counts_as_a_replacement() {
    let closed = |code, reason: &str| Error::Closed { code, reason: reason.to_owned() };
    assert!(is_replaced(&closed(Some(1008), "replaced")));
    assert!(!is_replaced(&closed(Some(1008), "slow receiver")));
    assert!(!is_replaced(&closed(Some(1001), "")));
}

#[test]
fn the_unit_in_the_documentation_lets_a_command_finish() {
    let page = include_str!("../../../../../docs/gateway.md");
    let value = |key: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let command = value("ExecStart").strip_prefix("/usr/local/bin/wsmb receive ").unwrap();
    let receive = parsed(&command.split(' ').collect::<Vec<_>>());
    assert_eq!((value("KillMode"), receive.group().as_deref()), ("mixed", Some("send-sms")));
    let patience: u64 = value("TimeoutStopSec").parse().unwrap();
    assert!(Duration::from_secs(patience) > receive.exec_timeout + limits::EXEC_TERM + limits::EXEC_CONFIRM);
    assert!(!value("User").is_empty() && value("WantedBy") == "multi-user.target");
}
