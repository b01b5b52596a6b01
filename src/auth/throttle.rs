//! How long a login has to wait: addresses that keep failing are slowed, never locked out.
//!
//! No clock in here: the time is an argument. A table of bounded size; when it is full, the address that has been quiet longest
//! makes room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::limits;

/// What a login from an address has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Go on at once.
    Now,
    /// Wait this long first, then call [`Throttle::waited`].
    Wait(Duration),
    /// Too many wait already.
    Busy,
}

struct Failures {
    count: u32,
    last: Duration,
    waiting: u32,
}

/// The failures of each address. Times are measured from any fixed moment.
pub(super) struct Throttle {
    addresses: HashMap<IpAddr, Failures, foldhash::fast::RandomState>,
    capacity: usize,
    waiting: usize,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self::with_capacity(limits::FAILING_ADDRESSES)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { addresses: HashMap::default(), capacity, waiting: 0 }
    }

    /// Whether a login from `from` may go on. Every [`Admission::Wait`] is followed by one [`Self::waited`].
    pub(super) fn admit(&mut self, from: IpAddr, now: Duration) -> Admission {
        let Some(failures) = self.addresses.get_mut(&network(from)) else { return Admission::Now };
        if failures.waiting == 0 && now.saturating_sub(failures.last) >= limits::FAILURE_MEMORY {
            self.addresses.remove(&network(from));
            return Admission::Now;
        }
        let Some(beyond) = failures.count.checked_sub(limits::FREE_FAILURES) else { return Admission::Now };
        if failures.waiting >= limits::DELAYED_PER_ADDRESS || self.waiting >= limits::DELAYED_LOGINS {
            return Admission::Busy;
        }
        failures.waiting += 1;
        self.waiting += 1;
        Admission::Wait(delay(beyond))
    }

    /// A login that was told to wait waits no longer, whether it goes on or its connection has gone.
    pub(super) fn waited(&mut self, from: IpAddr) {
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(failures) = self.addresses.get_mut(&network(from)) {
            failures.waiting = failures.waiting.saturating_sub(1);
        }
    }

    /// A login from `from` failed.
    pub(super) fn failed(&mut self, from: IpAddr, now: Duration) {
        let from = network(from);
        if self.addresses.len() >= self.capacity && !self.addresses.contains_key(&from) {
            let quietest = self.addresses.iter().min_by_key(|(_, failures)| failures.last).map(|(&address, _)| address);
            if let Some(quietest) = quietest {
                self.addresses.remove(&quietest);
            }
        }
        let failures = self.addresses.entry(from).or_insert(Failures { count: 0, last: now, waiting: 0 });
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    /// A login from `from` succeeded: its failures are forgotten.
    pub(super) fn succeeded(&mut self, from: IpAddr) {
        let from = network(from);
        match self.addresses.get_mut(&from) {
            // Those that wait are still counted; only the count of failures goes.
            Some(failures) if failures.waiting > 0 => failures.count = 0,
            Some(_) => drop(self.addresses.remove(&from)),
            None => {}
        }
    }
}

/// The delay after `beyond` failures more than are free: doubling, up to the longest.
fn delay(beyond: u32) -> Duration {
    limits::LOGIN_DELAY.saturating_mul(1 << beyond.min(16)).min(limits::LOGIN_DELAY_MAX)
}

/// What counts as one address: of IPv6 the /64 that a customer gets, IPv4 in IPv6 as IPv4.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const T: Duration = Duration::from_secs(1_000);

    #[test]
    fn the_first_failures_are_free_and_then_the_delay_doubles_up_to_its_bound() {
        let mut throttle = Throttle::new();
        let from = address("192.0.2.1");
        let mut seen = vec![];
        for _ in 0..10 {
            let admission = throttle.admit(from, T);
            if matches!(admission, Admission::Wait(_)) {
                throttle.waited(from);
            }
            seen.push(admission);
            throttle.failed(from, T);
        }
        let wait = |millis| Admission::Wait(Duration::from_millis(millis));
        let now = Admission::Now;
        assert_eq!(
            seen,
            [now, now, now, wait(250), wait(500), wait(1_000), wait(2_000), wait(4_000), wait(4_000), wait(4_000)]
        );
        assert_eq!(throttle.admit(address("192.0.2.2"), T), Admission::Now, "another address is not slowed");
    }

    fn failing(from: IpAddr) -> Throttle {
        let mut throttle = Throttle::new();
        (0..20).for_each(|_| throttle.failed(from, T));
        throttle
    }

    #[test]
    fn a_success_and_a_quiet_time_forget_the_failures() {
        let from = address("192.0.2.1");
        let mut throttle = failing(from);
        throttle.succeeded(from);
        assert_eq!(throttle.admit(from, T), Admission::Now);
        assert!(throttle.addresses.is_empty());

        let mut throttle = failing(from);
        assert_eq!(throttle.admit(from, T + limits::FAILURE_MEMORY), Admission::Now);
        assert!(throttle.addresses.is_empty());
    }

    #[test]
    fn those_that_wait_are_bounded_for_one_address_and_for_all() {
        let from = address("192.0.2.1");
        let mut throttle = failing(from);
        for _ in 0..limits::DELAYED_PER_ADDRESS {
            assert!(matches!(throttle.admit(from, T), Admission::Wait(_)));
        }
        assert_eq!(throttle.admit(from, T), Admission::Busy);
        throttle.waited(from);
        assert!(matches!(throttle.admit(from, T), Admission::Wait(_)));

        let mut waiting = limits::DELAYED_PER_ADDRESS as usize;
        for host in 1..=255 {
            let other = IpAddr::from([198, 51, 100, host]);
            (0..20).for_each(|_| throttle.failed(other, T));
            while matches!(throttle.admit(other, T), Admission::Wait(_)) {
                waiting += 1;
            }
        }
        assert_eq!(waiting, limits::DELAYED_LOGINS);
    }

    #[test]
    fn a_success_does_not_lose_count_of_those_that_wait() {
        let from = address("192.0.2.1");
        let mut throttle = failing(from);
        throttle.admit(from, T);
        throttle.succeeded(from);
        assert_eq!(throttle.admit(from, T), Admission::Now);
        throttle.waited(from);
        assert_eq!(throttle.waiting, 0);
    }

    #[test]
    fn the_table_is_bounded_and_the_quietest_address_makes_room() {
        let mut throttle = Throttle::with_capacity(10);
        for host in 0..100_u8 {
            for _ in 0..5 {
                throttle.failed(IpAddr::from([192, 0, 2, host]), T + Duration::from_secs(host.into()));
            }
            assert!(throttle.addresses.len() <= 10);
        }
        assert_eq!(throttle.admit(address("192.0.2.0"), T), Admission::Now);
        assert!(matches!(throttle.admit(address("192.0.2.99"), T), Admission::Wait(_)));
    }

    #[test]
    fn one_customer_is_one_address() {
        assert_eq!(network(address("2001:db8:1:2:3:4:5:6")), network(address("2001:db8:1:2::9")));
        assert_ne!(network(address("2001:db8:1:2::1")), network(address("2001:db8:1:3::1")));
        assert_eq!(network(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
