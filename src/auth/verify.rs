//! Checks a user's password: cached where possible, off the event loop where not, slowly for an address that keeps failing, and
//! without telling by the time it takes whether the user exists.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::cache::{Cache, Fingerprint, Key};
use super::files::Users;
use super::throttle::{Admission, Throttle};
use crate::limits;

/// The answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is this user's.
    Accepted,
    /// There is no such user, or his password is another.
    Rejected,
    /// Too many logins wait already; nothing was checked. The client should come again (HTTP 503).
    Busy,
}

/// Checks passwords against the list of users in force.
pub struct Verifier {
    users: RwLock<Arc<Users>>,
    /// `None` if the system gave no randomness for it: then nothing is cached, and all else works.
    key: Option<Key>,
    cache: Arc<Mutex<Cache>>,
    throttle: Mutex<Throttle>,
    /// Bounds the hashing that runs at once.
    running: Arc<Semaphore>,
    /// Bounds those that run or wait to run.
    queue: Semaphore,
    started: Instant,
}

impl Verifier {
    /// Checks against `users` until [`Self::replace`].
    #[must_use]
    pub fn new(users: Arc<Users>) -> Self {
        Self {
            users: RwLock::new(users),
            key: Key::random(),
            cache: Arc::new(Mutex::new(Cache::new())),
            throttle: Mutex::new(Throttle::new()),
            running: Arc::new(Semaphore::new(limits::VERIFICATIONS)),
            queue: Semaphore::new(limits::VERIFICATION_QUEUE),
            started: Instant::now(),
        }
    }

    /// From now on `users` is in force. Whoever is connected stays connected.
    pub fn replace(&self, users: Arc<Users>) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
    }

    /// The list in force.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `password` is that of `user`. Takes at most [`limits::LOGIN_DELAY_MAX`] plus the time of the verifications in front
    /// of it; may be dropped at any time. `from` is the address whose failures count.
    ///
    /// A credential that was verified lately is accepted at once, wherever it comes from: so a failing neighbour behind the
    /// same address never slows a client whose password is right and known.
    pub async fn verify(&self, user: &str, password: &[u8], from: IpAddr) -> Verdict {
        if self.is_known(&self.users(), user, password) {
            lock(&self.throttle).succeeded(from);
            return Verdict::Accepted;
        }
        let admission = lock(&self.throttle).admit(from, self.now());
        match admission {
            Admission::Now => {}
            Admission::Busy => return Verdict::Busy,
            Admission::Wait(delay) => {
                let _waiting = Waiting { throttle: &self.throttle, from };
                tokio::time::sleep(delay).await;
            }
        }
        let verdict = self.hash(user, password).await;
        match verdict {
            Verdict::Accepted => lock(&self.throttle).succeeded(from),
            Verdict::Rejected => lock(&self.throttle).failed(from, self.now()),
            Verdict::Busy => {}
        }
        verdict
    }

    /// The expensive part, when its turn has come.
    async fn hash(&self, user: &str, password: &[u8]) -> Verdict {
        if password.len() > limits::PASSWORD_BYTES || self.users().is_empty() {
            return Verdict::Rejected;
        }
        let Ok(_place) = self.queue.try_acquire() else { return Verdict::Busy };
        // The permit travels into the thread: a caller that gives up does not make room for more hashing than is allowed.
        let Ok(permit) = Arc::clone(&self.running).acquire_owned().await else { return Verdict::Busy };
        // The list that is in force now: it may have changed during the wait.
        let users = self.users();
        // Of many that came with the same credential, the first has done the work for all.
        if self.is_known(&users, user, password) {
            return Verdict::Accepted;
        }
        let (name, secret) = (user.to_owned(), password.to_vec());
        let (fingerprint, cache) = (self.fingerprint(&users, user, password), Arc::clone(&self.cache));
        let work = tokio::task::spawn_blocking(move || {
            let good = users.verify(&name, &secret);
            if let Some(fingerprint) = fingerprint.filter(|_| good) {
                lock(&cache).insert(fingerprint);
            }
            // Only now: whoever comes next with the same credential finds it in the cache.
            drop(permit);
            good
        });
        match work.await {
            Ok(true) => Verdict::Accepted,
            Ok(false) => Verdict::Rejected,
            // The runtime is going down.
            Err(_) => Verdict::Busy,
        }
    }

    fn is_known(&self, users: &Users, user: &str, password: &[u8]) -> bool {
        let fingerprint = self.fingerprint(users, user, password);
        fingerprint.is_some_and(|fingerprint| lock(&self.cache).contains(fingerprint))
    }

    fn fingerprint(&self, users: &Users, user: &str, password: &[u8]) -> Option<Fingerprint> {
        let hash = users.hash_of(user).filter(|_| password.len() <= limits::PASSWORD_BYTES)?;
        self.key.as_ref().map(|key| key.fingerprint(user, password, hash))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A login that waits; counted out again even if its connection goes meanwhile.
struct Waiting<'a> {
    throttle: &'a Mutex<Throttle>,
    from: IpAddr,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.throttle).waited(self.from);
    }
}

