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

    /// A copy of every policy, to be shared by its channels: the named ones in their order, then the default.
    #[must_use]
    pub fn shared(&self) -> Vec<Arc<ChannelPolicy>> {
        self.named.iter().map(|(_, policy)| policy).chain([&self.default]).cloned().map(Arc::new).collect()
    }
}
