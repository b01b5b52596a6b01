//! Who waits for a verification, and whose turn it is.
//!
//! ```text
//! arrive ─► waiting ─┬─ ready ──► next ─► running ─► settle ─► throttle
//!                    ├─ held until a time ◄──────────────────────┘
//!                    └─ held until an outcome is known
//! ```
//!
//! Turns go round in three orders that alternate: by network, by address, by user. Each order gives every one of its keys the same number of turns. So whoever floods from one
//! network, from one address or at one user name delays everybody else by a few verifications only.
//!
//! No clock and no thread in here: the time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::cache::Fingerprint;
use super::throttle::{Key, Throttle, When};
use crate::limits;

/// Names a login while it waits or is verified.
pub(super) type Ticket = u64;

/// A login, as far as the line has to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    /// Digest of the network that the address is in.
    pub(super) network: Key,
    /// Digest of the address.
    pub(super) address: Key,
    /// Digest of the user, whatever the address.
    pub(super) user: Key,
    /// Digest of address and user.
    pub(super) pair: Key,
    /// User and password; `None`: it is not known whether two are the same.
    pub(super) credential: Option<Fingerprint>,
}

/// Why a login does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many guesses of this kind wait.
    Slowed,
    /// Too many logins wait.
    Busy,
}

/// A login that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) ticket: Ticket,
    /// Whose place it has taken: that login is to be told that the broker is busy.
    pub(super) instead_of: Option<Ticket>,
}

/// One order of turns.
#[derive(Debug, Default)]
struct Order {
    /// The round that is going on.
    round: u64,
    /// The last round in which each key has a turn; those of rounds that are over mean nothing.
    last: HashMap<Key, u64>,
    /// Who could be verified now, by round.
    ready: BTreeSet<(u64, Ticket)>,
}

impl Order {
    fn enter(&mut self, key: Key, capacity: usize) -> u64 {
        if self.last.len() >= 2 * capacity {
            let round = self.round;
            self.last.retain(|_, last| *last > round);
        }
        let last = self.last.entry(key).or_default();
        *last = self.round.max(*last) + 1;
        *last
    }
}

const ORDERS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    Held(Duration),
    Blocked,
}

#[derive(Debug)]
struct Waiting {
    login: Login,
    rounds: [u64; ORDERS],
    status: Status,
}

/// The logins that wait or are verified. Times are measured from any fixed moment and never go back.
#[derive(Debug)]
pub(super) struct Line {
    throttle: Throttle,
    waiting: BTreeMap<Ticket, Waiting>,
    running: Vec<(Ticket, Login)>,
    orders: [Order; ORDERS],
    /// Which of the orders has the next turn.
    turn: usize,
    held: BTreeSet<(Duration, Ticket)>,
    by_address: HashMap<Key, BTreeSet<Ticket>>,
    by_network: HashMap<Key, BTreeSet<Ticket>>,
    last_ticket: Ticket,
    capacity: usize,
}

impl Line {
    pub(super) fn new() -> Self {
        Self::with(Throttle::new(), limits::LOGINS)
    }

    fn with(throttle: Throttle, capacity: usize) -> Self {
        Self {
            throttle,
            waiting: BTreeMap::new(),
            running: Vec::new(),
            orders: Default::default(),
            turn: 0,
            held: BTreeSet::new(),
            by_address: HashMap::new(),
            by_network: HashMap::new(),
            last_ticket: 0,
            capacity,
        }
    }

    /// A login wants to be verified.
    pub(super) fn arrive(&mut self, login: Login, now: Duration) -> Result<Arrived, Refused> {
        if !self.is_repetition(&login) {
            let of_address = self.by_address.get(&login.address);
            let of_pair = of_address.into_iter().flatten().filter_map(|ticket| self.waiting.get(ticket));
            let of_pair = of_pair.filter(|waiting| waiting.login.pair == login.pair);
            let different: BTreeSet<_> = of_pair.map(|waiting| waiting.login.credential).collect();
            if different.len() >= limits::LOGINS_PER_USER
                || self.throttle.is_slowed(login.address, now)
                    && of_address.is_some_and(|tickets| tickets.len() >= limits::LOGINS_PER_ADDRESS)
            {
                return Err(Refused::Slowed);
            }
        }
        let instead_of = if self.waiting.len() >= self.capacity { Some(self.make_room(login.network)?) } else { None };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let keys = [login.network, login.address, login.user];
        let mut rounds = [0; ORDERS];
        for ((order, key), round) in self.orders.iter_mut().zip(keys).zip(&mut rounds) {
            *round = order.enter(key, self.capacity);
        }
        self.by_address.entry(login.address).or_default().insert(ticket);
        self.by_network.entry(login.network).or_default().insert(ticket);
        self.waiting.insert(ticket, Waiting { login, rounds, status: Status::Blocked });
        self.judge(ticket, now);
        Ok(Arrived { ticket, instead_of })
    }

    /// The same password for the same user from the same address waits or is verified already.
    fn is_repetition(&self, login: &Login) -> bool {
        let same = |other: &Login| {
            login.credential.is_some() && (other.pair, other.credential) == (login.pair, login.credential)
        };
        let tickets = self.by_address.get(&login.address).into_iter().flatten();
        self.running.iter().any(|(_, other)| same(other))
            || tickets.filter_map(|ticket| self.waiting.get(ticket)).any(|waiting| same(&waiting.login))
    }

