//! The queue against a naive model that records every event, with random actions; and scenarios for the fairness of the schedules.

use proptest::prelude::*;

use super::super::cache;
use super::super::hash::Hash;
use super::super::throttle::delay;
use super::*;

const T: Duration = Duration::from_secs(1_000);
/// [`limits::FAILURE_MEMORY`] in milliseconds.
const MEMORY: u64 = limits::FAILURE_MEMORY.as_millis() as u64;

fn credential(number: u64) -> Option<Fingerprint> {
    thread_local! {
        static KEY: cache::FingerprintKey = cache::FingerprintKey::random().unwrap();
    }
    KEY.with(|key| Some(key.fingerprint(&number.to_string(), b"", None::<&Hash>)))
}

/// A login of `user` from `address`. Ten addresses form a network.
fn login(address: u64, user: u64, password: u64) -> Login {
    let pair = address * 1_000_000 + user;
    Login { network: address / 10, address, user, pair, credential: credential(pair * 1_000 + password) }
}

/// Verifies all logins of the queue at time `now`, and returns their tickets in the order of verification.
fn drain(queue: &mut LoginQueue, now: Duration, accepted: bool) -> Vec<Ticket> {
    let mut order = Vec::new();
    while let Some(ticket) = queue.start_next(now) {
        order.push(ticket);
        queue.finish(ticket, Some(accepted), now);
    }
    order
}

#[test]
fn a_flood_from_one_network_or_address_or_for_one_user_delays_another_login_by_a_few_verifications() {
    type Flood = fn(u64) -> Login;
    let floods: [(&str, Flood); 3] = [
        ("one address, many users", |n| login(7, n, 0)),
        ("one network, many addresses and users", |n| login(n % 10, n, 0)),
        ("many networks, one user", |n| login(n * 10, 5, n)),
    ];
    for (name, flood) in floods {
        let mut queue = LoginQueue::new();
        for n in 0..500 {
            queue.enqueue(flood(n), T).unwrap();
        }
        let good = queue.enqueue(login(88_880, 77_777, 0), T).unwrap().ticket;
        let order = drain(&mut queue, T, true);
        let at = order.iter().position(|ticket| *ticket == good).unwrap();
        assert!(at <= 6, "{name}: {at} verifications came first");
        assert_eq!(order.len(), 501, "{name}");
    }
}

#[test]
fn a_full_queue_displaces_the_newest_login_of_the_network_with_the_most() {
    let mut queue = LoginQueue::with(Throttle::new(), 20);
    let of_flood: Vec<_> = (0..20).map(|n| queue.enqueue(login(n % 10, n, 0), T).unwrap().ticket).collect();
    assert_eq!(queue.enqueue(login(3, 33, 0), T), Err(Refused::Busy));
    let mut displaced = Vec::new();
    for n in 0..20 {
        match queue.enqueue(login(50, 100 + n, 0), T) {
            Ok(enqueued) => displaced.extend(enqueued.displaced),
            Err(refused) => assert_eq!(refused, Refused::Busy),
        }
        assert!(queue.waiting.len() <= 20);
    }
    let newest: Vec<_> = of_flood.iter().rev().take(displaced.len()).copied().collect();
    assert_eq!(displaced, newest);
    assert_eq!(displaced.len(), 10, "each network has half of the queue");
}

#[test]
fn concurrent_logins_with_the_same_password_are_verified_and_counted_once() {
    let mut queue = LoginQueue::new();
    let tickets: Vec<_> = (0..100).map(|_| queue.enqueue(login(1, 1, 1), T).unwrap().ticket).collect();
    assert_eq!(queue.start_next(T), Some(tickets[0]));
    assert_eq!(queue.start_next(T), None);
    let others = queue.finish(tickets[0], Some(false), T);
    assert_eq!(others, tickets[1..]);
    assert!(queue.waiting.is_empty() && queue.delayed.is_empty());
    for password in 2..4 {
        let ticket = queue.enqueue(login(1, 1, password), T).unwrap().ticket;
        assert_eq!(queue.start_next(T), Some(ticket), "counted more than once");
        queue.finish(ticket, Some(false), T);
    }
}

