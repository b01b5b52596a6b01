//! What the broker is started with: its settings, and what the store held.

use std::time::Duration;

use super::Bounds;
use crate::message::{AcceptedId, ChannelName, Message, MessageId, PublicationId, Timestamp};
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
    /// What no configuration changes.
    pub bounds: Bounds,
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
            bounds: Bounds::default(),
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
    /// The stored publications that were accepted within the dedup window: where, id, when, and how many of its messages are in the store.
    pub publications: Vec<(ChannelName, PublicationId, Timestamp, u32)>,
    /// Ids accepted within the dedup window, stored or not. None may lie in the future, or it is remembered too long.
    pub ids: Vec<AcceptedId>,
    /// The key of the hash by which `ids` are known; any random one if there are none.
    pub id_seed: [u64; 2],
    /// How many ids are remembered at once; `None`: [`crate::limits::DEDUP_IDS`].
    pub id_bound: Option<usize>,
    /// The highest id ever given.
    pub last_id: MessageId,
    /// The `deliveries` of rows up to this id may be too low: they were in the store at a crash, now or before an orderly restart since. Any of these
    /// messages may have been delivered before, and is marked so.
    pub suspect_up_to: MessageId,
}
