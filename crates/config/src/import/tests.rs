//! Importing configuration files of the PHP broker.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Config, Flags};

/// A file with all keys of the PHP broker's own example.
const FULL: &str = "[server]\r\n; Server port\r\nport=9999\r\n\r\npath=/\r\nnumber_of_receiver=2\r\nkeep_data=true\r\ndelay_send=30\r\n\
    [database]\r\ndriver=mysql\r\nhost=localhost\r\nport=3306\r\nname=message_broker\r\nprefix=mq2_\r\nusername=root\r\npassword=geheim\r\nlimit=5\r\n\
    [credential]\r\nsource=file\r\ndata[]=.htpasswd\r\ndata[]=\"more users\"\r\n\
    [secret]\r\nuse_secret=true\r\nsecret_mode=write\r\nsecret_name=global\r\ndatabase->password=geheim\r\n";

fn config(imported: &Imported) -> Config {
    Config::from_parts(Some(("import", &imported.toml)), [], &Flags::default())
        .unwrap_or_else(|error| panic!("{error}\n{}", imported.toml))
}

fn imported(text: &str) -> Imported {
    import(text.as_bytes(), Path::new("wsmb.password"), None).unwrap()
}

fn is_remarked(imported: &Imported, beginning: &str) -> bool {
    imported.remarks.iter().any(|remark| remark.starts_with(beginning))
}

#[test]
fn a_full_file_becomes_the_same_configuration() {
    let imported = imported(FULL);
    let config = config(&imported);
    assert_eq!(config.server.listen, ["0.0.0.0:9999"]);
    assert_eq!((config.policies.default.receivers, config.policies.default.keep), (2, true));
    assert_eq!(config.auth.htpasswd, [PathBuf::from(".htpasswd"), PathBuf::from("more users")]);
    assert_eq!((config.store.prefix.as_str(), config.store.batch), ("mq2_", 5));
    assert_eq!(config.store.delay, Duration::from_millis(30));
    assert_eq!(config.store.url.with_secrets(), "mysql://root@localhost:3306/message_broker");
    assert_eq!(config.store.password_file, Some(PathBuf::from("wsmb.password")));
    assert_eq!(imported.password.as_deref(), Some("geheim"));
    assert!(is_remarked(&imported, "wsmb delivers the messages waiting in mysql://root@localhost:3306/message_broker"));
    assert!(is_remarked(
        &imported,
        "The PHP broker may have connected to mysql://root@localhost:3306/message_broker through"
    ));
    assert!(!format!("{imported:?}").contains("geheim"), "a password is shown");
    assert!(is_remarked(
        &imported,
        "[secret] is not imported: database->password. The values of the other sections are used."
    ));
    assert!(imported.remarks.iter().all(|remark| imported.toml.contains(&format!("# * {remark}\n"))));
    assert!(!imported.remarks.iter().any(|remark| remark.contains("not known")), "{:?}", imported.remarks);
}

#[test]
fn an_ambiguous_keep_data_keeps_messages_and_is_undecided() {
    let table = [
        ("keep_data=true", true, None),
        ("keep_data=1", true, None),
        ("keep_data=yes", true, None),
        ("keep_data=0", false, None),
        ("keep_data=\"0\"", false, None),
        ("keep_data=", false, None),
        ("keep_data=\"\"", false, None),
        ("keep_data=false", true, Some("false")),
        ("keep_data=False ; off", true, Some("False")),
        ("keep_data=\"off\"", true, Some("off")),
        ("keep_data=no", true, Some("no")),
        ("", false, None),
    ];
    for (line, keep, undecided) in table {
        let imported = imported(&format!("[server]\nport=1\n{line}\n"));
        assert_eq!(config(&imported).policies.default.keep, keep, "{line}");
        assert_eq!(imported.undecided.as_deref(), undecided, "{line}");
        let is_remarked_with = |text: &str| imported.remarks.iter().any(|remark| remark.contains(text));
        assert_eq!(is_remarked_with("as ON: it kept messages"), undecided.is_some(), "{line}");
        assert_eq!(
            is_remarked_with("keep = true") && is_remarked_with("keep = false"),
            undecided.is_some(),
            "both settings are named: {line}"
        );
    }
}

#[test]
fn the_callers_decision_applies_to_an_ambiguous_keep_data() {
    let text = "[server]\nkeep_data=false\n[database]\nhost=db\nname=d\nusername=u\n";
    for (decided, keep) in [(None, true), (Some(true), true), (Some(false), false)] {
        let imported = import(text.as_bytes(), Path::new("p"), decided).unwrap();
        let config = config(&imported);
        assert_eq!((config.policies.default.keep, config.store.url.server().is_some()), (keep, keep), "{decided:?}");
        assert_eq!(imported.undecided.is_some(), decided.is_none());
    }
    let clear = import(b"[server]\nkeep_data=0\n", Path::new("p"), Some(true)).unwrap();
    assert!(!config(&clear).policies.default.keep, "the decision applied to an unambiguous value");
}

