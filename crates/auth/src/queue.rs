//! The queue of logins that wait for a verification, and the order in which they are verified.
//!
//! ```text
//! enqueue ─► waiting ─┬─ ready ──► start_next ─► running ─► finish ─► throttle
//!                     ├─ delayed until a time ◄───────────────────────┘
//!                     └─ blocked until a running verification has finished
//! ```
//!
//! Three round-robin schedules alternate: by network, by address and by user. Each gives each of its keys the same number of
//! verifications. So a flood from one network, from one address or for one user delays other logins by a few verifications only.
//!
//! This module must never read a clock or start a thread: the time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::cache::Fingerprint;
use super::throttle::{Key, Start, Throttle};
use crate::limits;
use wsmb_core::network::groups::Groups;

/// The number of a login while it waits or is verified.
pub(super) type Ticket = u64;

/// The keys of a login.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    /// Digest of the network that the address is in.
    pub(super) network: Key,
    /// Digest of the address.
    pub(super) address: Key,
    /// Digest of the user.
    pub(super) user: Key,
    /// Digest of address and user.
    pub(super) pair: Key,
    /// Digest of user and password. `None` without a digest key: then equal logins are not recognised.
    pub(super) credential: Option<Fingerprint>,
}

impl Login {
    /// Whether both logins have the same address, user and password.
    fn is_same(&self, other: &Self) -> bool {
        self.credential.is_some() && (self.pair, self.credential) == (other.pair, other.credential)
    }
}

/// Why a login is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many different passwords for this user from this address are waiting.
    Slowed,
    /// The queue is full.
    Busy,
}

/// A login that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enqueued {
    pub(super) ticket: Ticket,
    /// The login that was removed to make room. The caller answers it with "busy".
    pub(super) displaced: Option<Ticket>,
}

/// A round-robin schedule over keys.
#[derive(Debug, Default)]
struct Schedule {
    /// The current round.
    round: u64,
    /// The last round assigned to each key. Entries of past rounds are unused.
    last: HashMap<Key, u64>,
    /// The logins that may be verified now, by round.
    ready: BTreeSet<(u64, Ticket)>,
}

impl Schedule {
    /// Assigns the next free round of `key`.
    fn assign_round(&mut self, key: Key, capacity: usize) -> u64 {
        if self.last.len() >= 2 * capacity {
            let round = self.round;
            self.last.retain(|_, last| *last > round);
        }
        let last = self.last.entry(key).or_default();
        *last = self.round.max(*last) + 1;
        *last
    }
}

const SCHEDULES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Not evaluated yet.
    New,
    /// It may be verified, unless another verification has begun since.
    Ready,
    /// It may not be verified before this time.
    Delayed(Duration),
    /// It may not be verified before a running verification has finished.
    Blocked,
}

#[derive(Debug)]
struct Waiting {
    login: Login,
    rounds: [u64; SCHEDULES],
    status: Status,
}

/// The logins that wait or are verified. Adding a login evaluates no other login, however many wait. Finishing a verification evaluates
/// only the logins that depend on its result. Times are measured from any fixed moment and never decrease.
#[derive(Debug)]
pub(super) struct LoginQueue {
    throttle: Throttle,
    waiting: BTreeMap<Ticket, Waiting>,
    running: Vec<(Ticket, Login)>,
    schedules: [Schedule; SCHEDULES],
    /// The index of the schedule that selects the next login.
    next_schedule: usize,
    delayed: BTreeSet<(Duration, Ticket)>,
    /// The logins that wait for a running verification, by address.
    blocked: Groups<Key>,
    by_address: Groups<Key>,
    by_network: Groups<Key>,
    /// The waiting logins by pair and credential.
    by_pair: HashMap<Key, BTreeMap<Option<Fingerprint>, BTreeSet<Ticket>>>,
    last_ticket: Ticket,
    capacity: usize,
    /// How often the status of a login was evaluated.
    #[cfg(test)]
    evaluations: usize,
}

impl LoginQueue {
    pub(super) fn new() -> Self {
        Self::with(Throttle::new(), limits::WAITING_LOGINS)
    }

    fn with(throttle: Throttle, capacity: usize) -> Self {
        Self {
            throttle,
            waiting: BTreeMap::new(),
            running: Vec::new(),
            schedules: Default::default(),
            next_schedule: 0,
            delayed: BTreeSet::new(),
            blocked: Groups::default(),
            by_address: Groups::default(),
            by_network: Groups::default(),
            by_pair: HashMap::new(),
            last_ticket: 0,
            capacity,
            #[cfg(test)]
            evaluations: 0,
        }
    }

