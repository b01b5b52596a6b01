//! Shares of channels, delayed messages, memory and the store's queue: who may be refused, and who not. The counts are made anew from the broker's channels and
//! messages; the rule is written here a second time, in words of the contract.

use super::restart::user_of;
use super::*;
use crate::broker::Delayed;

/// What is used of a bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    all: usize,
    by_user: BTreeMap<String, usize>,
}

impl Used {
    fn count(&mut self, user: Option<&str>, amount: usize) {
        self.all += amount;
        if let Some(user) = user {
            *self.by_user.entry(user.to_owned()).or_default() += amount;
        }
    }

    /// Whether `user` must be refused `more` (0: it asks for nothing of this kind); otherwise it must not be refused.
    fn refuses(&self, user: &str, more: usize, bound: usize) -> bool {
        if more == 0 {
            return false;
        }
        let mine = self.by_user.get(user).copied().unwrap_or_default();
        let of_nobody = self.all - self.by_user.values().sum::<usize>();
        let equal_share = bound.saturating_sub(of_nobody) as f64 / (self.by_user.len() as f64 + 1.0);
        self.all + more > bound || (self.is_scarce(bound) && mine as f64 >= equal_share.floor() + 1.0)
    }

    fn is_scarce(&self, bound: usize) -> bool {
        self.all as f64 >= 0.9 * bound as f64
    }
}

/// A publication that asks for room.
#[derive(Debug)]
pub(super) struct Ask {
    /// Whether it must be refused.
    must_refuse: bool,
    /// Whether it must be refused because too much waits for the store, if it is not refused for another reason.
    must_wait: bool,
    /// Whether at least 90 % of what it asks for are used.
    scarce: bool,
    /// The broker has refused it with 06.
    pub refused: bool,
    /// The broker has refused it with 05.
    pub unavailable: bool,
    /// The broker has refused it for another reason.
    pub otherwise: bool,
}

impl World {
    /// Returns what is used of the channels, the delayed messages and the memory.
    fn used(&self) -> (Used, Used, Used) {
        let (mut channels, mut delayed, mut bytes) = (Used::default(), Used::default(), Used::default());
        let broker = &self.broker;
        let user = |owner| broker.holdings.user(owner);
        for (_, channel) in &broker.channels {
            channels.count(user(channel.owner), 1);
            bytes.count(user(channel.owner), limits::CHANNEL_BYTES);
        }
        for message in broker.delayed.values() {
            delayed.count(user(message.owner()), 1);
            if let Delayed::Fleeting { publication, owner, .. } = message {
                bytes.count(user(*owner), publication.frame.len() + limits::ENTRY_BYTES);
            }
        }
        broker.entries_in_memory().for_each(|entry| bytes.count(user(entry.owner), entry.bytes()));
        // The rest of the program.
        bytes.all = bytes.all.max(self.settings.memory_budget / 100 * self.memory);
        (channels, delayed, bytes)
    }

    fn exists(&self, channel: &str) -> bool {
        self.broker.channel_keys.contains_key(&name(channel))
    }

    /// Called before a publication of these messages, delayed or not.
    pub(super) fn ask(&mut self, connection: ConnectionId, channel: &str, numbers: &[u64], is_delayed: bool) {
        let (channels, delayed, mut bytes) = self.used();
        let Settings { bounds, memory_budget: budget, .. } = self.settings;
        let user = user_of(connection);
        let keep = self.settings.policies.of(&name(channel)).keep;
        let size = numbers.iter().map(|number| number.to_string().len()).sum();
        let opened = usize::from(keep && !self.exists(channel));
        // A delayed publication to a channel that is not kept takes one place.
        let (places, size) = match (keep, is_delayed) {
            (true, true) => (numbers.len(), size),
            (true, false) => (0, size),
            (false, true) => (1, size + limits::ENTRY_BYTES),
            (false, false) => (0, 0),
        };
        let no_channel = channels.refuses(user, opened, bounds.channels)
            || bytes.refuses(user, opened * limits::CHANNEL_BYTES, budget);
        bytes.count(Some(user).filter(|_| opened > 0), opened * limits::CHANNEL_BYTES);
        let must_refuse =
            no_channel || delayed.refuses(user, places, bounds.delayed) || bytes.refuses(user, size, budget);
        let must_wait = keep && !numbers.is_empty() && self.must_wait(user, channel, numbers.len(), size, is_delayed);
        let scarce = opened > 0 && channels.is_scarce(bounds.channels)
            || places > 0 && delayed.is_scarce(bounds.delayed)
            || size > 0 && bytes.is_scarce(budget);
        self.asked = Some(Ask { must_refuse, must_wait, scarce, refused: false, unavailable: false, otherwise: false });
    }

