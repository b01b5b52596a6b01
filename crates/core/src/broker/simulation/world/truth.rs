//! Compares the replies to senders with the facts: the number of receivers of a message, and whether it is stored.

use super::*;

/// A `00` reply as the sender reads it.
pub(super) struct Said<'a> {
    pub numbers: &'a [u64],
    pub receivers: u32,
    pub stored: bool,
    pub duplicate: bool,
    /// The channel was purged in the millisecond of the acceptance.
    pub unsure: bool,
}

impl World {
    /// Notes that the broker learns that messages are stored: from now on they are safe.
    pub(super) fn note_stored(&mut self, event: &Event<'_>) {
        let Event::Stored(ids) = event else { return };
        for id in ids {
            // Not if the message has come due or become a dead letter meanwhile: then it has a new id, and the broker waits for the row of
            // that id.
            let row = self.store.rows.get(id).filter(|row| row.due.is_none_or(|due| due > self.now));
            let row = row.filter(|_| !self.store.is_superseded(*id));
            let number = row.and_then(|row| row.payload.as_text()?.parse().ok());
            if let Some(told) = number.and_then(|number: u64| self.model.messages.get_mut(&number)) {
                told.held.get_or_insert(told.holders.len());
            }
        }
    }

    /// Whether the store has swept messages of the channel after a step of the clock, and the broker does not know yet.
    pub(super) fn is_swept(&self, channel: &str) -> bool {
        self.store.events.iter().any(|event| match event {
            Event::Swept { gone, .. } => gone.iter().any(|(_, name)| name.as_str() == channel),
            _ => false,
        })
    }

    /// Checks the `00` reply to a publication.
    pub(super) fn check_said(&self, said: &Said<'_>) {
        let Said { numbers, receivers, stored, duplicate, unsure } = *said;
        let told: Vec<_> = numbers.iter().map(|number| &self.model.messages[number]).collect();
        let is_expired = |told: &Told| told.expires.is_some_and(|at| at <= self.now);
        if duplicate {
            assert_eq!(receivers, 0, "{numbers:?}: a duplicate has no receivers");
        } else if told.iter().any(|told| !told.keep) {
            let served = told.iter().map(|told| told.deliveries).min();
            assert_eq!(Some(receivers), served, "{numbers:?}: receivers of a message that is not kept");
        } else if let Some(held) = told.iter().map(|told| told.held).collect::<Option<Vec<_>>>() {
            let fewest = held.into_iter().min().map_or(0, |held| held as u32);
            // An expired message is not delivered with the rest of its frame to one more receiver, but that receiver counts.
            let most = fewest + u32::from(told.iter().any(|told| is_expired(told) && !told.alone));
            let range = fewest..=most;
            assert!(range.contains(&receivers), "{numbers:?}: {receivers} receivers were reported, not {range:?}");
        }
        if told.iter().any(|told| !told.keep) {
            assert!(!stored, "{numbers:?} are not kept");
            return;
        }
        let is_row =
            |number: &u64| self.store.rows.values().any(|row| row.payload.as_text() == Some(&number.to_string()));
        let expired = told.iter().any(|told| is_expired(told)) || self.is_swept(&told[0].channel);
        assert!(!stored || numbers.iter().any(is_row) || expired, "{numbers:?} were reported as stored and are not");
        let gone = |told: &Told| {
            let given_up = ["drop", "three"].contains(&told.channel.as_str()) && told.deliveries >= 2;
            told.confirmed || told.purged || is_expired(told) || given_up || told.is_rejected() || told.letter
        };
        // The channel's time to live may have changed since then.
        let unsure = unsure || duplicate && told.iter().any(|told| told.channel == "short");
        let waits = told.iter().any(|told| !gone(told));
        assert!(stored || !waits || unsure, "{numbers:?} are in the store and were reported as not stored");
    }
}
