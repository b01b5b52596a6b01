//! The messages about mistakes in the file, the variables and the flags.

use super::*;

/// A file, and the expected errors.
const MISTAKES: &[(&str, &str)] = &[
    ("[server]\nlistn = \"x\"", "wsmb.toml:2: there is no key server.listn; the nearest is server.listen"),
    ("\nheartbeat = \"25s\"", "wsmb.toml:2: heartbeat is not in a section; write it below [server]"),
    ("ttl = \"5m\"", "wsmb.toml:1: ttl is not in a section; write it below [channel_defaults] or [[channel]]"),
    ("[log]\nfile = \"x\"", "wsmb.toml:2: there is no key log.file; [log] has level"),
    ("[sever]\nlisten = \"x\"", "wsmb.toml:1: there is no section [sever]; the nearest is [server]"),
    ("[[channels]]\nname = \"x\"", "wsmb.toml:1: there is no section [channels]; the nearest is [[channel]]"),
    (
        "[[channel]]\nname = \"x\"\nrecievers = 1",
        "wsmb.toml:3: there is no key channel.recievers; the nearest is channel.receivers",
    ),
    ("server = 1", "wsmb.toml:1: server is a section: write [server]"),
    ("[channel]\nname = \"x\"", "wsmb.toml:1: channel is a list of sections: write [[channel]]"),
    ("channel = [1]", "wsmb.toml:1: channel is a list of sections: write [[channel]]"),
    (
        "[[channel]]\nttl = \"5m\"",
        "wsmb.toml:1: this [[channel]] has no name: write name = \"sms\" or name = \"sms.*\"",
    ),
    ("[[channel]]\nname = \"\"", "wsmb.toml:2: channel.name is empty: write a name or a pattern like \"sms.*\""),
    (
        "[[permission]]\nsend = \"x\"",
        "wsmb.toml:1: this [[permission]] has no user: write user = \"alice\" or user = \"*\", or group = \"NAME\"",
    ),
    (
        "[[permission]]\nuser = \"a\"\ngroup = \"b\"\n[auth.groups]\nb = []",
        "wsmb.toml:1: this [[permission]] has a user and a group; write two entries",
    ),
    (
        "[[permission]]\ngroup = \"ops\"",
        "wsmb.toml:2: permission.group names the group \"ops\", but there are no groups; write them below [auth.groups], like ops = [\"alice\", \"bob\"]",
    ),
    (
        "[auth.groups]\ndev = \"a\"\nops = \"b\"\n[[permission]]\ngroup = \"op\"",
        "wsmb.toml:5: permission.group names the group \"op\", which is not in [auth.groups]; there are dev, ops",
    ),
    ("[auth]\ngroups = 1", "wsmb.toml:2: auth.groups is a section: write [auth.groups]"),
    ("[auth.groups]\nops = 1", "wsmb.toml:2: auth.groups.ops must be a list of texts, like [\"one\", \"two\"]"),
    ("[auth.groups]\nops = [1]", "wsmb.toml:2: auth.groups.ops must be a list of users, like [\"alice\", \"ops-*\"]"),
    ("[auth]\nkey = \"x\"", "wsmb.toml:2: auth.key is a list of sections: write [[auth.key]]"),
    (
        "[[auth.key]]\nid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"geheim\"",
        "wsmb.toml:1: this [[auth.key]] has no key: write key_file = \"FILE\", or key = \"…\"\nwsmb.toml:4: there is no key auth.key.secret; [[auth.key]] has id, algorithm, key, key_file, audience, issuer",
    ),
    (
        "[[auth.key]]\nid = \"wsmb\"\nalgorithm = \"RS256\"\nkey = \"a\"\nkey_file = \"b\"",
        "wsmb.toml:1: this [[auth.key]] has both key and key_file; remove one of them\nwsmb.toml:2: auth.key.id must not be \"wsmb\", the id of the broker's own key\nwsmb.toml:3: auth.key.algorithm must be \"HS256\", \"ES256\" or \"EdDSA\", not \"RS256\"",
    ),
    (
        "[[auth.key]]\nid = \"a\"\nalgorithm = \"HS256\"\nkey = \"x\"\n[[auth.key]]\nid = \"a\"\nalgorithm = \"EdDSA\"\nkey = \"y\"",
        "wsmb.toml:5: there are two [[auth.key]] with the id \"a\"",
    ),
    ("[server]\nheartbeat = 3601", "wsmb.toml:2: server.heartbeat must be from \"1s\" to \"1h\", not 3601"),
    (
        "[server]\nheartbeat = -1",
        "wsmb.toml:2: server.heartbeat must be a time like \"500ms\", \"25s\", \"5m30s\", \"2h\", \"1d\" or a number of seconds, not -1",
    ),
    (
        "[server]\nheartbeat = \"soon\"",
        "wsmb.toml:2: server.heartbeat must be a time like \"500ms\", \"25s\", \"5m30s\", \"2h\", \"1d\" or a number of seconds, not \"soon\"",
    ),
    ("[server]\nheartbeat = \"0s\"", "wsmb.toml:2: server.heartbeat must be from \"1s\" to \"1h\", not \"0s\""),
    ("[server]\nheartbeat = 1.5", "wsmb.toml:2: server.heartbeat cannot be of the type float"),
    (
        "[server]\nmax_message = \"big\"",
        "wsmb.toml:2: server.max_message must be a size like \"64 KiB\", \"1 MiB\" or a number of bytes, not \"big\"",
    ),
    ("[server]\nmax_message = 1000", "wsmb.toml:2: server.max_message must be from \"1 KiB\" to \"64 MiB\", not 1000"),
    (
        "[server]\nmax_message = \"65 MiB\"",
        "wsmb.toml:2: server.max_message must be from \"1 KiB\" to \"64 MiB\", not \"65 MiB\"",
    ),
    (
        "[server]\nmax_connections = 0",
        "wsmb.toml:2: server.max_connections must be a whole number from 1 to 10000000, not 0",
    ),
    (
        "[server]\nmax_connections = \"9\"",
        "wsmb.toml:2: server.max_connections must be a whole number from 1 to 10000000, not \"9\"",
    ),
    (
        "[server]\nmax_connections = 99999999999999999999",
        "wsmb.toml:2: server.max_connections must be a whole number from 1 to 10000000, not 9223372036854775807",
    ),
    (
        "[server]\nlisten = \"8888\"",
        "wsmb.toml:2: server.listen must name an address with its port: write \"127.0.0.1:8888\" for this machine only, or \"0.0.0.0:8888\" for every address, not \"8888\"",
    ),
    (
        "[server]\nlisten = 8888",
        "wsmb.toml:2: server.listen must name an address with its port: write \"127.0.0.1:8888\" for this machine only, or \"0.0.0.0:8888\" for every address, not 8888",
    ),
    ("[server]\nlisten = 88888", "wsmb.toml:2: server.listen must be an address like \"127.0.0.1:8888\", not 88888"),
    ("[server]\nlisten = []", "wsmb.toml:2: server.listen must have at least one address, like \"127.0.0.1:8888\""),
    (
        "[server]\ntrusted_proxies = \"localhost\"",
        "wsmb.toml:2: server.trusted_proxies must have addresses and networks like \"127.0.0.1\", \"10.0.0.0/8\" or \"2001:db8::/32\", not \"localhost\"",
    ),
    (
        "[server]\ntrusted_proxies = [\"::1\", \"10.1.2.3/8\"]",
        "wsmb.toml:2: server.trusted_proxies has \"10.1.2.3/8\", which is an address inside a network; write \"10.0.0.0/8\"",
    ),
    (
        "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
        "wsmb.toml:2: server.trusted_proxies has \"10.0.0.0/33\", but such an address has only 32 bits",
    ),
    (
        "[server]\norigins = \"app.example\"",
        "wsmb.toml:2: server.origins must have origins like \"https://app.example\" or \"http://192.0.2.7:8080\", without a path, not \"app.example\"",
    ),
    (
        "[server]\norigins = [\"https://a\", \"https://b/\"]",
        "wsmb.toml:2: server.origins must have origins like \"https://app.example\" or \"http://192.0.2.7:8080\", without a path, not \"https://b/\"",
    ),
    (
        "[[listener]]\nproxy_protocol = true",
        "wsmb.toml:1: this [[listener]] has no address: write address = \"127.0.0.1:8889\"",
    ),
    (
        "[[listener]]\naddress = \"8889\"",
        "wsmb.toml:2: listener.address must name an address with its port: write \"127.0.0.1:8889\" for this machine only, or \"0.0.0.0:8889\" for every address, not \"8889\"",
    ),
    (
        "[[listener]]\naddress = \"h:1\"\nproxy_protocol = 1",
        "wsmb.toml:3: listener.proxy_protocol must be true or false, not 1",
    ),
    (
        "[[listener]]\naddress = \"h:1\"\ncolour = true",
        "wsmb.toml:3: there is no key listener.colour; [[listener]] has address, tls, proxy_protocol",
    ),
    (
        "[[listener]]\naddress = \"h:1\"\ntls = true",
        "wsmb.toml:3: there is TLS, but no certificate: set tls.certificate and tls.key; `wsmb cert` makes both for a network without names of its own",
    ),
    (
        "[server]\nlisten = \"tls://h:1\"",
        "wsmb.toml:2: there is TLS, but no certificate: set tls.certificate and tls.key; `wsmb cert` makes both for a network without names of its own",
    ),
    (
        "[tls]\ncertificate = \"c\"",
        "wsmb.toml:2: tls.certificate needs tls.key, the private key of the certificate, too",
    ),
    ("[tls]\nkey = \"k\"", "wsmb.toml:2: tls.key needs tls.certificate, too"),
    ("[listener]\naddress = \"h:1\"", "wsmb.toml:1: listener is a list of sections: write [[listener]]"),
    ("[server]\nlisten = [1]", "wsmb.toml:2: server.listen cannot be of the type array"),
    ("[channel_defaults]\nkeep = \"yes\"", "wsmb.toml:2: channel_defaults.keep must be true or false, not \"yes\""),
    (
        "[channel_defaults]\nreceivers = -1",
        "wsmb.toml:2: channel_defaults.receivers must be a whole number from 0 to 1000000, not -1",
    ),
    (
        "[channel_defaults]\ndispatch = \"last\"",
        "wsmb.toml:2: channel_defaults.dispatch must be \"first\" or \"rotate\", not \"last\"",
    ),
    (
        "[channel_defaults]\ndead_letter = \"a*\"",
        "wsmb.toml:2: channel_defaults.dead_letter must be the name of one channel, without * and ?, not \"a*\"",
    ),
    (
        "[channel_defaults]\ndead_letter = \"a\\u0007\"",
        "wsmb.toml:2: channel_defaults.dead_letter is not a valid channel name: the channel name contains a control character",
    ),
    (
        "[[channel]]\nname = \"sms\"\ndead_letter = \"sms\"",
        "wsmb.toml:3: channel.dead_letter is the channel \"sms\" itself; name another channel",
    ),
    (
        "[store]\nurl = \"wsmb.db\"",
        "wsmb.toml:2: store.url must be \"sqlite:PATH\", \"memory:\", \"mysql://USER@HOST/DATABASE\" or \"postgres://USER@HOST/DATABASE\"",
    ),
    ("[store]\nurl = \"sqlite:\"", "wsmb.toml:2: store.url names no file: write \"sqlite:wsmb-data/wsmb.db\""),
    (
        "[store]\nurl = \"mysql://root:geheim@h\"",
        "wsmb.toml:2: store.url names no database: write \"mysql://USER@HOST/DATABASE\"",
    ),
    ("[store]\npassword = 1", "wsmb.toml:2: store.password must be a text in quotes"),
    (
        "[store]\njournal_max = \"1 KiB\"",
        "wsmb.toml:2: store.journal_max must be from \"1 MiB\" to \"1 TiB\", not \"1 KiB\"",
    ),
    (
        "[server]\nmemory_budget = \"1 MiB\"",
        "wsmb.toml:2: server.memory_budget must be \"auto\", or from \"32 MiB\" to \"1 TiB\", not \"1 MiB\"",
    ),
    (
        "[server]\nmemory_budget = \"40 MiB\"\nmax_message = \"8 MiB\"",
        "wsmb.toml:2: server.memory_budget must be at least 8 times server.max_message, not \"40 MiB\"",
    ),
    (
        "[store]\nmax_size = \"1 KiB\"",
        "wsmb.toml:2: store.max_size must be \"0\", or from \"1 MiB\" to \"16 TiB\", not \"1 KiB\"",
    ),
    ("[store]\nprefix = \"mq-\"", "wsmb.toml:2: store.prefix must be at most 32 letters, digits and underscores"),
    ("[store]\ndelay = \"2m\"", "wsmb.toml:2: store.delay must be from \"0s\" to \"1m\", not \"2m\""),
    ("[store]\ncolumns = 1", "wsmb.toml:2: store.columns is a section: write [store.columns]"),
    (
        "[store.columns]\n\"a b\" = \"/a\"",
        "wsmb.toml:2: store.columns.a b is not a valid column name: a letter or underscore, then letters, digits and underscores, at most 63 characters",
    ),
    (
        "[store.columns]\nData = \"/a\"",
        "wsmb.toml:2: store.columns.Data is the name of one of the broker's own columns; choose another name",
    ),
    (
        "[store.columns]\na = \"a\"",
        "wsmb.toml:2: store.columns.a must be a JSON pointer beginning with a slash, like \"/receiver\"",
    ),
    ("[store.columns]\na = 1", "wsmb.toml:2: store.columns.a must be a text like \"/receiver\""),
    ("[auth]\nusers = 7", "wsmb.toml:2: auth.users must be a list of texts, like [\"one\", \"two\"]"),
    ("[auth]\nhtpasswd = \"\"", "wsmb.toml:2: auth.htpasswd has an empty file name"),
    (
        "[log]\nlevel = \"loud\"",
        "wsmb.toml:2: log.level must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\", not \"loud\"",
    ),
];