    /// Takes the place of the newest login of the network that has most, if that is another one.
    fn make_room(&mut self, network: Key) -> Result<Ticket, Refused> {
        let most = self.by_network.iter().max_by_key(|(key, tickets)| (tickets.len(), **key));
        let own = self.by_network.get(&network).map_or(0, BTreeSet::len);
        match most {
            Some((_, tickets)) if tickets.len() > own + 1 => {
                let newest = tickets.last().copied().ok_or(Refused::Busy)?;
                self.leave(newest);
                Ok(newest)
            }
            _ => Err(Refused::Busy),
        }
    }

    /// Who is to be verified now, if anybody. To be followed by [`Self::settle`].
    pub(super) fn next(&mut self, now: Duration) -> Option<Ticket> {
        if self.running.len() >= limits::VERIFICATIONS {
            return None;
        }
        while let Some((until, ticket)) = self.held.first().copied().filter(|(until, _)| *until <= now) {
            self.held.remove(&(until, ticket));
            self.judge(ticket, now);
        }
        let order = &mut self.orders[self.turn];
        let (round, ticket) = order.ready.first().copied()?;
        order.round = order.round.max(round);
        self.turn = (self.turn + 1) % ORDERS;
        let login = self.take(ticket)?;
        self.running.push((ticket, login));
        self.judge_address(login.address, now);
        Some(ticket)
    }

    /// When [`Self::next`] may have somebody whom only the time holds back.
    pub(super) fn due(&self) -> Option<Duration> {
        self.held.first().map(|(until, _)| *until)
    }

    /// The outcome of a verification; `None` if it did not take place. Those who wait with the same credential and so have the same outcome: they wait no longer.
    pub(super) fn settle(&mut self, ticket: Ticket, accepted: Option<bool>, now: Duration) -> Vec<Ticket> {
        let Some(at) = self.running.iter().position(|(running, _)| *running == ticket) else { return Vec::new() };
        let (_, login) = self.running.swap_remove(at);
        match accepted {
            Some(true) => self.throttle.succeeded(login.pair),
            Some(false) => self.throttle.failed(login.pair, login.address, now),
            None => {}
        }
        let same = |other: &Login| {
            accepted.is_some()
                && login.credential.is_some()
                && (other.pair, other.credential) == (login.pair, login.credential)
        };
        let tickets = self.by_address.get(&login.address).into_iter().flatten();
        let repetitions: Vec<_> = tickets
            .filter(|ticket| self.waiting.get(ticket).is_some_and(|other| same(&other.login)))
            .copied()
            .collect();
        for repetition in &repetitions {
            self.take(*repetition);
        }
        self.judge_address(login.address, now);
        repetitions
    }

    /// A login does not wait any longer. Nothing happens if it is being verified.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.take(ticket);
    }

    /// Takes a login out of those that wait.
    fn take(&mut self, ticket: Ticket) -> Option<Login> {
        self.unplace(ticket);
        let Waiting { login, .. } = self.waiting.remove(&ticket)?;
        for (map, key) in [(&mut self.by_address, login.address), (&mut self.by_network, login.network)] {
            if let Some(tickets) = map.get_mut(&key) {
                tickets.remove(&ticket);
                if tickets.is_empty() {
                    map.remove(&key);
                }
            }
        }
        Some(login)
    }

    fn judge_address(&mut self, address: Key, now: Duration) {
        let tickets: Vec<_> = self.by_address.get(&address).into_iter().flatten().copied().collect();
        for ticket in tickets {
            self.judge(ticket, now);
        }
    }

    /// Finds out whether a login could be verified now.
    fn judge(&mut self, ticket: Ticket, now: Duration) {
        let Some(Waiting { login, .. }) = self.waiting.get(&ticket) else { return };
        let status = self.status(login, now);
        self.unplace(ticket);
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        waiting.status = status;
        match status {
            Status::Ready => {
                for (order, round) in self.orders.iter_mut().zip(waiting.rounds) {
                    order.ready.insert((round, ticket));
                }
            }
            Status::Held(until) => drop(self.held.insert((until, ticket))),
            Status::Blocked => {}
        }
    }

    fn unplace(&mut self, ticket: Ticket) {
        let Some(Waiting { rounds, status, .. }) = self.waiting.get(&ticket) else { return };
        match *status {
            Status::Ready => {
                for (order, round) in self.orders.iter_mut().zip(rounds) {
                    order.ready.remove(&(*round, ticket));
                }
            }
            Status::Held(until) => drop(self.held.remove(&(until, ticket))),
            Status::Blocked => {}
        }
    }

    fn status(&self, login: &Login, now: Duration) -> Status {
        let running = || self.running.iter().map(|(_, other)| other);
        if login.credential.is_some()
            && running().any(|other| (other.pair, other.credential) == (login.pair, login.credential))
        {
            return Status::Blocked;
        }
        let count = |of: fn(&Login) -> Key| running().filter(|other| of(other) == of(login)).fold(0, |sum, _| sum + 1);
        let of_pair = self.throttle.pair(login.pair, count(|login| login.pair), now);
        let of_address = self.throttle.address(login.address, count(|login| login.address), now);
        match (of_pair, of_address) {
            (When::Later, _) | (_, When::Later) => Status::Blocked,
            (When::Now, When::Now) => Status::Ready,
            (When::At(until), When::Now) | (When::Now, When::At(until)) => Status::Held(until),
            (When::At(one), When::At(other)) => Status::Held(one.max(other)),
        }
    }
}

#[cfg(test)]
mod tests;
