//! Kept messages that were delivered to members of groups.
//!
//! Only the confirmations of members settle such a message. The other receivers of the delivery are *observers*: their confirmations do not
//! count. If a member loses the message or gives it back, another member of its group gets it. If no member has the message any more, it is
//! *bound* to these groups.
//!
//! A bound message goes to a member with room. Without a receiver limit, or if there were observers, it is also *owed* to the groups: it
//! waits for a member for [`super::Bounds::group_wait`], and only then goes to any receiver. Otherwise it goes to the next receiver if no
//! member has room.

use super::counters::Metric;
use super::entry::{Binding, Entry, Held};
use super::group_shares::{Eligible, GroupShares};
use super::groups::Choice;
use super::member::{Member, Targets};
use super::receiver::Receiver;
use super::turn::Turn;
use super::{AckMode, Broker, Content, Effect};
use crate::message::{ConnectionId, MessageId, Timestamp};

impl Broker {
    /// Chooses the receivers of a delivery on a channel with groups: like [`Self::targets`], with one member of each group.
    pub(super) fn grouped_targets(
        &self,
        channel: usize,
        eligible: Eligible<'_>,
        takes: &dyn Fn(&Receiver) -> bool,
    ) -> Targets {
        let Eligible { origin, limit, within, not } = eligible;
        let channel = &self.channels[channel];
        let Some(groups) = channel.groups().filter(|_| !self.stopping) else { return Targets::new() };
        let choice = Choice { dispatch: channel.policy.dispatch, served: channel.served, limit, within };
        let is_eligible = |member: &Member| Some(member.connection) != origin && !not(member.connection);
        let ready = |member: &Member| (is_eligible(member) && takes(&self.receivers[member.receiver])).then_some(0);
        if limit > 0 {
            return groups.choose(choice, ready);
        }
        if groups.choose(Choice { limit: 1, ..choice }, ready).is_empty() {
            return Targets::new();
        }
        // Nobody waits for anybody. Of a group without room, the member with the fewest unconfirmed deliveries.
        groups.choose(choice, |member| {
            let receiver = &self.receivers[member.receiver];
            let able = is_eligible(member) && !self.is_outrun(member.receiver);
            able.then(|| ready(member).unwrap_or(1 + receiver.window.len()))
        })
    }

    /// Removes `by` from a flight that has groups.
    pub(super) fn release_share(
        &mut self,
        key: usize,
        by: ConnectionId,
        doubled: bool,
        pump: bool,
        turn: &mut Turn<'_>,
    ) {
        let flight = &mut self.flights[key];
        let (channel, outstanding) = (flight.channel, flight.outstanding);
        let Some(shares) = flight.shares.as_mut().filter(|_| !flight.entries.is_empty()) else {
            if outstanding == 0 {
                self.flights.remove(key);
            }
            return;
        };
        let share = shares.share(by);
        shares.holders.retain(|(_, holder)| *holder != by);
        if doubled {
            self.to_pump.push(channel);
        }
        if !shares.holders.is_empty() {
            if let Some(share) = share.filter(|share| !shares.holders.iter().any(|(other, _)| other == share)) {
                self.pass_within(key, share, turn);
            }
            return;
        }
        // Only observers still have the flight, and they cannot settle it.
        let entries = std::mem::take(&mut flight.entries);
        let (shares, failed) = (flight.shares.take(), flight.failed.take());
        if outstanding == 0 {
            self.flights.remove(key);
        }
        self.channels[channel].in_flight -= 1;
        for mut entry in entries {
            let binding = self.binding_of(&entry, channel, shares.as_deref());
            self.bind(&mut entry, binding);
            self.return_entry(channel, entry, failed.as_deref(), turn);
        }
        if pump && self.channels.contains(channel) {
            self.to_pump.push(channel);
        }
    }

    /// Handles a group that has lost a flight which another group still has: another member gets it now, if a member has room.
    fn pass_within(&mut self, key: usize, share: usize, turn: &mut Turn<'_>) {
        let flight = &self.flights[key];
        let most = self.channels[flight.channel].policy.max_deliveries;
        let is_spent = |entry: &Entry| most > 0 && entry.message.deliveries >= most;
        let waits = flight.failed.as_ref().is_some_and(|failed| failed.waits());
        let is_over = flight.entries.iter().all(|entry| entry.expired(turn.now));
        if self.stopping || waits || is_over || flight.entries.iter().any(|entry| is_spent(entry)) {
            return;
        }
        if let Some(target) = self.next_within(key, share, turn.now) {
            self.join_flight(key, Some(share), target, turn);
        }
    }

