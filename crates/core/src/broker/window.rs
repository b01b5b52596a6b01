//! What one receiver has been given and has not confirmed.

use std::collections::VecDeque;

use crate::message::Timestamp;

/// One delivery on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    /// Its number on this connection.
    pub sequence: u64,
    /// The flight's key.
    pub flight: usize,
    /// Its size, for the window's bound.
    bytes: u32,
    /// The receiver answers it by hand: it was told the delivery's name. Whatever the receiver declares later, this stays so.
    pub manual: bool,
    /// It was not confirmed in time, and nobody else was there to take it.
    pub overdue: bool,
    /// When it was sent, or extended.
    pub at: Timestamp,
}

/// Unconfirmed deliveries, in the order in which they were sent. An idle receiver holds no memory for them.
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
    /// How many of them are manual.
    manual: usize,
    /// When the receiver last confirmed anything, or was given the first of what is unconfirmed.
    since: Timestamp,
    /// The same for pongs, and for what a pong confirms.
    automatic_since: Timestamp,
    /// One of them was not confirmed within the channel's `confirm_within`: the receiver gets nothing new until it confirms something.
    silent: bool,
}

impl Open {
    fn new(since: Timestamp) -> Self {
        // As many as a queue takes by itself, but without the way through its growth.
        let deliveries = VecDeque::with_capacity(4);
        Self { deliveries, bytes: 0, manual: 0, since, automatic_since: since, silent: false }
    }
}

impl Window {
    /// Adds a delivery and gives it its number.
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

    /// Takes the oldest automatic delivery if its number is at most `up_to`.
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

    /// Takes the delivery with this number.
    pub fn take(&mut self, sequence: u64) -> Option<InFlight> {
        self.take_where(|deliveries| {
            let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
            deliveries.remove(index)
        })
    }

    /// The delivery with this number.
    pub fn get(&self, sequence: u64) -> Option<&InFlight> {
        let deliveries = &self.open.as_ref()?.deliveries;
        let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
        deliveries.get(index)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, sequence: u64) -> Option<&mut InFlight> {
        let deliveries = &mut self.open.as_mut()?.deliveries;
        let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
        deliveries.get_mut(index)
    }

    /// Counts the delivery with this number as sent now.
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

    /// When the oldest that is unconfirmed was sent.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.as_ref().and_then(|open| open.deliveries.front()).map(|delivery| delivery.at)
    }

    /// When the newest that is unconfirmed was sent.
    pub fn newest(&self) -> Option<Timestamp> {
        self.open.as_ref().and_then(|open| open.deliveries.back()).map(|delivery| delivery.at)
    }

    /// Since when the receiver has confirmed nothing, although something is unconfirmed.
    pub fn since(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.since)
    }

    /// Since when the receiver has confirmed nothing by a pong, although something is unconfirmed that a pong would confirm.
    pub fn automatic_since(&self) -> Option<Timestamp> {
        self.open.as_ref().filter(|_| self.has_automatic()).map(|open| open.automatic_since)
    }

    /// The receiver has confirmed something, in whatever way.
    pub fn progressed(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.since = now;
        }
    }

    /// The receiver has confirmed something by a pong.
    pub fn confirmed(&mut self, now: Timestamp) {
        self.progressed(now);
        if let Some(open) = &mut self.open {
            (open.automatic_since, open.silent) = (now, false);
        }
    }

    /// The flight of the only delivery that the receiver was ever given, if it is unconfirmed and automatic.
    pub fn only(&self) -> Option<usize> {
        self.iter().next().filter(|delivery| self.last == 1 && !delivery.manual).map(|delivery| delivery.flight)
    }

    /// Nothing counts as late any more: the time to confirm has changed.
    pub fn forget_overdue(&mut self) {
        for delivery in self.open.iter_mut().flat_map(|open| &mut open.deliveries) {
            delivery.overdue = false;
        }
    }

    /// How many are unconfirmed.
    pub fn len(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.deliveries.len())
    }

    /// Bytes that are unconfirmed.
    pub fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// A delivery was not confirmed in time.
    pub fn silence(&mut self) {
        if let Some(open) = &mut self.open {
            open.silent = true;
        }
    }

    /// Whether the receiver gets nothing new until it confirms something.
    pub fn is_silent(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.silent)
    }

    /// Whether a pong would confirm anything.
    pub fn has_automatic(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.manual < open.deliveries.len())
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.open.iter().flat_map(|open| &open.deliveries)
    }
}
