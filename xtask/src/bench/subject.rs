//! The measured servers: this broker with its dialects, the bare relay, and other brokers.

/// One row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// This broker's topic dialect, with `keep = false`, as the other servers.
    Topic,
    /// This broker's envelope dialect, with `keep = false`.
    Envelope,
    /// The topic dialect with kept channels, the default.
    TopicKept,
    /// The envelope dialect with kept channels.
    EnvelopeKept,
    /// The envelope dialect with kept channels and manual acknowledgement.
    EnvelopeManual,
    /// The bare relay of `benches/limit`.
    Limit,
    Mosquitto,
    Nats,
}

/// All subjects, in the order of the tables.
pub const ALL: [Subject; 8] = [
    Subject::Topic,
    Subject::Envelope,
    Subject::TopicKept,
    Subject::EnvelopeKept,
    Subject::EnvelopeManual,
    Subject::Limit,
    Subject::Mosquitto,
    Subject::Nats,
];

impl Subject {
    /// The name in the file of results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Envelope => "envelope",
            Self::TopicKept => "topic-kept",
            Self::EnvelopeKept => "envelope-kept",
            Self::EnvelopeManual => "envelope-manual",
            Self::Limit => "limit",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats",
        }
    }

    pub fn of_key(key: &str) -> Option<Self> {
        ALL.into_iter().find(|subject| subject.key() == key)
    }

    /// The name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "wsmb, topic",
            Self::Envelope => "wsmb, envelope",
            Self::TopicKept => "wsmb, topic, kept",
            Self::EnvelopeKept => "wsmb, envelope, kept",
            Self::EnvelopeManual => "wsmb, envelope, kept, `ack`",
            Self::Limit => "*limit* (bare relay)",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
        }
    }

    pub fn is_wsmb(self) -> bool {
        !matches!(self, Self::Limit | Self::Mosquitto | Self::Nats)
    }

    /// Returns the load generator of the subject, and the arguments that select the protocol.
    pub fn generator(self) -> (Generator, &'static [&'static str]) {
        match self {
            Self::Topic | Self::TopicKept | Self::Limit => (Generator::Wsmb, &["--dialect", "topic"]),
            Self::Envelope | Self::EnvelopeKept => (Generator::Wsmb, &["--dialect", "envelope"]),
            Self::EnvelopeManual => (Generator::Wsmb, &["--dialect", "envelope", "--manual-ack"]),
            Self::Mosquitto => (Generator::Peers, &["mqtt"]),
            Self::Nats => (Generator::Peers, &["nats"]),
        }
    }
}

/// The program that generates the load. Both programs use the crate `load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// `wsmb bench`
    Wsmb,
    /// `cargo bench --bench peers`
    Peers,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_found_by_its_key() {
        for subject in ALL {
            assert_eq!(Subject::of_key(subject.key()), Some(subject));
        }
        assert_eq!(Subject::of_key("x"), None);
    }
}
