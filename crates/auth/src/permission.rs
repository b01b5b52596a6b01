//! Decides which channels a user may send to and receive from, from the `[[permission]]` entries of the configuration.
//!
//! Without entries, all users may use all channels. With entries, only the first entry whose `user` pattern matches applies; a user
//! without a matching entry may use no channel.

use wildmatch::WildMatch;

/// One `[[permission]]` entry.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    user: WildMatch,
    send: Vec<WildMatch>,
    receive: Vec<WildMatch>,
}

/// The `[[permission]]` entries, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permissions {
    rules: Vec<Rule>,
}

impl Permissions {
    /// Appends an entry. All arguments are patterns: `*` matches any characters, `?` matches one. The user name of an anonymous connection is
    /// empty.
    #[must_use]
    pub fn with(mut self, user: &str, send: &[String], receive: &[String]) -> Self {
        let patterns = |list: &[String]| list.iter().map(|pattern| WildMatch::new(pattern)).collect();
        self.rules.push(Rule { user: WildMatch::new(user), send: patterns(send), receive: patterns(receive) });
        self
    }

    /// Whether `user` may send to `channel`.
    #[must_use]
    pub fn may_send(&self, user: &str, channel: &str) -> bool {
        self.may(user, channel, |rule| &rule.send)
    }

    /// Whether `user` may receive from `channel`.
    #[must_use]
    pub fn may_receive(&self, user: &str, channel: &str) -> bool {
        self.may(user, channel, |rule| &rule.receive)
    }

    fn may(&self, user: &str, channel: &str, list: impl Fn(&Rule) -> &Vec<WildMatch>) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let rule = self.rules.iter().find(|rule| rule.user.matches(user));
        rule.is_some_and(|rule| list(rule).iter().any(|pattern| pattern.matches(channel)))
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
    }

    #[test]
    fn only_the_first_matching_entry_applies() {
        let permissions = Permissions::default()
            .with("gateway-*", &[], &list(&["sms", "sms.?"]))
            .with("gateway-1", &list(&["*"]), &list(&["*"]))
            .with("shop", &list(&["sms*", "mail"]), &list(&["reply.*"]));
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
        }
    }

    #[test]
    fn the_empty_pattern_matches_anonymous_connections() {
        let permissions =
            Permissions::default().with("", &[], &list(&["news"])).with("*", &list(&["*"]), &list(&["*"]));
        assert!(permissions.may_receive("", "news") && !permissions.may_send("", "news"));
        assert!(permissions.may_send("alice", "news"));
    }
}