#[test]
fn channels_that_look_like_callbacks_get_a_time_to_live() {
    let kept = config(&imported("[server]\nkeep_data=1\nnumber_of_receiver=1\n"));
    let policy = |name: &str| kept.policies.of(&wsmb_core::message::ChannelName::parse(name).unwrap()).clone();
    for name in ["otp-callback-7", "Callback", "sms reply", "response/1"] {
        let policy = policy(name);
        assert_eq!((policy.ttl, policy.keep, policy.receivers), (Duration::from_secs(3_600), true, 1), "{name}");
    }
    assert_eq!(policy("sms").ttl, Duration::ZERO);
    assert!(config(&imported("[server]\nkeep_data=0\n")).policies.named.is_empty());
}

#[test]
fn every_value_that_is_not_imported_gives_a_remark() {
    let table = [
        ("[server]\ntimezone=Asia/Jakarta", "[server] timezone is not known and is omitted."),
        ("[other]\nx=1", "[other] x is not known and is omitted."),
        ("loose=1", "loose is not known and is omitted."),
        ("[server]\npath=/ws", "[server] path = \"/ws\" is not needed"),
        ("[server]\nport=http", "[server] port = \"http\" is not a whole number"),
        ("[server]\nport=70000", "[server] port = 70000 is not a valid port"),
        ("", "[server] port is not set"),
        ("[server]\nhost=a b", "[server] host = \"a b\" is not a valid address"),
        ("[server]\nnumber_of_receiver=-2", "[server] number_of_receiver = -2: the PHP broker read this as no limit"),
        ("[server]\nnumber_of_receiver=1.5", "[server] number_of_receiver = \"1.5\" is not a whole number"),
        ("[server]\ndelay_send=99999", "[server] delay_send = 99999 is not from 0 to 60000 ms"),
        ("[database]\nlimit=0", "[database] limit = 0 is not from 1 to 10000"),
        ("[database]\nprefix=mq-", "[database] prefix = \"mq-\" may contain only letters"),
        (
            "[server]\nkeep_data=1\n[database]\ndriver=oracle",
            "[database] does not name a database that wsmb can use: its address has the driver \"oracle\", which is neither",
        ),
        (
            "[server]\nkeep_data=1\n[database]\nhost=db\nusername=u",
            "[database] does not name a database that wsmb can use: its address names no database",
        ),
        ("[secret]\nuse_secret=1\nsecret_mode=read\nsecret_name=VAR", "[secret] made the PHP broker read values"),
        ("[credential]\nsource=file", "[credential] names no password file"),
        ("[server]\nport=1", "[credential] has no users"),
        ("[server", "Line 1 has an unterminated section name"),
    ];
    for (text, remark) in table {
        let imported = imported(text);
        assert!(is_remarked(&imported, remark), "{text}\n{:?}", imported.remarks);
        config(&imported);
    }
}

#[test]
fn users_in_the_file_become_inline_users() {
    let imported = imported("[credential]\nsource=config\ndata[]=alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    let auth = config(&imported).auth;
    assert_eq!(auth.users, ["alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="]);
    assert!(auth.htpasswd.is_empty());
    assert!(is_remarked(&imported, "This file contains password hashes"));
}

#[test]
fn the_long_names_of_the_database_keys_are_accepted() {
    let keep = "[server]\nkeep_data=true\n";
    let imported = imported(&format!(
        "{keep}[database]\ndatabase_type=pgsql\ndatabase_host=db\ndatabase_username=u@h%\ndatabase_name=a/d\n"
    ));
    let store = config(&imported).store;
    assert_eq!(store.url.with_secrets(), "postgres://u%40h%25@db/a%2Fd");
    assert_eq!((store.password_file, imported.password), (None, None));
}

#[test]
fn a_database_without_keep_data_is_not_used() {
    let imported = imported("[server]\nkeep_data=0\n[database]\nhost=db\nname=d\nusername=u\npassword=geheim\n");
    assert_eq!(config(&imported).store.url, Config::default().store.url);
    assert!(imported.toml.contains("\n# url = \"mysql://u@db/d\"\n"), "{}", imported.toml);
    assert_eq!(imported.password, None);
    assert!(is_remarked(&imported, "The database is not used, because keep_data is off"));
}

#[test]
fn size_is_bounded() {
    assert_eq!(import(&vec![b'x'; limits::CONFIGURATION_BYTES + 1], Path::new("p"), None), Err(TooLarge));
}

proptest! {
    #[test]
    fn any_file_becomes_a_valid_configuration(
        lines in prop::collection::vec(
            "(\\[(server|database|credential|x)\\]|(port|host|keep_data|prefix|limit|name|username|data\\[\\]|source|delay_send)=\\PC{0,12}|\\PC{0,12})",
            0..12,
        )
    ) {
        config(&imported(&lines.join("\n")));
    }

    #[test]
    fn any_bytes_become_a_valid_configuration(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        config(&import(&bytes, Path::new("p"), None).unwrap());
    }
}
