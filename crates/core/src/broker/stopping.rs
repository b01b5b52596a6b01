//! The core's part in an orderly stop: nothing more is given to receivers of kept channels, and what was given is to be confirmed at once.
//!
//! Messages that come in meanwhile are accepted and stored: they wait for the next broker. Channels that are not kept go on as before, because
//! nothing of theirs could wait.

use super::entry::Row;
use super::receiver::Receiver;
use super::{Broker, Turn};
use crate::message::MessageId;

impl Broker {
    /// The stop has begun, which cannot be taken back; or it is about to end. Either way the store is asked for all that it has refused so far.
    pub(super) fn begin_stop(&mut self, turn: &mut Turn<'_>) {
        self.stopping = true;
        let waiting = self.channels.iter().flat_map(|(_, channel)| channel.waiting.values());
        let unwritten: Vec<MessageId> = waiting.filter(|entry| !entry.written).map(|entry| entry.message.id).collect();
        for id in unwritten {
            self.append_unasked(id);
        }
        // What the store refused a moment ago is not to be lost because the stop did not wait for the next attempt.
        self.retry_store();
        let receivers: Vec<usize> = self.receivers.iter().map(|(key, _)| key).collect();
        for key in receivers {
            self.want_confirmation(key, turn);
        }
    }

    /// How many messages are neither stored nor settled.
    #[must_use]
    pub fn unstored(&self) -> usize {
        self.unstored.len()
    }

    /// Whether the store has been asked to write something and has not answered.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.unstored.iter().any(|(_, unstored)| unstored.row == Row::Writing)
    }

    /// Whether a receiver that confirms by pongs has not confirmed everything.
    #[must_use]
    pub fn awaits_confirmation(&self) -> bool {
        let owes = |receiver: &Receiver| receiver.window.has_automatic();
        self.receivers.iter().any(|(_, receiver)| owes(receiver))
    }

    /// Whether a publication waits to be safe, so that its sender is still to be answered.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        !self.pending.is_empty()
    }
}
