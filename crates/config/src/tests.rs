//! Files, variables and flags: precedence, and what they configure.

mod mistakes;

use std::ffi::OsString;
use std::time::Duration;

use proptest::prelude::*;

use std::path::PathBuf;

use super::*;
use wsmb_core::message::ChannelName;
use wsmb_core::policy::Dispatch;

const EXAMPLE: &str = include_str!("../../../wsmb.example.toml");
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default())
}

fn errors(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

#[test]
fn the_example_file_equals_the_defaults_and_names_every_key() {
    assert_eq!(load(EXAMPLE).unwrap(), Config::default());
    assert_eq!(load("").unwrap(), Config::default());
    let mut section = String::new();
    let mut written = vec![];
    for line in EXAMPLE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            name.trim_matches(['[', ']']).clone_into(&mut section);
            written.push(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ") {
            written.push(format!("{section}.{key}"));
        }
    }
    for Key { path, scalar } in KEYS {
        // Keys of `[[channel]]` are shown once, in the defaults.
        let default = path.replace("channel.", "channel_defaults.");
        assert!(
            written.iter().any(|key| key == path || (!scalar && *key == default)),
            "{path} is not in the example file"
        );
    }
}

#[test]
fn the_commented_examples_are_valid_too() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| {
            let code = line.strip_prefix("# ").filter(|rest| {
                rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
            });
            format!("{}\n", code.unwrap_or(line))
        })
        .collect();
    let config = load(&uncommented).unwrap();
    assert_eq!(
        config.server.listeners,
        [Listener { address: "127.0.0.1:8889".to_owned(), tls: true, proxy_protocol: true }]
    );
    assert_eq!(config.policies.named.len(), 1);
    assert_eq!(config.policies.of(&channel("sms")).ttl, Duration::from_secs(300));
    assert_eq!(config.auth.permissions[0].receive, ["sms", "sms.*"]);
    assert_eq!(config.store.columns.len(), 2);
    assert_eq!(config.auth.groups["gateways"], ["gateway-*", "modem"]);
    assert_eq!(config.auth.keys.len(), 2);
    assert_eq!(config.auth.permissions[1].who.users(), ["gateway-*", "modem"]);
}

#[test]
fn every_key_is_documented() {
    for Key { path, .. } in KEYS {
        assert!(DOCUMENTATION.contains(&format!("`{path}`")), "{path} is not in docs/configuration.md");
    }
}

