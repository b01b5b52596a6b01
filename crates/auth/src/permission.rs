//! Decides which channels a user may send to and receive from, from the `[[permission]]` entries of the configuration.
//!
//! Without entries, all users may use all channels. With entries, only the first entry whose users match applies; a user without a matching
//! entry may use no channel. This module must never decide who a user is.

use std::fmt;

use wildmatch::WildMatch;
use wsmb_core::glob;

/// Patterns of channel names: `*` matches any characters, `?` matches one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patterns(Vec<WildMatch>);

impl Patterns {
    /// The patterns that match every channel.
    #[must_use]
    pub fn all() -> Self {
        ["*"].into_iter().collect()
    }

    /// Whether a pattern matches this channel.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// Whether one of the patterns matches every name that `other` matches. May be false wrongly, never true wrongly.
    #[must_use]
    pub fn covers(&self, other: &str) -> bool {
        self.0.iter().any(|pattern| glob::covers(&pattern.to_string(), other))
    }

    /// Whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as text.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(WildMatch::to_string)
    }
}

impl<T: AsRef<str>> FromIterator<T> for Patterns {
    fn from_iter<I: IntoIterator<Item = T>>(patterns: I) -> Self {
        Self(patterns.into_iter().map(|pattern| WildMatch::new(pattern.as_ref())).collect())
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

/// The channels that somebody may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// The channels to send to.
    pub send: Patterns,
    /// The channels to receive from.
    pub receive: Patterns,
}

/// One `[[permission]]` entry.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    users: Patterns,
    rights: Rights,
}

/// The `[[permission]]` entries, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permissions {
    rules: Vec<Rule>,
}

impl Permissions {
    /// Appends an entry for the users that match one of these patterns: one pattern, or the members of a group. All texts are patterns. The
    /// user name of an anonymous connection is empty.
    #[must_use]
    pub fn with<T: AsRef<str>>(mut self, users: &[T], send: &[String], receive: &[String]) -> Self {
        let rights = Rights { send: send.iter().collect(), receive: receive.iter().collect() };
        self.rules.push(Rule { users: users.iter().collect(), rights });
        self
    }

    /// Whether `user` may send to `channel`.
    #[must_use]
    pub fn may_send(&self, user: &str, channel: &str) -> bool {
        self.rules.is_empty() || self.of(user).is_some_and(|rights| rights.send.matches(channel))
    }

    /// Whether `user` may receive from `channel`.
    #[must_use]
    pub fn may_receive(&self, user: &str, channel: &str) -> bool {
        self.rules.is_empty() || self.of(user).is_some_and(|rights| rights.receive.matches(channel))
    }

    /// The channels that `user` may use.
    #[must_use]
    pub fn rights(&self, user: &str) -> Rights {
        if self.rules.is_empty() {
            return Rights { send: Patterns::all(), receive: Patterns::all() };
        }
        self.of(user).cloned().unwrap_or_default()
    }

    /// The rights in the first entry that matches the user.
    fn of(&self, user: &str) -> Option<&Rights> {
        self.rules.iter().find(|rule| rule.users.matches(user)).map(|rule| &rule.rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_entries_all_users_may_use_all_channels() {
        let open = Permissions::default();
        assert!(open.may_send("anyone", "sms") && open.may_receive("", "sms"));
        assert_eq!(open.rights("anyone").send, Patterns::all());
    }

    #[test]
    fn only_the_first_matching_entry_applies() {
        let permissions = Permissions::default()
            .with(&["gateway-*"], &[], &list(&["sms", "sms.?"]))
            .with(&["gateway-1"], &list(&["*"]), &list(&["*"]))
            .with(&["shop"], &list(&["sms*", "mail"]), &list(&["reply.*"]));
        let table = [
            ("gateway-1", "sms", false, true),
            ("gateway-1", "sms.1", false, true),
            ("gateway-1", "sms.12", false, false),
            ("gateway-1", "mail", false, false),
            ("shop", "sms.12", true, false),
            ("shop", "mail", true, false),
            ("shop", "Mail", false, false),
            ("shop", "reply.7", false, true),
            ("stranger", "sms", false, false),
            ("", "sms", false, false),
        ];
        for (user, channel, send, receive) in table {
            assert_eq!(permissions.may_send(user, channel), send, "{user} sends to {channel}");
            assert_eq!(permissions.may_receive(user, channel), receive, "{user} receives from {channel}");
            let rights = permissions.rights(user);
            assert_eq!((rights.send.matches(channel), rights.receive.matches(channel)), (send, receive), "{user}");
        }
    }

    #[test]
    fn an_entry_for_a_group_applies_to_each_of_its_members_and_to_nobody_else() {
        let permissions = Permissions::default().with(&["alice", "ops-*"], &list(&["alarm"]), &[]).with(
            &["*"],
            &list(&["news"]),
            &[],
        );
        for (user, alarm, news) in [("alice", true, false), ("ops-7", true, false), ("bob", false, true)] {
            assert_eq!((permissions.may_send(user, "alarm"), permissions.may_send(user, "news")), (alarm, news));
        }
        let nobody = Permissions::default().with::<&str>(&[], &list(&["*"]), &[]);
        assert!(!nobody.may_send("", "news") && !nobody.may_send("alice", "news"), "a group without members");
    }

    #[test]
    fn the_empty_pattern_matches_anonymous_connections() {
        let permissions =
            Permissions::default().with(&[""], &[], &list(&["news"])).with(&["*"], &list(&["*"]), &list(&["*"]));
        assert!(permissions.may_receive("", "news") && !permissions.may_send("", "news"));
        assert!(permissions.may_send("alice", "news"));
    }
}
