//! The naive model: what an observer outside of the broker knows of each message, and the rules that must hold. The model has no windows,
//! pages or queues.
//!
//! The rules for a delivery are the assertions in [`Model::delivered`]; the rules for returned messages are in `record.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::{Holder, MessageRecord};
use crate::broker::Bounds;
use crate::message::{ConnectionId, MessageId, Nack, Timestamp};
use crate::policy::ChannelPolicy;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub messages: BTreeMap<u64, MessageRecord>,
    /// For the order of messages: the last message whose first delivery was seen, by sender, channel, whether the sender was a member of
    /// the channel, and whether the channel is kept. A message of a member may have to wait for another receiver, so it has an order of its
    /// own; a message that is not kept waits for nobody.
    last_first: BTreeMap<(ConnectionId, String, bool, bool), u64>,
    /// The time at which each receiver last confirmed anything by a pong.
    last_pong: BTreeMap<ConnectionId, Timestamp>,
}

/// One delivered message as its receiver sees it.
pub(super) struct DeliveryView<'a> {
    pub number: u64,
    pub channel: &'a str,
    pub to: ConnectionId,
    pub sequence: u64,
    pub manual: bool,
    pub attempt: u32,
    /// The number of messages in the delivery. Its attempt number is the highest one of them.
    pub messages: usize,
    pub message: MessageId,
    /// The channel's policy.
    pub policy: &'a ChannelPolicy,
    /// The group that the receiver names.
    pub group: Option<&'static str>,
    /// Whether a receiver of the same delivery names a group.
    pub grouped: bool,
    /// The number of the turn, and the index of the content.
    pub delivery: (u64, u32),
}

impl Model {
    /// Records a delivery and checks the rules:
    ///
    /// * A message arrives on the channel to which it was sent, or as a dead letter.
    /// * A sender does not get its own messages while it receives the channel.
    /// * A message is not delivered before it is due, nor after it has expired, was confirmed, purged or refused.
    /// * A message has at most as many receivers as its limit, plus one if a receiver is late. No receiver has it twice.
    /// * A silent receiver gets nothing new if the limit is above 0.
    /// * A redelivery is marked by its attempt number.
    /// * First deliveries of messages from one sender are in the order of sending.
    pub fn delivered(&mut self, now: Timestamp, view: &DeliveryView<'_>, dead_letter: &str) {
        let DeliveryView { number, channel, to, sequence, manual, attempt, message, policy, .. } = *view;
        let too_many_held = self.has_too_many_held(now);
        let record = self.messages.get_mut(&number).unwrap_or_else(|| panic!("message {number} was never sent"));
        let letter = channel == dead_letter && record.channel != dead_letter;
        assert!(
            channel == record.channel || letter,
            "message {number} of {} was delivered on {channel}",
            record.channel
        );
        assert!(
            letter || to != record.sender || !record.sender_receives,
            "message {number} was delivered to its sender"
        );
        assert!(letter || record.expires.is_none_or(|at| at > now), "message {number} was delivered after it expired");
        assert!(now >= record.due, "message {number} was delivered before it was due");
        assert!(!record.confirmed, "message {number} was delivered after it was confirmed");
        assert!(!record.purged, "message {number} was delivered after it was purged");
        // `08` (expired) means: never delivered on its own channel.
        assert!(letter || !record.refused, "message {number} was delivered after it was refused");
        assert!(!record.lost, "message {number} was delivered although it was lost in a crash");
        assert_eq!(sequence > 0, record.keep, "message {number}: only kept messages have a sequence number");
        if record.keep {
            record.starts_again(letter);
            let others = record.holders.keys().filter(|(holder, _)| *holder != to).count();
            // One more if a receiver is late.
            let late = record.holders.values().any(|holder| !holder.manual && holder.is_late(now));
            let limit = if letter { policy.receivers as usize } else { record.limit };
            assert!(
                limit == 0 || others < limit + usize::from(late),
                "message {number} has more receivers than its limit"
            );
            assert!(
                record.holders.is_empty() || !record.holders.keys().any(|(holder, _)| *holder == to),
                "message {number} was given to {to:?}, which has it"
            );
            let too_many_held = too_many_held || std::mem::take(&mut record.may_be_early);
            record.check_hold(number, to, now, too_many_held);
            let observes = record.check_groups(number, now, view, too_many_held);
            let within = if manual { policy.ack_timeout } else { policy.confirm_within };
            let within = if observes { Duration::ZERO } else { within };
            let holder = Holder { at: now, manual, within, overdue: false, group: view.group, observes };
            record.holders.insert((to, sequence), holder);
            assert!(limit == 0 || !self.is_silent(now, to), "message {number} was given to {to:?}, which is silent");
        }
        let record = self.messages.get_mut(&number).expect("a known message");
        if manual && !letter {
            let before = record.deliveries > record.holders.len().saturating_sub(1) as u32;
            // A delayed message that came due right before a crash, and waits until after the next restart, has no mark.
            let unknown = record.delayed && matches!(channel, "drop" | "three");
            let id = record.id.replace(message).unwrap_or(message);
            assert!(id == message || record.delayed, "message {number} had the id {id:?} and now has {message:?}");
            assert!(!before || attempt > 1 || unknown, "message {number} was redelivered without a mark");
        }
        record.deliveries += 1;
        // A delayed message that comes due after a crash counts one delivery that may not have happened.
        let most = (record.deliveries + u32::from(record.delayed)).max(2);
        assert!(attempt <= most || view.messages > 1, "message {number}: attempt {attempt} of {}", record.deliveries);
        // Not for the sender itself: it does not get the messages that it sent while it received the channel, so it may see the later ones
        // first.
        if record.deliveries == 1 && !letter && !record.delayed && to != record.sender {
            let key = (record.sender, record.channel.clone(), record.sender_was_member, record.keep);
            let last = self.last_first.entry(key).or_default();
            assert!(*last < number, "message {number} was first delivered after message {last} of the same sender");
            *last = number;
        }
    }

