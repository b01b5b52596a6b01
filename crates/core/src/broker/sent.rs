//! Remembers to which channels a connection has sent.
//!
//! A connection that has sent to a channel may have come only to send. If such a connection leaves, this does not prove that it received a
//! message of the channel.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::message::ChannelName;

/// Remembers one channel by a hash of its name. After a second channel the connection counts as having sent to every channel. Nearly all
/// connections send to one channel, and a wrong "yes" only means that a message may arrive twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SentTo {
    #[default]
    Nothing,
    One(u32),
    Several,
}

impl SentTo {
    /// Notes that the connection has tried to send to a channel, even if its publication is refused.
    pub fn note(&mut self, channel: &ChannelName) {
        let hash = hash(channel);
        *self = match *self {
            Self::Nothing => Self::One(hash),
            Self::One(known) if known == hash => Self::One(known),
            Self::One(_) | Self::Several => Self::Several,
        };
    }

    /// Whether the connection may have sent to a channel.
    pub fn may_include(self, channel: &ChannelName) -> bool {
        match self {
            Self::Nothing => false,
            Self::One(known) => known == hash(channel),
            Self::Several => true,
        }
    }
}

/// Hashes the name without a random key, so that the core stays deterministic.
fn hash(channel: &ChannelName) -> u32 {
    // 32 bits are enough: if two names have the same hash, a message may arrive twice.
    (FixedState::default().hash_one(channel.as_str()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_second_channel_every_channel_counts_as_sent_to() {
        let [sms, other, third] = ["sms", "other", "third"].map(|name| ChannelName::parse(name).expect("a name"));
        let mut sent = SentTo::default();
        assert!(!sent.may_include(&sms));
        sent.note(&sms);
        sent.note(&sms);
        assert!(sent.may_include(&sms) && !sent.may_include(&other));
        sent.note(&other);
        assert!(sent.may_include(&sms) && sent.may_include(&other) && sent.may_include(&third));
    }
}
