//! Clients as senders, and the replies to them.

use super::*;

impl World {
    pub(super) fn publish(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let channel = CHANNELS[self.random.below(CHANNELS.len() as u64 - 1) as usize].to_owned();
        let count = if self.random.chance(80) { 1 } else { 1 + self.random.below(3) };
        let numbers: Vec<u64> = (0..count).map(|offset| self.last_number + 1 + offset).collect();
        self.last_number += count;
        let id = self.random.chance(40).then(|| format!("p{}", numbers[0]));
        let answer = id.is_none() && !self.unnamed_senders.contains_key(&connection) && self.random.chance(20);
        let ttl = self.random.chance(15).then(|| Duration::from_millis(50 + self.random.below(2_000)));
        let delay = self
            .random
            .chance(if self.hoards { 60 } else { 10 })
            .then(|| Duration::from_millis(1 + self.random.below(1_500)));
        let receivers = self.random.chance(15).then(|| self.random.below(3) as u32);
        let policy = self.settings.policies.of(&name(&channel)).clone();
        let life = ttl.unwrap_or(policy.ttl);
        let own = self.clients.get(&connection).is_some_and(|client| client.channels.contains(&channel));
        for number in &numbers {
            let record = MessageRecord {
                sender_receives: own,
                sender_was_member: own,
                limit: receivers.unwrap_or(policy.receivers) as usize,
                has_own_limit: receivers.is_some(),
                delayed: delay.is_some(),
                due: delay.map_or(self.now, |delay| self.now.after(delay)),
                expires: (policy.keep && !life.is_zero()).then(|| self.now.after(life)),
                is_single: count == 1,
                ..MessageRecord::new(channel.clone(), connection, &policy)
            };
            self.model.messages.insert(*number, record);
        }
        if let Some(id) = &id {
            let owed = BTreeMap::from([(connection, 1)]);
            let user = restart::user_of(connection);
            let request = Request {
                channel: channel.clone(),
                numbers: numbers.clone(),
                owed,
                accepted: false,
                refused: false,
                stored: false,
                saved: false,
                user,
                sent: self.now,
                ttl,
                at: self.now,
            };
            self.requests.insert(id.clone(), request);
            self.ids.insert(id.clone(), (user, None));
        }
        let caller = (answer && self.random.chance(50)).then(|| self.call(&numbers));
        if answer && caller.is_none() {
            self.unnamed_senders.insert(connection, numbers.clone());
        }
        self.ask(connection, &channel, &numbers, delay.is_some());
        self.send((connection, caller), &channel, &numbers, (id.as_deref(), answer), (receivers, ttl, delay));
        self.check_ask();
    }

    pub(super) fn send(
        &mut self,
        (connection, caller): (ConnectionId, Option<CallerId>),
        channel: &str,
        numbers: &[u64],
        (id, answer): (Option<&str>, bool),
        (receivers, ttl, delay): (Option<u32>, Option<Duration>, Option<Duration>),
    ) {
        self.sending = numbers.to_vec();
        self.sending_id = id.map(|id| PublicationId::new(restart::user_of(connection), id));
        if let Some(client) = self.clients.get_mut(&connection) {
            client.sent.insert(channel.to_owned());
        }
        let (mut text, mut messages) = (String::new(), Spans::new());
        for number in numbers {
            let start = text.len();
            text.push_str(&number.to_string());
            messages.push(start..text.len());
        }
        let publication = Publication {
            channel: Cow::Owned(name(channel)),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Borrowed(text.as_bytes()),
            messages,
            verbatim: true,
        };
        let publish = Publish {
            origin: Some(connection),
            user: &Arc::from(restart::user_of(connection)),
            reply_to: caller.map_or(ReplyTo::Connection(connection), ReplyTo::Caller),
            publication: &publication,
            receivers,
            id: self.sending_id.clone(),
            answer,
            watch: caller.is_some(),
            ttl,
            delay,
        };
        self.handle(Event::Publish(&publish));
    }

    /// Repeats a publication that was accepted or is pending. Only the sender may notice the repetition.
    pub(super) fn repeat(&mut self) {
        let Some(connection) = self.any_client() else { return };
        // A refused id may be used again, and the simulation learns nothing of a refusal when all waiting connections are gone.
        let known = |request: &Request| {
            let pending = !request.accepted && request.owed.values().any(|owed| *owed > 0);
            let own = request.user == restart::user_of(connection);
            !request.refused && own && (pending || (request.accepted && self.is_remembered(request)))
        };
        let ids: Vec<String> =
            self.requests.iter().filter(|(_, request)| known(request)).map(|(id, _)| id.clone()).collect();
        let Some(id) = self.random.pick(&ids).cloned() else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        *request.owed.entry(connection).or_default() += 1;
        let Request { channel, numbers, ttl, .. } = request.clone();
        self.send((connection, None), &channel, &numbers, (Some(&id), false), (None, ttl, None));
    }

