//! Attacks on the login: guessed passwords, floods and silent sockets. During each attack, clients with good passwords connect without delay.
//!
//! The limit is 500 ms. A debug build verifies a password three times more slowly, and the test machine may be loaded, so a new
//! client has three attempts, each with another user. Without the defence, a client waits for tens of seconds.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bad_input::assert_unharmed;
use crate::broker::{Broker, PASSWORD, PATIENCE, Setup, USER};
use crate::raw::{Got, Head, Raw, basic};

/// The longest time that a client with a good password may wait.
const MAX_WAIT: Duration = Duration::from_millis(500);

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// Users whose password is `secret`, with bcrypt cost 10, as `wsmb passwd` writes.
const USERS: &str = "\
victim:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
app:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
a:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
b:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
c:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
d:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
e:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
f:$2y$10$SWOqyckrCv6yKtJLn4E.UezXG2iYVg/GeUXfIafSwoicrCqjY1b3a
";

/// Serialises the tests, because each attack needs all cores.
static ONE_ATTACK: Mutex<()> = Mutex::new(());

fn one_attack() -> MutexGuard<'static, ()> {
    ONE_ATTACK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_bcrypt() -> Setup {
    Setup::default().auth("htpasswd = [\"{dir}/users\"]").file("users", USERS)
}

fn head(user: &str, password: &str) -> Head {
    Head::new("/").modern().with("Authorization", &basic(user, password))
}

/// Logs in and returns the time until the upgrade.
#[track_caller]
fn time_to_connect(broker: &Broker, from: Ipv4Addr, user: &str) -> Duration {
    let began = Instant::now();
    let _raw = Raw::connect_from(broker, from).upgraded(&head(user, PASSWORD));
    began.elapsed()
}

/// Fails unless a client whose password is cached connects without delay.
#[track_caller]
fn assert_known_connects(broker: &Broker, from: Ipv4Addr) {
    let times: Vec<_> = (0..5).map(|_| time_to_connect(broker, from, USER)).collect();
    // One attempt may be slow because of other load on this machine.
    assert!(times.iter().filter(|time| **time <= MAX_WAIT).count() >= 4, "{times:?}\n{}", broker.log().tail());
}

/// Fails unless one of three clients whose passwords are not cached connects without delay.
#[track_caller]
fn assert_new_connects(broker: &Broker, from: Ipv4Addr, users: [&str; 3]) {
    let times = users.map(|user| time_to_connect(broker, from, user));
    assert!(times.iter().any(|time| *time <= MAX_WAIT), "{times:?}\n{}", broker.log().tail());
}

/// The status codes of the answers that arrive on these connections within `time`.
fn statuses(sockets: &mut [Raw], time: Duration) -> Vec<u16> {
    let deadline = Instant::now() + time;
    let status = |raw: &mut Raw| match raw.head_or_end(deadline.saturating_duration_since(Instant::now())) {
        Got::Frame(frame) => {
            String::from_utf8_lossy(&frame.payload).split(' ').nth(1).and_then(|code| code.parse().ok())
        }
        _ => None,
    };
    sockets.iter_mut().filter_map(status).collect()
}

/// Sends `count` logins at once.
fn flood(broker: &Broker, count: usize, login: impl Fn(usize) -> (Ipv4Addr, Head)) -> Vec<Raw> {
    (0..count)
        .map(|number| {
            let (from, head) = login(number);
            let mut raw = Raw::connect_from(broker, from);
            raw.send(&head.bytes());
            raw
        })
        .collect()
}

#[test]
fn wrong_passwords_from_one_address_delay_no_other_client() {
    let _guard = one_attack();
    let mut broker = with_bcrypt().start();
    time_to_connect(&broker, ELSEWHERE, USER);
    // Half of the logins guess one user's password; each of the others names another user.
    let sockets = flood(&broker, 400, |number| {
        let user = if number % 2 == 0 { "victim".to_owned() } else { format!("user-{number}") };
        (ATTACKER, head(&user, &format!("guess {number}")))
    });
    assert_known_connects(&broker, ELSEWHERE);
    assert_known_connects(&broker, ATTACKER);
    assert_new_connects(&broker, ELSEWHERE, ["a", "b", "c"]);
    drop(sockets);
    assert_unharmed(&mut broker);
}

#[test]
fn wrong_passwords_from_many_addresses_of_one_network_delay_no_other_client() {
    let _guard = one_attack();
    let mut broker = with_bcrypt().start();
    time_to_connect(&broker, ELSEWHERE, USER);
    let sockets = flood(&broker, 400, |number| {
        let from = Ipv4Addr::new(127, 9, (number / 100) as u8, (number % 100) as u8 + 1);
        (from, head(&format!("user-{number}"), "guess"))
    });
    assert_known_connects(&broker, ELSEWHERE);
    assert_new_connects(&broker, ELSEWHERE, ["a", "b", "c"]);
    drop(sockets);
    assert_unharmed(&mut broker);
}

