//! Verifies passwords: from a cache if possible, otherwise on a blocking thread, with delays after failures, and without revealing by
//! the duration whether a user exists.
//!
//! A recently verified credential never waits. Every other login waits in the `LoginQueue`; its verification runs on a blocking thread
//! and sends the verdict to the waiting task. This module must never hash on the event loop.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::cache::{Cache, Fingerprint, FingerprintKey};
use super::files::Users;
use super::queue::{Enqueued, Login, LoginQueue, Refused, Ticket};
use crate::limits;
use wsmb_core::network;

/// The result of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Accepted,
    /// The user does not exist, or the password is wrong.
    Rejected,
    /// Too many different passwords for this user from this address are waiting. The password was not verified (HTTP 429).
    Slowed,
    /// Too many logins are waiting. The password was not verified; the client should retry (HTTP 503).
    Busy,
}

/// The verdict, and the list of users that was used.
pub type Checked = (Verdict, Arc<Users>);

/// Verifies passwords against the list of users in force.
pub struct Verifier {
    shared: Arc<Shared>,
}

/// The state shared with the verifying threads.
struct Shared {
    users: RwLock<Arc<Users>>,
    /// `None` if the system gave no random numbers. Then nothing is cached, and everything else works.
    key: Option<FingerprintKey>,
    cache: Mutex<Cache>,
    logins: Mutex<Logins>,
    /// Digests addresses and names.
    digest: RandomState,
    started: Instant,
}

/// The queue, and the data of its logins.
struct Logins {
    queue: LoginQueue,
    pending: HashMap<Ticket, PendingLogin>,
    /// The time for which a timer task is running.
    timer: Option<Duration>,
}

/// A login without a verdict. `work` is taken when the verification begins.
struct PendingLogin {
    work: Option<Work>,
    verdict: oneshot::Sender<Checked>,
}

struct Work {
    user: String,
    password: Vec<u8>,
}

impl Verifier {
    /// Creates a verifier with `users` in force.
    #[must_use]
    pub fn new(users: Arc<Users>) -> Self {
        let shared = Shared {
            users: RwLock::new(users),
            key: FingerprintKey::random(),
            cache: Mutex::new(Cache::new()),
            logins: Mutex::new(Logins { queue: LoginQueue::new(), pending: HashMap::new(), timer: None }),
            digest: RandomState::new(),
            started: Instant::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Puts `users` into force and returns the previous list. The caller decides what happens to open connections.
    pub fn replace(&self, users: Arc<Users>) -> Arc<Users> {
        std::mem::replace(&mut *self.shared.users.write().unwrap_or_else(PoisonError::into_inner), users)
    }

    /// The list in force.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        self.shared.users()
    }

    /// Counts a wrong token or ticket from this address, as a wrong password is counted. Returns whether the address had used its free failures before.
    pub fn count_failure(&self, from: IpAddr) -> bool {
        let login = self.shared.login("", from, None);
        self.shared.logins().queue.count_failure(&login, self.shared.now())
    }

    /// Verifies the `password` of `user`. Takes at most some 16 s plus the verifications in front. The future may be dropped at any time; a
    /// verification that has begun still counts. Failures are counted for the address `from`.
    ///
    /// A recently verified credential is accepted at once from any address, so that failures of other clients behind the same address
    /// never slow a client with a right and cached password.
    pub async fn verify(&self, user: &str, password: &[u8], from: IpAddr) -> Checked {
        let shared = &self.shared;
        let users = shared.users();
        if password.len() > limits::PASSWORD_BYTES || user.len() > wsmb_core::limits::NAME_BYTES || users.is_empty() {
            return (Verdict::Rejected, users);
        }
        let credential = shared.fingerprint(&users, user, password);
        let login = shared.login(user, from, credential);
        if shared.is_cached(credential) {
            shared.logins().queue.succeeded(&login, shared.now());
            shared.start_ready();
            return (Verdict::Accepted, users);
        }
        let (verdict_sender, verdict) = oneshot::channel();
        let ticket = {
            let mut logins = shared.logins();
            let Enqueued { ticket, displaced } = match logins.queue.enqueue(login, shared.now()) {
                Ok(enqueued) => enqueued,
                Err(Refused::Slowed) => return (Verdict::Slowed, users),
                Err(Refused::Busy) => return (Verdict::Busy, users),
            };
            let work = Some(Work { user: user.to_owned(), password: password.to_vec() });
            logins.pending.insert(ticket, PendingLogin { work, verdict: verdict_sender });
            if let Some(displaced) = displaced {
                logins.send_verdict(displaced, Verdict::Busy, &users);
            }
            ticket
        };
        let _leave_on_drop = LeaveOnDrop { shared, ticket };
        shared.start_ready();
        // Without a verdict, the runtime is shutting down.
        verdict.await.unwrap_or((Verdict::Busy, users))
    }
}

impl Logins {
    fn send_verdict(&mut self, ticket: Ticket, verdict: Verdict, users: &Arc<Users>) {
        if let Some(login) = self.pending.remove(&ticket) {
            // Fails if the login's connection has been closed.
            let _ = login.verdict.send((verdict, users.clone()));
        }
    }
}

impl Shared {
    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        lock(&self.logins)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn login(&self, user: &str, from: IpAddr, credential: Option<Fingerprint>) -> Login {
        let address = network::client_network(from);
        Login {
            network: self.digest.hash_one(("network", network::provider_network(from))),
            address: self.digest.hash_one(("address", address)),
            user: self.digest.hash_one(("user", user)),
            pair: self.digest.hash_one(("pair", address, user)),
            credential,
        }
    }

