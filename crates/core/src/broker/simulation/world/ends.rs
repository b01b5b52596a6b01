//! Purges, new settings, crashes, and the checks at the end of a seed.

use super::*;

impl World {
    pub(super) fn purge(&mut self) {
        let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize];
        if !self.random.chance(30) || ["dead", "three", "late"].contains(&channel) {
            // Dead letters change their channel. The model does not know the messages of a dead-letter channel.
            return;
        }
        for record in self.model.messages.values_mut().filter(|record| record.channel == channel && record.keep) {
            record.purged = true;
        }
        self.purges.insert(channel.to_owned(), self.now);
        self.handle(Event::Purge { channel: name(channel) });
    }

    /// An administrator changes the configuration while the broker runs.
    pub(super) fn reconfigure(&mut self) {
        let fresh = settings(&mut self.random);
        let times = fresh.policies.clone();
        // A pause that has begun goes on.
        self.paused_until = self.paused_until.max(self.now.after(self.settings.delay));
        let Settings { policies, bounds, memory_budget, .. } = self.settings.clone();
        self.settings = Settings { policies, bounds, memory_budget, ..fresh };
        let Policies { named, default } = &mut self.settings.policies;
        default.receivers = self.random.below(2) as u32;
        for ((pattern, policy), (_, new)) in named.iter_mut().zip(&times.named) {
            (policy.ack_timeout, policy.confirm_within) = (new.ack_timeout, new.confirm_within);
            match pattern.to_string().as_str() {
                "one" | "two" => policy.receivers = self.random.below(3) as u32,
                "live" | "turn" => policy.keep = self.random.chance(50),
                "short" => policy.ttl = Duration::from_millis(100 + self.random.below(900)),
                _ => {}
            }
        }
        for record in self.model.messages.values_mut() {
            let policy = self.settings.policies.of(&name(&record.channel));
            if !record.has_own_limit {
                record.limit = policy.receivers as usize;
            }
            for holder in record.holders.values_mut().filter(|holder| !record.is_dead_letter && !holder.observes) {
                holder.within = if holder.manual { policy.ack_timeout } else { policy.confirm_within };
            }
        }
        self.broker.reconfigure(self.settings.clone());
        self.handle(Event::Tick);
    }

    /// The process crashes. A new broker starts with the store and the file of ids.
    pub(super) fn crash(&mut self) {
        let connections: Vec<_> = self.clients.keys().chain(&self.listening).copied().collect();
        for connection in connections {
            self.gone(connection);
        }
        self.ended.clear();
        let events = std::mem::take(&mut self.store.events);
        self.store.crash();
        for (id, row) in &self.store.rows {
            // A new row that was not written is forgotten: the older row stands for the message again.
            let is_old = *id <= self.restored_up_to;
            let record = self.model.messages.get_mut(&number(&row.payload.bytes)).expect("a message that was sent");
            record.restored = is_old.then_some(row.due.is_some());
        }
        // Operations whose answers were on their way have been carried out.
        for event in events {
            if let Event::Store(StoreEvent::WallAdvanced(by)) = event {
                self.model.advance(by.as_millis() as u64);
            }
        }
        let rows: BTreeMap<u64, (String, bool)> = self
            .store
            .rows
            .values()
            .map(|row| (number(&row.payload.bytes), (row.channel.to_string(), row.due.is_some())))
            .collect();
        for (number, record) in &mut self.model.messages {
            record.forget();
            record.restored = rows.get(number).map(|(_, is_due_later)| *is_due_later);
            record.is_dead_letter = rows.get(number).is_some_and(|(channel, _)| *channel != record.channel);
            let dead = record.has_vanished(self.now) || record.confirmed || record.purged || record.is_dropped();
            if rows.contains_key(number) {
                // The row's removal was not committed: the message may be delivered again, or, after a purge, for the first time and late.
                record.delayed |= record.purged;
                record.confirmed = false;
                record.purged = false;
                record.refused = false;
                record.rejected = false;
                record.dead_letter_rejected = false;
            } else if record.keep && !record.accepted && !dead {
                record.lost = true;
            } else if record.keep && record.channel != "drop" {
                assert!(dead || record.refused || record.lost, "message {number} was accepted and is not in the store");
            }
        }
        self.forget_what_a_crash_may_forget();
        self.restored_up_to = self.store.last_id;
        if self.random.chance(20) {
            // The new process has a wall clock that is ahead of the old one's.
            let by = self.random.below(1_500);
            self.store.advance(self.restored_up_to, by);
            self.model.advance(by);
        }
        self.start_again();
    }

    /// The wall clock was behind and is set forward.
    pub(super) fn set_clock(&mut self) {
        let by = self.random.below(1_500);
        self.store.advance(self.restored_up_to, by);
        self.store.events.push_back(Event::Store(StoreEvent::WallAdvanced(Duration::from_millis(by))));
    }

    /// Ends the seed: the store works again, a single receiver takes the remaining messages, and the final checks run.
    pub fn finish(mut self) -> Tally {
        self.store.failing = false;
        self.memory = 0;
        self.lift_bounds();
        if !self.store.hidden_rows.is_empty() {
            // Rows whose write was reported as failed are found at the next start.
            self.crash();
        }
        while let Some(connection) = self.any_client() {
            self.gone(connection);
            self.handle(Event::Disconnected { connection, took_only: false, listens: false });
        }
        self.connect();
        let connection = ConnectionId(self.last_connection);
        // Without a receiver, expired messages must become dead letters, too.
        let without = if self.random.chance(50) { "late" } else { "" };
        let channels: Vec<_> =
            CHANNELS.iter().filter(|channel| **channel != without).map(|channel| name(channel)).collect();
        if let Some(client) = self.clients.get_mut(&connection) {
            client.channels = channels.iter().map(ToString::to_string).collect();
            client.list = channels.iter().map(ToString::to_string).collect();
            client.prefetch = Some(limits::PREFETCH);
        }
        let client = self.clients[&connection].kind;
        self.handle(Event::Subscribe(Subscribe {
            connection,
            user: Arc::from(restart::user_of(connection)),
            channels,
            ack: AckMode::Automatic,
            prefetch: Some(limits::PREFETCH),
            client,
            receiver: None,
            group: None,
            order: Order::List,
        }));
        for round in 0..400 {
            self.work();
            while !self.store.events.is_empty() {
                self.store_event();
            }
            // Messages that failed often are held back for up to a minute. The receiver confirms before `confirm_timeout`.
            for _ in 0..if round < 200 { 1 } else { 7 } {
                self.pong();
                self.tick_until(Timestamp(self.now.0 + 150));
            }
            self.check();
        }
        assert_eq!(self.broker.unsettled(), 0, "messages are left that no receiver gets: {:#?}", self.broker);
        assert!(self.store.rows.is_empty(), "rows are left: {:?}", self.store.rows);
        assert!(self.store.is_idle(), "the store is not idle");
        self.broker.audit_empty();
        self.check_end();
        self.tally
    }

    pub(super) fn check_end(&mut self) {
        let counters = *self.broker.counters();
        assert_eq!(self.dropped, self.dropped_before + counters.dropped, "the broker reports every dropped message");
        let mut missing = Vec::new();
        for (number, record) in &self.model.messages {
            let over = record.confirmed
                || record.purged
                || record.refused
                || record.lost
                || !record.keep
                || record.is_dropped()
                || record.has_vanished(self.now)
                || (record.channel == "drop" && record.deliveries >= 2);
            assert!(over || !record.accepted, "message {number} was accepted and never confirmed: {record:?}");
            missing.extend((!over).then_some((number, record)));
            self.tally.confirmed += u64::from(record.confirmed);
        }
        let allowed = self.missing_allowed + counters.refused + counters.refused_late;
        assert!(missing.len() as u64 <= allowed, "{allowed} messages were refused, and these are missing: {missing:?}");
        assert!(self.unnamed_senders.is_empty(), "these senders never got an answer: {:?}", self.unnamed_senders);
        assert!(self.callers.is_empty(), "these callers were never told an outcome: {:?}", self.callers);
        for (id, request) in &self.requests {
            assert!(request.owed.values().all(|owed| *owed == 0), "publication {id} was never answered: {request:?}");
        }
    }
}