#[test]
fn a_slowed_user_and_a_slowed_address_have_few_waiting_logins() {
    let mut queue = LoginQueue::new();
    for password in 0..limits::LOGINS_PER_USER as u64 {
        queue.enqueue(login(1, 1, password), T).unwrap();
    }
    assert_eq!(queue.enqueue(login(1, 1, 999), T), Err(Refused::Slowed));
    assert!(queue.enqueue(login(1, 1, 0), T).is_ok(), "a duplicate waits for the verification that takes place anyway");
    assert!(queue.enqueue(login(1, 2, 0), T).is_ok());

    let mut queue = LoginQueue::new();
    for user in 0..u64::from(limits::ADDRESS_FREE_FAILURES) {
        let ticket = queue.enqueue(login(1, user, 0), T).unwrap().ticket;
        assert_eq!(queue.start_next(T), Some(ticket));
        queue.finish(ticket, Some(false), T);
    }
    let enqueued: Vec<_> = (100..300).map(|user| queue.enqueue(login(1, user, 0), T).unwrap()).collect();
    assert_eq!(queue.waiting.len(), limits::LOGINS_PER_ADDRESS);
    let displaced: Vec<_> = enqueued.iter().filter_map(|enqueued| enqueued.displaced).collect();
    let oldest: Vec<_> = enqueued.iter().map(|enqueued| enqueued.ticket).take(displaced.len()).collect();
    assert_eq!(displaced, oldest);
    assert_eq!(queue.start_next(T), None);
    assert_eq!(queue.next_start(), Some(T + limits::ADDRESS_DELAY));
    // Another user of the address is verified next.
    let good = queue.enqueue(login(1, 7_777, 0), T).unwrap().ticket;
    assert_eq!(queue.start_next(T + limits::ADDRESS_DELAY), Some(good));
    assert!(queue.enqueue(login(2, 1, 0), T).is_ok());
}

#[test]
fn removed_logins_leave_no_entries() {
    let mut queue = LoginQueue::new();
    for n in 0..1_000 {
        let ticket = queue.enqueue(login(n, n, 0), T).unwrap().ticket;
        queue.leave(ticket);
    }
    assert!(
        queue.waiting.is_empty()
            && queue.by_address.largest().is_none()
            && queue.by_network.largest().is_none()
            && queue.delayed.is_empty()
    );
    assert!(queue.schedules.iter().all(|order| order.ready.is_empty()));
    assert!(queue.schedules.iter().all(|order| order.last.len() <= 2 * queue.capacity));
    assert_eq!(queue.start_next(T), None);
}

/// A finished verification.
struct Done {
    login: Login,
    at: Duration,
    accepted: bool,
}

/// Records all events, and derives from them which logins may be verified.
#[derive(Default)]
struct Model {
    waiting: Vec<(Ticket, Login)>,
    running: Vec<(Ticket, Login)>,
    done: Vec<Done>,
}

impl Model {
    /// The number of failures that count for a key and the time of the last one: those since the last success (if successes clear them) or
    /// since a pause of [`limits::FAILURE_MEMORY`].
    fn failures(&self, of: fn(&Login) -> Key, key: Key, cleared: bool, now: Duration) -> (u32, Duration) {
        let (mut count, mut last, mut newer) = (0, Duration::ZERO, now);
        for done in self.done.iter().rev().filter(|done| of(&done.login) == key) {
            if done.accepted {
                if cleared {
                    break;
                }
                continue;
            }
            if newer - done.at >= limits::FAILURE_MEMORY {
                break;
            }
            newer = done.at;
            last = last.max(done.at);
            count += 1;
        }
        (count, last)
    }

    /// Whether a login may be verified now, if guesses were verified one after the other.
    fn may_begin(&self, login: &Login, now: Duration) -> bool {
        if self.running.iter().any(|(_, other)| (other.pair, other.credential) == (login.pair, login.credential)) {
            return false;
        }
        let slow = |of: fn(&Login) -> Key, free: u32, cleared: bool, pause: fn(u32) -> Duration| {
            let running = self.running.iter().filter(|(_, other)| of(other) == of(login)).count() as u32;
            let (count, last) = self.failures(of, of(login), cleared, now);
            if count + running < free { true } else { running == 0 && now >= last + pause(count - free) }
        };
        slow(|login| login.pair, limits::FREE_FAILURES, true, delay)
            && slow(|login| login.address, limits::ADDRESS_FREE_FAILURES, false, |_| limits::ADDRESS_DELAY)
    }
}

#[derive(Clone, Debug)]
enum Act {
    Arrive { address: u64, user: u64, password: u64 },
    Next,
    Settle { which: usize, accepted: Option<bool> },
    Leave(usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0_u64..4, 0_u64..3, 0_u64..6).prop_map(|(address, user, password)| Act::Arrive { address, user, password }),
        8 => Just(Act::Next),
        8 => (0_usize..2, prop_oneof![6 => Just(Some(false)), 1 => Just(Some(true)), 1 => Just(None)])
            .prop_map(|(which, accepted)| Act::Settle { which, accepted }),
        1 => (0_usize..20).prop_map(Act::Leave),
        4 => prop_oneof![6 => 0_u64..300, 3 => 0_u64..5_000, 1 => Just(MEMORY)].prop_map(Act::Wait),
    ]
}

