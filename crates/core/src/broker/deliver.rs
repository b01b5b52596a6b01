//! Delivery: sends waiting messages to receivers with room, and asks these receivers for confirmations.

use smallvec::SmallVec;

use super::channel::Channel;
use super::counters::Metric;
use super::deadlines::Timer;
use super::entry::{Entry, Location, WriteState};
use super::group_shares::{Eligible, GroupShares};
use super::member::{Member, Targets};
use super::pending::Pending;
use super::receiver::Receiver;
use super::stage::Cause;
use super::{AckMode, Broker, Content, Effect, EndReason, Flight, Turn};
use crate::limits;
use crate::message::{ConnectionId, MessageId};

impl Broker {
    /// Chooses the receivers of a delivery. With a limit: receivers for which `takes` returns true, up to the limit. Without a limit: as
    /// soon as `takes` returns true for one receiver, all receivers that are not outrun; nobody waits for anybody. `takes` must return true only
    /// for receivers with room.
    pub(super) fn targets(
        &self,
        key: usize,
        origin: Option<ConnectionId>,
        limit: u32,
        takes: impl Fn(&Receiver) -> bool,
    ) -> Targets {
        let channel = &self.channels[key];
        if self.stopping {
            return SmallVec::new();
        }
        if channel.groups().is_some() {
            let eligible = Eligible { origin, limit, within: None, not: &|_| false };
            return self.grouped_targets(key, eligible, &takes);
        }
        if limit > 0 {
            return channel.choose_ready(origin, limit, |key| takes(&self.receivers[key]));
        }
        let is_target = |member: &Member| Some(member.connection) != origin && takes(&self.receivers[member.receiver]);
        if !channel.members.ready_from(0).any(is_target) {
            return SmallVec::new();
        }
        channel.choose(origin, 0, |key| !self.is_outrun(key))
    }

    /// Ends the connections of outrun receivers if another receiver has room: a receiver must not miss a message of a fan-out and stay
    /// connected. Returns false if it ended none.
    #[inline]
    pub(super) fn end_outrun(&mut self, key: usize, sender: Option<ConnectionId>, turn: &mut Turn<'_>) -> bool {
        let members = &self.channels[key].members;
        // The sender may be a member, too, but does not get its own message, so its room does not count.
        let goes_on = |member: &Member| Some(member.connection) != sender && self.receivers[member.receiver].has_room();
        if members.len() < 2 || !members.ready_from(0).any(goes_on) {
            return false;
        }
        let outrun: SmallVec<[ConnectionId; 4]> = members
            .iter()
            .filter(|member| self.is_outrun(member.receiver) && self.misses(key, sender, member))
            .map(|member| member.connection)
            .collect();
        for connection in &outrun {
            self.count(key, Metric::SlowReceivers, 1);
            self.end(*connection, EndReason::Slow, turn);
        }
        !outrun.is_empty()
    }

    /// Whether an outrun receiver misses a message of a fan-out. It does not if another member of its group may get the message.
    fn misses(&self, key: usize, sender: Option<ConnectionId>, member: &Member) -> bool {
        let Some(groups) = self.channels[key].groups() else { return true };
        let others = groups.of(member.connection).map(|name| groups.members(name)).unwrap_or_default();
        let mut others = others.iter().filter(|other| Some(other.connection) != sender);
        others.all(|other| self.is_outrun(other.receiver))
    }

    /// Whether the receiver is too slow for a fan-out without receiver limit.
    pub(super) fn is_outrun(&self, receiver: usize) -> bool {
        self.receivers[receiver].is_outrun(self.settings.bounds.fanout_deliveries)
    }

    /// Starts a flight: sends the entries to each target as one delivery. `targets` is not empty.
    pub(super) fn start_flight(
        &mut self,
        key: usize,
        mut entries: SmallVec<[Box<Entry>; 1]>,
        content: Content,
        targets: &Targets,
        turn: &mut Turn<'_>,
    ) {
        let size = entries.iter().map(|entry| entry.message.payload.bytes.len()).sum();
        let mut attempt = 1;
        let message = entries.first().map(|entry| entry.message.id).unwrap_or_default();
        let last_id = entries.last().map(|entry| entry.message.id).unwrap_or_default();
        let flight = self.flights.vacant_key();
        for entry in &mut entries {
            entry.message.deliveries = entry.message.deliveries.saturating_add(1);
            attempt = attempt.max(entry.attempt());
            self.transition(key, entry, Location::Flight(flight), Cause::Delivered);
        }
        let outstanding = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let channel = &mut self.channels[key];
        channel.in_flight += 1;
        channel.last_delivered = channel.last_delivered.max(last_id);
        let hurried = !channel.policy.confirm_within.is_zero();
        if let Some(last) = targets.last() {
            channel.served = last.order;
        }
        channel.serve_groups(targets);
        let shares = channel.groups().and_then(|groups| GroupShares::new(groups, targets));
        self.flights.insert(Flight { channel: key, entries, outstanding, doubled: false, failed: None, shares });
        self.count(key, Metric::Deliveries, targets.len() as u64);
        if attempt > 1 {
            self.count(key, Metric::Redeliveries, targets.len() as u64);
        }
        let content = turn.content(content);
        for target in targets {
            let receiver = &mut self.receivers[target.receiver];
            let manual = receiver.ack == AckMode::Manual;
            receiver.serve(key);
            let sequence = receiver.window.push(flight, size, manual, turn.now);
            turn.effect(|| Effect::Deliver {
                to: target.connection,
                content,
                sequence,
                manual,
                attempt: if manual { attempt } else { 1 },
                message,
            });
            if manual || hurried {
                self.deadlines.arm_late_check(turn.now.after(self.shortest_deadline), target.connection);
            }
            self.want_confirmation(target.receiver, turn);
        }
    }

