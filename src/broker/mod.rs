//! The core: channels, receivers, what waits, what is in flight.

mod effect;
mod event;

pub use effect::{Content, Effect, Effects, EndReason, Refusal, Reply, StoreEffect};
pub use event::{AckMode, Acknowledge, Event, Publish, ReceiverKey, StoreFailure, Subscribe};
pub use restore::{ChannelSummary, Restored, Settings};

mod restore;