    fn is_cached(&self, credential: Option<Fingerprint>) -> bool {
        credential.is_some_and(|credential| lock(&self.cache).contains(credential))
    }

    fn fingerprint(&self, users: &Users, user: &str, password: &[u8]) -> Option<Fingerprint> {
        self.key.as_ref().map(|key| key.fingerprint(user, password, users.hash_of(user)))
    }

    /// Starts the verifications that may run now, and a timer task for the next delayed login.
    fn start_ready(self: &Arc<Self>) {
        let mut logins = self.logins();
        let now = self.now();
        while let Some(ticket) = logins.queue.start_next(now) {
            match logins.pending.get_mut(&ticket).and_then(|login| login.work.take()) {
                Some(work) => {
                    let shared = Arc::clone(self);
                    // Bounded by the queue: never more than limits::VERIFICATIONS.
                    tokio::task::spawn_blocking(move || shared.run(ticket, &work));
                }
                None => drop(logins.queue.finish(ticket, None, now)),
            }
        }
        if let Some(start) = logins.queue.next_start()
            && logins.timer.is_none_or(|timer| start < timer)
        {
            logins.timer = Some(start);
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(start.saturating_sub(now)).await;
                let mut logins = shared.logins();
                if logins.timer == Some(start) {
                    logins.timer = None;
                }
                drop(logins);
                shared.start_ready();
            });
        }
    }

    /// Verifies one login. Blocks.
    fn run(self: &Arc<Self>, ticket: Ticket, Work { user, password }: &Work) {
        // The list in force may have changed while the login waited.
        let users = self.users();
        // Finishes the login even after a panic: otherwise it would occupy a running slot for ever.
        let mut running = RunningVerification { shared: self, ticket, users: users.clone(), accepted: None };
        let credential = self.fingerprint(&users, user, password);
        // Another login with the same credential may have succeeded in the meantime.
        let good = self.is_cached(credential) || users.verify(user, password);
        if let Some(credential) = credential.filter(|_| good) {
            lock(&self.cache).insert(credential);
        }
        running.accepted = Some(good);
    }
}

/// A running verification; reports its result when dropped.
struct RunningVerification<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
    users: Arc<Users>,
    accepted: Option<bool>,
}

impl Drop for RunningVerification<'_> {
    fn drop(&mut self) {
        let verdict = match self.accepted {
            Some(true) => Verdict::Accepted,
            Some(false) => Verdict::Rejected,
            None => Verdict::Busy,
        };
        {
            let mut logins = self.shared.logins();
            let duplicates = logins.queue.finish(self.ticket, self.accepted, self.shared.now());
            for ticket in [self.ticket].into_iter().chain(duplicates) {
                logins.send_verdict(ticket, verdict, &self.users);
            }
        }
        self.shared.start_ready();
    }
}

/// Removes a login from the queue when dropped: after its verdict, or when its connection is closed.
struct LeaveOnDrop<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        let mut logins = self.shared.logins();
        logins.queue.leave(self.ticket);
        logins.pending.remove(&self.ticket);
    }
}

/// Locks even after a panic of another thread: no update under these locks can stay incomplete in a way that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
