//! What the broker is started with: its settings, and what the store held.

use std::time::Duration;

use crate::message::{ChannelName, Message, MessageId, PublicationId, Timestamp};
use crate::policy::Policies;

/// The part of the configuration that the core obeys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What holds for each channel.
    pub policies: Policies,
    /// Messages in one backlog frame, at most (manual acknowledgement: always one).
    pub batch: usize,
    /// Pause between two backlog frames to one receiver.
    pub delay: Duration,
    /// A message in flight is written if it is unconfirmed for so long.
    pub write_delay: Duration,
    /// A receiver whose deliveries are unconfirmed for so long is ended.
    pub confirm_timeout: Duration,
    /// How long the id of a publication is remembered.
    pub dedup_window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policies: Policies::default(),
            batch: 10,
            delay: Duration::ZERO,
            write_delay: Duration::from_millis(500),
            confirm_timeout: Duration::from_secs(300),
            dedup_window: Duration::from_secs(120),
        }
    }
}

/// One channel's backlog in the store, without the messages that have a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub channel: ChannelName,
    /// How many messages.
    pub messages: u64,
    /// The highest id among them.
    pub last: MessageId,
    /// When those among them expire that expire at all, and how many then. Moments may stand for later ones near them.
    pub expiries: Vec<(Timestamp, u64)>,
}

/// What the store held when the broker started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Every channel with a backlog.
    pub channels: Vec<ChannelSummary>,
    /// Every message with a due time, past or future.
    pub delayed: Vec<Message>,
    /// Publication ids accepted within the dedup window, oldest first.
    pub publications: Vec<(ChannelName, PublicationId, Timestamp)>,
    /// The highest id ever given.
    pub last_id: MessageId,
    /// The broker before this one stopped in an orderly way: the `deliveries` of every row are true. Otherwise any
    /// message may have been delivered before, and is marked so.
    pub clean: bool,
}
