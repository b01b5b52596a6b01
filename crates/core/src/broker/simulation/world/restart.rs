//! Orderly stops, and publication ids over a restart: the server's file of ids, and the ids that may be forgotten.

use super::*;
use crate::message::Message;

/// A bound on ids that is reached soon.
pub(super) const FEW_IDS: usize = 24;

/// The largest sum of steps of the wall clock that is allowed for.
const CORRECTION: Duration = Duration::from_secs(10);

pub(super) const USERS: [&str; 3] = ["u", "v", "w"];

/// Returns the user name of a connection.
pub(super) fn user_of(connection: ConnectionId) -> &'static str {
    USERS[(connection.0 % USERS.len() as u64) as usize]
}

impl World {
    pub(super) fn save_once_a_second(&mut self) {
        if self.now.since(self.saved) >= Duration::from_secs(1) {
            self.save_ids();
        }
    }

    pub(super) fn save_ids(&mut self) {
        let fresh = self.broker.take_fresh_ids();
        if fresh.incomplete {
            self.file = self.broker.accepted_ids();
        } else {
            self.file.extend(fresh.ids);
        }
        self.saved = self.now;
        for request in self.requests.values_mut() {
            request.saved |= request.accepted;
        }
    }

    /// Whether an accepted id must still be known: since then its user has not sent more ids than its share of the bound.
    pub(super) fn is_remembered(&self, request: &Request) -> bool {
        let Some(bound) = self.id_bound else { return true };
        let since = self
            .ids
            .values()
            .filter(|(user, at)| *user == request.user && at.is_none_or(|at| at.after(CORRECTION) >= request.sent));
        since.count() <= bound / USERS.len()
    }

    /// Removes the ids that a crash may forget: those that were accepted within the last second, and whose messages are not in the store.
    pub(super) fn forget_what_a_crash_may_forget(&mut self) {
        let rows: BTreeSet<(String, u64)> = self
            .store
            .rows
            .values()
            .filter_map(|row| Some((row.first_channel().to_string(), row.payload.as_text()?.parse().ok()?)))
            .collect();
        self.requests.retain(|id, request| {
            let stored = request.numbers.iter().any(|number| rows.contains(&(request.channel.clone(), *number)));
            assert!(
                stored || request.saved || !request.stored || !request.accepted,
                "{id} was stored, and the crash has lost it"
            );
            request.accepted && (stored || request.saved)
        });
    }

    /// Starts the next broker with the store and the file of ids.
    pub(super) fn start_again(&mut self) {
        self.store.find_hidden_rows();
        self.restored_up_to = self.store.last_id;
        let number = |row: &Message| row.payload.as_text()?.parse::<u64>().ok();
        let row_of = |row: &Message| Some((number(row)?, (row.channel.to_string(), row.due.is_some())));
        let rows: BTreeMap<u64, (String, bool)> = self.store.rows.values().filter_map(row_of).collect();
        for (number, record) in &mut self.model.messages {
            record.forget();
            record.restored = rows.get(number).map(|(_, is_due_later)| *is_due_later);
            record.is_dead_letter = rows.get(number).is_some_and(|(channel, _)| *channel != record.channel);
        }
        self.callers.clear();
        self.loads.clear();
        self.failed_loads.clear();
        self.dropped_before += self.broker.counters().dropped;
        let restored = Restored { ids: self.file.clone(), id_bound: self.id_bound, ..self.store.restored() };
        self.broker = Broker::new(self.settings.clone(), restored);
        // Ids in stored rows are not new to the broker, but must be in the file when their rows are removed.
        self.file = self.broker.accepted_ids();
    }

    /// Carries out an orderly stop, which must neither lose nor duplicate a message.
    pub(super) fn stop(&mut self) {
        if self.store.failing {
            return self.crash();
        }
        self.stopping = true;
        self.handle(Event::Stopping);
        for _ in 0..self.random.below(30) {
            match self.random.below(8) {
                0 | 1 => self.pong(),
                2 => self.acknowledge(),
                3 => self.publish(),
                4 => self.subscribe(),
                5 => self.repeat(),
                6 => self.work(),
                _ => self.store_event(),
            }
            self.check();
        }
        self.answer_whoever_waits();
        while let Some(connection) = self.any_client().or_else(|| self.listening.first().copied()) {
            self.gone(connection);
            self.handle(Event::Disconnected { connection, took_only: false, listens: false });
        }
        for round in 0.. {
            assert!(round < 10, "a message is never stored: {:#?}", self.broker);
            self.handle(Event::Stopping);
            while !self.store.is_idle() {
                self.work();
                while !self.store.events.is_empty() {
                    self.store_event();
                }
            }
            if self.broker.unstored() == 0 {
                break;
            }
        }
        self.save_ids();
        self.check_what_is_left();
        self.check_answered();
        self.stopping = false;
        self.start_again();
    }

    /// Passes time until no sender waits for an answer.
    fn answer_whoever_waits(&mut self) {
        for round in 0.. {
            assert!(round < 100, "a sender never gets an answer: {:#?}", self.broker);
            self.work();
            while !self.store.events.is_empty() {
                self.store_event();
            }
            if !self.broker.owes_answers() {
                break;
            }
            self.tick_until(Timestamp(self.now.0 + 20));
        }
        for (id, request) in &self.requests {
            assert!(request.owed.values().all(|owed| *owed == 0), "{id} was not answered before the stop: {request:?}");
        }
    }

    /// Checks that exactly the unsettled messages are in the store.
    fn check_what_is_left(&mut self) {
        let (left, rows) = (self.broker.unsettled() as usize, self.store.rows.len());
        assert_eq!(left, rows, "unsettled messages and rows");
        let rows = self.store.rows.values();
        let rows: BTreeSet<u64> = rows.filter_map(|row| row.payload.as_text()?.parse().ok()).collect();
        let counters = self.broker.counters();
        let allowed = self.missing_allowed + counters.refused + counters.refused_late;
        let mut missing = 0;
        for (number, record) in self.model.messages.iter_mut().filter(|(_, record)| record.keep) {
            let dropped = record.channel == "drop" && record.deliveries >= 2;
            let dropped = dropped || record.is_dropped();
            let over = record.confirmed || record.purged || dropped || record.has_vanished(self.now);
            if rows.contains(number) {
                assert!(!record.confirmed && !record.purged, "message {number} is settled and still stored");
                assert!(!record.refused, "message {number} was refused and still stored");
            } else if !over && !record.refused && !record.lost {
                assert!(!record.accepted, "message {number} was accepted and is not in the store: {record:?}");
                missing += 1;
                record.lost = true;
            }
        }
        assert!(missing <= allowed, "{missing} messages are missing after a stop, and {allowed} were refused");
        self.requests.retain(|_, request| request.accepted);
    }
}
