//! The unconfirmed deliveries of one receiver.

use std::collections::VecDeque;

use crate::message::Timestamp;

/// An unconfirmed delivery.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    /// The sequence number on this connection.
    pub sequence: u64,
    /// The flight's key.
    pub flight: usize,
    /// The size in bytes, for the window's bound.
    bytes: u32,
    /// The receiver must answer the delivery by name (`ack` or `nack`). This does not change if the receiver subscribes again.
    pub manual: bool,
    /// The delivery is late, and no other receiver could take it.
    pub overdue: bool,
    /// The time at which it was sent or last extended.
    pub at: Timestamp,
}

/// Unconfirmed deliveries in the order in which they were sent. An empty window uses no heap memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    last: u64,
    open: Option<Box<Open>>,
}

/// A window that is not empty.
#[derive(Debug)]
struct Open {
    deliveries: VecDeque<InFlight>,
    bytes: usize,
    /// The number of manual deliveries.
    manual: usize,
    /// The time at which the receiver last confirmed anything, or got the first of the unconfirmed deliveries.
    since: Timestamp,
    /// The same for pongs and automatic deliveries only.
    automatic_since: Timestamp,
    /// A delivery was not confirmed within the channel's `confirm_within`: the receiver gets no new delivery until it confirms something.
    silent: bool,
}

impl Open {
    fn new(since: Timestamp) -> Self {
        // The capacity that the queue would reach by itself, without intermediate growth.
        let deliveries = VecDeque::with_capacity(4);
        Self { deliveries, bytes: 0, manual: 0, since, automatic_since: since, silent: false }
    }
}

impl Window {
    /// Adds a delivery. Returns its sequence number.
    pub fn push(&mut self, flight: usize, bytes: usize, manual: bool, at: Timestamp) -> u64 {
        self.last += 1;
        let open = self.open.get_or_insert_with(|| Box::new(Open::new(at)));
        if !manual && open.manual == open.deliveries.len() {
            open.automatic_since = at;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        open.bytes += bytes as usize;
        open.manual += usize::from(manual);
        open.deliveries.push_back(InFlight { sequence: self.last, flight, bytes, manual, overdue: false, at });
        self.last
    }

    /// Removes the oldest automatic delivery if its number is at most `up_to`.
    pub fn pop_confirmed(&mut self, up_to: u64) -> Option<InFlight> {
        let mixed = self.open.as_ref()?.manual > 0;
        self.take_where(|deliveries| {
            let index = if mixed { deliveries.iter().position(|delivery| !delivery.manual)? } else { 0 };
            if deliveries.get(index)?.sequence > up_to {
                return None;
            }
            if index == 0 { deliveries.pop_front() } else { deliveries.remove(index) }
        })
    }

    /// Removes the delivery with this number.
    pub fn take(&mut self, sequence: u64) -> Option<InFlight> {
        self.take_where(|deliveries| {
            let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
            deliveries.remove(index)
        })
    }

    /// Returns the delivery with this number.
    pub fn get(&self, sequence: u64) -> Option<&InFlight> {
        let deliveries = &self.open.as_ref()?.deliveries;
        let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
        deliveries.get(index)
    }

    /// Returns the delivery with this number for changes.
    pub fn get_mut(&mut self, sequence: u64) -> Option<&mut InFlight> {
        let deliveries = &mut self.open.as_mut()?.deliveries;
        let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
        deliveries.get_mut(index)
    }

    /// Restarts the time of the delivery with this number.
    pub fn restart(&mut self, sequence: u64, now: Timestamp) {
        if let Some(delivery) = self.get_mut(sequence) {
            (delivery.at, delivery.overdue) = (now, false);
        }
        self.progressed(now);
    }

    fn take_where(&mut self, take: impl FnOnce(&mut VecDeque<InFlight>) -> Option<InFlight>) -> Option<InFlight> {
        let open = self.open.as_mut()?;
        let taken = take(&mut open.deliveries)?;
        open.bytes -= taken.bytes as usize;
        open.manual -= usize::from(taken.manual);
        if open.deliveries.is_empty() {
            self.open = None;
        }
        Some(taken)
    }

    /// Returns the time at which the oldest unconfirmed delivery was sent.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.as_ref().and_then(|open| open.deliveries.front()).map(|delivery| delivery.at)
    }

    /// Returns the time at which the newest unconfirmed delivery was sent.
    pub fn newest(&self) -> Option<Timestamp> {
        self.open.as_ref().and_then(|open| open.deliveries.back()).map(|delivery| delivery.at)
    }

    /// Returns the time since which the receiver has confirmed nothing; `None` if nothing is unconfirmed.
    pub fn since(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.since)
    }

    /// Returns the time since which no pong has confirmed anything; `None` if a pong would confirm nothing.
    pub fn automatic_since(&self) -> Option<Timestamp> {
        self.open.as_ref().filter(|_| self.has_automatic()).map(|open| open.automatic_since)
    }

    /// Notes that the receiver has confirmed something, by a pong or by an answer.
    pub fn progressed(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.since = now;
        }
    }

    /// Notes that a pong has confirmed something.
    pub fn confirmed(&mut self, now: Timestamp) {
        self.progressed(now);
        if let Some(open) = &mut self.open {
            (open.automatic_since, open.silent) = (now, false);
        }
    }

    /// Returns the flight of the only delivery that the receiver ever got, if this delivery is unconfirmed and automatic.
    pub fn only(&self) -> Option<usize> {
        self.iter().next().filter(|delivery| self.last == 1 && !delivery.manual).map(|delivery| delivery.flight)
    }

    /// Marks no delivery as late, because the times for confirmation have changed.
    pub fn forget_overdue(&mut self) {
        for delivery in self.open.iter_mut().flat_map(|open| &mut open.deliveries) {
            delivery.overdue = false;
        }
    }

    /// Returns the number of unconfirmed deliveries.
    pub fn len(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.deliveries.len())
    }

    /// Returns the number of unconfirmed bytes.
    pub fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// Notes that a delivery was not confirmed in time.
    pub fn silence(&mut self) {
        if let Some(open) = &mut self.open {
            open.silent = true;
        }
    }

    /// Whether the receiver gets no new delivery until it confirms something.
    pub fn is_silent(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.silent)
    }

    /// Whether a pong would confirm anything.
    pub fn has_automatic(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.manual < open.deliveries.len())
    }

    /// Returns the unconfirmed deliveries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.open.iter().flat_map(|open| &open.deliveries)
    }
}
