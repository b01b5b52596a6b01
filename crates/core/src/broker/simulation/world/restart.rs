//! Orderly stops, and the ids of publications over a restart: the file that the server keeps, and what it may forget.

use super::*;
use crate::message::Message;

/// A bound on ids that is soon reached.
pub(super) const FEW_IDS: usize = 24;

/// By how much the times of rows may be corrected while a seed runs.
const CORRECTION: Duration = Duration::from_secs(10);

const USERS: [&str; 3] = ["u", "v", "w"];

/// As whom a connection has logged in.
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
        for asked in self.asked.values_mut() {
            asked.saved |= asked.accepted;
        }
    }

    /// Whether an accepted id must be known: its user has not sent more since than its share of the bound.
    pub(super) fn is_remembered(&self, asked: &Asked) -> bool {
        let Some(bound) = self.id_bound else { return true };
        let since = self
            .ids
            .values()
            .filter(|(user, at)| *user == asked.user && at.is_none_or(|at| at.after(CORRECTION) >= asked.sent));
        since.count() <= bound / USERS.len()
    }

    /// What was accepted within the last second, and whose messages were confirmed without having been stored.
    pub(super) fn forget_what_a_crash_may_forget(&mut self) {
        let rows: BTreeSet<(String, u64)> = self
            .store
            .rows
            .values()
            .filter_map(|row| Some((row.first_channel().to_string(), row.payload.as_text()?.parse().ok()?)))
            .collect();
        self.asked.retain(|id, asked| {
            let stored = asked.numbers.iter().any(|number| rows.contains(&(asked.channel.clone(), *number)));
            assert!(
                stored || asked.saved || !asked.stored || !asked.accepted,
                "{id} was stored, and a crash forgets it"
            );
            asked.accepted && (stored || asked.saved)
        });
    }

    /// The next broker finds what the store and the file have.
    pub(super) fn start_again(&mut self) {
        self.store.find_ghosts();
        self.restored_up_to = self.store.last_id;
        let number = |row: &Message| row.payload.as_text()?.parse::<u64>().ok();
        let row_of = |row: &Message| Some((number(row)?, (row.channel.to_string(), row.due.is_some())));
        let rows: BTreeMap<u64, (String, bool)> = self.store.rows.values().filter_map(row_of).collect();
        for (number, told) in &mut self.model.messages {
            told.forget();
            told.old = rows.get(number).map(|(_, is_due_later)| *is_due_later);
            told.letter = rows.get(number).is_some_and(|(channel, _)| *channel != told.channel);
        }
        self.loads.clear();
        self.failed_loads.clear();
        self.dropped_before += self.broker.counters().dropped;
        let restored = Restored { ids: self.file.clone(), id_bound: self.id_bound, ..self.store.restored() };
        self.broker = Broker::new(self.settings.clone(), restored);
        // What stands in rows is not new to the broker, and is in the file when the row goes.
        self.file = self.broker.accepted_ids();
    }

    /// The broker stops in an orderly way: it forgets and doubles nothing.
    pub(super) fn stop(&mut self) {
        if self.store.failing {
            return self.crash();
        }
        self.stopping = true;
        self.give(Event::Stopping);
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
            self.give(Event::Disconnected { connection, took_only: false, listens: false });
        }
        for round in 0.. {
            assert!(round < 10, "something is never stored: {:#?}", self.broker);
            self.give(Event::Stopping);
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
        self.stopping = false;
        self.start_again();
    }

    /// Time passes until nobody waits for an answer.
    fn answer_whoever_waits(&mut self) {
        for round in 0.. {
            assert!(round < 100, "somebody waits for ever: {:#?}", self.broker);
            self.work();
            while !self.store.events.is_empty() {
                self.store_event();
            }
            if !self.broker.owes_answers() {
                break;
            }
            self.tick_until(Timestamp(self.now.0 + 20));
        }
        for (id, asked) in &self.asked {
            assert!(asked.owed.values().all(|owed| *owed == 0), "{id} was not answered before the end: {asked:?}");
        }
    }

    /// Everything that was taken and is not settled is in the store, and nothing else.
    fn check_what_is_left(&mut self) {
        let (left, rows) = (self.broker.unsettled() as usize, self.store.rows.len());
        assert_eq!(left, rows, "so many messages are left and stored");
        let rows = self.store.rows.values();
        let rows: BTreeSet<u64> = rows.filter_map(|row| row.payload.as_text()?.parse().ok()).collect();
        let counters = self.broker.counters();
        let allowed = self.missing_allowed + counters.refused + counters.refused_late;
        let mut missing = 0;
        for (number, told) in self.model.messages.iter_mut().filter(|(_, told)| told.keep) {
            let dropped = told.channel == "drop" && told.deliveries >= 2;
            let dropped = dropped || told.is_dropped();
            let over = told.confirmed || told.purged || dropped || told.has_vanished(self.now);
            if rows.contains(number) {
                assert!(!told.confirmed && !told.purged, "message {number} is settled and comes again");
                assert!(!told.refused, "message {number} was refused and comes for all that");
            } else if !over && !told.refused && !told.lost {
                assert!(!told.accepted, "message {number} was accepted and is not in the store: {told:?}");
                missing += 1;
                told.lost = true;
            }
        }
        assert!(missing <= allowed, "{missing} messages are missing after a stop, {allowed} were refused");
        self.asked.retain(|_, asked| asked.accepted);
    }
}
