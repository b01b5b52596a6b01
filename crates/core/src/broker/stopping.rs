//! The core's part in an orderly stop: kept messages are not delivered any more, and receivers are asked to confirm their deliveries at
//! once.
//!
//! Messages that arrive during the stop are accepted and stored for the next start. Channels that are not kept go on as before, because
//! their messages cannot wait.

use super::entry::WriteState;
use super::receiver::Receiver;
use super::{Broker, Turn};
use crate::message::MessageId;

impl Broker {
    /// Begins the stop, which cannot be undone, or continues it when all connections have ended. Both times the store is asked to write all
    /// waiting messages and all that it failed to write.
    pub(super) fn begin_stop(&mut self, turn: &mut Turn<'_>) {
        self.stopping = true;
        let waiting = self.channels.iter().flat_map(|(_, channel)| channel.waiting.values());
        let unwritten: Vec<MessageId> = waiting.filter(|entry| !entry.written).map(|entry| entry.message.id).collect();
        for id in unwritten {
            self.append_unrequested(id);
        }
        // The stop does not wait for the retry timer.
        self.retry_store();
        let receivers: Vec<usize> = self.receivers.iter().map(|(key, _)| key).collect();
        for key in receivers {
            self.want_confirmation(key, turn);
        }
    }

    /// Returns the number of unstored messages.
    #[must_use]
    pub fn unstored(&self) -> usize {
        self.unstored.len()
    }

    /// Whether the store has been asked to write a message and has not answered.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.unstored.iter().any(|(_, unstored)| unstored.write_state == WriteState::Writing)
    }

    /// Whether a receiver has unconfirmed automatic deliveries.
    #[must_use]
    pub fn awaits_confirmation(&self) -> bool {
        let owes = |receiver: &Receiver| receiver.window.has_automatic();
        self.receivers.iter().any(|(_, receiver)| owes(receiver))
    }

    /// Whether a publication is not safe yet, so that its sender has no answer.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        !self.pending.is_empty()
    }
}