    /// Asks the receiver for a confirmation: now, if half of its window or [`limits::CONFIRM_DELIVERIES`] is used, else when its burst has ended.
    pub(super) fn want_confirmation(&mut self, key: usize, turn: &mut Turn<'_>) {
        let receiver = &mut self.receivers[key];
        if !receiver.timeout_armed && receiver.window.has_automatic() {
            receiver.timeout_armed = true;
            self.deadlines
                .arm(turn.now.after(self.settings.confirm_timeout), Timer::ConfirmTimeout(receiver.connection));
        }
        if receiver.asked {
            return;
        }
        let awaited = std::mem::take(&mut receiver.awaited);
        if !receiver.window.has_automatic() {
            return;
        }
        if receiver.is_asked_early() || awaited || self.stopping {
            receiver.ask(turn.now);
            turn.effects.list.push(Effect::Confirm { connection: receiver.connection });
        } else if !receiver.burst_armed {
            receiver.burst_armed = true;
            receiver.burst_began = turn.now;
            self.deadlines.arm(turn.now.after(limits::CONFIRM_QUIET), Timer::BurstEnd(receiver.connection));
        }
    }

    /// Marks the targets that will probably confirm sooner than a disk could write: they are asked for a confirmation with the delivery. (A
    /// receiver with manual acknowledgement is marked but needs no request.) Returns false if there are none.
    pub(super) fn await_confirmation(&mut self, targets: &Targets, turn: &Turn<'_>) -> bool {
        let mut found = false;
        for target in targets {
            let receiver = &mut self.receivers[target.receiver];
            if receiver.is_prompt(turn.now) {
                receiver.awaited = true;
                found = true;
            }
        }
        found
    }

    /// Handles the timer for the end of a receiver's burst.
    pub(super) fn burst_ended(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let receiver = &mut self.receivers[key];
        receiver.burst_armed = false;
        let automatic = receiver.window.has_automatic() && !receiver.asked;
        let Some(last) = receiver.window.newest().filter(|_| automatic) else {
            return;
        };
        let quiet_at = last.after(limits::CONFIRM_QUIET);
        let ask_at = quiet_at.min(receiver.burst_began.after(limits::CONFIRM_BUSY));
        if ask_at <= turn.now {
            receiver.ask(turn.now);
            turn.effects.list.push(Effect::Confirm { connection });
        } else {
            receiver.burst_armed = true;
            self.deadlines.arm(ask_at, Timer::BurstEnd(connection));
        }
    }

