//! Compares the replies to senders with the facts: the number of receivers of a message, and whether it is stored.

use super::*;

/// A `00` reply as the sender reads it.
pub(super) struct AcceptedReply<'a> {
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
        let Event::Store(StoreEvent::Stored(ids)) = event else { return };
        for id in ids {
            // Not if the message has come due or become a dead letter meanwhile: then it has a new id, and the broker waits for the row of
            // that id.
            let row = self.store.rows.get(id).filter(|row| row.due.is_none_or(|due| due > self.now));
            let row = row.filter(|_| !self.store.is_superseded(*id));
            let number = row.and_then(|row| row.payload.as_text()?.parse().ok());
            if let Some(record) = number.and_then(|number: u64| self.model.messages.get_mut(&number)) {
                record.holders_when_safe.get_or_insert(record.holders.len());
            }
        }
    }

    /// Whether the store has swept messages of the channel after a step of the clock, and the broker does not know yet.
    pub(super) fn is_swept(&self, channel: &str) -> bool {
        self.store.events.iter().any(|event| match event {
            Event::Store(StoreEvent::Swept { gone, .. }) => gone.iter().any(|(_, name)| name.as_str() == channel),
            _ => false,
        })
    }

    /// Checks the `00` reply to a publication.
    pub(super) fn check_accepted_reply(&self, reply: &AcceptedReply<'_>) {
        let AcceptedReply { numbers, receivers, stored, duplicate, unsure } = *reply;
        let record: Vec<_> = numbers.iter().map(|number| &self.model.messages[number]).collect();
        let is_expired = |record: &MessageRecord| record.expires.is_some_and(|at| at <= self.now);
        if duplicate {
            assert_eq!(receivers, 0, "{numbers:?}: a duplicate has no receivers");
        } else if record.iter().any(|record| !record.keep) {
            let served = record.iter().map(|record| record.deliveries).min();
            assert_eq!(Some(receivers), served, "{numbers:?}: receivers of a message that is not kept");
        } else if let Some(held) = record.iter().map(|record| record.holders_when_safe).collect::<Option<Vec<_>>>() {
            let fewest = held.into_iter().min().map_or(0, |held| held as u32);
            // An expired message is not delivered with the rest of its frame to one more receiver, but that receiver counts.
            let most = fewest + u32::from(record.iter().any(|record| is_expired(record) && !record.is_single));
            let range = fewest..=most;
            assert!(range.contains(&receivers), "{numbers:?}: {receivers} receivers were reported, not {range:?}");
        }
        if record.iter().any(|record| !record.keep) {
            assert!(!stored, "{numbers:?} are not kept");
            return;
        }
        let is_row =
            |number: &u64| self.store.rows.values().any(|row| row.payload.as_text() == Some(&number.to_string()));
        let expired = record.iter().any(|record| is_expired(record)) || self.is_swept(&record[0].channel);
        assert!(!stored || numbers.iter().any(is_row) || expired, "{numbers:?} were reported as stored and are not");
        let gone = |record: &MessageRecord| {
            let given_up = ["drop", "three"].contains(&record.channel.as_str()) && record.deliveries >= 2;
            record.confirmed
                || record.purged
                || is_expired(record)
                || given_up
                || record.is_rejected()
                || record.is_dead_letter
        };
        // The channel's time to live may have changed since then.
        let unsure = unsure || duplicate && record.iter().any(|record| record.channel == "short");
        let waits = record.iter().any(|record| !gone(record));
        assert!(stored || !waits || unsure, "{numbers:?} are in the store and were reported as not stored");
    }
}
