//! All keys of the configuration, and suggestions for misspelled ones.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `section.key`, also for keys of `[[listener]]`, `[[channel]]` and other lists.
    pub path: &'static str,
    /// Whether environment variables and `--set` can set the key. False for keys of lists and tables.
    pub scalar: bool,
}

const fn scalar(path: &'static str) -> Key {
    Key { path, scalar: true }
}

const fn entry(path: &'static str) -> Key {
    Key { path, scalar: false }
}

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    scalar("server.listen"),
    scalar("server.heartbeat"),
    scalar("server.max_message"),
    scalar("server.max_connections"),
    scalar("server.max_handshakes"),
    scalar("server.receiver_grace"),
    scalar("server.threads"),
    scalar("server.max_queue"),
    scalar("server.memory_budget"),
    scalar("server.confirm_timeout"),
    scalar("server.trust_fin"),
    scalar("server.drain"),
    scalar("server.dedup_window"),
    scalar("server.trusted_proxies"),
    scalar("server.origins"),
    entry("listener.address"),
    entry("listener.tls"),
    entry("listener.proxy_protocol"),
    scalar("tls.certificate"),
    scalar("tls.key"),
    scalar("tls.client_ca"),
    scalar("channel_defaults.receivers"),
    scalar("channel_defaults.keep"),
    scalar("channel_defaults.dispatch"),
    scalar("channel_defaults.ttl"),
    scalar("channel_defaults.max_backlog"),
    scalar("channel_defaults.max_deliveries"),
    scalar("channel_defaults.ack_timeout"),
    scalar("channel_defaults.confirm_within"),
    scalar("channel_defaults.dead_letter"),
    scalar("channel_defaults.dead_letter_expired"),
    entry("channel.name"),
    entry("channel.receivers"),
    entry("channel.keep"),
    entry("channel.dispatch"),
    entry("channel.ttl"),
    entry("channel.max_backlog"),
    entry("channel.max_deliveries"),
    entry("channel.ack_timeout"),
    entry("channel.confirm_within"),
    entry("channel.dead_letter"),
    entry("channel.dead_letter_expired"),
    scalar("auth.htpasswd"),
    scalar("auth.users"),
    scalar("auth.admins"),
    scalar("auth.anonymous"),
    scalar("auth.token_key"),
    entry("auth.groups"),
    entry("auth.key.id"),
    entry("auth.key.algorithm"),
    entry("auth.key.key"),
    entry("auth.key.key_file"),
    entry("auth.key.audience"),
    entry("auth.key.issuer"),
    entry("permission.user"),
    entry("permission.group"),
    entry("permission.send"),
    entry("permission.receive"),
    entry("rate.user"),
    entry("rate.publish"),
    entry("rate.connect"),
    scalar("store.url"),
    scalar("store.password"),
    scalar("store.password_file"),
    scalar("store.journal"),
    scalar("store.journal_max"),
    scalar("store.max_size"),
    scalar("store.ids"),
    scalar("store.prefix"),
    scalar("store.batch"),
    scalar("store.delay"),
    scalar("store.write_delay"),
    entry("store.columns"),
    entry("webhook.name"),
    entry("webhook.channel"),
    entry("webhook.url"),
    entry("webhook.secret"),
    entry("webhook.secret_file"),
    entry("webhook.timeout"),
    entry("webhook.concurrency"),
    entry("webhook.allow_private"),
    entry("webhook.ca"),
    scalar("log.level"),
];

/// The sections that are lists of tables, `[[…]]`.
pub(super) const LISTS: [&str; 6] = ["listener", "channel", "auth.key", "permission", "rate", "webhook"];

/// Finds a key by its path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a section with this name exists.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| section(key.path) == name)
}

/// The part of a path before its last dot: `auth.key` for `auth.key.id`.
pub(super) fn section(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(section, _)| section)
}