/// Advances the time until every waiting login is verified.
fn every_login_is_verified_at_last(
    queue: &mut LoginQueue,
    mut model: Model,
    mut now: Duration,
) -> Result<(), TestCaseError> {
    while !model.waiting.is_empty() {
        for (ticket, _) in model.running.drain(..) {
            queue.finish(ticket, None, now);
        }
        now = queue.next_start().unwrap_or(now).max(now);
        let Some(ticket) = queue.start_next(now) else {
            prop_assert!(queue.next_start().is_some(), "{} wait for ever", model.waiting.len());
            continue;
        };
        model.waiting.retain(|(waiting, _)| *waiting != ticket);
        for told in queue.finish(ticket, Some(true), now) {
            model.waiting.retain(|(waiting, _)| *waiting != told);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_queue_starts_exactly_the_logins_that_the_model_allows(acts in prop::collection::vec(act(), 0..400)) {
        let (mut queue, mut model, mut now) = (LoginQueue::new(), Model::default(), T);
        for act in acts {
            match act {
                Act::Arrive { address, user, password } => {
                    let login = login(address, user, password);
                    match queue.enqueue(login, now) {
                        Ok(Enqueued { ticket, displaced }) => {
                            prop_assert_eq!(displaced, None);
                            model.waiting.push((ticket, login));
                        }
                        Err(refused) => {
                            prop_assert_eq!(refused, Refused::Slowed);
                            let of_pair = model.waiting.iter().filter(|(_, other)| other.pair == login.pair).count();
                            prop_assert!(of_pair >= limits::LOGINS_PER_USER);
                        }
                    }
                }
                Act::Next => match queue.start_next(now) {
                    Some(ticket) => {
                        let at = model.waiting.iter().position(|(waiting, _)| *waiting == ticket);
                        prop_assert!(at.is_some(), "{} does not wait", ticket);
                        let (_, login) = model.waiting.remove(at.unwrap());
                        prop_assert!(model.running.len() < limits::VERIFICATIONS);
                        prop_assert!(model.may_begin(&login, now), "too early");
                        model.running.push((ticket, login));
                    }
                    None if model.running.len() < limits::VERIFICATIONS => {
                        for (ticket, login) in &model.waiting {
                            prop_assert!(!model.may_begin(login, now), "{} could be verified", ticket);
                        }
                        prop_assert!(queue.next_start().is_none_or(|due| due > now));
                    }
                    None => {}
                },
                Act::Settle { which, accepted } if which < model.running.len() => {
                    let (ticket, login) = model.running.remove(which);
                    let same = |other: &Login| (other.pair, other.credential) == (login.pair, login.credential);
                    let mut expected: Vec<_> =
                        model.waiting.iter().filter(|(_, other)| accepted.is_some() && same(other)).map(|(ticket, _)| *ticket).collect();
                    let mut told = queue.finish(ticket, accepted, now);
                    expected.sort_unstable();
                    told.sort_unstable();
                    prop_assert_eq!(&told, &expected);
                    model.waiting.retain(|(ticket, _)| !expected.contains(ticket));
                    if let Some(accepted) = accepted {
                        model.done.push(Done { login, at: now, accepted });
                    }
                }
                Act::Settle { .. } => {}
                Act::Leave(which) if which < model.waiting.len() => queue.leave(model.waiting.remove(which).0),
                Act::Leave(_) => {}
                // A verification always ends before failures are forgotten. Otherwise the model would start logins that the queue blocks until the result.
                Act::Wait(millis) if millis >= MEMORY && !model.running.is_empty() => {}
                Act::Wait(millis) => now += Duration::from_millis(millis),
            }
        }
        every_login_is_verified_at_last(&mut queue, model, now)?;
    }
}

/// Evaluating all waiting logins for each new one once blocked the event loop for seconds in a flood of 2,600.
#[test]
fn adding_a_login_evaluates_no_other_login() {
    let mut queue = LoginQueue::new();
    for user in 0..2_000 {
        let before = queue.evaluations;
        queue.enqueue(login(1, user, 0), T).unwrap();
        assert!(
            queue.evaluations <= before + 1,
            "{user} others wait, and {} logins were evaluated",
            queue.evaluations - before
        );
        let _ = queue.start_next(T);
    }
}
