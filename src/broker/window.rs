//! What one receiver has been given and has not confirmed.

use std::collections::VecDeque;

/// One delivery on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    /// Its number on this connection.
    pub sequence: u64,
    /// The flight's key.
    pub flight: usize,
    /// Its size, for the window's bound.
    pub bytes: usize,
}

/// Unconfirmed deliveries, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Window {
    deliveries: VecDeque<InFlight>,
    bytes: usize,
    last: u64,
}

impl Window {
    /// Adds a delivery and gives it its number.
    pub fn push(&mut self, flight: usize, bytes: usize) -> u64 {
        self.last += 1;
        self.bytes += bytes;
        self.deliveries.push_back(InFlight { sequence: self.last, flight, bytes });
        self.last
    }

    /// Takes the oldest delivery if its number is at most `up_to`.
    pub fn pop_confirmed(&mut self, up_to: u64) -> Option<InFlight> {
        let first = self.deliveries.front()?;
        if first.sequence > up_to {
            return None;
        }
        let taken = self.deliveries.pop_front()?;
        self.bytes -= taken.bytes;
        if self.deliveries.is_empty() {
            // An idle receiver holds no memory for what it once received.
            self.deliveries = VecDeque::new();
        }
        Some(taken)
    }

    /// Takes the delivery with this number.
    pub fn take(&mut self, sequence: u64) -> Option<InFlight> {
        let index = self.deliveries.binary_search_by_key(&sequence, |delivery| delivery.sequence).ok()?;
        let taken = self.deliveries.remove(index)?;
        self.bytes -= taken.bytes;
        Some(taken)
    }

    /// How many are unconfirmed.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether everything is confirmed.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Bytes that are unconfirmed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys of the flights, oldest first.
    pub fn flights(&self) -> impl Iterator<Item = usize> + '_ {
        self.deliveries.iter().map(|delivery| delivery.flight)
    }
}
