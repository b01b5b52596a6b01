//! The naive model: what an observer outside of the broker knows of each message, and the rules that must hold. The model has no windows,
//! pages or queues.
//!
//! The rules for a delivery are the assertions in [`Model::delivered`]; the rules for returned messages are in [`MessageRecord::check_hold`],
//! [`MessageRecord::check_groups`] and [`MessageRecord::decide_retry`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::Bounds;
use crate::message::{ConnectionId, MessageId, Nack, Timestamp};
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
    by: BTreeSet<ConnectionId>,
    nacked: bool,
    until: Option<Timestamp>,
    reject: bool,
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
    fn starts_again(&mut self, letter: bool) {
        assert!(letter || !self.rejected, "a message was delivered after it was rejected: {self:?}");
        assert!(letter || !self.is_dead_letter, "a dead letter was delivered on its first channel: {self:?}");
        if letter && !self.is_dead_letter {
            self.is_dead_letter = true;
            (self.flights, self.nacks, self.held_back, self.revoked, self.bound_to) = (0, 0, None, None, None);
            self.returned.clear();
        }
    }

    /// Whether only the groups that had it may get it again. (Dead letters go to one receiver.)
    fn waits_for_groups(&self) -> bool {
        self.has_observers || (self.limit == 0 && !self.is_dead_letter)
    }

    /// Returns the only groups that may get it: it waits for them, or they have it.
    pub fn only_for(&self) -> Option<&BTreeSet<&'static str>> {
        let has = !self.holders.is_empty() && !self.flight_groups.is_empty() && self.waits_for_groups();
        if has { Some(&self.flight_groups) } else { self.bound_to.as_ref().map(|(groups, _)| groups) }
    }

    /// Records a delivery with regard to groups, and checks that a message which belongs to groups goes to them only. Returns whether the
    /// receiver is an observer.
    fn check_groups(&mut self, number: u64, now: Timestamp, view: &DeliveryView<'_>, too_many_held: bool) -> bool {
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
    fn returns(&mut self, now: Timestamp) {
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
    fn check_hold(&mut self, number: u64, to: ConnectionId, now: Timestamp, too_many_held: bool) {
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
    fn decide_retry(&mut self, now: Timestamp) {
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
        assert!(attempt <= most, "message {number}: attempt {attempt} of {}", record.deliveries);
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
