//! What is valid and still looks like a mistake: told by `wsmb check` and at the start, never refused.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use wildmatch::WildMatch;

use super::glob;
use super::model::{Config, Listener};
use wsmb_core::policy::ChannelPolicy;
use wsmb_protocol::origin::Origin;

/// Every doubt about `config`, one sentence each; `file` is where it was read from. Looks at the permissions of the files it names.
/// Who is in the password files is not looked at here: `auth::Credentials::doubts` does.
#[must_use]
pub fn doubts(config: &Config, file: Option<&Path>) -> Vec<String> {
    let mut doubts = Vec::new();
    let listeners = config.server.all_listeners();
    let public: Vec<&Listener> = listeners.iter().filter(|listener| is_public(&listener.address)).collect();
    for listener in &public {
        let key = if config.server.listen.contains(&listener.address) { "server.listen" } else { "[[listener]]" };
        doubts.push(format!(
            "{key}: {} can be reached from other machines, and passwords and messages travel unencrypted; \
             put a proxy with TLS in front, or listen on 127.0.0.1",
            listener.address
        ));
    }
    proxies(config, &mut doubts);
    if config.server.origins.contains(&Origin::Null) {
        doubts.push(
            "server.origins: \"null\" is the origin of every local file and of frames that any page can make; a browser's remembered password is open to them"
                .to_owned(),
        );
    }
    if config.auth.anonymous && !public.is_empty() {
        doubts.push("auth.anonymous: whoever can reach the port can send and receive without a password".to_owned());
    }
    if config.auth.anonymous
        && !config.auth.permissions.is_empty()
        && !config.auth.permissions.iter().any(is_for_anonymous)
    {
        doubts.push(
            "auth.anonymous: no [[permission]] is for anonymous connections (user = \"\"), so they may do nothing"
                .to_owned(),
        );
    }
    let secrets = file.filter(|_| !config.auth.users.is_empty()).into_iter();
    for path in secrets.chain(config.auth.htpasswd.iter().map(std::path::PathBuf::as_path)) {
        if is_world_readable(path) {
            doubts.push(format!(
                "{0}: every user of this machine can read the password hashes in it; `chmod o-r {0}` helps",
                path.display()
            ));
        }
    }
    store(config, file, &mut doubts);
    patterns(config, &mut doubts);
    lifetimes(config, &mut doubts);
    gateways(config, &mut doubts);
    dead_letters(config, &mut doubts);
    machine(config, &mut doubts);
    if config.server.max_queue < config.server.max_message {
        doubts.push(
            "server.max_queue is below server.max_message: a receiver with one large message queued is slow at the second"
                .to_owned(),
        );
    }
    doubts
}

/// Settings that this machine cannot carry out.
fn machine(config: &Config, doubts: &mut Vec<String>) {
    // Nobody chose the default, so it is no mistake that it is above what the system gives: the start would warn everybody.
    if config.server.max_connections != Config::default().server.max_connections
        && let Some(files) = open_files()
        && u64::try_from(config.server.max_connections).is_ok_and(|wanted| wanted > files)
    {
        doubts.push(format!(
            "server.max_connections is {}, but this process may open only {files} files; \
             raise the limit (`ulimit -n`, LimitNOFILE= in a systemd unit) or lower the number",
            config.server.max_connections
        ));
    }
    if let Ok(processors) = std::thread::available_parallelism()
        && config.server.threads > processors.get()
    {
        doubts.push(format!(
            "server.threads is {}, but this process may use only {processors} processors: more threads than that wait for each other",
            config.server.threads
        ));
    }
}

/// Who could say to be somebody else, and whose proxy is not believed.
fn proxies(config: &Config, doubts: &mut Vec<String>) {
    let trusted = &config.server.trusted_proxies;
    for network in trusted.iter().filter(|network| network.is_everything()) {
        doubts.push(format!(
            "server.trusted_proxies: {network} is every address, so every client can say to have any other address; \
             name the addresses of your proxies"
        ));
    }
    for listener in config.server.listeners.iter().filter(|listener| listener.proxy_protocol && trusted.is_empty()) {
        doubts.push(format!(
            "[[listener]] {}: no proxy is trusted, so the addresses in the PROXY protocol headers are not believed; \
             add the address of your proxy to server.trusted_proxies",
            listener.address
        ));
    }
}