/// Returns the key that `path` probably misspells. The section may be wrong or missing.
pub(super) fn nearest(path: &str, scalars_only: bool) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let wanted = section(path);
    KEYS.iter()
        .filter(|key| key.scalar || !scalars_only)
        .filter(|key| is_near(last, name(key.path)))
        .min_by_key(|key| {
            // The distance of the names counts twice, so that the section decides only between equal distances.
            let sections = distance(wanted, section(key.path)).min(8);
            distance(last, name(key.path)) * 2 + usize::from(sections > 0) + usize::from(sections > 2)
        })
        .map(|key| key.path)
}

/// The last part of a path.
fn name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Returns the section that `name` probably misspells.
pub(super) fn nearest_section(name: &str) -> Option<&'static str> {
    sections().into_iter().filter(|section| is_near(name, section)).min_by_key(|section| distance(name, section))
}

/// Whether `written` may be a misspelling of `known`: at most one mistake in three characters.
fn is_near(written: &str, known: &str) -> bool {
    distance(written, known) <= (known.chars().count() / 3).max(1)
}

/// All sections, in the order of the documentation.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| section(key.path)).collect();
    sections.dedup();
    sections
}

/// The heading of a section in the file.
pub(super) fn heading(section: &str) -> String {
    if LISTS.contains(&section) { format!("[[{section}]]") } else { format!("[{section}]") }
}

/// The end of a message "there is no key": the nearest key, otherwise all keys of the section.
pub(super) fn advice(path: &str) -> String {
    let is_of_section = |key: &&str| section(key) == section(path) || !sections().contains(&section(path));
    if let Some(key) = nearest(path, false).filter(is_of_section) {
        return format!("; the nearest is {key}");
    }
    let wanted = section(path);
    let names: Vec<&str> = KEYS.iter().map(|key| key.path).filter(|path| section(path) == wanted).map(name).collect();
    if names.is_empty() { section_advice(wanted) } else { format!("; {} has {}", heading(wanted), names.join(", ")) }
}

/// The end of a message "there is no section": the nearest section, otherwise all sections.
pub(super) fn section_advice(name: &str) -> String {
    if let Some(section) = nearest_section(name) {
        return format!("; the nearest is {}", heading(section));
    }
    let all: Vec<String> = sections().into_iter().map(heading).collect();
    format!("; there are {}", all.join(", "))
}

/// The sections with a key of this name.
pub(super) fn sections_with(wanted: &str) -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).filter(|path| name(path) == wanted).map(section).collect()
}

/// The number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`, ignoring case. Both are cut to 64
/// characters, because the work grows with the product of the lengths; no key is that long.
fn distance(a: &str, b: &str) -> usize {
    let start = |text: &str| text.chars().flat_map(char::to_lowercase).take(64).collect::<String>();
    strsim::osa_distance(&start(a), &start(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_the_misspelled_key() {
        let table = [
            ("server.listn", "server.listen"),
            ("server.haertbeat", "server.heartbeat"),
            ("heartbeat", "server.heartbeat"),
            ("server.keep", "channel_defaults.keep"),
            ("channel.recievers", "channel.receivers"),
            ("channel_defaults.recievers", "channel_defaults.receivers"),
            ("channel_default.recievers", "channel_defaults.receivers"),
            ("auth.htpaswd", "auth.htpasswd"),
            ("store.uri", "store.url"),
            ("log.Level", "log.level"),
            ("server.maxconnections", "server.max_connections"),
        ];
        for (written, meant) in table {
            assert_eq!(nearest(written, false), Some(meant), "{written}");
        }
        assert_eq!(nearest("channel.recievers", true), Some("channel_defaults.receivers"));
        assert_eq!(nearest_section("sever"), Some("server"));
        assert_eq!(nearest_section("channels"), Some("channel"));
    }

    #[test]
    fn nearest_finds_nothing_for_other_names() {
        for written in ["server.port", "server.colour", "listener.colour", "store.type", "x", "log.file", "server.", ""]
        {
            assert_eq!(nearest(written, false), None, "{written}");
        }
        assert_eq!(nearest_section("zzz"), None);
        assert_eq!(advice("log.file"), "; [log] has level");
        assert!(advice("zzz.x").starts_with("; there are [server], [[listener]], "), "{}", advice("zzz.x"));
        assert_eq!(advice("servr.x"), "; the nearest is [server]");
    }
}
