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
    pub bytes: usize,
    /// When it was sent.
    pub at: Timestamp,
}

/// Unconfirmed deliveries, in the order in which they were sent. An idle receiver holds no memory for them.
#[derive(Debug, Default)]
pub(super) struct Window {
    last: u64,
    open: Option<Box<Open>>,
}

/// A window that is not empty.
#[derive(Debug, Default)]
struct Open {
    deliveries: VecDeque<InFlight>,
    bytes: usize,
    /// When the receiver last confirmed anything, or was given the first of what is unconfirmed.
    since: Timestamp,
}

impl Window {
    /// Adds a delivery and gives it its number.
    pub fn push(&mut self, flight: usize, bytes: usize, at: Timestamp) -> u64 {
        self.last += 1;
        let open = self.open.get_or_insert_with(|| Box::new(Open { since: at, ..Open::default() }));
        open.bytes += bytes;
        open.deliveries.push_back(InFlight { sequence: self.last, flight, bytes, at });
        self.last
    }

    /// Takes the oldest delivery if its number is at most `up_to`.
    pub fn pop_confirmed(&mut self, up_to: u64) -> Option<InFlight> {
        self.take_where(|deliveries| match deliveries.front() {
            Some(first) if first.sequence <= up_to => deliveries.pop_front(),
            _ => None,
        })
    }

    /// Takes the delivery with this number.
    pub fn take(&mut self, sequence: u64) -> Option<InFlight> {
        self.take_where(|deliveries| {
            let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
            deliveries.remove(index)
        })
    }

    /// Counts the delivery with this number as sent now. False if it is not in the window.
    pub fn extend(&mut self, sequence: u64, now: Timestamp) -> bool {
        let Some(deliveries) = self.open.as_mut().map(|open| &mut open.deliveries) else { return false };
        let index = deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence);
        let Some(delivery) = index.ok().and_then(|index| deliveries.get_mut(index)) else { return false };
        delivery.at = now;
        self.progressed(now);
        true
    }

    fn take_where(&mut self, take: impl FnOnce(&mut VecDeque<InFlight>) -> Option<InFlight>) -> Option<InFlight> {
        let open = self.open.as_mut()?;
        let taken = take(&mut open.deliveries)?;
        open.bytes -= taken.bytes;
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

    /// The receiver has confirmed something.
    pub fn progressed(&mut self, now: Timestamp) {
        if let Some(open) = &mut self.open {
            open.since = now;
        }
    }

    /// The flight of the only delivery that the receiver was ever given, if it is unconfirmed.
    pub fn only(&self) -> Option<usize> {
        if self.last == 1 { self.flights().next() } else { None }
    }

    /// How many are unconfirmed.
    pub fn len(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.deliveries.len())
    }

    /// Whether everything is confirmed.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Bytes that are unconfirmed.
    pub fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.bytes)
    }

    /// The keys of the flights, oldest first.
    pub fn flights(&self) -> impl Iterator<Item = usize> + '_ {
        self.open.iter().flat_map(|open| open.deliveries.iter().map(|delivery| delivery.flight))
    }
}