#[test]
fn each_mistake_has_its_message() {
    for (text, sentence) in MISTAKES {
        assert_eq!(errors(text), *sentence, "{text}");
    }
}

#[test]
fn a_syntax_error_is_reported_with_its_line() {
    for text in ["[server]\n\nlisten = ", "[server]\n\nlisten = \"a\" \"b\"", "a = 1\nb = 2\na = 3", "\n\n[server"] {
        let message = errors(text);
        assert!(message.starts_with("wsmb.toml:3: is not TOML: "), "{message}");
    }
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_file() {
    let text = "[server]\nheartbeat = 1.5\nlistn = 1\n[zzz]\n[channel_defaults]\nkeep = 1\n[[channel]]\n";
    let environment = environment(&[("WSMB_SERVER__DRAIN", "soon"), ("WSMB_LOG__LEVL", "info")]);
    let flags =
        Flags { set: vec!["store.batch=x".into(), "nonsense".into(), "store.bach=1".into()], ..Flags::default() };
    let error = Config::from_parts(Some(("wsmb.toml", text)), environment, &flags).unwrap_err().to_string();
    let parts = [
        "wsmb.toml:2: server.heartbeat cannot be of the type float",
        "wsmb.toml:3: there is no key server.listn",
        "wsmb.toml:4: there is no section [zzz]",
        "wsmb.toml:6: channel_defaults.keep must be true or false, not 1",
        "wsmb.toml:7: this [[channel]] has no name",
        "environment variable WSMB_LOG__LEVL: there is no such key; the nearest is WSMB_LOG__LEVEL",
        "environment variable WSMB_SERVER__DRAIN: server.drain must be a time like",
        "--set: must be written like --set server.heartbeat=30s",
        "--set store.bach: there is no such key; the nearest is store.batch",
        "--set store.batch: store.batch must be a whole number from 1 to 10000, not \"x\"",
    ];
    assert_eq!(error.lines().count(), parts.len(), "{error}");
    for (line, part) in error.lines().zip(parts) {
        assert!(line.starts_with(part), "{part}\nis in the wrong position in\n{error}");
    }
}