    /// Handles the end of the pause between two backlog frames to a receiver.
    pub(super) fn backlog_pause_over(&mut self, connection: ConnectionId) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let receiver = &mut self.receivers[key];
        receiver.backlog_armed = false;
        self.to_pump.extend(receiver.subscriptions.iter().rev().map(|subscription| subscription.channel));
    }

    /// Delivers the waiting messages of a channel as long as a receiver takes them, and asks for the next page when few messages are left.
    pub(super) fn pump(&mut self, key: usize, turn: &mut Turn<'_>) {
        if !self.overdue.is_empty() {
            self.pass_on_overdue(key, turn);
        }
        if !self.owed.is_empty() {
            self.deliver_owed(key, turn);
        }
        // Bounded: each round removes at least one entry from `waiting`, or ends a receiver.
        while self.drop_expired_head(key, turn) || self.deliver_backlog(key, turn) {}
        self.yield_to_preferred(key, turn);
        let Some(channel) = self.channels.get_mut(key) else { return };
        if channel.members.is_empty() {
            if self.sweeping {
                return;
            }
            let paged = channel.page_out_waiting();
            if !paged.is_empty() {
                for mut entry in paged.into_values() {
                    self.uncharge(&entry);
                    self.transition(key, &mut entry, Location::Paged, Cause::PagedOut);
                }
                self.sweep_later(turn.now);
            }
        } else if channel.wants_page(self.settings.bounds.page_messages) {
            self.load_page(key, turn);
        } else if channel.paged == 0 && !channel.next_page.is_loading() {
            self.unpark(key);
        }
    }

    /// Moves parked messages to `waiting` after the last paged message is gone, as many as fill a page.
    fn unpark(&mut self, key: usize) {
        let (page, bytes) = (self.settings.bounds.page(self.is_memory_short()), self.burst_bytes());
        while !self.channels[key].page_is_full(page, bytes)
            && let Some(entry) = self.channels[key].unpark_first()
        {
            self.wait(key, entry, Cause::Unparked);
            self.to_pump.push(key);
        }
    }

    fn drop_expired_head(&mut self, key: usize, turn: &mut Turn<'_>) -> bool {
        let Some(channel) = self.channels.get_mut(key) else { return false };
        let Some(entry) = channel.expired_head(turn.now).and_then(|id| channel.unwait(id)) else { return false };
        self.expire(key, entry, turn);
        true
    }

    /// Delivers one backlog frame. Returns false if no message waits or no receiver takes one.
    fn deliver_backlog(&mut self, key: usize, turn: &mut Turn<'_>) -> bool {
        let now = turn.now;
        let is_waiting = |channel: &&mut Box<Channel>| !channel.waiting.is_empty() && !self.stopping;
        let Some(channel) = self.channels.get_mut(key).filter(is_waiting) else { return false };
        channel.prepare_choice(self.settings.bounds.members_searched, |key| self.receivers[key].has_room());
        let channel = &self.channels[key];
        let takes = |receiver: &Receiver| receiver.takes_backlog(now) && !self.is_reserved(receiver, key, now);
        let only = match channel.choose_ready(None, 2, |key| takes(&self.receivers[key]))[..] {
            [] => return false,
            [only] => Some(only.connection),
            _ => None,
        };
        let channel = &mut self.channels[key];
        let Some(first) = channel.first_deliverable(only, turn.now) else { return false };
        let channel = &self.channels[key];
        let Some(entry) = channel.waiting.get(&first) else { return false };
        let limit = entry.message.receivers.unwrap_or(channel.policy.receivers);
        let origin = entry.origin;
        if limit == 0 && self.end_outrun(key, origin, turn) {
            // The messages that they return may come before `first`.
            return true;
        }
        let takes = |receiver: &Receiver| receiver.takes_backlog(now) && !self.is_reserved(receiver, key, now);
        let targets = self.targets(key, origin, limit, takes);
        let batch = self.batch(key, first, &targets, turn);
        let channel = &mut self.channels[key];
        let entries: SmallVec<[Box<Entry>; 1]> = batch.iter().filter_map(|id| channel.unwait(*id)).collect();
        let content = Content::backlog(&channel.name, entries.iter());
        self.start_flight(key, entries, content, &targets, turn);
        self.pause_backlog(&targets, turn);
        true
    }

    /// Pauses backlog frames to these receivers for `store.delay`.
    pub(super) fn pause_backlog(&mut self, targets: &[Member], turn: &Turn<'_>) {
        if self.settings.delay.is_zero() {
            return;
        }
        for target in targets {
            let receiver = &mut self.receivers[target.receiver];
            receiver.next_backlog = turn.now.after(self.settings.delay);
            if !receiver.backlog_armed {
                receiver.backlog_armed = true;
                self.deadlines.arm(receiver.next_backlog, Timer::NextBacklog(target.connection));
            }
        }
    }

    /// Returns the entries that go into one frame: `first`, and the following ones as long as they go to the same receivers and fit.
    fn batch(&self, key: usize, first: MessageId, targets: &Targets, turn: &Turn<'_>) -> SmallVec<[MessageId; 16]> {
        let single = targets.iter().any(|target| self.receivers[target.receiver].takes_single());
        let most = if single { 1 } else { self.settings.batch.max(1) };
        let channel = &self.channels[key];
        let mut receivers = None;
        let mut bytes = 0;
        let mut batch = SmallVec::new();
        for (id, entry) in channel.waiting.range(first..).take(most) {
            let size = entry.message.payload.bytes.len();
            let own = targets.iter().any(|target| Some(target.connection) == entry.origin);
            let alike = *receivers.get_or_insert(entry.message.receivers) == entry.message.receivers;
            let fits = batch.is_empty() || bytes + size <= limits::BACKLOG_FRAME_BYTES;
            if own || !alike || !fits || (entry.expired(turn.now) && !batch.is_empty()) {
                break;
            }
            bytes += size;
            batch.push(*id);
        }
        batch
    }

    /// Writes a message now if its sender waits for the answer or if it must not be refused any more; else schedules the write after
    /// `write_delay`.
    pub(super) fn schedule_write(&mut self, id: MessageId, turn: &Turn<'_>) {
        let Some(unstored) = self.unstored.get(id) else { return };
        if unstored.write_state != WriteState::NotRequested {
            return;
        }
        let awaited = unstored.pending.and_then(|key| self.pending.get(key)).is_some_and(Pending::is_awaited);
        if awaited || unstored.committed || self.stopping {
            self.append(id);
        } else {
            self.deadlines.write_at(turn.now.after(self.settings.write_delay), id);
        }
    }
}
