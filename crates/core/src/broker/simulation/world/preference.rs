//! Checks the order of channels for receivers of several channels: messages of preferred channels are delivered first.

use super::*;

impl World {
    pub(super) fn ask_store(&mut self, effect: StoreEffect) {
        if let StoreEffect::Load { channel, .. } = &effect {
            self.loads.insert(channel.to_string(), self.now);
        }
        if let StoreEffect::Replace { message, .. } = &effect
            && let Some(record) = self.model.messages.get_mut(&number(&message.payload.bytes))
        {
            record.restored = record.restored.filter(|is_due_later| !is_due_later);
        }
        self.store.ask(effect);
    }

    pub(super) fn note_page(&mut self, event: &Event<'_>) {
        if let Event::Store(StoreEvent::Loaded { channel, .. }) | Event::Store(StoreEvent::LoadFailed { channel }) =
            event
        {
            self.loads.remove(channel.as_str());
            self.failed_loads.remove(channel.as_str());
            if matches!(event, Event::Store(StoreEvent::LoadFailed { .. })) {
                self.failed_loads.insert(channel.to_string());
            }
        }
    }

    /// Whether a page is being read for which a receiver may wait.
    pub(super) fn waits_for_page(&self, connection: ConnectionId) -> bool {
        let client = &self.clients[&connection];
        let is_read = |channel: &String| {
            let asked = self.loads.get(channel);
            asked.is_some_and(|asked| asked.after(limits::PREFERENCE_WAIT) > self.now)
        };
        client.list.len() > 1 && client.list.iter().any(is_read)
    }

    /// Whether the channel's next page is not read, because memory is short, or was not read when the turn began.
    fn is_starved(&self, channel: &str) -> bool {
        self.starved.contains(channel)
            || self.broker.channel_keys.get(channel).is_some_and(|key| self.broker.is_starved(*key))
    }

    /// Whether a message certainly waits for a receiver, and has never been delivered.
    fn waits(&self, number: u64, record: &MessageRecord) -> bool {
        let over = record.confirmed
            || record.purged
            || record.refused
            || record.lost
            || record.rejected
            || record.is_dead_letter;
        let fresh = record.deliveries == 0
            && record.returned.is_empty()
            && record.held_back.is_none()
            && record.bound_to.is_none();
        let certain = record.accepted && record.keep && !record.delayed && !self.sending.contains(&number);
        // Not if a step of the clock may have changed its expiry in the store already.
        let lives = record.expires.is_none_or(|at| at > self.now && record.restored.is_none());
        certain && fresh && !over && lives && self.store.hidden_rows.is_empty()
    }

    /// Returns the first message of a channel that certainly waits for a receiver.
    fn waiting_for(&self, connection: ConnectionId, channel: &str) -> Option<u64> {
        // A page full of the receiver's own messages is not read further.
        let own =
            self.model.messages.values().filter(|record| record.sender == connection && record.channel == channel);
        if own.count() * 2 > Bounds::TIGHT.page_messages {
            return None;
        }
        let is_for = |record: &MessageRecord| record.channel == channel && record.sender != connection;
        let mut messages = self.model.messages.iter();
        messages.find(|(number, record)| is_for(record) && self.waits(**number, record)).map(|(number, _)| *number)
    }

    /// Checks, at a delivery, that no preferred channel has a waiting message for the receiver.
    pub(super) fn check_preference(&mut self, to: ConnectionId, channel: &str, numbers: &[u64]) {
        let Some(client) = self.clients.get(&to).filter(|client| client.list.len() > 1) else { return };
        let Some(record) = numbers.first().and_then(|number| self.model.messages.get(number)) else { return };
        let others = self.clients.values().filter(|client| client.channels.contains(channel)).count();
        // The order does not apply to messages to all receivers, messages that are not kept, and messages that another receiver has lost.
        let limited = record.limit > 0 || others == 1;
        let is_choice =
            record.keep && record.channel == channel && record.deliveries == 0 && limited && record.returned.is_empty();
        if !is_choice {
            return self.note_served(to, channel);
        }
        let is_late = |channel: &str| {
            let asked = self.loads.get(channel);
            self.failed_loads.contains(channel)
                || self.is_starved(channel)
                || asked.is_some_and(|asked| asked.after(limits::PREFERENCE_WAIT) <= self.now)
        };
        let rivals = || client.list.iter().filter(|other| *other != channel && !is_late(other));
        let better: Vec<&String> = match client.order {
            Order::List => rivals().filter(|other| place(&client.list, other) < place(&client.list, channel)).collect(),
            // The channel was served last, so all others take precedence.
            Order::Fair if client.served.as_deref() == Some(channel) => rivals().collect(),
            Order::Fair => Vec::new(),
        };
        for other in better {
            let waiting = self.waiting_for(to, other);
            assert_eq!(waiting, None, "{numbers:?} of {channel} went to {to:?}, although {other} takes precedence");
            self.tally.preferred += 1;
        }
        self.note_served(to, channel);
    }

    /// Notes the channel that was served last.
    fn note_served(&mut self, to: ConnectionId, channel: &str) {
        let is_kept = self.settings.policies.of(&name(channel)).keep;
        if let Some(client) = self.clients.get_mut(&to).filter(|_| is_kept) {
            client.served = Some(channel.to_owned());
        }
    }

    /// Checks that no message waits while a receiver could take it.
    pub(super) fn check_waiting(&self) {
        for (number, record) in self.model.messages.iter().filter(|(number, record)| self.waits(**number, record)) {
            let channel = &record.channel;
            if self.is_starved(channel) || self.loads.contains_key(channel) || self.failed_loads.contains(channel) {
                continue;
            }
            let free = self.free_receiver(*number).filter(|free| !self.waits_for_page(*free));
            let free = free.filter(|free| self.waiting_for(*free, channel).is_some());
            assert_eq!(
                free, None,
                "message {number} waits, although a receiver of {channel} could take it: {record:?}"
            );
        }
    }
}

fn place(list: &[String], channel: &str) -> Option<usize> {
    list.iter().position(|other| other == channel)
}
