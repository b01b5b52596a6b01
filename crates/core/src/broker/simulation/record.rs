//! What the model knows of one message: its holders, and the rules for a message that receivers give back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::DeliveryView;
use crate::broker::Bounds;
use crate::message::{ConnectionId, MessageId, Timestamp};
use crate::policy::ChannelPolicy;

/// A receiver that has a message and has not confirmed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// The time of the delivery, or of its last extension.
    pub at: Timestamp,
    pub manual: bool,
    /// The time for which it may be unconfirmed; zero = unlimited.
    pub within: Duration,
    /// The delivery was reported as late, and no other receiver could take the message.
    pub overdue: bool,
    /// The receiver's group at the delivery.
    pub group: Option<&'static str>,
    /// The receiver is an observer: groups have the message, and the receiver's answers do not count.
    pub observes: bool,
}

impl Holder {
    /// Returns the time at which the delivery is late.
    pub fn late(&self) -> Option<Timestamp> {
        (!self.within.is_zero()).then(|| self.at.after(self.within))
    }

    pub fn is_late(&self, now: Timestamp) -> bool {
        self.late().is_some_and(|late| late <= now)
    }
}

/// The receivers that gave the current flight of a message back or were too slow, and the parameters of their nacks.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub by: BTreeSet<ConnectionId>,
    pub nacked: bool,
    pub until: Option<Timestamp>,
    pub reject: bool,
}

/// What is known of one message. The message's number is its text.
#[derive(Debug)]
pub(super) struct MessageRecord {
    pub channel: String,
    pub sender: ConnectionId,
    /// The sender received the channel when it sent the message, and has not left it since.
    pub sender_receives: bool,
    /// The sender received the channel when it sent the message.
    pub sender_was_member: bool,
    pub limit: usize,
    /// The sender gave the limit. If false, the channel's limit applies, which may change.
    pub has_own_limit: bool,
    pub keep: bool,
    pub delayed: bool,
    pub due: Timestamp,
    pub expires: Option<Timestamp>,
    /// Present if an earlier run of the broker has stored the message, and the message has not got a new row since. True if it was stored with a
    /// due time.
    pub restored: Option<bool>,
    /// The sender got `00`.
    pub accepted: bool,
    /// The sender got a refusal.
    pub refused: bool,
    /// A receiver has confirmed it.
    pub confirmed: bool,
    pub purged: bool,
    /// The process crashed before the message was stored, and the sender had no answer.
    pub lost: bool,
    /// The number of receivers that had the message when it became safe: when it was confirmed, or when the broker learnt that it is
    /// stored.
    pub holders_when_safe: Option<usize>,
    /// The number of deliveries, on all channels.
    pub deliveries: u32,
    /// The broker's id for it, once it was delivered.
    pub id: Option<MessageId>,
    /// The receivers that have it, by connection and sequence number.
    pub holders: BTreeMap<(ConnectionId, u64), Holder>,
    /// Whether it is the only message of its publication.
    pub is_single: bool,
    /// The number of flights since the start of the broker, or since the message became a dead letter.
    pub flights: u32,
    /// The number of times it returned with a nack.
    pub nacks: u32,
    pub failed: Failed,
    /// Present while it is held back after a nack: until this time, and only from these receivers. If the set is empty, from all receivers.
    pub held_back: Option<(Timestamp, BTreeSet<ConnectionId>)>,
    /// The receivers that had it and did not confirm it.
    pub returned: BTreeSet<ConnectionId>,
    /// The receiver from which it was taken because it was too slow, and the time.
    pub revoked: Option<(ConnectionId, Timestamp)>,
    /// The groups that got it in the last flight.
    pub flight_groups: BTreeSet<&'static str>,
    pub has_observers: bool,
    pub last_delivery: (u64, u32),
    /// It was waiting when too many messages were held, so it may be released early.
    pub may_be_early: bool,
    /// These groups had it and returned it: nobody else gets it before this time.
    pub bound_to: Option<(BTreeSet<&'static str>, Timestamp)>,
    /// A receiver has rejected it, and no other receiver had it.
    pub rejected: bool,
    /// It is a dead letter.
    pub is_dead_letter: bool,
    /// A receiver has rejected the dead letter. Dead letters have no dead-letter channel, so the message is dropped.
    pub dead_letter_rejected: bool,
}

impl MessageRecord {
    pub fn new(channel: String, sender: ConnectionId, policy: &ChannelPolicy) -> Self {
        Self {
            channel,
            sender,
            sender_receives: false,
            sender_was_member: false,
            limit: policy.receivers as usize,
            has_own_limit: false,
            keep: policy.keep,
            delayed: false,
            due: Timestamp::default(),
            expires: None,
            restored: None,
            accepted: false,
            refused: false,
            confirmed: false,
            purged: false,
            lost: false,
            deliveries: 0,
            id: None,
            holders: BTreeMap::new(),
            is_single: true,
            flights: 0,
            nacks: 0,
            failed: Failed::default(),
            holders_when_safe: None,
            held_back: None,
            returned: BTreeSet::new(),
            revoked: None,
            flight_groups: BTreeSet::new(),
            has_observers: false,
            last_delivery: (0, 0),
            may_be_early: false,
            bound_to: None,
            rejected: false,
            is_dead_letter: false,
            dead_letter_rejected: false,
        }
    }

