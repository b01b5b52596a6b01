//! Tests of the warnings about a valid configuration.

use super::*;
use crate::Flags;

fn warnings_of(text: &str) -> Vec<String> {
    let config = Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default()).unwrap();
    warnings(&config, None)
}

#[test]
fn each_warning_has_its_sentence() {
    let covered = "[[channel]] \"sms.fast\" is never used: \"sms.*\" comes first and matches all of its names";
    let table = [
        ("[server]\nlisten = \"0.0.0.0:8888\"", "server.listen: 0.0.0.0:8888 can be reached from other machines"),
        ("[server]\nlisten = \"[::]:8888\"", "server.listen: [::]:8888 can be reached from other machines"),
        ("[server]\nlisten = \"broker.example:8888\"", "server.listen: broker.example:8888 can be reached"),
        ("[[listener]]\naddress = \"0.0.0.0:1\"", "[[listener]]: 0.0.0.0:1 can be reached from other machines"),
        (
            "[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true",
            "[[listener]] 127.0.0.1:1: no proxy is trusted, so the addresses in the PROXY protocol headers are ignored",
        ),
        (
            "[server]\ntrusted_proxies = [\"::1\", \"0.0.0.0/0\"]",
            "server.trusted_proxies: 0.0.0.0/0 contains every address",
        ),
        ("[server]\norigins = [\"https://a\", \"null\"]", "server.origins: \"null\" is the origin of every local file"),
        ("[[channel]]\nname = \"sms.*\"\nreceivers = 1\n[[channel]]\nname = \"sms.fast\"\nreceivers = 1", covered),
        (
            "[channel_defaults]\ndead_letter_expired = true",
            "[channel_defaults]: dead_letter_expired is set, but there is no dead-letter channel",
        ),
        (
            "[[channel]]\nname = \"a\"\ndead_letter = \"d\"\nkeep = false\ndead_letter_expired = true",
            "[[channel]] \"a\": dead_letter_expired is set, but the channel keeps no messages",
        ),
        ("[server]\nmax_message = \"2 MiB\"\nmax_queue = \"1 MiB\"", "server.max_queue is below server.max_message"),
        (
            "[auth]\nanonymous = true\n[[permission]]\nuser = \"a*\"",
            "auth.anonymous: no [[permission]] applies to anonymous connections",
        ),
        (
            "[[permission]]\nuser = \"*\"\n[[permission]]\nuser = \"alice\"",
            "[[permission]] for \"alice\" is never used",
        ),
        (
            "[auth.groups]\nops = [\"a1\", \"a2\"]\n[[permission]]\nuser = \"a*\"\n[[permission]]\ngroup = \"ops\"",
            "[[permission]] for the group \"ops\" is never used: the entry for \"a*\" comes first",
        ),
        (
            "[[auth.key]]\nid = \"app\"\nalgorithm = \"HS256\"\nkey_file = \"x\"",
            "[[auth.key]]: there is no [[permission]], so a token without the claims wsmb.send and wsmb.receive may use every channel",
        ),
    ];
    for (text, warning) in table {
        let warnings = warnings_of(text);
        assert!(warnings.len() == 1 && warnings[0].starts_with(warning), "{text}\n{warnings:?}");
    }
    let long = format!("[[channel]]\nname = \"{}*\"", "x".repeat(101));
    assert!(warnings_of(&long)[0].ends_with("matches no valid channel name"));
    let remote = "[store]\nurl = \"mysql://u@db.example/d\"";
    assert_eq!(
        warnings_of(remote),
        [
            "store.url: the connection to db.example may be unencrypted, and it carries the database's password and the messages; \
          add ?ssl-mode=REQUIRED to the address"
        ]
    );
    let fine = "[channel_defaults]\ndead_letter = \"d\"\ndead_letter_expired = true\n[[channel]]\nname = \"sms\"\nreceivers = 1";
    assert!(warnings_of(fine).is_empty(), "{:?}", warnings_of(fine));
    let open = warnings_of("[server]\nlisten = \"192.168.1.5:8888\"\n[auth]\nanonymous = true");
    assert_eq!(open.len(), 2, "{open:?}");
}

#[test]
fn a_missing_ttl_and_a_ttl_without_confirm_within_give_warnings() {
    let channel = |name: &str, lines: &str| warnings_of(&format!("[[channel]]\nname = \"{name}\"\n{lines}"));
    for name in ["otp", "app/Callback-*", "*reply*", "response"] {
        let warnings = channel(name, "receivers = 1");
        assert!(warnings.len() == 1 && warnings[0].contains("never expire"), "{name}: {warnings:?}");
        assert_eq!(channel(name, "receivers = 1\nttl = \"1h\""), [""; 0]);
        assert_eq!(channel(name, "receivers = 1\nkeep = false"), [""; 0]);
    }
    let warnings = channel("otp", "receivers = 1\nttl = \"60s\"\nack_timeout = \"20s\"");
    assert!(warnings.len() == 1 && warnings[0].ends_with("set confirm_within, for example to \"20s\""), "{warnings:?}");
    for lines in [
        "receivers = 1\nttl = \"60s\"\nconfirm_within = \"20s\"\nack_timeout = \"20s\"",
        "receivers = 2\nttl = \"60s\"\nack_timeout = \"20s\"",
        "receivers = 1\nttl = \"6m\"",
        "receivers = 1\nttl = \"60s\"\nkeep = false",
    ] {
        assert_eq!(channel("otp", lines), [""; 0], "{lines}");
    }
}