    /// Checks that a channel whose backlog was reported as full is full. No message of the refused publication may ever be delivered.
    pub(super) fn refused_as_full(&mut self) {
        let Some(first) = self.sending.first() else { panic!("nothing is being sent") };
        let channel = self.model.messages[first].channel.clone();
        let live = self.model.live(&channel, self.now);
        let most = self.settings.policies.of(&name(&channel)).max_backlog;
        assert!(live > most, "{channel} was reported as full with {live} messages, including the refused ones");
        for number in &self.sending {
            self.model.messages.get_mut(number).expect("a message that was sent").refused = true;
        }
    }

    pub(super) fn answered(&mut self, to: ConnectionId, reply: &Reply) {
        match self.clients.get_mut(&to) {
            Some(client) => client.frames += 1,
            None => assert!(self.listening.contains(&to), "a reply to a disconnected client"),
        }
        self.note_refusal(reply);
        let (id, accepted, first) = match reply {
            Reply::Accepted { id, duplicate, .. } => (id, true, !duplicate),
            Reply::Refused { id: None, answer: false, .. } => return,
            Reply::Refused { id, .. } => (id, false, false),
            Reply::UnknownDelivery { .. } => {
                self.unknown += 1;
                return;
            }
            Reply::Settled(_) => panic!("a connection was told an outcome"),
            Reply::TooManyChannels => return self.too_many_channels = Some(to),
        };
        let mut unsure = false;
        let numbers = match id {
            Some(id) => {
                let request = self.requests.get_mut(id.id()).expect("a reply to a known publication");
                let owed = request.owed.get_mut(&to).expect("a reply to a connection that waits");
                *owed = owed.checked_sub(1).expect("one reply for each publication");
                if accepted && !request.accepted {
                    request.at = self.now;
                }
                request.accepted |= accepted;
                request.stored |= matches!(reply, Reply::Accepted { stored: true, .. });
                if let Some((_, at)) = self.ids.get_mut(id.id()).filter(|_| accepted) {
                    at.get_or_insert(self.now);
                }
                request.refused |= !accepted;
                // Times have milliseconds: the order of two events in one millisecond is unknown.
                unsure = self.purges.get(&request.channel) == Some(&request.at);
                request.numbers.clone()
            }
            None => self.unnamed_senders.remove(&to).expect("one reply for each waiting connection"),
        };
        if let Reply::Accepted { receivers, stored, duplicate, .. } = *reply {
            // Replies to publications without an id are checked for acceptance only.
            if id.is_some() {
                let reply = truth::AcceptedReply { numbers: &numbers, receivers, stored, duplicate, unsure };
                self.check_accepted_reply(&reply);
            }
        }
        self.decided(&numbers, accepted, first);
    }

    /// Records that the sender of these messages was told whether they are accepted. `first`: it was told for the first time.
    pub(super) fn decided(&mut self, numbers: &[u64], accepted: bool, first: bool) {
        for number in numbers {
            let stored = self.store.rows.values().any(|row| row.payload.as_text() == Some(&number.to_string()));
            let swept = self.is_swept(&self.model.messages[number].channel);
            let record = self.model.messages.get_mut(number).expect("a message that was sent");
            let expired = record.expires.is_some_and(|at| at <= self.now);
            let over = record.confirmed || record.purged || record.is_dropped() || expired;
            if accepted {
                // A dead letter has a time to live of its own.
                let safe =
                    record.confirmed || record.purged || !expired || record.is_dead_letter || record.is_rejected();
                assert!(safe || record.accepted || !first, "message {number} was accepted after it had expired");
                record.accepted = true;
                let dropped = record.channel == "drop" && record.deliveries >= 2;
                assert!(!record.keep || stored || over || swept || dropped, "message {number} is not safe");
            } else if !over {
                // Even if the store has written the message although it reported a failure, the message is not delivered, unless the broker
                // crashes before the row is removed.
                record.refused = true;
            } else {
                // It is settled in another way, for example expired.
                self.missing_allowed += 1;
            }
        }
    }
}
