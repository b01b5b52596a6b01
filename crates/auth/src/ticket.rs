//! Tickets: random values that are good for one login, for [`limits::TICKET_TIME`].
//!
//! The table holds digests, so that the time of a look-up tells nothing about a ticket. This module must never read a clock or make a random number: both are
//! arguments. A ticket must never be logged.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use wsmb_core::shares::SharedBound;

use crate::limits;

/// The bytes of a ticket: 192 bits, of which nobody can guess one in 30 s.
pub const TICKET_BYTES: usize = 24;

type TicketDigest = [u8; 32];

/// The tickets that are neither used nor expired. `T` is what a ticket stands for.
#[derive(Debug)]
pub struct Tickets<T> {
    open: HashMap<TicketDigest, Ticket<T>>,
    /// The digests of the tickets by age.
    by_age: BTreeSet<(Duration, TicketDigest)>,
    /// The number of each user's tickets. A user without tickets is not in the map.
    by_user: HashMap<Arc<str>, usize>,
    capacity: usize,
}

#[derive(Debug)]
struct Ticket<T> {
    user: Arc<str>,
    login: T,
    expires: Duration,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self::with_capacity(limits::TICKETS)
    }
}

impl<T> Tickets<T> {
    fn with_capacity(capacity: usize) -> Self {
        Self { open: HashMap::new(), by_age: BTreeSet::new(), by_user: HashMap::new(), capacity }
    }

    /// Issues a ticket for `login` to `user`. `random`: fresh random bytes. `now` is measured from any fixed moment, and never decreases. Returns the ticket;
    /// `None` if there are too many, of all users or of this one.
    pub fn issue(&mut self, random: [u8; TICKET_BYTES], user: &Arc<str>, login: T, now: Duration) -> Option<String> {
        self.expire(now);
        let used = self.open.len();
        let bound = SharedBound { bound: self.capacity, used, owned: used, holders: self.by_user.len() };
        if bound.refuses(1, self.by_user.get(user).copied().unwrap_or_default()) {
            return None;
        }
        let text = URL_SAFE_NO_PAD.encode(random);
        let expires = now + limits::TICKET_TIME;
        let digest = digest(&text);
        self.open.insert(digest, Ticket { user: user.clone(), login, expires });
        self.by_age.insert((expires, digest));
        *self.by_user.entry(user.clone()).or_default() += 1;
        Some(text)
    }

    /// Uses a ticket up. `None` if there is no such ticket, it was used, or it has expired.
    pub fn redeem(&mut self, ticket: &str, now: Duration) -> Option<T> {
        self.expire(now);
        let digest = digest(ticket);
        let ticket = self.open.remove(&digest)?;
        self.by_age.remove(&(ticket.expires, digest));
        self.release(&ticket.user);
        Some(ticket.login)
    }

    fn expire(&mut self, now: Duration) {
        while self.by_age.first().is_some_and(|(expires, _)| *expires <= now)
            && let Some((_, digest)) = self.by_age.pop_first()
        {
            if let Some(ticket) = self.open.remove(&digest) {
                self.release(&ticket.user);
            }
        }
    }

    fn release(&mut self, user: &Arc<str>) {
        if let Some(count) = self.by_user.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.by_user.remove(user);
            }
        }
    }
}

fn digest(ticket: &str) -> TicketDigest {
    Sha256::digest(ticket).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn random(number: u32) -> [u8; TICKET_BYTES] {
        let mut bytes = [7; TICKET_BYTES];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn user(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_ticket_is_good_once_and_for_thirty_seconds() {
        let mut tickets = Tickets::default();
        let ticket = tickets.issue(random(1), &user("a"), "one", SECOND).unwrap();
        assert_eq!(tickets.redeem(&ticket, 2 * SECOND), Some("one"));
        assert_eq!(tickets.redeem(&ticket, 2 * SECOND), None, "twice");
        let ticket = tickets.issue(random(2), &user("a"), "two", SECOND).unwrap();
        assert_eq!(tickets.redeem(&ticket, 31 * SECOND - Duration::from_millis(1)), Some("two"));
        let ticket = tickets.issue(random(3), &user("a"), "three", SECOND).unwrap();
        assert_eq!(tickets.redeem(&ticket, 31 * SECOND), None, "too late");
        assert!(tickets.open.is_empty() && tickets.by_user.is_empty() && tickets.by_age.is_empty());
    }

    #[test]
    fn no_other_text_than_the_ticket_is_good() {
        let mut tickets = Tickets::default();
        let ticket = tickets.issue(random(1), &user("a"), (), SECOND).unwrap();
        let guesses = [
            String::new(),
            "*".to_owned(),
            ticket[1..].to_owned(),
            format!("{ticket}="),
            ticket.to_lowercase(),
            URL_SAFE_NO_PAD.encode(random(2)),
        ];
        for guess in guesses {
            assert_eq!(tickets.redeem(&guess, SECOND), None, "{guess:?}");
        }
        assert_eq!(tickets.redeem(&ticket, SECOND), Some(()));
    }

    #[test]
    fn tickets_are_bounded_and_users_share_them() {
        let mut tickets = Tickets::with_capacity(100);
        let many =
            (0..200).filter(|number| tickets.issue(random(*number), &user("many"), (), SECOND).is_some()).count();
        assert_eq!(many, 90);
        assert!(tickets.issue(random(1_000), &user("few"), (), SECOND).is_some(), "another user finds room");
        assert_eq!(tickets.open.len(), 91);
        assert!(tickets.issue(random(1_001), &user("many"), (), 31 * SECOND).is_some(), "expired tickets make room");
        assert_eq!((tickets.open.len(), tickets.by_age.len(), tickets.by_user.len()), (1, 1, 1));
    }

    #[test]
    fn used_tickets_take_no_room() {
        let mut tickets = Tickets::with_capacity(100);
        for number in 0..1_000 {
            let ticket = tickets.issue(random(number), &user("a"), (), SECOND).unwrap();
            assert!(tickets.redeem(&ticket, SECOND).is_some());
        }
        assert!(tickets.by_age.is_empty() && tickets.open.is_empty());
    }
}
