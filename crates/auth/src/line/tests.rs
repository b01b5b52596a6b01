//! The line against a naive model that knows every event and no table, in random order; and scenes for what the orders promise.

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
        static KEY: cache::Key = cache::Key::random().unwrap();
    }
    KEY.with(|key| Some(key.fingerprint(&number.to_string(), b"", None::<&Hash>)))
}

/// A login of `user` from `address`; ten addresses are a network.
fn login(address: u64, user: u64, password: u64) -> Login {
    let pair = address * 1_000_000 + user;
    Login { network: address / 10, address, user, pair, credential: credential(pair * 1_000 + password) }
}

/// Lets everybody in the line be verified at once, and tells whose turn it was.
fn drain(line: &mut Line, now: Duration, accepted: bool) -> Vec<Ticket> {
    let mut order = Vec::new();
    while let Some(ticket) = line.next(now) {
        order.push(ticket);
        line.settle(ticket, Some(accepted), now);
    }
    order
}

#[test]
fn a_flood_from_one_network_one_address_or_at_one_user_delays_another_by_a_few_turns() {
    type Flood = fn(u64) -> Login;
    let floods: [(&str, Flood); 3] = [
        ("one address, many users", |n| login(7, n, 0)),
        ("one network, many addresses and users", |n| login(n % 10, n, 0)),
        ("many networks, one user", |n| login(n * 10, 5, n)),
    ];
    for (name, flood) in floods {
        let mut line = Line::new();
        for n in 0..500 {
            line.arrive(flood(n), T).unwrap();
        }
        let good = line.arrive(login(88_880, 77_777, 0), T).unwrap().ticket;
        let order = drain(&mut line, T, true);
        let at = order.iter().position(|ticket| *ticket == good).unwrap();
        assert!(at <= 6, "{name}: {at} turns went before");
        assert_eq!(order.len(), 501, "{name}");
    }
}

#[test]
fn one_more_takes_the_place_of_the_newest_of_the_network_that_has_most() {
    let mut line = Line::with(Throttle::new(), 20);
    let of_flood: Vec<_> = (0..20).map(|n| line.arrive(login(n % 10, n, 0), T).unwrap().ticket).collect();
    assert_eq!(line.arrive(login(3, 33, 0), T), Err(Refused::Busy));
    let mut displaced = Vec::new();
    for n in 0..20 {
        match line.arrive(login(50, 100 + n, 0), T) {
            Ok(arrived) => displaced.extend(arrived.instead_of),
            Err(refused) => assert_eq!(refused, Refused::Busy),
        }
        assert!(line.waiting.len() <= 20);
    }
    let newest: Vec<_> = of_flood.iter().rev().take(displaced.len()).copied().collect();
    assert_eq!(displaced, newest);
    assert_eq!(displaced.len(), 10, "half of the places are each network's");
}

#[test]
fn the_same_password_at_once_is_verified_once_and_counts_once() {
    let mut line = Line::new();
    let tickets: Vec<_> = (0..100).map(|_| line.arrive(login(1, 1, 1), T).unwrap().ticket).collect();
    assert_eq!(line.next(T), Some(tickets[0]));
    assert_eq!(line.next(T), None);
    let others = line.settle(tickets[0], Some(false), T);
    assert_eq!(others, tickets[1..]);
    assert!(line.waiting.is_empty() && line.held.is_empty());
    for password in 2..4 {
        let ticket = line.arrive(login(1, 1, password), T).unwrap().ticket;
        assert_eq!(line.next(T), Some(ticket), "counted more than once");
        line.settle(ticket, Some(false), T);
    }
}

#[test]
fn of_a_slowed_user_and_a_slowed_address_only_a_few_wait() {
    let mut line = Line::new();
    for password in 0..limits::LOGINS_PER_USER as u64 {
        line.arrive(login(1, 1, password), T).unwrap();
    }
    assert_eq!(line.arrive(login(1, 1, 999), T), Err(Refused::Slowed));
    assert!(line.arrive(login(1, 1, 0), T).is_ok(), "a repetition waits for what is verified anyway");
    assert!(line.arrive(login(1, 2, 0), T).is_ok());

    let mut line = Line::new();
    for user in 0..u64::from(limits::ADDRESS_FREE_FAILURES) {
        let ticket = line.arrive(login(1, user, 0), T).unwrap().ticket;
        assert_eq!(line.next(T), Some(ticket));
        line.settle(ticket, Some(false), T);
    }
    let arrived: Vec<_> = (100..300).map(|user| line.arrive(login(1, user, 0), T).unwrap()).collect();
    assert_eq!(line.waiting.len(), limits::LOGINS_PER_ADDRESS);
    let displaced: Vec<_> = arrived.iter().filter_map(|arrived| arrived.instead_of).collect();
    let oldest: Vec<_> = arrived.iter().map(|arrived| arrived.ticket).take(displaced.len()).collect();
    assert_eq!(displaced, oldest);
    assert_eq!(line.next(T), None);
    assert_eq!(line.due(), Some(T + limits::ADDRESS_DELAY));
    // Another user of that address is the next.
    let good = line.arrive(login(1, 7_777, 0), T).unwrap().ticket;
    assert_eq!(line.next(T + limits::ADDRESS_DELAY), Some(good));
    assert!(line.arrive(login(2, 1, 0), T).is_ok());
}

