//! What holds for a channel: its policy, and which policy a name gets. Shared by the configuration, which reads it, and the broker
//! core, which obeys it.

use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use crate::message::ChannelName;

/// In which order receivers are chosen where there is a receiver limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// The first ones in the order in which they subscribed; the others stand by.
    First,
    /// In turn.
    Rotate,
}

/// What holds for one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelPolicy {
    /// To how many receivers a publication goes; 0 = all.
    pub receivers: u32,
    /// Messages are kept until received.
    pub keep: bool,
    /// How receivers are chosen.
    pub dispatch: Dispatch,
    /// After this a message is never delivered; zero = never expires.
    pub ttl: Duration,
    /// Unsettled messages the channel may have.
    pub max_backlog: u64,
    /// Deliveries after which a message is given up; 0 = no limit.
    pub max_deliveries: u32,
    /// A delivery to a receiver with manual acknowledgement that is neither acknowledged nor extended for so long is given to another receiver.
    pub ack_timeout: Duration,
    /// A delivery to an automatic receiver that is unconfirmed for so long is given to one more receiver; zero = never.
    pub confirm_within: Duration,
    /// Where messages go that were given up; `None` = dropped and counted.
    pub dead_letter: Option<ChannelName>,
    /// Expired messages go to `dead_letter`, too.
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

/// Every policy: the named ones in the order of the configuration, and the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// Patterns (`*` any characters, `?` one) and what holds for them; the first that matches wins.
    pub named: Vec<(WildMatch, ChannelPolicy)>,
    /// What holds for every other channel.
    pub default: ChannelPolicy,
}

impl Policies {
    /// What holds for the channel of this name.
    #[must_use]
    pub fn of(&self, channel: &ChannelName) -> &ChannelPolicy {
        self.named.get(self.position(channel)).map_or(&self.default, |(_, policy)| policy)
    }

    /// Which policy holds for the channel of this name: its place among [`Self::shared`].
    #[must_use]
    pub fn position(&self, channel: &ChannelName) -> usize {
        let found = self.named.iter().position(|(pattern, _)| pattern.matches(channel.as_str()));
        found.unwrap_or(self.named.len())
    }

    /// The channels whose expired messages become dead letters.
    #[must_use]
    pub fn spare(&self) -> Spare {
        let spares = |policy: &ChannelPolicy| policy.dead_letter_expired && policy.dead_letter.is_some();
        let named: Vec<_> = self.named.iter().map(|(pattern, policy)| (pattern.clone(), spares(policy))).collect();
        let others = spares(&self.default);
        let any = others || named.iter().any(|(_, spared)| *spared);
        Spare { named: if any { named.into() } else { Arc::default() }, others }
    }

    /// A copy of every policy, to be shared by its channels: the named ones in their order, then the default.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<ChannelPolicy>> {
        self.named.iter().map(|(_, policy)| policy).chain([&self.default]).cloned().map(Arc::new).collect()
    }
}

/// Channels whose expired messages may not vanish: where the store finds one, the broker core is to hear of it and not to lose it.
#[derive(Clone, Debug, Default)]
pub struct Spare {
    /// As in [`Policies::named`]. Empty if no channel is spared.
    named: Arc<[(WildMatch, bool)]>,
    others: bool,
}

impl Spare {
    /// Every channel there is.
    #[must_use]
    pub fn all() -> Self {
        Self { named: Arc::default(), others: true }
    }

    /// No channel is spared.
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
    fn a_channel_is_spared_if_the_policy_that_counts_for_it_says_where_expired_messages_go() {
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