    /// Checks the channel of a delivery. When the message has just become a dead letter, it starts again like a new message.
    pub(super) fn starts_again(&mut self, letter: bool) {
        assert!(letter || !self.rejected, "a message was delivered after it was rejected: {self:?}");
        assert!(letter || !self.is_dead_letter, "a dead letter was delivered on its first channel: {self:?}");
        if letter && !self.is_dead_letter {
            self.is_dead_letter = true;
            (self.flights, self.nacks, self.held_back, self.revoked, self.bound_to) = (0, 0, None, None, None);
            self.returned.clear();
        }
    }

    /// Whether only the groups that had it may get it again. (Dead letters go to one receiver.)
    pub(super) fn waits_for_groups(&self) -> bool {
        self.has_observers || (self.limit == 0 && !self.is_dead_letter)
    }

    /// Returns the only groups that may get it: it waits for them, or they have it.
    pub fn only_for(&self) -> Option<&BTreeSet<&'static str>> {
        let has = !self.holders.is_empty() && !self.flight_groups.is_empty() && self.waits_for_groups();
        if has { Some(&self.flight_groups) } else { self.bound_to.as_ref().map(|(groups, _)| groups) }
    }

    /// Records a delivery with regard to groups, and checks that a message which belongs to groups goes to them only. Returns whether the
    /// receiver is an observer.
    pub(super) fn check_groups(
        &mut self,
        number: u64,
        now: Timestamp,
        view: &DeliveryView<'_>,
        too_many_held: bool,
    ) -> bool {
        let DeliveryView { to, group, grouped, delivery, .. } = *view;
        if self.holders.is_empty() {
            if let Some((groups, until)) = self.bound_to.take().filter(|(_, until)| now < *until && !too_many_held) {
                assert!(
                    group.is_some_and(|group| groups.contains(group)),
                    "message {number} waits for {groups:?} until {until:?} and was given to {to:?} of {group:?}"
                );
            }
            (self.flight_groups, self.has_observers, self.last_delivery) = (BTreeSet::new(), false, delivery);
        } else if self.last_delivery != delivery {
            // One more receiver of a flight, in the place of a member that has lost the message or is late.
            let has = |holder: &Holder| group.is_some() && holder.group == group;
            let doubled = self.holders.values().filter(|holder| has(holder)).all(|holder| holder.is_late(now));
            assert!(doubled, "message {number} was given to {to:?} of {group:?}, which has it: {self:?}");
            if let Some(groups) = self.only_for() {
                let theirs = group.is_some_and(|group| groups.contains(group));
                assert!(theirs, "message {number} of {groups:?} was given to {to:?} of {group:?}");
            }
            return false;
        }
        let observes = grouped && group.is_none();
        self.flight_groups.extend(group);
        self.has_observers |= observes;
        observes
    }