#[test]
fn wrong_passwords_for_one_user_from_many_networks_lock_no_user_out() {
    let _guard = one_attack();
    let mut broker = with_bcrypt().server("trusted_proxies = [\"127.6.6.6\"]").start();
    time_to_connect(&broker, ELSEWHERE, USER);
    let sockets = flood(&broker, 400, |number| {
        let client = format!("{}.{}.0.1", 11 + number % 100, number / 100);
        (ATTACKER, head("victim", &format!("guess {number}")).with("X-Forwarded-For", &client))
    });
    assert_known_connects(&broker, ELSEWHERE);
    assert_new_connects(&broker, ELSEWHERE, ["a", "b", "c"]);
    // A client behind the same proxy is delayed for a short time only.
    let began = Instant::now();
    let _good =
        Raw::connect_from(&broker, ATTACKER).upgraded(&head("d", PASSWORD).with("X-Forwarded-For", "192.0.2.77"));
    assert!(began.elapsed() <= MAX_WAIT * 4, "{:?}", began.elapsed());
    drop(sockets);
    assert_unharmed(&mut broker);
}

#[test]
fn failures_of_one_user_delay_another_at_the_same_address_by_at_most_one_pause() {
    let _guard = one_attack();
    let broker = with_bcrypt().start();
    let sockets = flood(&broker, 8, |number| (ATTACKER, head("victim", &format!("guess {number}"))));
    assert_new_connects(&broker, ATTACKER, ["a", "b", "c"]);
    drop(sockets);
}

#[test]
fn concurrent_guesses_are_as_slow_as_guesses_in_sequence() {
    let _guard = one_attack();
    // The hash of these users is fast, so only the throttle causes delays.
    let broker = Broker::start();
    let began = Instant::now();
    let (mut guesses, mut verified, mut rounds) = (0, 0, 0);
    while began.elapsed() < Duration::from_secs(2) && rounds < 20 {
        let mut sockets = flood(&broker, 40, |number| (ATTACKER, head("colon", &format!("guess {rounds} {number}"))));
        // The attacker has a good password for another user, which must not help.
        time_to_connect(&broker, ATTACKER, USER);
        guesses += sockets.len();
        verified += statuses(&mut sockets, Duration::from_millis(100)).iter().filter(|status| **status == 401).count();
        rounds += 1;
    }
    // In sequence: three guesses at once, then after pauses of 250 ms, 500 ms, 1 s, 2 s, and then 4 s each.
    let in_sequence = 3
        + (0..)
            .scan(0, |sum, n: u32| {
                *sum += 250 * 2_u128.pow(n.min(4));
                Some(*sum)
            })
            .take_while(|due| *due <= began.elapsed().as_millis())
            .count();
    assert!(guesses >= 80, "{guesses}");
    assert!(verified <= in_sequence, "{verified} of {guesses} guesses were verified, {in_sequence} in sequence");
    // The user can log in from another address.
    let began = Instant::now();
    let _colon = Raw::connect_from(&broker, ELSEWHERE).upgraded(&head("colon", "pass:word"));
    assert!(began.elapsed() <= MAX_WAIT, "{:?}", began.elapsed());
}

#[test]
fn silent_sockets_keep_no_client_out() {
    let _guard = one_attack();
    let mut broker = Setup::default().server("max_handshakes = 50").start();
    let mut silent: Vec<Raw> = Vec::new();
    for round in 0..6 {
        for number in 0..100 {
            let mut raw = Raw::connect_from(&broker, ATTACKER);
            // A third of the sockets sends an incomplete head.
            if number % 3 == 0 {
                let _ = raw.try_send(b"GET / HTTP/1.1\r\nHost");
            }
            silent.push(raw);
        }
        let from = if round % 2 == 0 { ELSEWHERE } else { ATTACKER };
        assert_known_connects(&broker, from);
    }
    // The oldest socket was closed.
    assert!(matches!(silent[0].head_or_end(PATIENCE), Got::Fin | Got::Reset));
    assert!(matches!(silent[599].head_or_end(Duration::from_millis(1)), Got::Silence));
    drop(silent);
    assert_unharmed(&mut broker);
}

#[test]
fn slow_heads_from_many_addresses_keep_no_client_out() {
    let _guard = one_attack();
    let mut broker = Setup::default().server("max_handshakes = 50").start();
    let mut dripping: Vec<Raw> = (0..150_u8).map(|n| Raw::connect_from(&broker, Ipv4Addr::new(127, n, 1, 1))).collect();
    for byte in b"GET / HTTP/1.1\r\n".chunks(3) {
        for raw in &mut dripping {
            let _ = raw.try_send(byte);
        }
        assert_known_connects(&broker, ELSEWHERE);
    }
    assert_unharmed(&mut broker);
}

#[test]
fn refused_clients_that_stay_connected_keep_no_client_out() {
    let _guard = one_attack();
    let mut broker = Setup::default().server("max_handshakes = 50").start();
    let refused =
        flood(&broker, 300, |number| (ATTACKER, head(&format!("user-{number}"), "x").without("Authorization")));
    assert_known_connects(&broker, ELSEWHERE);
    drop(refused);
    assert_unharmed(&mut broker);
}

#[cfg(target_os = "linux")]
#[test]
fn silent_sockets_that_take_all_descriptors_make_room_for_a_client() {
    let _guard = one_attack();
    let mut broker = Broker::start();
    time_to_connect(&broker, ELSEWHERE, USER);
    broker.limit_descriptors(40);
    let silent: Vec<Raw> = (0..200).map(|_| Raw::connect_from(&broker, ATTACKER)).collect();
    assert_known_connects(&broker, ELSEWHERE);
    assert!(broker.log().text().contains("no file descriptors are left"), "{}", broker.log().tail());
    drop(silent);
    assert_unharmed(&mut broker);
}
