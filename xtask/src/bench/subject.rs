//! Who is measured: this broker in its dialects, the bare relay, and other brokers.

/// One column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// This broker's topic dialect; a message goes to whoever is there, as with all others here.
    Topic,
    /// Its envelope dialect, the same.
    Envelope,
    /// The topic dialect where channels keep what nobody has confirmed: the default.
    TopicKept,
    /// The envelope dialect, the same.
    EnvelopeKept,
    /// The same, where the receiver acknowledges each delivery with a command.
    EnvelopeManual,
    /// The bare relay of `benches/limit`.
    Limit,
    Mosquitto,
    Nats,
}

/// All of them, in the order in which they are measured and shown.
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
    /// Its name in the file of results.
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

    /// Its name for readers.
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

    /// Another broker, as opposed to ours and to what is none.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Mosquitto | Self::Nats)
    }

    /// The arguments with which the load generator speaks to it, before the workload's.
    pub fn speech(self) -> (Generator, &'static [&'static str]) {
        match self {
            Self::Topic | Self::TopicKept | Self::Limit => (Generator::Wsmb, &["--dialect", "topic"]),
            Self::Envelope | Self::EnvelopeKept => (Generator::Wsmb, &["--dialect", "envelope"]),
            Self::EnvelopeManual => (Generator::Wsmb, &["--dialect", "envelope", "--manual-ack"]),
            Self::Mosquitto => (Generator::Peers, &["mqtt"]),
            Self::Nats => (Generator::Peers, &["nats"]),
        }
    }
}

/// Which program makes the load. The engine is the same.
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
    fn keys_are_found_again() {
        for subject in ALL {
            assert_eq!(Subject::of_key(subject.key()), Some(subject));
        }
        assert_eq!(Subject::of_key("x"), None);
    }
}