    /// Called when a receiver has lost the message: if only observers have it, the flight has failed.
    pub(super) fn returns(&mut self, now: Timestamp) {
        if self.holders.values().any(|holder| !holder.observes) {
            return;
        }
        self.holders.clear();
        self.decide_retry(now);
        let from = self.held_back.as_ref().map_or(now, |(until, _)| *until);
        let waits = !self.flight_groups.is_empty() && self.waits_for_groups();
        self.bound_to = waits.then(|| (std::mem::take(&mut self.flight_groups), from.after(Bounds::TIGHT.group_wait)));
    }

    /// Records a delivery with regard to earlier failures, and checks that a held message is not delivered before its time, nor at once to
    /// the receiver that failed. `too_many_held`: too many messages are held, so some of them are released early.
    pub(super) fn check_hold(&mut self, number: u64, to: ConnectionId, now: Timestamp, too_many_held: bool) {
        if self.holders.is_empty() {
            if let Some((until, not)) = self.held_back.take().filter(|(until, _)| *until > now) {
                assert!(
                    too_many_held || !not.is_empty(),
                    "message {number} was delivered at {now:?}, although it is held until {until:?}"
                );
                assert!(
                    !not.contains(&to),
                    "message {number} was delivered at once to {to:?}, which had given it back"
                );
            }
            if let Some((slow, at)) = self.revoked.take() {
                assert!(
                    !self.is_single || at < now || slow != to,
                    "message {number} was delivered again to {to:?}, which was too slow"
                );
            }
            self.flights += 1;
        } else if self.limit > 0 {
            // One more receiver of the same flight, because one is late; or one of several receivers.
            self.flights += u32::from(self.holders.len() >= self.limit);
        }
    }

    /// Decides what must follow a flight that ended with a nack: rejection, or a back-off that doubles with each flight (1 s to 60 s). The
    /// first nack holds the message back from the receivers that sent it; later nacks from all receivers.
    pub(super) fn decide_retry(&mut self, now: Timestamp) {
        let failed = std::mem::take(&mut self.failed);
        if !failed.nacked {
            return;
        }
        let first = self.nacks == 0;
        self.nacks += 1;
        self.rejected |= failed.reject && !self.is_dead_letter;
        self.dead_letter_rejected |= failed.reject && self.is_dead_letter;
        let pause = Duration::from_secs(1 << self.flights.saturating_sub(1).min(6)).min(Duration::from_secs(60));
        self.held_back = match failed.until {
            Some(until) => Some((until, BTreeSet::new())),
            None => Some((now.after(pause), if first { failed.by } else { BTreeSet::new() })),
        };
    }

    /// Whether it was rejected and its channel has no dead-letter channel.
    pub fn is_dropped(&self) -> bool {
        self.dead_letter_rejected || self.is_rejected() && !["three", "late"].contains(&self.channel.as_str())
    }

    /// Whether it was rejected, even if other receivers still have it.
    pub fn is_rejected(&self) -> bool {
        self.rejected || self.failed.reject
    }

    /// Whether it has expired and did not become a dead letter.
    pub fn has_vanished(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
            && (self.refused || !super::world::has_expired_dead_letters(&self.channel))
    }

    /// Forgets what only the crashed process knew.
    pub fn forget(&mut self) {
        self.holders.clear();
        (self.flights, self.nacks, self.held_back, self.revoked, self.bound_to) = (0, 0, None, None, None);
        self.failed = Failed::default();
        self.returned.clear();
    }
}
