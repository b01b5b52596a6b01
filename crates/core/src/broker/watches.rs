//! Callers that wait until a publication is settled, and the outcomes that they are told.
//!
//! A watch begins when a publication is accepted, and ends when its last message is settled. `journey.rs` reports the messages that are in memory; the
//! expiry and the purge of messages that only the store has are reported where they are noticed.
//!
//! Never here: a decision about a message.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::effect::Outcome;
use super::event::CallerId;
use super::stage::Cause;
use crate::message::{MessageId, Timestamp};

/// The publications whose callers wait.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// The caller that waits for each message, by the message's current id.
    callers: HashMap<MessageId, CallerId, RandomState>,
    watches: HashMap<CallerId, Watch, RandomState>,
    /// When the messages of each watch expire, if they do.
    expiries: BTreeSet<(Timestamp, CallerId)>,
    /// Callers whose publications are settled and who are told at the end of the turn.
    pub(super) settled: Vec<(CallerId, Outcome)>,
}

/// One publication whose caller waits.
#[derive(Debug)]
struct Watch {
    /// The channel's key.
    channel: usize,
    /// The messages that are not settled.
    messages: SmallVec<[MessageId; 1]>,
    /// The outcome of the messages that are settled.
    outcome: Outcome,
    /// The caller was told that the publication is safe. A message may become a dead letter before.
    accepted: bool,
    /// When the messages expire.
    expires: Option<Timestamp>,
}

impl Watches {
    /// Begins a watch. `channel`: the key of the messages' channel; `expires`: when the messages expire.
    pub(super) fn begin(
        &mut self,
        caller: CallerId,
        channel: usize,
        messages: SmallVec<[MessageId; 1]>,
        expires: Option<Timestamp>,
    ) {
        self.expiries.extend(expires.map(|expires| (expires, caller)));
        self.callers.extend(messages.iter().map(|message| (*message, caller)));
        self.watches.insert(caller, Watch { channel, messages, outcome: Outcome::Delivered, accepted: false, expires });
    }

    /// A message is settled.
    #[inline]
    pub(super) fn settle(&mut self, message: MessageId, cause: Cause) {
        if !self.callers.is_empty() {
            self.settle_watched(message, cause);
        }
    }

    fn settle_watched(&mut self, message: MessageId, cause: Cause) {
        let Some(caller) = self.callers.remove(&message) else { return };
        let Some(watch) = self.watches.get_mut(&caller) else { return };
        watch.messages.retain(|other| *other != message);
        watch.outcome = watch.outcome.max(outcome(cause));
        self.finish(caller);
    }

    /// The caller is told that its publication is safe.
    pub(super) fn accept(&mut self, caller: CallerId) {
        if let Some(watch) = self.watches.get_mut(&caller) {
            watch.accepted = true;
            self.finish(caller);
        }
    }

    fn finish(&mut self, caller: CallerId) {
        let is_over = |watch: &Watch| watch.accepted && watch.messages.is_empty();
        if let Some(watch) = self.watches.get(&caller).filter(|watch| is_over(watch)) {
            self.settled.push((caller, watch.outcome));
            self.remove(caller);
        }
    }

    fn remove(&mut self, caller: CallerId) -> Option<Watch> {
        let watch = self.watches.remove(&caller)?;
        if let Some(expires) = watch.expires {
            self.expiries.remove(&(expires, caller));
        }
        Some(watch)
    }

    /// Returns the first time after `now` at which messages of a watch expire.
    pub(super) fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.expiries.range((now.after(Duration::from_millis(1)), CallerId(0))..).next().map(|(expires, _)| *expires)
    }

    /// A message has got a new id.
    pub(super) fn rename(&mut self, old: MessageId, new: MessageId) {
        let Some(caller) = self.callers.remove(&old) else { return };
        self.callers.insert(new, caller);
        let messages = self.watches.get_mut(&caller).map(|watch| &mut watch.messages);
        for message in messages.into_iter().flatten().filter(|message| **message == old) {
            *message = new;
        }
    }

    /// All messages of a channel are purged.
    pub(super) fn purge(&mut self, channel: usize) {
        let of_channel = self.watches.values().filter(|watch| watch.channel == channel);
        let messages: Vec<MessageId> = of_channel.flat_map(|watch| watch.messages.iter().copied()).collect();
        messages.into_iter().for_each(|message| self.settle(message, Cause::Purged));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.watches.is_empty() && self.expiries.is_empty() && self.settled.is_empty()
    }

    /// The caller waits no longer, or its publication was refused.
    pub(super) fn end(&mut self, caller: CallerId) {
        for message in self.remove(caller).into_iter().flat_map(|watch| watch.messages) {
            self.callers.remove(&message);
        }
    }
}

/// Returns what the cause of a message's end means for its sender.
fn outcome(cause: Cause) -> Outcome {
    match cause {
        Cause::Expired => Outcome::Expired,
        Cause::DeadLettered => Outcome::DeadLettered,
        Cause::Purged => Outcome::Purged,
        // A refused message is answered with a refusal instead.
        Cause::Dropped | Cause::Refused => Outcome::Dropped,
        _ => Outcome::Delivered,
    }
}