    /// Adds a login to the queue. If the queue is full, another login may be displaced ([`Enqueued::displaced`]).
    ///
    /// # Errors
    /// [`Refused`]: the login is not queued.
    pub(super) fn enqueue(&mut self, login: Login, now: Duration) -> Result<Enqueued, Refused> {
        if !self.is_duplicate(&login) {
            let of_pair = self.by_pair.get(&login.pair).into_iter().flatten();
            let different: usize =
                of_pair.map(|(known, tickets)| if known.is_some() { 1 } else { tickets.len() }).sum();
            if different >= limits::LOGINS_PER_USER {
                return Err(Refused::Slowed);
            }
        }
        let address_is_full = self.by_address.count(login.address) >= limits::LOGINS_PER_ADDRESS;
        let displaced = if address_is_full && self.throttle.is_slowed(login.address, now) {
            let oldest = self.by_address.of(login.address).next();
            oldest.inspect(|oldest| self.leave(*oldest))
        } else if self.waiting.len() >= self.capacity {
            Some(self.make_room(login.network)?)
        } else {
            None
        };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let keys = [login.network, login.address, login.user];
        let mut rounds = [0; SCHEDULES];
        for ((schedule, key), round) in self.schedules.iter_mut().zip(keys).zip(&mut rounds) {
            *round = schedule.assign_round(key, self.capacity);
        }
        self.by_address.insert(login.address, ticket);
        self.by_network.insert(login.network, ticket);
        self.by_pair.entry(login.pair).or_default().entry(login.credential).or_default().insert(ticket);
        self.waiting.insert(ticket, Waiting { login, rounds, status: Status::New });
        self.update_status(ticket, now);
        Ok(Enqueued { ticket, displaced })
    }

    /// Whether a login with the same address, user and password is waiting or running.
    fn is_duplicate(&self, login: &Login) -> bool {
        let waits = || self.by_pair.get(&login.pair).is_some_and(|known| known.contains_key(&login.credential));
        login.credential.is_some() && (self.running.iter().any(|(_, other)| other.is_same(login)) || waits())
    }

    /// Removes the newest login of the network with the most waiting logins, unless `network` would then have the most.
    fn make_room(&mut self, network: Key) -> Result<Ticket, Refused> {
        let own = self.by_network.count(network);
        let (_, largest) = self.by_network.largest().filter(|(most, _)| *most > own + 1).ok_or(Refused::Busy)?;
        let newest = self.by_network.of(largest).next_back().ok_or(Refused::Busy)?;
        self.leave(newest);
        Ok(newest)
    }

    /// Selects the login to verify now, if any. The caller must call [`Self::finish`] afterwards.
    pub(super) fn start_next(&mut self, now: Duration) -> Option<Ticket> {
        if self.running.len() >= limits::VERIFICATIONS {
            return None;
        }
        while let Some((until, ticket)) = self.delayed.first().copied().filter(|(until, _)| *until <= now) {
            self.delayed.remove(&(until, ticket));
            self.update_status(ticket, now);
        }
        // Bounded: each iteration removes a login from the ready ones or returns.
        while let Some((round, ticket)) = self.schedules[self.next_schedule].ready.first().copied() {
            // The status may have changed since: verifications have begun or finished.
            match self.update_status(ticket, now) {
                Some(Status::Ready) => {}
                Some(_) => continue,
                None => return None,
            }
            let schedule = &mut self.schedules[self.next_schedule];
            schedule.round = schedule.round.max(round);
            self.next_schedule = (self.next_schedule + 1) % SCHEDULES;
            let ticket = self.newest_if_slowed(ticket, now);
            let login = self.remove(ticket)?;
            self.running.push((ticket, login));
            return Some(ticket);
        }
        None
    }

    /// Selects the newest login of the address instead if the address is slowed: its older logins are most likely guesses, and the newest may
    /// be that of another user behind the address.
    fn newest_if_slowed(&mut self, ticket: Ticket, now: Duration) -> Ticket {
        let Some(Waiting { login: Login { address, .. }, .. }) = self.waiting.get(&ticket) else { return ticket };
        if !self.throttle.is_slowed(*address, now) {
            return ticket;
        }
        let tickets: Vec<_> = self.by_address.of(*address).rev().collect();
        tickets.into_iter().find(|newest| self.update_status(*newest, now) == Some(Status::Ready)).unwrap_or(ticket)
    }

    /// The earliest time at which a delayed login may be verified.
    pub(super) fn next_start(&self) -> Option<Duration> {
        self.delayed.first().map(|(until, _)| *until)
    }

