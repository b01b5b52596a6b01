//! (Tests.) The invariants of the broker between two events.

use std::collections::BTreeMap;

use super::channel::Channel;
use super::delay::fleeting_bytes;
use super::entry::{Entry, Location, WriteState};
use super::holdings::Kind;
use super::stage::{Cause, Stage};
use super::{Broker, Counters, Delayed};
use crate::limits;
use crate::message::{ChannelName, Timestamp};

/// The counters of each channel, for checks.
#[derive(Debug, Default)]
pub(super) struct ChannelAudit {
    /// The counters of each channel.
    pub counters: BTreeMap<ChannelName, Counters>,
    /// The number of transitions of each channel, by cause.
    transitions: BTreeMap<(ChannelName, Cause), u64>,
}

impl Broker {
    /// Checks that every message is in exactly one state, every count is right, and every collection is bounded.
    pub(super) fn audit(&self) {
        let mut bytes = 0;
        let mut unsettled = 0;
        let mut in_memory_unwritten = 0;
        for (key, channel) in &self.channels {
            let flights: Vec<_> =
                self.flights.iter().filter(|(_, f)| f.channel == key && !f.entries.is_empty()).collect();
            let flying: usize = flights.iter().map(|(_, flight)| flight.entries.len()).sum();
            let delayed = self.delayed.values().filter(|d| matches!(d, Delayed::Kept(c, _) if *c == key)).count();
            let held = self.held.values().filter(|held| held.channel == key).count();
            assert_eq!(channel.in_flight as usize, flights.len() + held, "channel {}: may return", channel.name);
            let memory = channel.waiting.len() + channel.parked.len() + flying + delayed + held;
            assert_eq!(channel.unsettled, memory as u64 + channel.paged, "channel {}: unsettled", channel.name);
            let waiting: usize = channel.waiting.values().map(|entry| entry.bytes()).sum();
            assert_eq!(channel.waiting_bytes, waiting, "channel {}: bytes", channel.name);
            assert!(!channel.is_unused(), "channel {} is unused and was not closed", channel.name);
            self.audit_members(channel);
            if channel.paged > 0 && channel.next_page.is_idle() && !self.is_starved(key) {
                let wanted = !channel.members.is_empty() && channel.waiting.is_empty();
                assert!(!wanted, "channel {}: the next page was not requested", channel.name);
            }
            for entry in channel.waiting.values().chain(channel.parked.values()) {
                assert!(
                    entry.message.id <= channel.cursor
                        || channel.paged == 0
                        || channel.parked.contains_key(&entry.message.id),
                    "channel {}: a waiting message comes after paged ones",
                    channel.name
                );
            }
            bytes += waiting + channel.parked.values().map(|entry| entry.bytes()).sum::<usize>();
            unsettled += channel.unsettled;
            in_memory_unwritten +=
                channel.waiting.values().chain(channel.parked.values()).filter(|e| !e.written).count();
        }
        for (_, flight) in &self.flights {
            bytes += flight.entries.iter().map(|entry| entry.bytes()).sum::<usize>();
            in_memory_unwritten += flight.entries.iter().filter(|entry| !entry.written).count();
            assert!(flight.outstanding > 0, "a flight is in no window");
        }
        for delayed in self.delayed.values() {
            match delayed {
                Delayed::Kept(_, entry) => {
                    bytes += entry.bytes();
                    in_memory_unwritten += usize::from(!entry.written);
                }
                Delayed::Fleeting { publication, .. } => bytes += fleeting_bytes(publication),
            }
        }
        let held: usize = self.held.values().map(|held| held.entry.bytes()).sum();
        assert_eq!(self.held_bytes, held, "bytes held back");
        in_memory_unwritten += self.held.values().filter(|held| !held.entry.written).count();
        bytes += held;
        for ((channel, group, id), until) in &self.owed {
            let held = self.held.get(&(*until, *id)).expect("an owed message is not held");
            let binding = held.entry.binding().is_some_and(|binding| binding.waits && binding.groups.contains(group));
            assert!(binding && held.channel == *channel, "{id:?} is owed to {group}: {held:?}");
        }
        bytes += self.channels.len() * limits::CHANNEL_BYTES;
        assert_eq!(self.bytes, bytes, "bytes in memory");
        self.audit_holdings();
        self.audit_unstored(in_memory_unwritten);
        self.audit_windows();
        let c = &self.counters;
        assert_eq!(c.accepted, unsettled + c.over(), "every accepted message is unsettled or settled: {c:?}");
        self.audit_channel_counters();
        self.audit_stages();
    }

