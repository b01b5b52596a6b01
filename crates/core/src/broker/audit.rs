//! (Tests.) The broker's books: what must add up whenever it is at rest.

use std::collections::BTreeMap;

use super::entry::{Entry, Place, Row};
use super::stage::{Cause, Stage};
use super::{Broker, Counters, Delayed};
use crate::limits;
use crate::message::{ChannelName, Timestamp};

/// What has happened on each channel.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Everything that is counted.
    pub counters: BTreeMap<ChannelName, Counters>,
    /// How many messages have changed their stage, by cause.
    journeys: BTreeMap<(ChannelName, Cause), u64>,
}

impl Broker {
    /// Every message is in exactly one place, every count is right, every collection is bounded.
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
            assert_eq!(channel.in_flight as usize, flights.len() + held, "channel {}: may come back", channel.name);
            let memory = channel.waiting.len() + channel.parked.len() + flying + delayed + held;
            assert_eq!(channel.unsettled, memory as u64 + channel.paged, "channel {}: unsettled", channel.name);
            let waiting: usize = channel.waiting.values().map(super::entry::Entry::bytes).sum();
            assert_eq!(channel.waiting_bytes, waiting, "channel {}: bytes", channel.name);
            assert!(!channel.is_unused(), "channel {} is unused and was not closed", channel.name);
            assert!(channel.members.is_sorted_by_key(|member| member.order), "receivers are in order");
            let grouped = channel.groups().is_none_or(|groups| groups.is_of(&channel.members));
            assert!(grouped, "channel {}: its groups are its receivers", channel.name);
            if channel.paged > 0 && channel.loading.is_none() && !channel.load_failed {
                let wanted = !channel.members.is_empty() && channel.waiting.is_empty();
                assert!(!wanted, "channel {}: a page is wanted and was not asked for", channel.name);
            }
            for entry in channel.waiting.values().chain(channel.parked.values()) {
                assert!(
                    entry.message.id <= channel.cursor
                        || channel.paged == 0
                        || channel.parked.contains_key(&entry.message.id),
                    "channel {}: something stands behind what is paged",
                    channel.name
                );
            }
            bytes += waiting + channel.parked.values().map(super::entry::Entry::bytes).sum::<usize>();
            unsettled += channel.unsettled;
            in_memory_unwritten +=
                channel.waiting.values().chain(channel.parked.values()).filter(|e| !e.written).count();
        }
        for (_, flight) in &self.flights {
            bytes += flight.entries.iter().map(super::entry::Entry::bytes).sum::<usize>();
            in_memory_unwritten += flight.entries.iter().filter(|entry| !entry.written).count();
            assert!(flight.outstanding > 0, "a flight that is in nobody's window");
        }
        for delayed in self.delayed.values() {
            match delayed {
                Delayed::Kept(_, entry) => {
                    bytes += entry.bytes();
                    in_memory_unwritten += usize::from(!entry.written);
                }
                Delayed::Fleeting { publication, .. } => bytes += publication.frame.len(),
            }
        }
        let held: usize = self.held.values().map(|held| held.entry.bytes()).sum();
        assert_eq!(self.held_bytes, held, "bytes held back");
        in_memory_unwritten += self.held.values().filter(|held| !held.entry.written).count();
        bytes += held;
        for ((channel, group, id), until) in &self.owed {
            let held = self.held.get(&(*until, *id)).expect("what is owed is held back");
            let bound = held.entry.bound().is_some_and(|bound| bound.waits && bound.groups.contains(group));
            assert!(bound && held.channel == *channel, "{id:?} is owed to {group}: {held:?}");
        }
        assert_eq!(self.bytes, bytes, "bytes in memory");
        self.audit_unstored(in_memory_unwritten);
        self.audit_windows();
        let c = &self.counters;
        assert_eq!(c.accepted, unsettled + c.over(), "every accepted message is somewhere: {c:?}");
        self.audit_books();
        self.audit_journeys();
    }

    /// The same holds for each channel, and the books of all channels say together what is counted for the broker.
    fn audit_books(&self) {
        for (name, book) in &self.books.counters {
            let unsettled = self.channel_keys.get(name).map_or(0, |key| self.channels[*key].unsettled);
            assert_eq!(book.accepted, unsettled + book.over(), "channel {name}: every message is somewhere: {book:?}");
        }
        let sum = |of: fn(&Counters) -> u64| self.books.counters.values().map(of).sum::<u64>();
        assert_eq!(sum(|book| book.accepted), self.counters.accepted, "what is accepted has a channel");
        assert_eq!(sum(|book| book.deliveries), self.counters.deliveries, "what is delivered has a channel");
    }

    /// A message goes from stage to stage as the picture in `journey.rs` shows, and for a cause that fits.
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
            Cause::Refused => matches!(from, Waiting | Delayed) && to == Gone,
        };
        assert!(is_right, "{:?} goes from {from:?} to {to:?}: {cause:?}", entry.message.id);
        *self.books.journeys.entry((self.channels[channel].name.clone(), cause)).or_default() += 1;
    }

    /// Each message says itself where it is, and those that are confirmed or dropped are the ones that are counted so.
    fn audit_journeys(&self) {
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
        for (name, book) in &self.books.counters {
            let gone = |cause| self.books.journeys.get(&(name.clone(), cause)).copied().unwrap_or_default();
            assert_eq!(gone(Cause::Confirmed), book.confirmed, "channel {name}: {book:?}");
            assert_eq!(gone(Cause::Dropped), book.dropped, "channel {name}: {book:?}");
        }
    }

    /// Nothing that has expired waits in memory, and what expires is counted.
    pub(super) fn audit_expiries(&self, now: Timestamp) {
        let mut armed = std::collections::BTreeSet::new();
        for (key, channel) in &self.channels {
            let entries = || channel.waiting.values().chain(channel.parked.values());
            let expected: std::collections::BTreeSet<_> =
                entries().filter_map(|entry| Some((entry.message.expires?, entry.message.id))).collect();
            let Some(expiring) = &channel.expiring else {
                assert!(expected.is_empty(), "channel {}: nobody looks after what expires", channel.name);
                continue;
            };
            assert_eq!(expiring.waiting, expected, "channel {}: what expires", channel.name);
            if let Some((first, _)) = super::expiry::first_to_expire(channel) {
                assert!(first > now, "channel {}: something expired waits at {now:?}", channel.name);
                assert!(expiring.armed.is_some_and(|at| at <= first), "channel {}: no timer", channel.name);
            }
            armed.extend(expiring.armed.map(|at| (at, key)));
            let counted = expiring.old.len() + expiring.new.len();
            assert!(counted <= channel.unsettled, "channel {}: more expire than there are", channel.name);
            assert!(channel.unsettled > 0 || expiring.armed.is_some(), "channel {}: a useless histogram", channel.name);
        }
        assert_eq!(&armed, self.timers.expiries(), "each channel has one timer");
    }

    fn audit_unstored(&self, in_memory: usize) {
        let paged = self.unstored.iter().filter(|(_, unstored)| unstored.place == Place::Paged).count();
        assert_eq!(self.unstored.len(), in_memory + paged, "every unwritten message has its line, and no other");
        for (id, unstored) in self.unstored.iter() {
            let entry = match unstored.place {
                Place::Waiting => self.channels[unstored.channel].waiting.contains_key(&id),
                Place::Parked => self.channels[unstored.channel].parked.contains_key(&id),
                Place::Flight(key) => self.flights[key].entries.iter().any(|entry| entry.message.id == id),
                Place::Delayed(due) => self.delayed.contains_key(&(due, id)),
                Place::Held(until) => self.held.contains_key(&(until, id)),
                Place::Paged => unstored.row == Row::Writing,
            };
            assert!(entry, "{id:?} is not where it is said to be: {unstored:?}");
            assert_eq!(unstored.row == Row::Failed, self.failed.contains(&id), "{id:?}: what failed is tried again");
        }
        let replaced: usize = self.unstored.iter().map(|(_, unstored)| unstored.replaces.len()).sum();
        assert_eq!(self.superseded.len(), replaced, "what is superseded is known to be");
        let awaited = self.unstored.iter().filter(|(_, unstored)| unstored.pending.is_some()).count();
        let remaining: usize = self.pending.iter().map(|(_, pending)| pending.remaining).sum();
        assert_eq!(awaited, remaining, "publications wait for what is unstored");
        let remembered = self.pending.iter().filter(|(_, pending)| pending.remembered.is_some()).count();
        assert_eq!(self.dedup.pending(), remembered, "an id is pending as long as its publication is");
        assert!(self.failed.is_empty() || self.timers.retry.is_some(), "failures are tried again");
    }

    fn audit_windows(&self) {
        let (mut outstanding, mut outstanding_overdue) = (0, 0);
        for (_, receiver) in &self.receivers {
            outstanding += receiver.window.len();
            let mut looked_at = false;
            for delivery in receiver.window.iter() {
                let flight = self.flights.get(delivery.flight).expect("a window names a flight that is no more");
                let party = flight.party.as_deref();
                let matters = party.is_none_or(|party| party.is_holder(receiver.connection));
                let policy = (matters && !flight.entries.is_empty()).then(|| &self.channels[flight.channel].policy);
                looked_at |= policy.is_some_and(|policy| delivery.manual || !policy.confirm_within.is_zero());
                let overdue = (flight.channel, receiver.connection, delivery.sequence);
                assert_eq!(delivery.overdue, self.overdue.contains(&overdue), "{delivery:?} is overdue");
                outstanding_overdue += usize::from(self.overdue.contains(&overdue));
            }
            let watched = !receiver.window.has_automatic() || receiver.watched;
            assert!(watched, "{:?} may be silent for ever", receiver.connection);
            assert!(
                !looked_at || self.timers.is_looked_at(receiver.connection),
                "{:?} is never looked at",
                receiver.connection
            );
            assert!(
                !receiver.window.has_automatic() || receiver.asked || receiver.quiet_armed,
                "{:?} is never asked to confirm",
                receiver.connection
            );
        }
        assert_eq!(outstanding_overdue, self.overdue.len(), "what is overdue is in somebody's hands");
        let flights: usize = self.flights.iter().map(|(_, flight)| flight.outstanding as usize).sum();
        assert_eq!(outstanding, flights, "windows and flights agree");
        assert!(self.delayed.len() <= limits::DELAYED, "tables are bounded");
        self.dedup.audit();
    }

    /// Nothing is left of anything that happened.
    pub(super) fn audit_empty(&self) {
        assert!(
            self.flights.is_empty()
                && self.unstored.len() == 0
                && self.delayed.is_empty()
                && self.pending.is_empty()
                && self.held.is_empty()
                && self.owed.is_empty()
                && self.overdue.is_empty()
        );
        assert_eq!(self.bytes, 0, "memory is given back");
        assert_eq!(self.receivers.len(), 1);
    }
}