    /// Records the result of a verification (`None` if it did not take place). Removes the waiting logins with the same credential and
    /// returns their tickets: they have the same result.
    pub(super) fn finish(&mut self, ticket: Ticket, accepted: Option<bool>, now: Duration) -> Vec<Ticket> {
        let Some(at) = self.running.iter().position(|(running, _)| *running == ticket) else { return Vec::new() };
        let (_, login) = self.running.swap_remove(at);
        match accepted {
            Some(true) => self.throttle.succeeded(login.pair),
            Some(false) => self.throttle.failed(login.pair, login.address, now),
            None => {}
        }
        let duplicates: Vec<_> = match (accepted, login.credential) {
            (Some(_), Some(_)) => {
                let of_pair = self.by_pair.get(&login.pair);
                of_pair.and_then(|known| known.get(&login.credential)).into_iter().flatten().copied().collect()
            }
            _ => Vec::new(),
        };
        for duplicate in &duplicates {
            self.remove(*duplicate);
        }
        let of_pair = self.by_pair.get(&login.pair).into_iter().flat_map(BTreeMap::values).flatten();
        let affected: Vec<_> = of_pair.copied().chain(self.blocked.of(login.address)).collect();
        self.update_all(&affected, now);
        duplicates
    }

    /// Counts the failure of a login that needed no verification. Returns whether its address had used its free failures before.
    pub(super) fn count_failure(&mut self, login: &Login, now: Duration) -> bool {
        let was_slowed = self.throttle.is_slowed(login.address, now);
        self.throttle.failed(login.pair, login.address, now);
        was_slowed
    }

    /// Records the success of a login whose credential was cached: the failures of its user from its address are forgotten.
    pub(super) fn succeeded(&mut self, login: &Login, now: Duration) {
        self.throttle.succeeded(login.pair);
        let of_pair = self.by_pair.get(&login.pair).into_iter().flat_map(BTreeMap::values).flatten();
        let affected: Vec<_> = of_pair.copied().collect();
        self.update_all(&affected, now);
    }

    fn update_all(&mut self, tickets: &[Ticket], now: Duration) {
        for ticket in tickets {
            self.update_status(*ticket, now);
        }
    }

    /// Removes a waiting login. Does nothing if it is being verified.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.remove(ticket);
    }

    /// Removes a login from all indexes.
    fn remove(&mut self, ticket: Ticket) -> Option<Login> {
        self.unindex(ticket);
        let Waiting { login, .. } = self.waiting.remove(&ticket)?;
        self.by_address.remove(login.address, ticket);
        self.by_network.remove(login.network, ticket);
        if let Some(known) = self.by_pair.get_mut(&login.pair) {
            if let Some(tickets) = known.get_mut(&login.credential) {
                tickets.remove(&ticket);
                if tickets.is_empty() {
                    known.remove(&login.credential);
                }
            }
            if known.is_empty() {
                self.by_pair.remove(&login.pair);
            }
        }
        Some(login)
    }

    /// Evaluates whether a login may be verified now.
    fn update_status(&mut self, ticket: Ticket, now: Duration) -> Option<Status> {
        #[cfg(test)]
        {
            self.evaluations += 1;
        }
        let status = self.status(&self.waiting.get(&ticket)?.login, now);
        self.unindex(ticket);
        let waiting = self.waiting.get_mut(&ticket)?;
        waiting.status = status;
        match status {
            Status::Ready => {
                for (schedule, round) in self.schedules.iter_mut().zip(waiting.rounds) {
                    schedule.ready.insert((round, ticket));
                }
            }
            Status::Delayed(until) => drop(self.delayed.insert((until, ticket))),
            Status::Blocked => self.blocked.insert(waiting.login.address, ticket),
            Status::New => {}
        }
        Some(status)
    }

    fn unindex(&mut self, ticket: Ticket) {
        let Some(Waiting { login, rounds, status }) = self.waiting.get(&ticket) else { return };
        match *status {
            Status::Ready => {
                for (schedule, round) in self.schedules.iter_mut().zip(rounds) {
                    schedule.ready.remove(&(*round, ticket));
                }
            }
            Status::Delayed(until) => drop(self.delayed.remove(&(until, ticket))),
            Status::Blocked => self.blocked.remove(login.address, ticket),
            Status::New => {}
        }
    }

    fn status(&self, login: &Login, now: Duration) -> Status {
        let running = || self.running.iter().map(|(_, other)| other);
        if running().any(|other| other.is_same(login)) {
            return Status::Blocked;
        }
        let count = |of: fn(&Login) -> Key| running().filter(|other| of(other) == of(login)).fold(0, |sum, _| sum + 1);
        let of_pair = self.throttle.start_of_pair(login.pair, count(|login| login.pair), now);
        let of_address = self.throttle.start_of_address(login.address, count(|login| login.address), now);
        match (of_pair, of_address) {
            (Start::AfterRunning, _) | (_, Start::AfterRunning) => Status::Blocked,
            (Start::Now, Start::Now) => Status::Ready,
            (Start::At(until), Start::Now) | (Start::Now, Start::At(until)) => Status::Delayed(until),
            (Start::At(one), Start::At(other)) => Status::Delayed(one.max(other)),
        }
    }
}

#[cfg(test)]
mod tests;
