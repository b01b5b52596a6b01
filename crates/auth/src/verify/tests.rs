//! The verifier with its threads: cache, delays and displaced logins. The rules of the queue are tested in `queue`.

use super::*;
use crate::htpasswd;

const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

fn users(text: &str) -> Arc<Users> {
    Arc::new(Users::new(htpasswd::parse(text.as_bytes(), "test").unwrap().entries))
}

fn here() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn other(host: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, host])
}

#[tokio::test]
async fn only_the_right_password_is_accepted() {
    let verifier = Verifier::new(users(&format!("alice:{SHA}\nbob:{BCRYPT}")));
    let long = "x".repeat(limits::PASSWORD_BYTES + 1);
    let table = [
        ("alice", "secret", Verdict::Accepted),
        ("bob", "secret", Verdict::Accepted),
        ("bob", "Secret", Verdict::Rejected),
        ("Alice", "secret", Verdict::Rejected),
        ("", "secret", Verdict::Rejected),
        ("", "", Verdict::Rejected),
        ("carol", "secret", Verdict::Rejected),
        ("bob", &long, Verdict::Rejected),
    ];
    for (case, (user, password, verdict)) in (0..).zip(table) {
        assert_eq!(verify(&verifier, user, password.as_bytes(), other(case)).await, verdict, "{user:?}");
    }
}

#[tokio::test]
async fn without_users_every_login_is_rejected() {
    let verifier = Verifier::new(Arc::new(Users::default()));
    assert_eq!(verify(&verifier, "", b"", here()).await, Verdict::Rejected);
}

/// Occupies both verification slots with logins that never finish, so that nothing is hashed.
async fn block(verifier: &Verifier) {
    for (host, user) in [(1, "x"), (2, "y")] {
        let mut logins = verifier.shared.logins();
        let login = verifier.shared.login(user, other(host), None);
        logins.queue.enqueue(login, verifier.shared.now()).unwrap();
        assert!(logins.queue.start_next(verifier.shared.now()).is_some());
    }
}

async fn verify(verifier: &Verifier, user: &str, password: &[u8], from: IpAddr) -> Verdict {
    verifier.verify(user, password, from).await.0
}

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_cached_credential_does_not_wait_until_its_entry_changes() {
    let verifier = Verifier::new(users(&format!("bob:{BCRYPT}")));
    assert_eq!(verify(&verifier, "bob", b"secret", here()).await, Verdict::Accepted);
    block(&verifier).await;
    // Nothing can be hashed from here on, so accepted logins come from the cache.
    assert_eq!(verify(&verifier, "bob", b"secret", here()).await, Verdict::Accepted);
    assert!(tokio::time::timeout(SOON, verify(&verifier, "bob", b"Secret", here())).await.is_err());
    verifier.replace(users(&format!("bob:{SHA}")));
    assert!(tokio::time::timeout(SOON, verify(&verifier, "bob", b"secret", here())).await.is_err());
}

