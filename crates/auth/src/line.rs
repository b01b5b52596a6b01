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
use wsmb_core::network::groups::Groups;

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

impl Login {
    /// The same password for the same user from the same address.
    fn is_same(&self, other: &Self) -> bool {
        self.credential.is_some() && (self.pair, self.credential) == (other.pair, other.credential)
    }
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
    /// Not judged yet.
    New,
    /// It could be verified, unless something has begun since.
    Ready,
    /// Not before this time.
    Held(Duration),
    /// Not before the outcome of one that runs.
    Blocked,
}

#[derive(Debug)]
struct Waiting {
    login: Login,
    rounds: [u64; ORDERS],
    status: Status,
}

/// The logins that wait or are verified. An arrival looks at no other login, however many wait; an outcome looks at those that wait for it. Times are measured from any fixed moment and never go back.
#[derive(Debug)]
pub(super) struct Line {
    throttle: Throttle,
    waiting: BTreeMap<Ticket, Waiting>,
    running: Vec<(Ticket, Login)>,
    orders: [Order; ORDERS],
    /// Which of the orders has the next turn.
    turn: usize,
    held: BTreeSet<(Duration, Ticket)>,
    /// Who waits for an outcome, by address.
    blocked: Groups<Key>,
    by_address: Groups<Key>,
    by_network: Groups<Key>,
    /// Who waits, by pair and credential.
    by_pair: HashMap<Key, BTreeMap<Option<Fingerprint>, BTreeSet<Ticket>>>,
    last_ticket: Ticket,
    capacity: usize,
    /// How often a login was looked at.
    #[cfg(test)]
    judged: usize,
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
            blocked: Groups::default(),
            by_address: Groups::default(),
            by_network: Groups::default(),
            by_pair: HashMap::new(),
            last_ticket: 0,
            capacity,
            #[cfg(test)]
            judged: 0,
        }
    }

    /// A login wants to be verified.
    pub(super) fn arrive(&mut self, login: Login, now: Duration) -> Result<Arrived, Refused> {
        if !self.is_repetition(&login) {
            let of_pair = self.by_pair.get(&login.pair).into_iter().flatten();
            let different: usize =
                of_pair.map(|(known, tickets)| if known.is_some() { 1 } else { tickets.len() }).sum();
            if different >= limits::LOGINS_PER_USER {
                return Err(Refused::Slowed);
            }
        }
        let is_crowded = self.by_address.count(login.address) >= limits::LOGINS_PER_ADDRESS;
        let instead_of = if is_crowded && self.throttle.is_slowed(login.address, now) {
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
        let mut rounds = [0; ORDERS];
        for ((order, key), round) in self.orders.iter_mut().zip(keys).zip(&mut rounds) {
            *round = order.enter(key, self.capacity);
        }
        self.by_address.insert(login.address, ticket);
        self.by_network.insert(login.network, ticket);
        self.by_pair.entry(login.pair).or_default().entry(login.credential).or_default().insert(ticket);
        self.waiting.insert(ticket, Waiting { login, rounds, status: Status::New });
        self.judge(ticket, now);
        Ok(Arrived { ticket, instead_of })
    }

    /// The same password for the same user from the same address waits or is verified already.
    fn is_repetition(&self, login: &Login) -> bool {
        let waits = || self.by_pair.get(&login.pair).is_some_and(|known| known.contains_key(&login.credential));
        login.credential.is_some() && (self.running.iter().any(|(_, other)| other.is_same(login)) || waits())
    }

    /// Takes the place of the newest login of the network that has most, if that is another one.
    fn make_room(&mut self, network: Key) -> Result<Ticket, Refused> {
        let own = self.by_network.count(network);
        let (_, largest) = self.by_network.largest().filter(|(most, _)| *most > own + 1).ok_or(Refused::Busy)?;
        let newest = self.by_network.of(largest).next_back().ok_or(Refused::Busy)?;
        self.leave(newest);
        Ok(newest)
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
        // Bounded: each round takes somebody out of those that seemed ready.
        while let Some((round, ticket)) = self.orders[self.turn].ready.first().copied() {
            // What has begun or ended since may concern this one.
            match self.judge(ticket, now) {
                Some(Status::Ready) => {}
                Some(_) => continue,
                None => return None,
            }
            let order = &mut self.orders[self.turn];
            order.round = order.round.max(round);
            self.turn = (self.turn + 1) % ORDERS;
            let ticket = self.newest_if_slowed(ticket, now);
            let login = self.take(ticket)?;
            self.running.push((ticket, login));
            return Some(ticket);
        }
        None
    }

    /// Of an address that is slowed the newest login goes first: those that wait there are most likely guesses, and another user of the address has just come.
    fn newest_if_slowed(&mut self, ticket: Ticket, now: Duration) -> Ticket {
        let Some(Waiting { login: Login { address, .. }, .. }) = self.waiting.get(&ticket) else { return ticket };
        if !self.throttle.is_slowed(*address, now) {
            return ticket;
        }
        let tickets: Vec<_> = self.by_address.of(*address).rev().collect();
        tickets.into_iter().find(|newest| self.judge(*newest, now) == Some(Status::Ready)).unwrap_or(ticket)
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
        let repetitions: Vec<_> = match (accepted, login.credential) {
            (Some(_), Some(_)) => {
                let of_pair = self.by_pair.get(&login.pair);
                of_pair.and_then(|known| known.get(&login.credential)).into_iter().flatten().copied().collect()
            }
            _ => Vec::new(),
        };
        for repetition in &repetitions {
            self.take(*repetition);
        }
        let of_pair = self.by_pair.get(&login.pair).into_iter().flat_map(BTreeMap::values).flatten();
        let concerned: Vec<_> = of_pair.copied().chain(self.blocked.of(login.address)).collect();
        self.judge_all(&concerned, now);
        repetitions
    }

    /// A login succeeded that did not have to be verified. The failures of its user from its address are forgotten.
    pub(super) fn succeeded(&mut self, login: &Login, now: Duration) {
        self.throttle.succeeded(login.pair);
        let of_pair = self.by_pair.get(&login.pair).into_iter().flat_map(BTreeMap::values).flatten();
        let concerned: Vec<_> = of_pair.copied().collect();
        self.judge_all(&concerned, now);
    }

    fn judge_all(&mut self, tickets: &[Ticket], now: Duration) {
        for ticket in tickets {
            self.judge(*ticket, now);
        }
    }

    /// A login does not wait any longer. Nothing happens if it is being verified.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.take(ticket);
    }

    /// Takes a login out of those that wait.
    fn take(&mut self, ticket: Ticket) -> Option<Login> {
        self.unplace(ticket);
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

    /// Finds out whether a login could be verified now.
    fn judge(&mut self, ticket: Ticket, now: Duration) -> Option<Status> {
        #[cfg(test)]
        {
            self.judged += 1;
        }
        let status = self.status(&self.waiting.get(&ticket)?.login, now);
        self.unplace(ticket);
        let waiting = self.waiting.get_mut(&ticket)?;
        waiting.status = status;
        match status {
            Status::Ready => {
                for (order, round) in self.orders.iter_mut().zip(waiting.rounds) {
                    order.ready.insert((round, ticket));
                }
            }
            Status::Held(until) => drop(self.held.insert((until, ticket))),
            Status::Blocked => self.blocked.insert(waiting.login.address, ticket),
            Status::New => {}
        }
        Some(status)
    }

    fn unplace(&mut self, ticket: Ticket) {
        let Some(Waiting { login, rounds, status }) = self.waiting.get(&ticket) else { return };
        match *status {
            Status::Ready => {
                for (order, round) in self.orders.iter_mut().zip(rounds) {
                    order.ready.remove(&(*round, ticket));
                }
            }
            Status::Held(until) => drop(self.held.remove(&(until, ticket))),
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