#[test]
fn nothing_is_left_of_logins_that_have_gone() {
    let mut line = Line::new();
    for n in 0..1_000 {
        let ticket = line.arrive(login(n, n, 0), T).unwrap().ticket;
        line.leave(ticket);
    }
    assert!(
        line.waiting.is_empty()
            && line.by_address.largest().is_none()
            && line.by_network.largest().is_none()
            && line.held.is_empty()
    );
    assert!(line.orders.iter().all(|order| order.ready.is_empty()));
    assert!(line.orders.iter().all(|order| order.last.len() <= 2 * line.capacity));
    assert_eq!(line.next(T), None);
}

/// What has happened to one verification.
struct Done {
    login: Login,
    at: Duration,
    accepted: bool,
}

/// Knows everything that has happened, and finds out from it what may happen.
#[derive(Default)]
struct Model {
    waiting: Vec<(Ticket, Login)>,
    running: Vec<(Ticket, Login)>,
    done: Vec<Done>,
}

impl Model {
    /// The failures that count for a key, and the time of the last: back to a success that clears them, or to a pause of [`limits::FAILURE_MEMORY`].
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

    /// Whether a login may be verified now, as if guesses came one after the other.
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

/// With time, everybody who waits is verified.
fn nobody_is_forgotten(line: &mut Line, mut model: Model, mut now: Duration) -> Result<(), TestCaseError> {
    while !model.waiting.is_empty() {
        for (ticket, _) in model.running.drain(..) {
            line.settle(ticket, None, now);
        }
        now = line.due().unwrap_or(now).max(now);
        let Some(ticket) = line.next(now) else {
            prop_assert!(line.due().is_some(), "{} wait for ever", model.waiting.len());
            continue;
        };
        model.waiting.retain(|(waiting, _)| *waiting != ticket);
        for told in line.settle(ticket, Some(true), now) {
            model.waiting.retain(|(waiting, _)| *waiting != told);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_line_does_what_a_naive_model_allows_and_leaves_nothing_undone(acts in prop::collection::vec(act(), 0..400)) {
        let (mut line, mut model, mut now) = (Line::new(), Model::default(), T);
        for act in acts {
            match act {
                Act::Arrive { address, user, password } => {
                    let login = login(address, user, password);
                    match line.arrive(login, now) {
                        Ok(Arrived { ticket, instead_of }) => {
                            prop_assert_eq!(instead_of, None);
                            model.waiting.push((ticket, login));
                        }
                        Err(refused) => {
                            prop_assert_eq!(refused, Refused::Slowed);
                            let of_pair = model.waiting.iter().filter(|(_, other)| other.pair == login.pair).count();
                            prop_assert!(of_pair >= limits::LOGINS_PER_USER);
                        }
                    }
                }
                Act::Next => match line.next(now) {
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
                        prop_assert!(line.due().is_none_or(|due| due > now));
                    }
                    None => {}
                },
                Act::Settle { which, accepted } if which < model.running.len() => {
                    let (ticket, login) = model.running.remove(which);
                    let same = |other: &Login| (other.pair, other.credential) == (login.pair, login.credential);
                    let mut expected: Vec<_> =
                        model.waiting.iter().filter(|(_, other)| accepted.is_some() && same(other)).map(|(ticket, _)| *ticket).collect();
                    let mut told = line.settle(ticket, accepted, now);
                    expected.sort_unstable();
                    told.sort_unstable();
                    prop_assert_eq!(&told, &expected);
                    model.waiting.retain(|(ticket, _)| !expected.contains(ticket));
                    if let Some(accepted) = accepted {
                        model.done.push(Done { login, at: now, accepted });
                    }
                }
                Act::Settle { .. } => {}
                Act::Leave(which) if which < model.waiting.len() => line.leave(model.waiting.remove(which).0),
                Act::Leave(_) => {}
                // A verification ends long before failures are forgotten. Otherwise the model would let logins begin that the line holds until the outcome.
                Act::Wait(millis) if millis >= MEMORY && !model.running.is_empty() => {}
                Act::Wait(millis) => now += Duration::from_millis(millis),
            }
        }
        nobody_is_forgotten(&mut line, model, now)?;
    }
}

/// Arrivals that looked at all that wait took seconds of the event loop for a flood of 2,600.
#[test]
fn an_arrival_looks_at_nobody_else() {
    let mut line = Line::new();
    for user in 0..2_000 {
        let before = line.judged;
        line.arrive(login(1, user, 0), T).unwrap();
        assert!(line.judged <= before + 1, "{user} others wait, and {} were looked at", line.judged - before);
        let _ = line.next(T);
    }
}