#[tokio::test]
async fn a_failing_user_is_delayed_and_not_locked_out() {
    let verifier = Verifier::new(users(&format!("alice:{SHA}\nbob:{SHA}")));
    let mut start = Instant::now();
    for _ in 0..limits::FREE_FAILURES {
        // Before the last failure, because the delay counts from it.
        start = Instant::now();
        assert_eq!(verify(&verifier, "alice", b"wrong", here()).await, Verdict::Rejected);
    }
    assert_eq!(verify(&verifier, "bob", b"secret", here()).await, Verdict::Accepted);
    assert_eq!(verify(&verifier, "alice", b"secret", other(1)).await, Verdict::Accepted);
    assert!(start.elapsed() < limits::LOGIN_DELAY, "others are slowed: {:?}", start.elapsed());
    lock(&verifier.shared.cache).clear();
    assert_eq!(verify(&verifier, "alice", b"secret", here()).await, Verdict::Accepted);
    assert!(start.elapsed() >= limits::LOGIN_DELAY, "not slowed: {:?}", start.elapsed());
    assert_eq!(verify(&verifier, "alice", b"wrong", here()).await, Verdict::Rejected);
    assert!(start.elapsed() < limits::LOGIN_DELAY * 3, "a success does not reset: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_cached_password_clears_the_failures_of_its_user_and_address_only() {
    let verifier = Verifier::new(users(&format!("alice:{SHA}\nbob:{SHA}")));
    assert_eq!(verify(&verifier, "alice", b"secret", here()).await, Verdict::Accepted);
    for user in ["alice", "bob"] {
        for _ in 0..limits::FREE_FAILURES {
            assert_eq!(verify(&verifier, user, b"wrong", here()).await, Verdict::Rejected);
        }
    }
    assert_eq!(verify(&verifier, "alice", b"secret", here()).await, Verdict::Accepted);
    let held = |user| {
        let login = verifier.shared.login(user, here(), None);
        let mut logins = verifier.shared.logins();
        logins.queue.enqueue(login, verifier.shared.now()).unwrap();
        logins.queue.start_next(verifier.shared.now()).is_none()
    };
    assert!(held("bob") && !held("alice"));
}

#[tokio::test]
async fn concurrent_guesses_beyond_the_limit_are_refused() {
    let verifier = Arc::new(Verifier::new(users(&format!("alice:{SHA}"))));
    let guesses: Vec<_> = (0..40)
        .map(|guess| {
            let verifier = verifier.clone();
            tokio::spawn(async move { verify(&verifier, "alice", format!("{guess}").as_bytes(), here()).await })
        })
        .collect();
    let start = Instant::now();
    assert_eq!(verify(&verifier, "bob", b"secret", here()).await, Verdict::Rejected);
    assert!(start.elapsed() < limits::LOGIN_DELAY, "another user waits: {:?}", start.elapsed());
    let mut slowed = 0;
    for guess in guesses {
        match guess.await.unwrap() {
            Verdict::Slowed => slowed += 1,
            verdict => assert_eq!(verdict, Verdict::Rejected),
        }
    }
    assert!(slowed >= 40 - limits::FREE_FAILURES as usize - limits::LOGINS_PER_USER, "{slowed}");
    // The delays of the first two waiting guesses: 250 and 500 ms.
    assert!(start.elapsed() >= limits::LOGIN_DELAY * 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_that_closes_while_it_waits_leaves_the_queue() {
    let verifier = Verifier::new(users(&format!("alice:{SHA}")));
    block(&verifier).await;
    for guess in 0..limits::LOGINS_PER_USER * 2 {
        let password = format!("wrong {guess}");
        let login = verify(&verifier, "alice", password.as_bytes(), here());
        let answer = tokio::time::timeout(Duration::ZERO, login).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    assert!(verifier.shared.logins().pending.is_empty());
}

#[tokio::test]
async fn concurrent_logins_with_the_same_credential_are_hashed_once() {
    let verifier = Arc::new(Verifier::new(users(&format!("bob:{BCRYPT}"))));
    let logins: Vec<_> = (0..200)
        .map(|_| {
            let verifier = Arc::clone(&verifier);
            tokio::spawn(async move { verify(&verifier, "bob", b"secret", here()).await })
        })
        .collect();
    for login in logins {
        assert_eq!(login.await.unwrap(), Verdict::Accepted);
    }
    let one = verifier.users().hash_of("bob").unwrap().effort();
    assert_eq!(verifier.users().effort_spent(), one, "{} verifications", verifier.users().effort_spent() / one);
}

#[tokio::test]
async fn a_flood_from_one_network_delays_a_new_client_elsewhere_by_a_few_verifications() {
    let verifier = Arc::new(Verifier::new(users(&format!("bob:{BCRYPT}"))));
    let one = verifier.users().hash_of("bob").unwrap().effort();
    let flood: Vec<_> = (0..2_600)
        .map(|guess| {
            let verifier = verifier.clone();
            let [high, low] = u16::to_be_bytes(guess);
            let from = IpAddr::from([198, 51, high, low]);
            tokio::spawn(async move { verify(&verifier, &format!("user {guess}"), b"wrong", from).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let before = verifier.users().effort_spent();
    assert_eq!(verify(&verifier, "bob", b"secret", here()).await, Verdict::Accepted);
    let between = (verifier.users().effort_spent() - before) / one;
    // The flood alone fills the queue (2,048). This task is woken after the flood's tasks, so further verifications have begun by then.
    assert!(between <= 100, "{between} verifications came first");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}