    /// Returns another member that can get the flight that its group has lost.
    pub(super) fn next_within(&self, key: usize, share: usize, now: Timestamp) -> Option<Member> {
        let flight = &self.flights[key];
        let groups = self.channels[flight.channel].groups()?;
        let members = groups.members(flight.shares.as_ref()?.group(share));
        members.iter().find(|member| self.joins(key, member, now)).copied()
    }

    /// Whether a receiver can get a flight that others have. It must not have the flight itself, nor have failed with it.
    pub(super) fn joins(&self, flight: usize, member: &Member, now: Timestamp) -> bool {
        let receiver = &self.receivers[member.receiver];
        let Some(at) = self.flights.get(flight) else { return false };
        let fits = at.entries.len() == 1 || receiver.ack == AckMode::Manual || !receiver.takes_single();
        fits && receiver.takes_backlog(now)
            && !at.entries.iter().any(|entry| entry.origin == Some(member.connection))
            && !at.failed.as_ref().is_some_and(|failed| failed.has(member.connection))
            && !receiver.window.iter().any(|delivery| delivery.flight == flight)
    }

    /// Delivers a flight, of which others have a part, to one more receiver. At least one message must not have expired. `share`: the group
    /// for which the receiver gets it.
    pub(super) fn join_flight(&mut self, key: usize, share: Option<usize>, target: Member, turn: &mut Turn<'_>) {
        let flight = &mut self.flights[key];
        flight.outstanding += 1;
        if let (Some(share), Some(shares)) = (share, &mut flight.shares) {
            shares.add(share, target.connection);
        }
        let (mut size, mut attempt) = (0, 2);
        let is_alive = |entry: &Entry| !entry.expired(turn.now);
        for entry in flight.entries.iter_mut().filter(|entry| is_alive(entry)) {
            entry.message.deliveries = entry.message.deliveries.saturating_add(1);
            attempt = attempt.max(entry.attempt());
            size += entry.message.payload.bytes.len();
        }
        let alive = flight.entries.iter().filter(|entry| is_alive(entry));
        let message = alive.clone().next().map_or(MessageId(0), |entry| entry.message.id);
        let content = turn.content(Content::backlog(&self.channels[flight.channel].name, alive));
        let channel = flight.channel;
        self.count(channel, Metric::Deliveries, 1);
        self.count(channel, Metric::Redeliveries, 1);
        let receiver = &mut self.receivers[target.receiver];
        let manual = receiver.ack == AckMode::Manual;
        receiver.serve(channel);
        let sequence = receiver.window.push(key, size, manual, turn.now);
        turn.effect(|| Effect::Deliver {
            to: target.connection,
            content,
            sequence,
            manual,
            attempt: if manual { attempt } else { 1 },
            message,
        });
        self.pause_backlog(&[target], turn);
        self.deadlines.arm_late_check(turn.now.after(self.shortest_deadline), target.connection);
        self.want_confirmation(target.receiver, turn);
    }

    /// Returns the groups to which a message is bound when no receiver has it any more.
    pub(super) fn binding_of(&self, entry: &Entry, channel: usize, shares: Option<&GroupShares>) -> Option<Binding> {
        let shares = shares?;
        let limit = entry.message.receivers.unwrap_or(self.channels[channel].policy.receivers);
        Some(Binding { groups: shares.groups.to_vec().into(), waits: limit == 0 || shares.has_observers })
    }

    /// Binds a message to groups.
    fn bind(&mut self, entry: &mut Entry, binding: Option<Binding>) {
        let before = entry.bytes();
        entry.failures.get_or_insert_default().binding = binding;
        self.recharge(entry, before);
    }

    /// Removes a message's binding to groups.
    pub(super) fn unbind(&mut self, entry: &mut Entry) {
        if entry.binding().is_none() {
            return;
        }
        let before = entry.bytes();
        if let Some(failures) = &mut entry.failures {
            failures.binding = None;
            if failures.nacks == 0 {
                entry.failures = None;
            }
        }
        self.recharge(entry, before);
    }

    /// Lets a message wait again: for the groups to which it is owed, or at its old position.
    pub(super) fn put_back_or_owe(&mut self, channel: usize, mut entry: Box<Entry>, turn: &mut Turn<'_>) {
        if entry.binding().is_some_and(|binding| binding.waits) {
            self.hold_owed(channel, entry, turn);
        } else {
            self.unbind(&mut entry);
            self.put_back(channel, entry);
        }
    }