#[test]
fn a_ttl_below_the_time_to_notice_a_dead_receiver_gives_a_warning() {
    let channel = |lines: &str| warnings_of(&format!("[[channel]]\nname = \"a\"\n{lines}"));
    let manual = channel("receivers = 2\nttl = \"75s\"");
    assert!(manual.len() == 1 && manual[0].contains("only after 75s"), "{manual:?}");
    assert_eq!(channel("receivers = 2\nttl = \"76s\""), [""; 0]);
    assert_eq!(channel("ttl = \"5s\""), [""; 0], "every receiver gets every message anyway");
    let slow = channel("receivers = 2\nttl = \"60s\"\nack_timeout = \"60s\"\nconfirm_within = \"1m\"");
    assert!(slow.len() == 2 && slow[0].contains("below the ttl") && slow[1].contains("only after 60s"), "{slow:?}");
}

#[test]
fn jobs_that_every_receiver_gets_give_a_warning() {
    for name in ["sms", "app/SMS-*", "otp", "mails"] {
        let lines = format!("[[channel]]\nname = \"{name}\"\nttl = \"1h\"");
        let warnings = warnings_of(&lines);
        assert!(warnings.len() == 1 && warnings[0].contains("two gateways"), "{name}: {warnings:?}");
        assert_eq!(warnings_of(&format!("{lines}\nreceivers = 1")), [""; 0]);
    }
    assert_eq!(warnings_of("[[channel]]\nname = \"weather\""), [""; 0]);
}

#[test]
fn a_careful_configuration_has_no_warnings() {
    let text = "[server]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\", \"localhost:1\"]\n[[channel]]\nname = \"a\"\n[[channel]]\nname = \"*\"";
    assert_eq!(warnings_of(text), [""; 0]);
    let behind_proxies =
        "[server]\ntrusted_proxies = \"127.0.0.1\"\n[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true";
    assert_eq!(warnings_of(behind_proxies), [""; 0]);
    for url in
        ["mysql://u@localhost/d", "postgres://u@db.example/d?sslmode=verify-full", "mysql://u@db/d?ssl-mode=required"]
    {
        assert_eq!(warnings_of(&format!("[store]\nurl = \"{url}\"")), [""; 0], "{url}");
    }
}

#[test]
fn a_configured_max_connections_above_the_file_limit_gives_a_warning() {
    let mut config = Config::default();
    assert!(!warnings(&config, None).iter().any(|warning| warning.starts_with("server.max_connections")));
    config.server.max_connections = usize::MAX;
    let is_reported = warnings(&config, None).iter().any(|warning| warning.starts_with("server.max_connections is "));
    assert_eq!(is_reported, open_files().is_some_and(|files| files < u64::MAX));
}

#[test]
fn threads_above_the_number_of_processors_give_a_warning() {
    let mut config = Config::default();
    assert!(!warnings(&config, None).iter().any(|warning| warning.starts_with("server.threads")));
    config.server.threads = usize::MAX;
    assert!(warnings(&config, None).iter().any(|warning| warning.starts_with("server.threads is ")));
}

#[cfg(unix)]
#[test]
fn files_with_secrets_that_others_can_read_give_warnings() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("users");
    std::fs::write(&path, "").unwrap();
    let mut config = Config::default();
    config.auth.htpasswd = vec![path.clone()];
    for (mode, expected) in [(0o644, 1), (0o640, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let count =
            warnings(&config, None).iter().filter(|warning| warning.contains("can read the password hashes")).count();
        assert_eq!(count, expected, "{mode:o}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let of_database = |text: &str| {
        let text = format!("[auth]\nhtpasswd = []\n[store]\n{text}");
        let config = Config::from_parts(Some(("wsmb.toml", &text)), [], &Flags::default()).unwrap();
        warnings(&config, Some(&path)).iter().filter(|warning| warning.contains("read the database's password")).count()
    };
    assert_eq!(of_database("url = \"mysql://u:p@localhost/d\""), 1);
    assert_eq!(of_database("url = \"mysql://u@localhost/d\"\npassword = \"p\""), 1);
    assert_eq!(of_database(&format!("url = \"mysql://u@localhost/d\"\npassword_file = {path:?}")), 1);
    assert_eq!(of_database("url = \"mysql://u@localhost/d\""), 0);
    config.auth.htpasswd = vec![];
    config.auth.users = vec!["alice:x".to_owned()];
    assert!(warnings(&config, Some(&path)).iter().any(|warning| warning.starts_with(&path.display().to_string())));
}