    fn audit_members(&self, channel: &Channel) {
        let Channel { name, members, .. } = channel;
        let complete = members.is_complete(|member| self.receivers[member.receiver].has_room());
        assert!(complete, "channel {name}: the receivers are in order, and those with room are known");
        let grouped = channel.groups().is_none_or(|groups| groups.is_of(members.iter()));
        assert!(grouped, "channel {name}: the groups contain exactly its receivers");
    }

    /// Returns every message in memory.
    pub(super) fn entries_in_memory(&self) -> impl Iterator<Item = &Box<Entry>> {
        let channels =
            self.channels.iter().flat_map(|(_, channel)| channel.waiting.values().chain(channel.parked.values()));
        let flights = self.flights.iter().flat_map(|(_, flight)| &flight.entries);
        let delayed = self.delayed.values().filter_map(|delayed| match delayed {
            Delayed::Kept(_, entry) => Some(entry),
            Delayed::Fleeting { .. } => None,
        });
        channels.chain(flights).chain(delayed).chain(self.held.values().map(|held| &held.entry))
    }

    /// Checks what each user holds.
    fn audit_holdings(&self) {
        let mut all: Vec<_> = self.entries_in_memory().map(|entry| (entry.owner, Kind::Bytes, entry.bytes())).collect();
        for (_, channel) in &self.channels {
            all.push((channel.owner, Kind::Bytes, limits::CHANNEL_BYTES));
            all.push((channel.owner, Kind::Channels, 1));
        }
        for delayed in self.delayed.values() {
            all.push((delayed.owner(), Kind::Delayed, 1));
            if let Delayed::Fleeting { publication, owner, .. } = delayed {
                all.push((*owner, Kind::Bytes, fleeting_bytes(publication)));
            }
        }
        let mut writing = 0;
        for (id, unstored) in self.unstored.iter() {
            let is_writing = unstored.write_state == WriteState::Writing;
            assert_eq!(unstored.writing > 0, is_writing, "{id:?} counts for the store's queue as long as it is there");
            writing += unstored.writing as usize;
            all.extend(is_writing.then_some((unstored.owner, Kind::Writing, unstored.writing as usize)));
        }
        assert_eq!(self.writing, writing, "bytes that wait for the store");
        self.holdings.audit(all);
    }

    /// Checks the same sums for each channel, and that the channels' counters add up to those of the broker.
    fn audit_channel_counters(&self) {
        for (name, counters) in &self.channel_audit.counters {
            let unsettled = self.channel_keys.get(name).map_or(0, |key| self.channels[*key].unsettled);
            assert_eq!(counters.accepted, unsettled + counters.over(), "channel {name}: {counters:?}");
        }
        let sum = |of: fn(&Counters) -> u64| self.channel_audit.counters.values().map(of).sum::<u64>();
        assert_eq!(sum(|counters| counters.accepted), self.counters.accepted, "accepted, sum of all channels");
        assert_eq!(sum(|counters| counters.deliveries), self.counters.deliveries, "deliveries, sum of all channels");
    }

