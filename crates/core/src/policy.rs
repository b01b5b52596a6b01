//! The policies of channels, and the choice of a channel's policy by its name. The configuration reads them, and the broker core applies
//! them.

use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use crate::message::ChannelName;

/// The order in which receivers are chosen if the channel has a receiver limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// The receivers that subscribed first. The others are standby receivers.
    First,
    /// The receivers take turns.
    Rotate,
}

/// The policy of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelPolicy {
    /// The number of receivers that get each publication; 0 = all.
    pub receivers: u32,
    /// Whether messages are kept until a receiver confirms them.
    pub keep: bool,
    /// The order in which receivers are chosen.
    pub dispatch: Dispatch,
    /// The time to live: an older message is never delivered. Zero = messages never expire.
    pub ttl: Duration,
    /// The most unsettled messages of the channel: accepted, and not yet confirmed, expired, given up or purged.
    pub max_backlog: u64,
    /// The number of unsuccessful deliveries after which a message is given up; 0 = no limit.
    pub max_deliveries: u32,
    /// A delivery to a receiver with manual acknowledgement that is neither acknowledged nor extended for this time is given to another
    /// receiver.
    pub ack_timeout: Duration,
    /// A delivery to a receiver with automatic confirmation that is unconfirmed for this time is also given to one more receiver; zero =
    /// never.
    pub confirm_within: Duration,
    /// The channel that gets the messages that were given up. `None`: they are dropped and counted.
    pub dead_letter: Option<ChannelName>,
    /// Whether expired messages go to `dead_letter`, too.
    pub dead_letter_expired: bool,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        Self {
            receivers: 0,
            keep: true,
            dispatch: Dispatch::First,
            ttl: Duration::ZERO,
            max_backlog: 1_000_000,
            max_deliveries: 0,
            ack_timeout: Duration::from_secs(300),
            confirm_within: Duration::ZERO,
            dead_letter: None,
            dead_letter_expired: false,
        }
    }
}

/// All policies: the named policies in the order of the configuration, and the default policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// Patterns (`*` any characters, `?` one character) and their policies. The first pattern that matches takes precedence.
    pub named: Vec<(WildMatch, ChannelPolicy)>,
    /// The policy of every other channel.
    pub default: ChannelPolicy,
}

impl Policies {
    /// Returns the policy of the channel with this name.
    #[must_use]
    pub fn of(&self, channel: &ChannelName) -> &ChannelPolicy {
        self.named.get(self.position(channel)).map_or(&self.default, |(_, policy)| policy)
    }

    /// Returns the index of the channel's policy in [`Self::shared`].
    #[must_use]
    pub fn position(&self, channel: &ChannelName) -> usize {
        let found = self.named.iter().position(|(pattern, _)| pattern.matches(channel.as_str()));
        found.unwrap_or(self.named.len())
    }

    /// Returns the channels whose expired messages become dead letters.
    #[must_use]
    pub fn spare(&self) -> Spare {
        let spares = |policy: &ChannelPolicy| policy.dead_letter_expired && policy.dead_letter.is_some();
        let named: Vec<_> = self.named.iter().map(|(pattern, policy)| (pattern.clone(), spares(policy))).collect();
        let others = spares(&self.default);
        let any = others || named.iter().any(|(_, spared)| *spared);
        Spare { named: if any { named.into() } else { Arc::default() }, others }
    }

    /// Returns a copy of every policy, to be shared by its channels: the named policies in their order, then the default policy.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<ChannelPolicy>> {
        self.named.iter().map(|(_, policy)| policy).chain([&self.default]).cloned().map(Arc::new).collect()
    }
}

/// The channels whose expired messages become dead letters. A sweep of the store must not remove these messages; the store returns them to
/// the broker core.
#[derive(Clone, Debug, Default)]
pub struct Spare {
    /// Patterns as in [`Policies::named`], and whether their channels are spared. Empty if no channel is spared.
    named: Arc<[(WildMatch, bool)]>,
    others: bool,
}

impl Spare {
    /// Spares every channel.
    #[must_use]
    pub fn all() -> Self {
        Self { named: Arc::default(), others: true }
    }

    /// Whether no channel is spared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.others && self.named.is_empty()
    }

    /// Whether this channel is spared.
    #[must_use]
    pub fn has(&self, channel: &ChannelName) -> bool {
        let found = self.named.iter().find(|(pattern, _)| pattern.matches(channel.as_str()));
        found.map_or(self.others, |(_, spared)| *spared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_spared_if_its_policy_has_a_dead_letter_channel_for_expired_messages() {
        let name = |text| ChannelName::parse(text).expect("a name");
        let dead =
            ChannelPolicy { dead_letter: Some(name("dead")), dead_letter_expired: true, ..ChannelPolicy::default() };
        let nowhere = ChannelPolicy { dead_letter: None, ..dead.clone() };
        let named = vec![
            (WildMatch::new("sms-test"), ChannelPolicy::default()),
            (WildMatch::new("sms*"), dead.clone()),
            (WildMatch::new("mail"), nowhere.clone()),
        ];
        let policies = Policies { named, default: ChannelPolicy::default() };
        let spared = |channel| policies.spare().has(&name(channel));
        assert_eq!(["sms", "sms-test", "mail", "other"].map(spared), [true, false, false, false]);
        assert!(!policies.spare().is_empty());
        let none = Policies { named: vec![(WildMatch::new("mail"), nowhere)], default: ChannelPolicy::default() };
        assert!(none.spare().is_empty() && !none.spare().has(&name("mail")));
        let all = Policies { named: Vec::new(), default: dead };
        assert!(!all.spare().is_empty() && all.spare().has(&name("other")));
    }
}
