//! Answers to manual deliveries, and deliveries that nobody confirms in time.

use super::*;

impl World {
    /// The store writes its queue, and its answer is lost; then the store works again. Receivers confirm messages before the broker repeats
    /// the writes.
    pub(super) fn lose_an_answer(&mut self) {
        let (failing, loses_answers) = (self.store.failing, self.store.loses_answers);
        (self.store.failing, self.store.loses_answers) = (true, true);
        self.work();
        (self.store.failing, self.store.loses_answers) = (failing, loses_answers);
        while !self.store.events.is_empty() {
            self.store_event();
        }
        self.tick_until(Timestamp(self.now.0 + limits::STORE_RETRY.as_millis() as u64));
        for _ in 0..self.random.below(4) {
            self.pong();
        }
        self.work();
    }

    pub(super) fn acknowledge(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let answer = self.answer();
        let Some(client) = self.clients.get(&connection) else { return };
        let manual: Vec<u64> = client.unanswered.iter().filter(|(_, manual)| **manual).map(|(id, _)| *id).collect();
        let automatic: Vec<u64> = client.unanswered.iter().filter(|(_, manual)| !**manual).map(|(id, _)| *id).collect();
        let revoked = client.revoked.clone();
        let unknown = match self.random.below(20) {
            0 => Some(1_000_000),
            1 => self.random.pick(&automatic).copied(),
            2..6 => self.random.pick(&revoked).copied(),
            _ => None,
        };
        if let Some(sequence) = unknown {
            let before = self.unknown;
            self.handle(Event::Acknowledge(Acknowledge { connection, sequence, answer }));
            assert_eq!(
                self.unknown,
                before + 1,
                "an answer to {sequence}, which does not wait for one, must be refused"
            );
            return;
        }
        let Some(sequence) = self.random.pick(&manual).copied() else { return };
        let before = self.unknown;
        self.answer_delivery(connection, sequence, answer);
        assert_eq!(self.unknown, before, "the answer to a waiting delivery was refused");
    }

    fn answer(&mut self) -> Answer {
        let retry_after = self.random.chance(30).then(|| Duration::from_millis(self.random.below(2_500)));
        match self.random.below(100) {
            0..55 => Answer::Ack,
            55..65 => Answer::Extend,
            65..72 => Answer::Nack(Nack { reject: true, ..Nack::default() }),
            _ => Answer::Nack(Nack { retry_after, ..Nack::default() }),
        }
    }