#[test]
fn the_documentations_examples_are_valid() {
    let examples: Vec<_> =
        DOCUMENTATION.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        load(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}

#[test]
fn every_key_of_a_full_file_is_read() {
    let text = r#"
        [server]
        listen = ["[::1]:0", "localhost:9000"]
        heartbeat = "500s"
        max_message = 2048
        [channel_defaults]
        keep = false
        [[channel]]
        name = "sms.*"
        keep = true
        receivers = 1
        dispatch = "rotate"
        ttl = "5m"
        max_deliveries = 3
        dead_letter = "lost"
        [[channel]]
        name = "sms.slow"
        ttl = "1d"
        [[permission]]
        user = "alice"
        send = "sms.*"
        [auth]
        htpasswd = "users"
        users = ["bob:x"]
        [store]
        url = "memory:"
        prefix = ""
        [store.columns]
        to = "/receiver"
        [log]
        level = "debug"
    "#;
    let config = load(text).unwrap();
    assert_eq!(config.server.listen, ["[::1]:0", "localhost:9000"]);
    assert_eq!(config.server.heartbeat, Duration::from_secs(500));
    assert_eq!(config.server.max_message, 2_048);
    assert_eq!(config.server.drain, Config::default().server.drain);
    let sms = config.policies.of(&channel("sms.slow"));
    assert_eq!(
        (sms.receivers, sms.keep, sms.dispatch),
        (1, true, Dispatch::Rotate),
        "the first matching entry is used"
    );
    assert_eq!(sms.ttl, Duration::from_secs(300));
    assert_eq!((sms.max_deliveries, sms.dead_letter.as_ref()), (3, Some(&channel("lost"))));
    assert!(!config.policies.of(&channel("other")).keep);
    let alice = Permission { who: Who::User(["alice".into()]), send: vec!["sms.*".into()], receive: vec![] };
    assert_eq!(config.auth.permissions, [alice]);
    assert_eq!(config.auth.htpasswd, [PathBuf::from("users")]);
    assert!(!format!("{config:?}").contains("bob:x"), "hashes are shown");
    assert_eq!((config.store.url.with_secrets(), config.store.prefix.as_str()), ("memory:", ""));
    assert_eq!(config.store.columns, [("to".to_owned(), "/receiver".to_owned())]);
    assert_eq!(config.log.level, tracing::Level::DEBUG);
}

#[test]
fn a_listener_may_have_tls_in_both_forms() {
    let pair = "[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\nclient_ca = \"a.pem\"\n";
    let text = format!(
        "[server]\nlisten = [\"a:1\", \"tls://b:2\"]\n[[listener]]\naddress = \"c:3\"\ntls = true\nproxy_protocol = true\n{pair}"
    );
    let config = load(&text).unwrap();
    let listener = |address: &str, tls, proxy_protocol| Listener { address: address.to_owned(), tls, proxy_protocol };
    let all = [listener("a:1", false, false), listener("b:2", true, false), listener("c:3", true, true)];
    assert_eq!(config.server.all_listeners(), all);
    assert_eq!(config.tls.client_ca.as_deref(), Some(Path::new("a.pem")));
    let other = load(&text.replace("c.pem", "d.pem")).unwrap();
    assert_eq!(
        config.changes_needing_restart(&other),
        Vec::<&str>::new(),
        "a certificate is replaced without a restart"
    );
}

#[test]
fn listeners_add_to_configured_addresses_and_replace_the_default() {
    let entry = "[[listener]]\naddress = \"[::1]:1\"\nproxy_protocol = true\n[[listener]]\naddress = \"h:2\"\n";
    let listener = |address: &str, proxy_protocol| Listener { address: address.to_owned(), tls: false, proxy_protocol };
    let ours = [listener("[::1]:1", true), listener("h:2", false)];
    assert_eq!(load(entry).unwrap().server.all_listeners(), ours);
    let both = load(&format!("{entry}[server]\nlisten = \"a:1\"")).unwrap().server;
    assert_eq!(both.all_listeners(), [&[listener("a:1", false)][..], &ours].concat());
    let flags = Flags { listen: vec!["b:2".into()], ..Flags::default() };
    let both = Config::from_parts(Some(("wsmb.toml", entry)), [], &flags).unwrap().server;
    assert_eq!(both.all_listeners(), [&[listener("b:2", false)][..], &ours].concat());
    assert_eq!(load("").unwrap().server.all_listeners(), [listener("127.0.0.1:8888", false)]);
    let needs_restart = Config::default().changes_needing_restart(&load(entry).unwrap());
    assert_eq!(needs_restart, ["server.listen", "[[listener]]"]);
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let environment = environment(&[("WSMB_SERVER__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]);
    let config = Config::from_parts(None, environment, &Flags::default()).unwrap();
    assert_eq!(config, load("[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").unwrap());
    assert!(config.server.trusted_proxies.contain("10.1.2.3".parse().unwrap()));
    assert!(Config::default().changes_needing_restart(&config).is_empty(), "a reload applies them");
}

#[test]
fn an_entry_inherits_from_the_defaults_in_any_order() {
    let config = load("[[channel]]\nname = \"sms\"\n[channel_defaults]\nttl = \"7s\"").unwrap();
    assert_eq!(config.policies.of(&channel("sms")).ttl, Duration::from_secs(7));
}

#[test]
fn flags_take_precedence_over_the_environment_and_that_over_the_file() {
    let text = "[server]\nlisten = \"a:1\"\nheartbeat = \"1s\"\ndrain = \"1s\"\n[store]\nurl = \"memory:\"";
    let environment = environment(&[
        ("WSMB_SERVER__LISTEN", "b:2, c:3"),
        ("WSMB_SERVER__HEARTBEAT", "2s"),
        ("WSMB_SERVER__MAX_CONNECTIONS", "1_000"),
        ("WSMB_CHANNEL_DEFAULTS__KEEP", "false"),
        ("WSMB_AUTH__ANONYMOUS", "true"),
        ("WSMB_AUTH__HTPASSWD", ""),
    ]);
    let flags = Flags {
        listen: vec!["d:4".into(), "e:5".into()],
        store: Some("sqlite:x".into()),
        set: vec!["server.heartbeat=3s".into(), "server.heartbeat=4s".into()],
        data_dir: None,
    };
    let config = Config::from_parts(Some(("wsmb.toml", text)), environment.clone(), &flags).unwrap();
    assert_eq!(config.server.listen, ["d:4", "e:5"]);
    assert_eq!(config.server.heartbeat, Duration::from_secs(4));
    assert_eq!(config.server.drain, Duration::from_secs(1));
    assert_eq!(config.server.max_connections, 1_000);
    assert_eq!(config.store.url.to_string(), "sqlite:x");
    assert!(!config.policies.default.keep && config.auth.anonymous && config.auth.htpasswd.is_empty());
    let config = Config::from_parts(Some(("wsmb.toml", text)), environment, &Flags::default()).unwrap();
    assert_eq!(config.server.listen, ["b:2", "c:3"]);
}

#[test]
fn other_variables_are_ignored_and_misspelled_ones_are_refused() {
    let fine = [
        ("WSMB_URL", "ws://x"),
        ("WSMB_USER", "u"),
        ("WSMB_PASSWORD", "p"),
        ("WSMB_PASSWORD_FILE", "f"),
        ("WSMB_receiver", "0812"),
        ("WSMB_my__field", "0812"),
        ("OTHER__LISTEN", "x"),
    ];
    assert_eq!(Config::from_parts(None, environment(&fine), &Flags::default()).unwrap(), Config::default());
    let wrong = [
        ("WSMB_SERVER__PORT", "there is no such key; [server] has listen, heartbeat, "),
        ("WSMB_SERVER__LISTN", "there is no such key; the nearest is WSMB_SERVER__LISTEN"),
        ("WSMB_SERVER_LISTEN", "must be written with two underscores: WSMB_SERVER__LISTEN"),
        ("WSMB_CHANNEL__TTL", "channel.ttl can only be set in the file"),
        ("WSMB_STORE__COLUMNS", "store.columns can only be set in the file"),
    ];
    for (name, text) in wrong {
        let error = Config::from_parts(None, environment(&[(name, "1")]), &Flags::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("environment variable {name}: {text}")), "{error}");
    }
}

#[test]
fn no_error_contains_a_secret() {
    let secret = "$2y$05$geheim";
    let texts = [
        format!("[auth]\nusers = {{ a = \"{secret}\" }}"),
        format!("[auth]\nusers = [[\"{secret}\"]]"),
        format!("[store]\nurl = \"postgres://u:{secret}@h:port/d\""),
        format!("[store]\npassword = [\"{secret}\"]"),
        format!("[store]\npassword = \"{secret}\"\nurl = \"{secret}\""),
        format!("[auth]\nuser = [\"{secret}\"]"),
    ];
    for text in texts {
        assert!(!errors(&text).contains("geheim"), "{}", errors(&text));
    }
}

#[test]
fn the_data_directory_changes_only_the_defaults() {
    let flags = Flags { data_dir: Some("elsewhere".into()), ..Flags::default() };
    let config = Config::from_parts(None, [], &flags).unwrap();
    assert_eq!(config.auth.htpasswd, [Path::new("elsewhere").join(".htpasswd")]);
    assert_eq!(config.store.url, StoreUrl::sqlite(&Path::new("elsewhere").join("wsmb.db")));
    assert_eq!(config.store.journal, Some(Path::new("elsewhere").join("journal.db")));
    let config = Config::from_parts(Some(("f", "[store]\nurl = \"memory:\"")), [], &flags).unwrap();
    assert!(config.store.url.is_memory());
}

#[test]
fn a_dead_letter_channel_has_no_dead_letter_channel_of_its_own() {
    let text = "[channel_defaults]\ndead_letter = \"dead\"\nmax_backlog = 5\n[[channel]]\nname = \"sms.*\"\ndead_letter = \"sms.dead\"";
    let policies = load(text).unwrap().policies;
    let dead_letter = |name: &str| policies.of(&channel(name)).dead_letter.clone();
    assert_eq!(dead_letter("mail"), Some(channel("dead")));
    assert_eq!(dead_letter("dead"), None);
    assert_eq!(policies.of(&channel("dead")).max_backlog, 5);
    assert_eq!(dead_letter("sms.1"), Some(channel("sms.dead")));
    assert_eq!(dead_letter("sms.dead"), None);

    let inherited =
        load("[channel_defaults]\ndead_letter = \"dead\"\n[[channel]]\nname = \"dead\"\nttl = \"1d\"").unwrap();
    assert_eq!(inherited.policies.of(&channel("dead")).dead_letter, None);

    let circle = "[[channel]]\nname = \"a\"\ndead_letter = \"b\"\n[[channel]]\nname = \"b\"\ndead_letter = \"a\"";
    assert_eq!(
        errors(circle).lines().next().unwrap(),
        "wsmb.toml:3: channel.dead_letter is part of a cycle, in which dead letters would move for ever"
    );
    let chain = "[[channel]]\nname = \"a\"\ndead_letter = \"b\"\n[[channel]]\nname = \"b\"\ndead_letter = \"c\"";
    assert!(load(chain).is_ok());
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart() {
    let old = Config::default();
    let reloadable = load(
        "[channel_defaults]\nttl = \"1s\"\n[auth]\nanonymous = true\nhtpasswd = []\nusers = [\"a:b\"]\n[log]\nlevel = \"warn\"\n[[permission]]\nuser = \"a\"",
    );
    assert_eq!(old.changes_needing_restart(&reloadable.unwrap()), [""; 0]);
    let other =
        load("[server]\nlisten = \"h:1\"\ndrain = \"1s\"\n[store]\nbatch = 1\n[store.columns]\na = \"/a\"").unwrap();
    assert_eq!(old.changes_needing_restart(&other), ["server.listen", "server.drain", "store.batch", "store.columns"]);
}

#[test]
fn the_database_password_comes_from_key_file_or_url_and_is_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("db.password");
    let text = |more: &str| format!("[store]\nurl = \"mysql://u:first@h/d\"\n{more}");
    let config = load(&text("")).unwrap();
    assert_eq!(config.store.read_password(), Ok(None), "the driver reads the password in the URL");
    assert!(config.store.has_secret_in_file);
    let with_file = text(&format!("password_file = {file:?}"));
    let config = load(&with_file).unwrap();
    let message = config.store.read_password().unwrap_err().to_string();
    assert!(message.starts_with(&format!("the password file {}: cannot be read: ", file.display())), "{message}");
    for (content, line) in [("second\n", "second"), ("a b \r\nc", "a b "), ("pässwörd", "pässwörd")] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(config.store.read_password().unwrap().as_deref(), Some(line));
    }
    for content in [&b""[..], b"\nsecond", b"\xff", &[b'x'; 5_000]] {
        std::fs::write(&file, content).unwrap();
        config.store.read_password().unwrap_err();
    }
    let variable = environment(&[("WSMB_STORE__PASSWORD", "third")]);
    let config = Config::from_parts(Some(("wsmb.toml", &with_file)), variable, &Flags::default()).unwrap();
    assert_eq!(
        config.store.read_password().unwrap().as_deref(),
        Some("third"),
        "the key takes precedence over the file"
    );
    let shown = format!("{config:?}");
    assert!(!shown.contains("third") && !shown.contains("first"), "{shown}");
    let config = load("[store]\npassword = \"fourth\"").unwrap();
    assert_eq!(config.store.read_password(), Ok(None), "an SQLite store needs no password");
    assert!(config.store.has_secret_in_file && !format!("{config:?}").contains("fourth"));
}

#[test]
fn a_journal_has_a_path_and_a_size_or_is_disabled() {
    let store = |text: &str| load(&format!("[store]\n{text}")).unwrap().store;
    assert_eq!(store("journal = \"\"").journal, None);
    assert_eq!(store("journal = \"a/b.db\"").journal, Some(PathBuf::from("a/b.db")));
    assert_eq!(store("journal_max = \"1 TiB\"").journal_max, 1 << 40);
    let old = Config::default();
    let new =
        load("[store]\nurl = \"mysql://u@h/d\"\npassword = \"p\"\njournal = \"\"\njournal_max = \"1 MiB\"").unwrap();
    let keys = ["store.url", "store.password", "store.journal", "store.journal_max"];
    assert_eq!(old.changes_needing_restart(&new), keys);
}

#[test]
fn a_store_has_a_maximum_size_or_leaves_a_reserve_on_its_disk() {
    let memory_budget = |text: &str| load(&format!("[server]\nmemory_budget = {text}")).unwrap().server.memory_budget;
    assert_eq!((memory_budget("\"auto\""), memory_budget("\"64 MiB\"")), (None, Some(64 << 20)));
    let max_size = |text: &str| load(&format!("[store]\nmax_size = {text}")).unwrap().store.max_size;
    assert_eq!((max_size("0"), max_size("\"0\"")), (None, None));
    assert_eq!(max_size("\"2 GiB\""), Some(2 << 30));
}

#[test]
fn the_error_names_the_file_that_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("wsmb.toml");
    let load = || Config::load(Some(&path), [], &Flags::default()).unwrap_err().to_string();
    assert!(load().starts_with(&format!("{}: cannot be read: ", path.display())), "{}", load());
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert_eq!(load(), format!("{}: is not UTF-8 text", path.display()));
    std::fs::write(&path, vec![b'\n'; limits::CONFIGURATION_BYTES + 1]).unwrap();
    assert_eq!(load(), format!("{}: is larger than {} bytes", path.display(), limits::CONFIGURATION_BYTES));
    std::fs::write(&path, "\u{feff}[log]\r\nlevel = \"warn\"\r\n").unwrap();
    assert_eq!(Config::load(Some(&path), [], &Flags::default()).unwrap().log.level, tracing::Level::WARN);
}

#[test]
fn the_number_of_reported_mistakes_is_bounded() {
    let text: String = (0..100).map(|n| format!("x{n} = 1\n")).collect();
    let message = errors(&text);
    assert_eq!(message.lines().count(), limits::CONFIGURATION_PROBLEMS + 1);
    assert!(message.ends_with("and 50 more"), "{message}");
}

proptest! {
    #[test]
    fn parsing_any_text_does_not_panic(text in "(\\[|\\]|=|\"|\n|server|channel|[a-z0-9.{}, ]){0,40}") {
        let _ = load(&text);
    }

    #[test]
    fn any_value_for_any_key_is_accepted_or_refused_with_its_file(at in 0..KEYS.len(), value in "(\"[a-z0-9:*/. ]{0,12}\"|-?[0-9]{1,20}|true|\\[\\]|\\[\"a\"\\]|\\{a=1\\})") {
        let (section, key) = KEYS[at].path.split_once('.').unwrap();
        let header = if matches!(section, "channel" | "permission") { format!("[[{section}]]") } else { format!("[{section}]") };
        if let Err(error) = load(&format!("{header}\n{key} = {value}\n")) {
            prop_assert!(error.to_string().starts_with("wsmb.toml:"));
        }
    }
}

#[test]
fn the_default_password_file_is_optional_if_there_are_other_ways_to_log_in() {
    let htpasswd = |text: &str| load(text).expect("valid").auth.htpasswd;
    assert!(htpasswd("[auth]\nanonymous = true").is_empty());
    assert!(htpasswd("[auth]\nusers = [\"a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]").is_empty());
    assert_eq!(htpasswd("[auth]\nanonymous = false").len(), 1);
    assert_eq!(htpasswd("[auth]\nanonymous = true\nhtpasswd = [\"missing\"]"), [PathBuf::from("missing")]);
}
