//! What a sender is told, held against what is so: who holds its messages, and which of them are in the store.

use super::*;

/// One `00`, as the sender reads it.
pub(super) struct Said<'a> {
    pub numbers: &'a [u64],
    pub receivers: u32,
    pub stored: bool,
    pub duplicate: bool,
    /// Its channel was purged in the millisecond in which it was accepted.
    pub unsure: bool,
}

impl World {
    /// The store has told the broker that these are durable: from now on they are safe.
    pub(super) fn note_stored(&mut self, event: &Event<'_>) {
        let Event::Stored(ids) = event else { return };
        for id in ids {
            // One that has come due meanwhile, or has become a dead letter, lives on under a new id: the broker waits for that one's row.
            let row = self.store.rows.get(id).filter(|row| row.due.is_none_or(|due| due > self.now));
            let row = row.filter(|_| !self.store.is_superseded(*id));
            let number = row.and_then(|row| row.payload.as_text()?.parse().ok());
            if let Some(told) = number.and_then(|number: u64| self.model.messages.get_mut(&number)) {
                told.held.get_or_insert(told.holders.len());
            }
        }
    }

    /// Whether the store has swept something of the channel, by a clock that has stepped, of which the broker has not heard yet.
    pub(super) fn is_swept(&self, channel: &str) -> bool {
        self.store.events.iter().any(|event| match event {
            Event::Swept { gone, .. } => gone.iter().any(|(_, name)| name.as_str() == channel),
            _ => false,
        })
    }

    /// Checks what a sender was told when its publication was accepted.
    pub(super) fn check_said(&self, said: &Said<'_>) {
        let Said { numbers, receivers, stored, duplicate, unsure } = *said;
        let told: Vec<_> = numbers.iter().map(|number| &self.model.messages[number]).collect();
        let is_expired = |told: &Told| told.expires.is_some_and(|at| at <= self.now);
        if duplicate {
            assert_eq!(receivers, 0, "{numbers:?}: a duplicate goes to nobody");
        } else if told.iter().any(|told| !told.keep) {
            let served = told.iter().map(|told| told.deliveries).min();
            assert_eq!(Some(receivers), served, "{numbers:?}: receivers of what is not kept");
        } else if let Some(held) = told.iter().map(|told| told.held).collect::<Option<Vec<_>>>() {
            let fewest = held.into_iter().min().map_or(0, |held| held as u32);
            // One that has expired is not given to one more receiver with the rest of its frame, and is counted there all the same.
            let most = fewest + u32::from(told.iter().any(|told| is_expired(told) && !told.alone));
            let range = fewest..=most;
            assert!(range.contains(&receivers), "{numbers:?}: {receivers} held it when it was safe, not {range:?}");
        }
        if told.iter().any(|told| !told.keep) {
            assert!(!stored, "{numbers:?} are not kept");
            return;
        }
        let is_row =
            |number: &u64| self.store.rows.values().any(|row| row.payload.as_text() == Some(&number.to_string()));
        let expired = told.iter().any(|told| is_expired(told)) || self.is_swept(&told[0].channel);
        assert!(!stored || numbers.iter().any(is_row) || expired, "{numbers:?} are called stored and are not");
        let gone = |told: &Told| {
            let given_up = ["drop", "three"].contains(&told.channel.as_str()) && told.deliveries >= 2;
            told.confirmed || told.purged || is_expired(told) || given_up || told.is_rejected() || told.letter
        };
        // (The channel's time to live may have been changed since.)
        let unsure = unsure || duplicate && told.iter().any(|told| told.channel == "short");
        let waits = told.iter().any(|told| !gone(told));
        assert!(stored || !waits || unsure, "{numbers:?} wait in the store, and are said not to");
    }
}