    fn answer_delivery(&mut self, connection: ConnectionId, sequence: u64, answer: Answer) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if answer != Answer::Extend {
            client.unanswered.remove(&sequence);
        }
        let numbers = self.model.held_by(connection, sequence);
        match &answer {
            Answer::Ack => self.model.answered(connection, sequence),
            Answer::Extend => self.model.extended(now, (connection, sequence), false),
            Answer::Nack(nack) => self.model.nacked(now, (connection, sequence), nack),
        }
        let plain = matches!(&answer, Answer::Nack(nack) if !nack.reject && nack.retry_after.is_none());
        self.handle(Event::Acknowledge(Acknowledge { connection, sequence, answer }));
        for number in numbers.into_iter().filter(|_| plain) {
            self.check_passed_on(number);
        }
    }

    /// After the first nack of a message, another receiver with room must have it at once. Otherwise the message is held back from all
    /// receivers.
    fn check_passed_on(&mut self, number: u64) {
        let free = self.free_receiver(number);
        let Some(record) = self.model.messages.get_mut(&number) else { return };
        let Some((_, not)) = record.held_back.as_mut().filter(|_| record.holders.is_empty()) else { return };
        let given_up = record.expires.is_some_and(|at| at <= self.now)
            || record.rejected
            || (record.channel == "drop" && record.deliveries >= 2)
            || (record.channel == "three" && record.deliveries >= 3);
        if not.is_empty() || given_up || !record.is_single {
            not.clear();
            return;
        }
        not.clear();
        assert_eq!(free, None, "message {number} was given back and is held, although another receiver could take it");
    }

    /// Returns a receiver that certainly has room, may get the message now, and has not had it.
    pub(super) fn free_receiver(&self, number: u64) -> Option<ConnectionId> {
        let record = &self.model.messages[&number];
        let delayed = !self.settings.delay.is_zero() || self.now < self.paused_until || self.stopping;
        let groups = record.only_for();
        let free = |connection: &ConnectionId, client: &Client| {
            let is_asked = groups.is_none_or(|groups| client.group.is_some_and(|group| groups.contains(group)));
            is_asked
                && client.channels.contains(&record.channel)
                && client.has_room()
                && client.sent.is_empty()
                && (client.proven || client.kind == ClientKind::Modern)
                && !record.returned.contains(connection)
                && record.sender != *connection
                && !record.holders.keys().any(|(holder, _)| holder == connection)
        };
        self.clients.iter().find(|(id, client)| !delayed && free(id, client)).map(|(id, _)| *id)
    }

    /// Checks an entry for the administrator's log.
    pub(super) fn check_note(&mut self, note: &Note) {
        match note {
            Note::Dropped { .. } => self.dropped += 1,
            Note::Failing { attempts, .. } => {
                let rounds = attempts / limits::FAILING_TOLD;
                assert!(attempts % limits::FAILING_TOLD == 0 && rounds.is_power_of_two(), "logged too often: {note:?}");
            }
            Note::Unanswered { connection, sequence, given, .. } => {
                let numbers = self.model.held_by(*connection, *sequence);
                for number in &numbers {
                    let record = &self.model.messages[number];
                    let holder = record.holders[&(*connection, *sequence)];
                    let late = holder.is_late(self.now) || (*given && holder.overdue);
                    assert!(holder.manual && late, "message {number} is not late: {record:?}");
                    if !given && record.is_single {
                        assert_eq!(
                            self.free_receiver(*number),
                            None,
                            "message {number} could go to another receiver: {record:?}"
                        );
                    }
                }
                let Some(client) = self.clients.get_mut(connection) else {
                    panic!("{note:?} names a disconnected client")
                };
                if *given {
                    assert_eq!(client.unanswered.remove(sequence), Some(true), "{note:?}");
                    client.revoked.push(*sequence);
                    self.model.revoked(self.now, (*connection, *sequence));
                } else {
                    self.model.extended(self.now, (*connection, *sequence), true);
                }
            }
        }
    }

    /// Checks that no message is late at one receiver while another receiver could take it.
    pub(super) fn check_late(&self) {
        for (number, record) in &self.model.messages {
            let only = record.holders.values().next().filter(|_| record.holders.len() == 1);
            let Some(holder) = only.filter(|holder| !holder.manual && holder.is_late(self.now)) else { continue };
            let expired = record.expires.is_some_and(|at| at <= self.now);
            let over =
                record.confirmed || record.purged || record.refused || record.lost || expired || !record.is_single;
            assert!(
                over || holder.at == self.now || self.free_receiver(*number).is_none(),
                "message {number} is late, although another receiver could take it: {record:?}"
            );
        }
    }

    /// Checks that no message is owed to a group while a member of the group could take it.
    pub(super) fn check_owed(&self) {
        for (number, record) in self.model.messages.iter().filter(|(_, record)| record.bound_to.is_some()) {
            let paused = record.held_back.as_ref().is_some_and(|(until, _)| *until >= self.now);
            let gone = record.is_rejected()
                || record.is_dead_letter
                || record.has_vanished(self.now)
                || !record.holders.is_empty();
            let given_up = (record.channel == "drop" && record.deliveries >= 2)
                || (record.channel == "three" && record.deliveries >= 3);
            let over = record.confirmed || record.purged || record.refused || record.lost || gone || given_up || paused;
            let expired = record.expires.is_some_and(|at| at <= self.now);
            let free = self.free_receiver(*number).filter(|free| !self.waits_for_page(*free));
            assert!(
                over || expired || free.is_none(),
                "message {number} is owed, and {free:?} could take it: {record:?}"
            );
        }
    }

    /// Checks that a dead letter names its first channel, and that no other message does.
    pub(super) fn check_dead_letter(&mut self, content: &Content) {
        let Content::Backlog(backlog) = content else { return };
        let crate::broker::Backlog { channel, messages, dead } = &**backlog;
        let [message] = &messages[..] else { return };
        let record = &self.model.messages[&number(&message.bytes)];
        let from = dead.as_ref().map(|dead| dead.channel.as_str());
        let expected = (channel.as_str() != record.channel).then_some(record.channel.as_str());
        assert_eq!(from, expected, "{content:?}");
        let why = dead.as_ref().map(|dead| dead.why);
        // At a start, a due message and a step of the clock may come in either order.
        let expired = record.delayed || record.expires.is_some_and(|at| at <= self.now);
        assert!(
            why != Some(Why::Expired) || (expired && has_expired_dead_letters(&record.channel)),
            "a dead letter of an unexpired message: {content:?}"
        );
        self.tally.late += u64::from(why == Some(Why::Expired));
        let rejected = matches!(why, Some(Why::Rejected | Why::Expired));
        assert!(rejected || !record.rejected, "a rejected message with another cause: {content:?}");
    }
}