    /// Holds a message that is owed to groups until a member has room, but at most for [`super::Bounds::group_wait`].
    fn hold_owed(&mut self, channel: usize, entry: Box<Entry>, turn: &mut Turn<'_>) {
        let until = turn.now.after(self.settings.bounds.group_wait);
        let until = entry.message.expires.map_or(until, |expires| expires.min(until));
        for group in entry.binding().into_iter().flat_map(|binding| binding.groups.iter()) {
            self.owed.insert((channel, group.clone(), entry.message.id), until);
        }
        self.hold_until(channel, entry, until, turn);
        self.to_pump.push(channel);
    }

    /// Whether a message is owed to the group of a receiver, and the receiver may get it.
    pub(super) fn is_owed_to(&self, channel: usize, receiver: ConnectionId, now: Timestamp) -> bool {
        let groups = if self.owed.is_empty() { None } else { self.channels[channel].groups() };
        let Some(name) = groups.and_then(|groups| groups.of(receiver)) else { return false };
        let from = (channel, name.clone(), MessageId(0));
        let mut owed = self.owed.range(from..).take_while(|((key, group, _), _)| *key == channel && group == name);
        owed.any(|((_, _, id), until)| {
            let held = self.held.get(&(*until, *id));
            held.is_some_and(|held| held.entry.origin != Some(receiver) && !held.entry.expired(now))
        })
    }

    /// Whether a message is held because it is owed to groups.
    pub(super) fn is_owed(&self, held: &Held) -> bool {
        let first = held.entry.binding().and_then(|binding| binding.groups.first());
        first.is_some_and(|group| self.owed.contains_key(&(held.channel, group.clone(), held.entry.message.id)))
    }

    /// Notes that a message is not owed to its groups any more.
    pub(super) fn forget_owed(&mut self, held: &Held) {
        for group in held.entry.binding().into_iter().flat_map(|binding| binding.groups.iter()) {
            self.owed.remove(&(held.channel, group.clone(), held.entry.message.id));
        }
    }

    /// Changes the time until which a message is owed.
    pub(super) fn move_owed(&mut self, held: &Held, until: Timestamp) {
        for group in held.entry.binding().into_iter().flat_map(|binding| binding.groups.iter()) {
            if let Some(at) = self.owed.get_mut(&(held.channel, group.clone(), held.entry.message.id)) {
                *at = until;
            }
        }
    }

    /// Delivers owed messages to members with room.
    pub(super) fn deliver_owed(&mut self, channel: usize, turn: &mut Turn<'_>) {
        // Bounded: each round removes one held message.
        while let Some((at, targets)) = self.next_owed(channel, turn.now) {
            let Some(Held { mut entry, .. }) = self.take_held(at) else { return };
            self.unbind(&mut entry);
            let content = Content::backlog(&self.channels[channel].name, std::iter::once(&entry));
            self.start_flight(channel, std::iter::once(entry).collect(), content, &targets, turn);
            self.pause_backlog(&targets, turn);
        }
    }

    /// Returns the key of the first message that is owed to a group with room, and its receivers.
    fn next_owed(&self, channel: usize, now: Timestamp) -> Option<((Timestamp, MessageId), Targets)> {
        let groups = self.channels.get(channel)?.groups().filter(|_| !self.stopping)?;
        let takes = |receiver: &Receiver| receiver.takes_backlog(now) && !self.is_reserved(receiver, channel, now);
        let mut first: Option<((Timestamp, MessageId), Targets)> = None;
        for (name, members) in groups.iter() {
            let mut takers = members.iter().filter(|member| takes(&self.receivers[member.receiver]));
            let Some(taker) = takers.next() else { continue };
            // A sender does not get its own messages: if only the sender has room, the group has no room for them.
            let only = takers.next().is_none().then_some(taker.connection);
            let from = (channel, name.clone(), MessageId(0));
            let owed = self.owed.range(from..).take_while(|((key, group, _), _)| *key == channel && group == name);
            for ((_, _, id), until) in owed {
                if first.as_ref().is_some_and(|((_, other), _)| other <= id) {
                    break;
                }
                let at = (*until, *id);
                let Some(Held { entry, .. }) = self.held.get(&at).filter(|held| !held.entry.expired(now)) else {
                    continue;
                };
                if only.is_some() && entry.origin == only {
                    continue;
                }
                let limit = entry.message.receivers.unwrap_or(self.channels[channel].policy.receivers);
                let within = entry.binding().map(|binding| &*binding.groups);
                let eligible = Eligible { origin: entry.origin, limit, within, not: &|_| false };
                let targets = self.grouped_targets(channel, eligible, &takes);
                if !targets.is_empty() {
                    first = Some((at, targets));
                    break;
                }
            }
        }
        first
    }
}