    /// Checks that a transition is one of those in the picture in `journey.rs`, and that its cause fits.
    pub(super) fn audit_transition(&mut self, channel: usize, entry: &Entry, to: Stage, cause: Cause) {
        use Stage::{Delayed, Flight, Gone, Held, Outside, Paged, Parked, Waiting};
        let from = entry.stage;
        let is_right = match cause {
            Cause::Accepted => from == Outside && matches!(to, Waiting | Parked | Delayed),
            Cause::Due => from == Delayed && matches!(to, Waiting | Parked),
            Cause::Delivered => matches!(from, Outside | Waiting | Flight | Held) && to == Flight,
            Cause::Returned => from == Flight && matches!(to, Waiting | Held),
            Cause::Released => from == Held && matches!(to, Waiting | Held),
            Cause::PagedOut => matches!(from, Waiting | Parked) && to == Paged,
            Cause::Loaded => (from, to) == (Paged, Waiting),
            Cause::Unparked => (from, to) == (Parked, Waiting),
            Cause::Restored => (from, to) == (Paged, Delayed),
            Cause::Confirmed => (from, to) == (Flight, Gone),
            Cause::DeadLettered => !matches!(from, Outside | Gone) && matches!(to, Waiting | Parked | Gone),
            Cause::Expired | Cause::Dropped | Cause::Purged => !matches!(from, Outside | Gone) && to == Gone,
            Cause::Refused => matches!(from, Waiting | Parked | Delayed) && to == Gone,
        };
        assert!(is_right, "{:?}: transition from {from:?} to {to:?}, {cause:?}", entry.message.id);
        *self.channel_audit.transitions.entry((self.channels[channel].name.clone(), cause)).or_default() += 1;
    }

    /// Checks that each entry's stage is its location, and that the transitions agree with the counters.
    fn audit_stages(&self) {
        for (_, channel) in &self.channels {
            assert!(channel.waiting.values().all(|entry| entry.stage == Stage::Waiting), "{}", channel.name);
            assert!(channel.parked.values().all(|entry| entry.stage == Stage::Parked), "{}", channel.name);
        }
        assert!(self.flights.iter().all(|(_, f)| f.entries.iter().all(|entry| entry.stage == Stage::Flight)));
        assert!(self.held.values().all(|held| held.entry.stage == Stage::Held));
        let is_delayed = |delayed: &Delayed| match delayed {
            Delayed::Kept(_, entry) => entry.stage == Stage::Delayed,
            Delayed::Fleeting { .. } => true,
        };
        assert!(self.delayed.values().all(is_delayed));
        for (name, counters) in &self.channel_audit.counters {
            let gone = |cause| self.channel_audit.transitions.get(&(name.clone(), cause)).copied().unwrap_or_default();
            assert_eq!(gone(Cause::Confirmed), counters.confirmed, "channel {name}: {counters:?}");
            assert_eq!(gone(Cause::Dropped), counters.dropped, "channel {name}: {counters:?}");
        }
    }

    /// Checks that no expired message waits in memory, and that the messages that expire are counted.
    pub(super) fn audit_expiries(&self, now: Timestamp) {
        let mut armed = std::collections::BTreeSet::new();
        for (key, channel) in &self.channels {
            let entries = || channel.waiting.values().chain(channel.parked.values());
            let expected: std::collections::BTreeSet<_> =
                entries().filter_map(|entry| Some((entry.message.expires?, entry.message.id))).collect();
            let Some(expiring) = &channel.expiring else {
                assert!(expected.is_empty(), "channel {}: messages expire without a timer", channel.name);
                continue;
            };
            assert_eq!(expiring.waiting, expected, "channel {}: messages that expire", channel.name);
            if let Some((first, _)) = super::expiry::first_to_expire(channel) {
                assert!(first > now, "channel {}: an expired message waits at {now:?}", channel.name);
                assert!(expiring.armed.is_some_and(|at| at <= first), "channel {}: no expiry timer", channel.name);
            }
            armed.extend(expiring.armed.map(|at| (at, key)));
            let counted = expiring.restored.len() + expiring.accepted.len();
            assert!(counted <= channel.unsettled, "channel {}: more messages expire than exist", channel.name);
            assert!(channel.unsettled > 0 || expiring.armed.is_some(), "channel {}: an unused histogram", channel.name);
        }
        assert_eq!(&armed, self.deadlines.expiries(), "each channel has one timer");
    }