/// A thread that panicked with the lock held has left nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::htpasswd;

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
    async fn accepts_the_right_password_and_nothing_else() {
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
            assert_eq!(verifier.verify(user, password.as_bytes(), other(case)).await, verdict, "{user:?}");
        }
    }

    #[tokio::test]
    async fn without_users_nobody_comes_in() {
        let verifier = Verifier::new(Arc::new(Users::default()));
        assert_eq!(verifier.verify("", b"", here()).await, Verdict::Rejected);
    }

    #[tokio::test]
    async fn a_known_credential_needs_no_hashing_until_its_entry_changes() {
        let verifier = Verifier::new(users(&format!("bob:{BCRYPT}")));
        assert_eq!(verifier.verify("bob", b"secret", here()).await, Verdict::Accepted);
        // From here on nothing can be hashed: what is accepted comes from the cache.
        let _all = verifier.queue.acquire_many(u32::try_from(limits::VERIFICATION_QUEUE).unwrap()).await.unwrap();
        assert_eq!(verifier.verify("bob", b"secret", here()).await, Verdict::Accepted);
        assert_eq!(verifier.verify("bob", b"Secret", here()).await, Verdict::Busy);
        verifier.replace(users(&format!("bob:{SHA}")));
        assert_eq!(verifier.verify("bob", b"secret", here()).await, Verdict::Busy);
        verifier.replace(users("alice:{SHA}"));
        assert_eq!(verifier.verify("bob", b"secret", here()).await, Verdict::Rejected);
    }

    #[tokio::test]
    async fn a_failing_address_is_slowed_and_not_locked_out() {
        let verifier = Verifier::new(users(&format!("alice:{SHA}")));
        for _ in 0..limits::FREE_FAILURES {
            assert_eq!(verifier.verify("alice", b"wrong", here()).await, Verdict::Rejected);
        }
        let start = Instant::now();
        assert_eq!(verifier.verify("alice", b"secret", here()).await, Verdict::Accepted);
        assert!(start.elapsed() >= limits::LOGIN_DELAY, "not slowed: {:?}", start.elapsed());
        assert_eq!(lock(&verifier.throttle).admit(here(), verifier.now()), Admission::Now, "a success resets");
    }

    #[tokio::test]
    async fn a_connection_that_goes_while_it_waits_gives_its_place_back() {
        let verifier = Verifier::new(users(&format!("alice:{SHA}")));
        for _ in 0..limits::FREE_FAILURES + 8 {
            lock(&verifier.throttle).failed(here(), verifier.now());
        }
        for _ in 0..limits::DELAYED_PER_ADDRESS * 2 {
            let login = verifier.verify("alice", b"wrong", here());
            let answer = tokio::time::timeout(Duration::ZERO, login).await;
            assert!(answer.is_err(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn many_with_the_same_credential_are_hashed_a_few_times_only() {
        let verifier = Arc::new(Verifier::new(users(&format!("bob:{BCRYPT}"))));
        let logins: Vec<_> = (0..200)
            .map(|_| {
                let verifier = Arc::clone(&verifier);
                tokio::spawn(async move { verifier.verify("bob", b"secret", here()).await })
            })
            .collect();
        for login in logins {
            assert_eq!(login.await.unwrap(), Verdict::Accepted);
        }
        let one = verifier.users().hash_of("bob").unwrap().effort();
        let spent = verifier.users().spent();
        assert!(spent <= one * limits::VERIFICATIONS as u64, "{} verifications", spent / one);
    }
}