/// Parts of names of channels whose messages mean nothing after a while: answers to somebody who has asked, and one-time passwords.
const SHORT_LIVED: [&str; 4] = ["callback", "reply", "response", "otp"];

/// A time to live below which a message is likely to be waited for by a person.
const SHORT_TTL: Duration = Duration::from_secs(300);

/// What is kept for ever though nobody will come for it, and what would die at a receiver that is frozen.
fn lifetimes(config: &Config, doubts: &mut Vec<String>) {
    for (pattern, policy) in config.policies.named.iter().filter(|(_, policy)| policy.keep) {
        let name = pattern.to_string().to_lowercase();
        if policy.ttl.is_zero() && SHORT_LIVED.iter().any(|part| name.contains(part)) {
            doubts.push(format!(
                "[[channel]] \"{pattern}\": its messages never expire (ttl is 0), and the name looks like one of callbacks or one-time passwords, \
                 for which nobody comes any more after a while; give it a ttl"
            ));
        }
        if policy.receivers == 1 && !policy.ttl.is_zero() && policy.ttl <= SHORT_TTL && policy.confirm_within.is_zero()
        {
            doubts.push(format!(
                "[[channel]] \"{pattern}\": a message lives {:?} and goes to one receiver; if that one is frozen, the message expires there though another \
                 receiver may stand by; set confirm_within, for example to \"{}s\"",
                policy.ttl,
                (policy.ttl.as_secs() / 3).max(1)
            ));
        }
        detection(config, &pattern.to_string(), policy, doubts);
    }
}

/// Messages that live shorter than it takes to notice that their receiver is dead.
fn detection(config: &Config, pattern: &str, policy: &ChannelPolicy, doubts: &mut Vec<String>) {
    let (ttl, within) = (policy.ttl, policy.confirm_within);
    if policy.receivers == 0 || ttl.is_zero() {
        return;
    }
    let third = (ttl.as_secs() / 3).max(1);
    if !within.is_zero() && within >= ttl {
        doubts.push(format!(
            "[[channel]] \"{pattern}\": a message expires after {ttl:?}, before confirm_within ({within:?}) would give it to another receiver; \
             set confirm_within below the ttl, for example to \"{third}s\""
        ));
    }
    // A heartbeat's silence, and two pings that nobody answers.
    let heartbeat = config.server.heartbeat * 3;
    if policy.ack_timeout.min(heartbeat) >= ttl {
        doubts.push(format!(
            "[[channel]] \"{pattern}\": the broker notices a dead receiver with manual acknowledgement (wsmb receive --exec) only after \
             {:?}, but a message expires after {ttl:?}; set ack_timeout, for example to \"{third}s\", or a longer ttl",
            policy.ack_timeout.min(heartbeat)
        ));
    }
}

/// Parts of names of channels whose messages are work that is to be done once.
const WORK: [&str; 6] = ["sms", "otp", "mail", "print", "job", "task"];

/// Work that every receiver gets, so that two of them do it twice.
fn gateways(config: &Config, doubts: &mut Vec<String>) {
    let policies = config.policies.named.iter().filter(|(_, policy)| policy.receivers == 0);
    for (pattern, _) in policies {
        let name = pattern.to_string();
        if WORK.iter().any(|part| name.to_lowercase().contains(part)) {
            doubts.push(format!(
                "[[channel]] \"{name}\": every receiver gets every message (receivers is 0), so two gateways that share no group do the same work twice, for example send one SMS twice; \
                 set receivers = 1"
            ));
        }
    }
}