    fn has_too_many_held(&self, now: Timestamp) -> bool {
        let is_held = |record: &&MessageRecord| {
            let waits = record.held_back.as_ref().map(|(at, _)| *at).max(record.bound_to.as_ref().map(|(_, at)| *at));
            record.holders.is_empty() && waits.is_some_and(|at| at > now)
        };
        self.messages.values().filter(is_held).count() > Bounds::TIGHT.held
    }

    /// Called at the end of a turn: if too many messages are held, some are released early, and the model does not know which.
    pub fn mark_early(&mut self, now: Timestamp) {
        if self.has_too_many_held(now) {
            self.messages.values_mut().for_each(|record| record.may_be_early = record.holders.is_empty());
        }
    }

    /// Returns the largest number of messages that may count against a channel's `max_backlog`.
    pub fn live(&self, channel: &str, now: Timestamp) -> u64 {
        let live = |record: &&MessageRecord| {
            let over = record.confirmed || record.purged || record.refused || record.lost;
            record.channel == channel && record.keep && !over && record.expires.is_none_or(|at| at > now)
        };
        self.messages.values().filter(live).count() as u64
    }

    /// Applies a step of the wall clock: the times of messages that earlier runs have stored move earlier.
    pub fn advance(&mut self, by: u64) {
        for record in self.messages.values_mut() {
            let Some(is_due_later) = record.restored else { continue };
            if is_due_later {
                record.due.0 = record.due.0.saturating_sub(by);
            }
            if let Some(expires) = &mut record.expires {
                expires.0 = expires.0.saturating_sub(by);
            }
        }
    }

