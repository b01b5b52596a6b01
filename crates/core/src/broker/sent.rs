//! To which channels a connection has sent, as far as it matters.
//!
//! A connection that has sent to a channel perhaps came only to send: its leaving proves nothing about what it was given of that channel.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::message::ChannelName;

/// Remembers one channel, by a hash of its name. After a second one the connection counts as having sent to every channel: nearly all
/// connections send to one, and a wrong "yes" only means that a message may arrive twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SentTo {
    #[default]
    Nothing,
    One(u32),
    Many,
}

impl SentTo {
    /// Notes that the connection has tried to send to a channel, whatever became of the publication.
    pub fn note(&mut self, channel: &ChannelName) {
        let hash = hash(channel);
        *self = match *self {
            Self::Nothing => Self::One(hash),
            Self::One(known) if known == hash => Self::One(known),
            Self::One(_) | Self::Many => Self::Many,
        };
    }

    /// Whether the connection may have sent to a channel.
    pub fn may_include(self, channel: &ChannelName) -> bool {
        match self {
            Self::Nothing => false,
            Self::One(known) => known == hash(channel),
            Self::Many => true,
        }
    }
}

/// The same at every run.
fn hash(channel: &ChannelName) -> u32 {
    // Half of the hash is enough: two names with one hash only make a receiver's leaving prove less.
    (FixedState::default().hash_one(channel.as_str()) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_is_remembered_and_a_second_one_means_every_channel() {
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