/// Expired messages that are to be dead letters, and have no place to go.
fn dead_letters(config: &Config, doubts: &mut Vec<String>) {
    let policies = || config.policies.named.iter().map(|(_, policy)| policy).chain([&config.policies.default]);
    let targets: Vec<_> = policies().filter_map(|policy| policy.dead_letter.as_ref()).collect();
    // Dead letters do not die twice, whatever their channel has from the defaults.
    let sends = |pattern: &WildMatch| !targets.iter().any(|target| pattern.matches(target.as_str()));
    let named = config.policies.named.iter().filter(|(pattern, _)| sends(pattern));
    let named = named.map(|(pattern, policy)| (format!("[[channel]] \"{pattern}\""), policy));
    let default = std::iter::once(("[channel_defaults]".to_owned(), &config.policies.default));
    for (section, policy) in default.chain(named).filter(|(_, policy)| policy.dead_letter_expired) {
        if policy.dead_letter.is_none() {
            doubts.push(format!(
                "{section}: dead_letter_expired is set, but there is no dead-letter channel, so expired messages vanish; name one with dead_letter"
            ));
        } else if !policy.keep {
            doubts.push(format!(
                "{section}: dead_letter_expired is set, but the channel keeps nothing (keep = false), and what is not kept never expires"
            ));
        }
    }
}

/// Who could read the password of the database, and the messages on their way to it.
fn store(config: &Config, file: Option<&Path>, doubts: &mut Vec<String>) {
    let store = &config.store;
    let Some(server) = store.url.server() else { return };
    if !server.is_local() && !server.is_encrypted() {
        doubts.push(format!(
            "store.url: the connection to {} may be unencrypted, and the database's password and the messages travel over it; \
             add ?ssl-mode={} to the address",
            server.host(),
            server.encrypting_mode()
        ));
    }
    if let Some(path) = file.filter(|path| store.has_secret_in_file && is_world_readable(path)) {
        doubts.push(format!(
            "{0}: every user of this machine can read the database's password in it; `chmod o-r {0}` helps, or store.password_file",
            path.display()
        ));
    }
    if let Some(path) = store.password_file.as_deref().filter(|path| is_world_readable(path)) {
        doubts.push(format!(
            "{0}: every user of this machine can read the database's password in it; `chmod o-r {0}` helps",
            path.display()
        ));
    }
}

fn is_for_anonymous(permission: &super::Permission) -> bool {
    permission.user.chars().all(|character| character == '*')
}

/// Channel patterns that decide nothing.
fn patterns(config: &Config, doubts: &mut Vec<String>) {
    let patterns: Vec<String> = config.policies.named.iter().map(|(pattern, _)| pattern.to_string()).collect();
    for (at, pattern) in patterns.iter().enumerate() {
        if glob::shortest_match(pattern) > wsmb_core::limits::CHANNEL_NAME_CHARS || pattern.contains(char::is_control) {
            doubts.push(format!("[[channel]] {pattern:?} matches no name that a channel can have"));
        } else if let Some(earlier) = patterns[..at].iter().find(|earlier| glob::covers(earlier, pattern)) {
            doubts.push(format!(
                "[[channel]] {pattern:?} never decides anything: {earlier:?} stands before it and matches all the same names"
            ));
        }
    }
    let users: Vec<&str> = config.auth.permissions.iter().map(|permission| permission.user.as_str()).collect();
    for (at, user) in users.iter().enumerate() {
        if let Some(earlier) = users[..at].iter().find(|earlier| glob::covers(earlier, user)) {
            doubts.push(format!(
                "[[permission]] for {user:?} never decides anything: the one for {earlier:?} stands before it and matches all the same users"
            ));
        }
    }
}

/// Whether other machines can reach the address; of a host name other than `localhost` it is assumed.
fn is_public(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback(),
        Err(_) => !host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(unix)]
fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_world_readable(_: &Path) -> bool {
    false
}