    fn audit_unstored(&self, in_memory: usize) {
        let paged = self.unstored.iter().filter(|(_, unstored)| unstored.location == Location::Paged).count();
        assert_eq!(self.unstored.len(), in_memory + paged, "exactly the unwritten messages are registered as unstored");
        for (id, unstored) in self.unstored.iter() {
            let entry = match unstored.location {
                Location::Waiting => self.channels[unstored.channel].waiting.contains_key(&id),
                Location::Parked => self.channels[unstored.channel].parked.contains_key(&id),
                Location::Flight(key) => self.flights[key].entries.iter().any(|entry| entry.message.id == id),
                Location::Delayed(due) => self.delayed.contains_key(&(due, id)),
                Location::Held(until) => self.held.contains_key(&(until, id)),
                Location::Paged => unstored.write_state == WriteState::Writing,
            };
            assert!(entry, "{id:?} is not in its recorded location: {unstored:?}");
            assert_eq!(
                unstored.write_state == WriteState::Failed,
                self.failed.contains(&id),
                "{id:?}: a failed write is registered for a retry"
            );
        }
        let replaced: usize = self.unstored.iter().map(|(_, unstored)| unstored.replaces.len()).sum();
        assert_eq!(self.superseded.len(), replaced, "the superseded rows are those that unstored messages replace");
        let awaited = self.unstored.iter().filter(|(_, unstored)| unstored.pending.is_some()).count();
        let remaining: usize = self.pending.iter().map(|(_, pending)| pending.remaining).sum();
        assert_eq!(awaited, remaining, "pending publications wait for unstored messages");
        let remembered = self.pending.iter().filter(|(_, pending)| pending.remembered.is_some()).count();
        assert_eq!(self.dedup.pending(), remembered, "an id is pending exactly as long as its publication");
        assert!(self.failed.is_empty() || self.deadlines.retry.is_some(), "failed writes have a retry timer");
    }

    fn audit_windows(&self) {
        let (mut outstanding, mut outstanding_overdue) = (0, 0);
        for (_, receiver) in &self.receivers {
            outstanding += receiver.window.len();
            let mut needs_late_check = false;
            for delivery in receiver.window.iter() {
                let flight = self.flights.get(delivery.flight).expect("a window names a flight that does not exist");
                let shares = flight.shares.as_deref();
                let matters = shares.is_none_or(|shares| shares.is_holder(receiver.connection));
                let policy = (matters && !flight.entries.is_empty()).then(|| &self.channels[flight.channel].policy);
                needs_late_check |= policy.is_some_and(|policy| delivery.manual || !policy.confirm_within.is_zero());
                let overdue = (flight.channel, receiver.connection, delivery.sequence);
                assert_eq!(delivery.overdue, self.overdue.contains(&overdue), "{delivery:?}: overdue");
                outstanding_overdue += usize::from(self.overdue.contains(&overdue));
            }
            let timeout_armed = !receiver.window.has_automatic() || receiver.timeout_armed;
            assert!(timeout_armed, "{:?} has no timer for confirm_timeout", receiver.connection);
            assert!(
                !needs_late_check || self.deadlines.has_late_check(receiver.connection),
                "{:?} has no check for late deliveries",
                receiver.connection
            );
            assert!(
                !receiver.window.has_automatic() || receiver.asked || receiver.burst_armed,
                "{:?} is never asked to confirm",
                receiver.connection
            );
        }
        assert_eq!(outstanding_overdue, self.overdue.len(), "every overdue delivery is in a window");
        let flights: usize = self.flights.iter().map(|(_, flight)| flight.outstanding as usize).sum();
        assert_eq!(outstanding, flights, "windows and flights disagree");
        assert!(self.delayed.len() <= limits::DELAYED, "too many delayed publications");
        self.dedup.audit();
    }

    /// Checks that no message and no delivery is left.
    pub(super) fn audit_empty(&self) {
        assert!(
            self.flights.is_empty()
                && self.unstored.len() == 0
                && self.delayed.is_empty()
                && self.pending.is_empty()
                && self.held.is_empty()
                && self.owed.is_empty()
                && self.overdue.is_empty()
                && self.watches.is_empty()
        );
        assert_eq!(self.bytes, self.channels.len() * limits::CHANNEL_BYTES, "bytes are still counted");
        assert_eq!(self.receivers.len(), 1);
    }
}