    /// A receiver confirms the deliveries for which `holds` returns true.
    pub fn confirmed(&mut self, now: Timestamp, connection: ConnectionId, holds: impl Fn(u64, &Holder) -> bool) {
        for record in self.messages.values_mut() {
            let before = record.holders.len();
            let mut settled = false;
            record.holders.retain(|(holder, sequence), held| {
                let goes = *holder == connection && holds(*sequence, held);
                settled |= goes && !held.observes;
                !goes
            });
            if record.holders.len() < before {
                self.last_pong.insert(connection, now);
            }
            if settled {
                record.holders_when_safe.get_or_insert(before);
                record.confirmed = true;
            }
        }
    }

    /// A receiver vanishes.
    pub fn vanished(&mut self, now: Timestamp, connection: ConnectionId) {
        self.loses(connection, None, now, |_| {});
    }

    /// A receiver gives a delivery back.
    pub fn nacked(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64), nack: &Nack) {
        self.loses(connection, Some(sequence), now, |record| {
            record.failed.by.insert(connection);
            record.failed.nacked = true;
            record.failed.reject |= nack.reject;
            record.failed.until = record.failed.until.max(nack.retry_after.map(|pause| now.after(pause)));
        });
    }

    /// The broker takes a delivery from a receiver that was too slow.
    pub fn revoked(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64)) {
        // A frame with several messages is taken back as a whole. Another receiver may have room for the first message only.
        let is_only = self.held_by(connection, sequence).len() == 1;
        self.loses(connection, Some(sequence), now, |record| {
            record.failed.by.insert(connection);
            // Not if other receivers have it, because they may lose it, too.
            record.revoked = (is_only && record.holders.is_empty()).then_some((connection, now));
        });
    }

    /// A receiver loses messages: those of the delivery `only`, or all.
    fn loses(
        &mut self,
        connection: ConnectionId,
        only: Option<u64>,
        now: Timestamp,
        note: impl Fn(&mut MessageRecord),
    ) {
        for record in self.messages.values_mut() {
            let (mut counts, mut any) = (false, false);
            record.holders.retain(|(holder, sequence), held| {
                let stays = *holder != connection || only.is_some_and(|only| only != *sequence);
                any |= !stays;
                counts |= !stays && !held.observes;
                stays
            });
            if any && !record.confirmed && !record.purged {
                record.returned.insert(connection);
            }
            if counts && !record.confirmed && !record.purged {
                note(record);
                record.returns(now);
            }
        }
    }

    /// A receiver extends a delivery, or a late delivery stays with its receiver (`overdue`).
    pub fn extended(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64), overdue: bool) {
        for record in self.messages.values_mut() {
            if let Some(holder) = record.holders.get_mut(&(connection, sequence)) {
                (holder.at, holder.overdue) = (now, overdue);
            }
        }
    }

    /// A receiver acknowledges a manual delivery.
    pub fn answered(&mut self, connection: ConnectionId, sequence: u64) {
        for record in self.messages.values_mut() {
            let before = record.holders.len();
            if record.holders.remove(&(connection, sequence)).is_some_and(|holder| !holder.observes) {
                record.holders_when_safe.get_or_insert(before);
                record.confirmed = true;
            }
        }
    }

    /// Returns the messages of a delivery.
    pub fn held_by(&self, connection: ConnectionId, sequence: u64) -> Vec<u64> {
        let holds = |record: &MessageRecord| record.holders.contains_key(&(connection, sequence));
        self.messages.iter().filter(|(_, record)| holds(record)).map(|(number, _)| *number).collect()
    }

    /// Whether a receiver has a late automatic delivery, and has confirmed nothing since it became late.
    pub fn is_silent(&self, now: Timestamp, connection: ConnectionId) -> bool {
        let last_pong = self.last_pong.get(&connection).copied().unwrap_or_default();
        self.messages.values().filter(|record| !record.confirmed && !record.purged).any(|record| {
            record.holders.iter().any(|((holder, _), held)| {
                // Strictly earlier: events of the same millisecond may happen in either order.
                *holder == connection && !held.manual && held.late().is_some_and(|at| last_pong < at && at < now)
            })
        })
    }
}