/// How many files this process may have open (`ulimit -n`, the soft limit); `None` where the system has no such limit.
fn open_files() -> Option<u64> {
    #[cfg(unix)]
    return rlimit::Resource::NOFILE.get_soft().ok();
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flags;

    fn doubts_of(text: &str) -> Vec<String> {
        let config = Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default()).unwrap();
        doubts(&config, None)
    }

    #[test]
    fn each_has_its_sentence() {
        let covered = "[[channel]] \"sms.fast\" never decides anything: \"sms.*\" stands before it and matches all the same names";
        let table = [
            ("[server]\nlisten = \"0.0.0.0:8888\"", "server.listen: 0.0.0.0:8888 can be reached from other machines"),
            ("[server]\nlisten = \"[::]:8888\"", "server.listen: [::]:8888 can be reached from other machines"),
            ("[server]\nlisten = \"broker.example:8888\"", "server.listen: broker.example:8888 can be reached"),
            ("[[listener]]\naddress = \"0.0.0.0:1\"", "[[listener]]: 0.0.0.0:1 can be reached from other machines"),
            (
                "[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true",
                "[[listener]] 127.0.0.1:1: no proxy is trusted, so the addresses in the PROXY protocol headers are not believed",
            ),
            (
                "[server]\ntrusted_proxies = [\"::1\", \"0.0.0.0/0\"]",
                "server.trusted_proxies: 0.0.0.0/0 is every address",
            ),
            (
                "[server]\norigins = [\"https://a\", \"null\"]",
                "server.origins: \"null\" is the origin of every local file",
            ),
            ("[[channel]]\nname = \"sms.*\"\nreceivers = 1\n[[channel]]\nname = \"sms.fast\"\nreceivers = 1", covered),
            (
                "[channel_defaults]\ndead_letter_expired = true",
                "[channel_defaults]: dead_letter_expired is set, but there is no dead-letter channel",
            ),
            (
                "[[channel]]\nname = \"a\"\ndead_letter = \"d\"\nkeep = false\ndead_letter_expired = true",
                "[[channel]] \"a\": dead_letter_expired is set, but the channel keeps nothing",
            ),
            (
                "[server]\nmax_message = \"2 MiB\"\nmax_queue = \"1 MiB\"",
                "server.max_queue is below server.max_message",
            ),
            (
                "[auth]\nanonymous = true\n[[permission]]\nuser = \"a*\"",
                "auth.anonymous: no [[permission]] is for anonymous connections",
            ),
            (
                "[[permission]]\nuser = \"*\"\n[[permission]]\nuser = \"alice\"",
                "[[permission]] for \"alice\" never decides anything",
            ),
        ];
        for (text, doubt) in table {
            let doubts = doubts_of(text);
            assert!(doubts.len() == 1 && doubts[0].starts_with(doubt), "{text}\n{doubts:?}");
        }
        let long = format!("[[channel]]\nname = \"{}*\"", "x".repeat(101));
        assert!(doubts_of(&long)[0].ends_with("matches no name that a channel can have"));
        let remote = "[store]\nurl = \"mysql://u@db.example/d\"";
        assert_eq!(
            doubts_of(remote),
            [
                "store.url: the connection to db.example may be unencrypted, and the database's password and the messages travel over it; \
              add ?ssl-mode=REQUIRED to the address"
            ]
        );
        let fine = "[channel_defaults]\ndead_letter = \"d\"\ndead_letter_expired = true\n[[channel]]\nname = \"sms\"\nreceivers = 1";
        assert!(doubts_of(fine).is_empty(), "{:?}", doubts_of(fine));
        let open = doubts_of("[server]\nlisten = \"192.168.1.5:8888\"\n[auth]\nanonymous = true");
        assert_eq!(open.len(), 2, "{open:?}");
    }

    #[test]
    fn messages_that_live_too_long_or_may_die_at_a_frozen_receiver_are_named() {
        let channel = |name: &str, lines: &str| doubts_of(&format!("[[channel]]\nname = \"{name}\"\n{lines}"));
        for name in ["otp", "app/Callback-*", "*reply*", "response"] {
            let doubts = channel(name, "receivers = 1");
            assert!(doubts.len() == 1 && doubts[0].contains("never expire"), "{name}: {doubts:?}");
            assert_eq!(channel(name, "receivers = 1\nttl = \"1h\""), [""; 0]);
            assert_eq!(channel(name, "receivers = 1\nkeep = false"), [""; 0]);
        }
        let doubts = channel("otp", "receivers = 1\nttl = \"60s\"\nack_timeout = \"20s\"");
        assert!(doubts.len() == 1 && doubts[0].ends_with("set confirm_within, for example to \"20s\""), "{doubts:?}");
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
    fn a_life_that_is_shorter_than_it_takes_to_notice_a_dead_receiver_is_named() {
        let channel = |lines: &str| doubts_of(&format!("[[channel]]\nname = \"a\"\n{lines}"));
        let manual = channel("receivers = 2\nttl = \"75s\"");
        assert!(manual.len() == 1 && manual[0].contains("only after 75s"), "{manual:?}");
        assert_eq!(channel("receivers = 2\nttl = \"76s\""), [""; 0]);
        assert_eq!(channel("ttl = \"5s\""), [""; 0], "everybody has it anyway");
        let slow = channel("receivers = 2\nttl = \"60s\"\nack_timeout = \"60s\"\nconfirm_within = \"1m\"");
        assert!(slow.len() == 2 && slow[0].contains("below the ttl") && slow[1].contains("only after 60s"), "{slow:?}");
    }

    #[test]
    fn work_that_two_gateways_would_both_do_is_named() {
        for name in ["sms", "app/SMS-*", "otp", "mails"] {
            let lines = format!("[[channel]]\nname = \"{name}\"\nttl = \"1h\"");
            let doubts = doubts_of(&lines);
            assert!(doubts.len() == 1 && doubts[0].contains("two gateways"), "{name}: {doubts:?}");
            assert_eq!(doubts_of(&format!("{lines}\nreceivers = 1")), [""; 0]);
        }
        assert_eq!(doubts_of("[[channel]]\nname = \"weather\""), [""; 0]);
    }

    #[test]
    fn there_are_none_about_a_careful_configuration() {
        let text = "[server]\nlisten = [\"127.0.0.1:1\", \"[::1]:1\", \"localhost:1\"]\n[[channel]]\nname = \"a\"\n[[channel]]\nname = \"*\"";
        assert_eq!(doubts_of(text), [""; 0]);
        let behind_proxies =
            "[server]\ntrusted_proxies = \"127.0.0.1\"\n[[listener]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true";
        assert_eq!(doubts_of(behind_proxies), [""; 0]);
        for url in [
            "mysql://u@localhost/d",
            "postgres://u@db.example/d?sslmode=verify-full",
            "mysql://u@db/d?ssl-mode=required",
        ] {
            assert_eq!(doubts_of(&format!("[store]\nurl = \"{url}\"")), [""; 0], "{url}");
        }
    }

    #[test]
    fn more_connections_than_files_if_somebody_wanted_them() {
        let mut config = Config::default();
        assert!(!doubts(&config, None).iter().any(|doubt| doubt.starts_with("server.max_connections")));
        config.server.max_connections = usize::MAX;
        let told = doubts(&config, None).iter().any(|doubt| doubt.starts_with("server.max_connections is "));
        assert_eq!(told, open_files().is_some_and(|files| files < u64::MAX));
    }

    #[test]
    fn more_threads_than_processors() {
        let mut config = Config::default();
        assert!(!doubts(&config, None).iter().any(|doubt| doubt.starts_with("server.threads")));
        config.server.threads = usize::MAX;
        assert!(doubts(&config, None).iter().any(|doubt| doubt.starts_with("server.threads is ")));
    }

    #[cfg(unix)]
    #[test]
    fn readable_secrets_are_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("users");
        std::fs::write(&path, "").unwrap();
        let mut config = Config::default();
        config.auth.htpasswd = vec![path.clone()];
        for (mode, expected) in [(0o644, 1), (0o640, 0)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let named =
                doubts(&config, None).iter().filter(|doubt| doubt.contains("can read the password hashes")).count();
            assert_eq!(named, expected, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let of_database = |text: &str| {
            let text = format!("[auth]\nhtpasswd = []\n[store]\n{text}");
            let config = Config::from_parts(Some(("wsmb.toml", &text)), [], &Flags::default()).unwrap();
            doubts(&config, Some(&path)).iter().filter(|doubt| doubt.contains("read the database's password")).count()
        };
        assert_eq!(of_database("url = \"mysql://u:p@localhost/d\""), 1);
        assert_eq!(of_database("url = \"mysql://u@localhost/d\"\npassword = \"p\""), 1);
        assert_eq!(of_database(&format!("url = \"mysql://u@localhost/d\"\npassword_file = {path:?}")), 1);
        assert_eq!(of_database("url = \"mysql://u@localhost/d\""), 0);
        config.auth.htpasswd = vec![];
        config.auth.users = vec!["alice:x".to_owned()];
        assert!(doubts(&config, Some(&path)).iter().any(|doubt| doubt.starts_with(&path.display().to_string())));
    }
}
