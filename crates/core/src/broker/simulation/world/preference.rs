//! Checks the order of channels for receivers of several channels: messages of preferred channels are delivered first.

use super::*;

impl World {
    pub(super) fn ask_store(&mut self, effect: StoreEffect) {
        if let StoreEffect::Load { channel, .. } = &effect {
            self.loads.insert(channel.to_string(), self.now);
        }
        self.store.ask(effect);
    }

    pub(super) fn note_page(&mut self, event: &Event<'_>) {
        if let Event::Loaded { channel, .. } | Event::LoadFailed { channel } = event {
            self.loads.remove(channel.as_str());
            self.failed_loads.remove(channel.as_str());
            if matches!(event, Event::LoadFailed { .. }) {
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

    /// Whether a message certainly waits for a receiver, and has never been delivered.
    fn waits(&self, number: u64, told: &Told) -> bool {
        let over = told.confirmed || told.purged || told.refused || told.lost || told.rejected || told.letter;
        let fresh = told.deliveries == 0 && told.returned.is_empty() && told.pause.is_none() && told.bound.is_none();
        let certain = told.accepted && told.keep && !told.delayed && !self.sending.contains(&number);
        // Not if a step of the clock may have changed its expiry in the store already.
        let lives = told.expires.is_none_or(|at| at > self.now && told.old.is_none());
        certain && fresh && !over && lives && self.store.ghosts.is_empty()
    }

    /// Returns the first message of a channel that certainly waits for a receiver.
    fn waiting_for(&self, connection: ConnectionId, channel: &str) -> Option<u64> {
        // A page full of the receiver's own messages is not read further.
        let own = self.model.messages.values().filter(|told| told.sender == connection && told.channel == channel);
        if own.count() * 2 > Bounds::TIGHT.page_messages {
            return None;
        }
        let is_for = |told: &Told| told.channel == channel && told.sender != connection;
        let mut messages = self.model.messages.iter();
        messages.find(|(number, told)| is_for(told) && self.waits(**number, told)).map(|(number, _)| *number)
    }

    /// Checks, at a delivery, that no preferred channel has a waiting message for the receiver.
    pub(super) fn check_preference(&mut self, to: ConnectionId, channel: &str, numbers: &[u64]) {
        let Some(client) = self.clients.get(&to).filter(|client| client.list.len() > 1) else { return };
        let Some(told) = numbers.first().and_then(|number| self.model.messages.get(number)) else { return };
        let others = self.clients.values().filter(|client| client.channels.contains(channel)).count();
        // The order does not apply to messages to all receivers, messages that are not kept, and messages that another receiver has lost.
        let limited = told.limit > 0 || others == 1;
        let is_choice =
            told.keep && told.channel == channel && told.deliveries == 0 && limited && told.returned.is_empty();
        if !is_choice {
            return self.note_served(to, channel);
        }
        let is_late = |channel: &str| {
            let asked = self.loads.get(channel);
            self.failed_loads.contains(channel)
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
        for (number, told) in self.model.messages.iter().filter(|(number, told)| self.waits(**number, told)) {
            let channel = &told.channel;
            if self.loads.contains_key(channel) || self.failed_loads.contains(channel) {
                continue;
            }
            let free = self.free_receiver(*number).filter(|free| !self.waits_for_page(*free));
            let free = free.filter(|free| self.waiting_for(*free, channel).is_some());
            assert_eq!(free, None, "message {number} waits, although a receiver of {channel} could take it: {told:?}");
        }
    }
}

fn place(list: &[String], channel: &str) -> Option<usize> {
    list.iter().position(|other| other == channel)
}
