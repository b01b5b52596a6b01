//! The start of the broker: its settings, and the contents of the store.

use std::time::Duration;

use super::Bounds;
use crate::limits;
use crate::message::{AcceptedId, ChannelName, Message, MessageId, PublicationId, Timestamp};
use crate::policy::Policies;

/// The part of the configuration that the core uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policies of channels.
    pub policies: Policies,
    /// The most messages in one backlog frame (with manual acknowledgement always one).
    pub batch: usize,
    /// The pause between two backlog frames to one receiver.
    pub delay: Duration,
    /// A message in flight is written if it is unconfirmed for this time.
    pub write_delay: Duration,
    /// A receiver with unconfirmed deliveries is ended if it confirms nothing for this time.
    pub confirm_timeout: Duration,
    /// The time for which publication ids are remembered.
    pub dedup_window: Duration,
    /// The bytes that the whole program may use.
    pub memory_budget: usize,
    /// Bounds that no configuration key changes.
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
            memory_budget: limits::MEMORY_BUDGET,
            bounds: Bounds::default(),
        }
    }
}

/// One channel's backlog in the store, without the messages that have a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub channel: ChannelName,
    /// The number of messages.
    pub messages: u64,
    /// The highest id among them.
    pub last: MessageId,
    /// The expiry times of the messages that expire, each with the number of messages. Nearby times may be merged into the earliest of
    /// them.
    pub expiries: Vec<(Timestamp, u64)>,
}

/// The contents of the store and of the file of ids when the broker started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Every channel with a backlog.
    pub channels: Vec<ChannelSummary>,
    /// Every message with a due time, past or future.
    pub delayed: Vec<Message>,
    /// The stored publications that were accepted within the dedup window: channel, id, time of acceptance, and number of their messages in
    /// the store.
    pub publications: Vec<(ChannelName, PublicationId, Timestamp, u32)>,
    /// Ids accepted within the dedup window, whether their messages are stored or not. No time may be in the future, because the id would
    /// be remembered too long.
    pub ids: Vec<AcceptedId>,
    /// The key of the hash in `ids`; any random key if there are no ids.
    pub id_seed: [u64; 2],
    /// The most ids that are remembered at once; `None`: [`crate::limits::DEDUP_IDS`].
    pub id_bound: Option<usize>,
    /// The highest message id that was ever given.
    pub last_id: MessageId,
    /// Rows up to this id were in the store at a crash, now or before an orderly restart since then, so their `deliveries` may be too low.
    /// Each of these messages may have been delivered before and is marked so.
    pub suspect_up_to: MessageId,
}