    /// Whether a publication must be refused because of what waits for the store.
    fn must_wait(&self, user: &str, channel: &str, messages: usize, size: usize, is_delayed: bool) -> bool {
        let mut writing = Used::default();
        for (_, unstored) in self.broker.unstored.iter() {
            if unstored.writing > 0 {
                writing.count(self.broker.holdings.user(unstored.owner), unstored.writing as usize);
            }
        }
        let bound = self.settings.bounds.store_queue.min(self.settings.memory_budget / 2);
        let channel = self.broker.channel_keys.get(&name(channel)).map(|key| &self.broker.channels[*key]);
        let is_taken = channel.is_some_and(|channel| channel.is_drained() && !channel.members.is_empty());
        (is_delayed || !is_taken) && writing.refuses(user, size + messages * limits::ENTRY_BYTES, bound)
    }

    /// Notes a reply that refuses a publication, perhaps the running one. (Another one may have expired meanwhile.)
    pub(super) fn note_refusal(&mut self, reply: &Reply) {
        if !matches!(reply, Reply::Refused { id, .. } if *id == self.sending_id) {
            return;
        }
        if let Reply::Refused { refusal: Refusal::BacklogFull, .. } = reply {
            self.refused_as_full();
        }
        // Another publication may be refused in the same turn, because a deadline has passed.
        let is_asked =
            |id: &PublicationId| self.requests.get(id.id()).is_some_and(|request| request.numbers == self.sending);
        if let (Reply::Refused { refusal, id, .. }, Some(ask)) = (reply, &mut self.asked)
            && id.as_ref().is_none_or(is_asked)
        {
            ask.refused |= *refusal == Refusal::BrokerFull;
            ask.unavailable |= *refusal == Refusal::Unavailable;
            ask.otherwise |= !matches!(refusal, Refusal::BrokerFull | Refusal::Unavailable);
            for number in &self.sending {
                self.model.messages.get_mut(number).expect("a message that was sent").refused = true;
            }
        }
    }

    /// Called after the publication.
    pub(super) fn check_ask(&mut self) {
        let Some(ask) = self.asked.take() else { return };
        let refused = ask.refused || ask.unavailable || ask.otherwise;
        assert!(!ask.refused || ask.must_refuse, "{:?} was refused, and there is room: {ask:?}", self.sending);
        assert!(refused || !ask.must_refuse, "{:?} was accepted although its sender holds too much", self.sending);
        assert!(!ask.unavailable || ask.must_wait, "{:?} was refused, and the store has room: {ask:?}", self.sending);
        assert!(
            refused || !ask.must_wait,
            "{:?} was accepted although its sender fills the store's queue",
            self.sending
        );
        self.tally.refused += u64::from(ask.refused);
        self.tally.waiting += u64::from(ask.unavailable);
        self.tally.shared += u64::from(ask.scarce && !refused);
    }

    /// Whether a subscription must be refused, because it opens too many channels.
    pub(super) fn must_refuse_channels(&self, connection: ConnectionId, channels: &[String]) -> bool {
        let opened = channels.iter().filter(|channel| !self.exists(channel)).count();
        let is_left = |channel: &&String| {
            let is_used =
                |(id, client): (&ConnectionId, &Client)| *id != connection && client.channels.contains(*channel);
            let key = self.broker.channel_keys.get(&name(channel));
            let is_empty = key
                .map(|key| &self.broker.channels[*key])
                .is_some_and(|channel| channel.unsettled == 0 && !channel.next_page.is_loading());
            is_empty && !channels.contains(*channel) && !self.clients.iter().any(is_used)
        };
        let closed = self.clients[&connection].channels.iter().filter(is_left).count();
        let (user, more) = (user_of(connection), opened.saturating_sub(closed));
        let (channels, _, bytes) = self.used();
        channels.refuses(user, more, self.settings.bounds.channels)
            || bytes.refuses(user, more * limits::CHANNEL_BYTES, self.settings.memory_budget)
    }

    /// Checks that each message in memory belongs to the user that has sent it. The store knows the users of publications with an id only.
    pub(super) fn check_owners(&self) {
        for entry in self.broker.entries_in_memory() {
            let number = number(&entry.message.payload.bytes);
            let sender = user_of(self.model.messages[&number].sender);
            match self.broker.holdings.user(entry.owner) {
                Some(user) => assert_eq!(user, sender, "the user of message {number}"),
                None => assert!(entry.message.publication.is_none(), "message {number} belongs to nobody"),
            }
        }
        let users: BTreeSet<_> = self.broker.holdings.users().into_iter().collect();
        assert!(users.iter().all(|user| restart::USERS.contains(user)), "{users:?}");
    }

    /// Nobody is refused any more.
    pub(super) fn lift_bounds(&mut self) {
        self.settings.bounds =
            Bounds { channels: 1_000, delayed: 1_000, store_queue: limits::STORE_QUEUE, ..self.settings.bounds };
        self.settings.memory_budget = limits::MEMORY_BUDGET;
        self.broker.reconfigure(self.settings.clone());
        self.handle(Event::Tick);
    }
}
