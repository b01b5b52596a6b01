//! Checks a user's password: cached where possible, off the event loop where not, slowly for whoever keeps failing, and without telling by the time it takes
//! whether the user exists.
//!
//! A credential that was verified lately never waits for anything here. Every other login stands in the `Line`; a verification runs on a thread for work that
//! blocks, and tells its outcome to whoever waits for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::cache::{Cache, Fingerprint, Key};
use super::files::Users;
use super::line::{Arrived, Line, Login, Refused, Ticket};
use crate::limits;
use wsmb_core::network;

/// The answer to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is this user's.
    Accepted,
    /// There is no such user, or his password is another.
    Rejected,
    /// Too many passwords for this user, or from this address, were wrong, and others wait already; nothing was checked (HTTP 429).
    Slowed,
    /// Too many logins wait already; nothing was checked. The client should come again (HTTP 503).
    Busy,
}

/// The answer, and the list of users that it was found in.
pub type Checked = (Verdict, Arc<Users>);

/// Checks passwords against the list of users in force.
pub struct Verifier {
    shared: Arc<Shared>,
}

/// What the threads that verify see, too.
struct Shared {
    users: RwLock<Arc<Users>>,
    /// `None` if the system gave no randomness for it: then nothing is cached, and all else works.
    key: Option<Key>,
    cache: Mutex<Cache>,
    desk: Mutex<Desk>,
    /// Makes digests of addresses and names.
    digest: RandomState,
    started: Instant,
}

/// The line, and who is told when something is decided.
struct Desk {
    line: Line,
    logins: HashMap<Ticket, Open>,
    /// When somebody looks whose time has come.
    armed: Option<Duration>,
}

/// A login that is not decided. What is to be verified is taken out when that begins.
struct Open {
    work: Option<Work>,
    outcome: oneshot::Sender<Checked>,
}

struct Work {
    user: String,
    password: Vec<u8>,
}

impl Verifier {
    /// Checks against `users` until [`Self::replace`].
    #[must_use]
    pub fn new(users: Arc<Users>) -> Self {
        let shared = Shared {
            users: RwLock::new(users),
            key: Key::random(),
            cache: Mutex::new(Cache::new()),
            desk: Mutex::new(Desk { line: Line::new(), logins: HashMap::new(), armed: None }),
            digest: RandomState::new(),
            started: Instant::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on `users` is in force. Returns the list that was; what becomes of who is connected is the caller's.
    pub fn replace(&self, users: Arc<Users>) -> Arc<Users> {
        std::mem::replace(&mut *self.shared.users.write().unwrap_or_else(PoisonError::into_inner), users)
    }

    /// The list in force.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        self.shared.users()
    }

    /// Whether `password` is that of `user`. Takes at most some 16 s plus the time of the verifications in front of it; may be dropped at any time: a verification that has begun
    /// counts all the same. `from` is the address whose failures count.
    ///
    /// A credential that was verified lately is accepted at once, wherever it comes from: so a failing neighbour behind the
    /// same address never slows a client whose password is right and known.
    pub async fn verify(&self, user: &str, password: &[u8], from: IpAddr) -> Checked {
        let shared = &self.shared;
        let users = shared.users();
        if password.len() > limits::PASSWORD_BYTES || user.len() > wsmb_core::limits::NAME_BYTES || users.is_empty() {
            return (Verdict::Rejected, users);
        }
        let credential = shared.fingerprint(&users, user, password);
        let login = shared.login(user, from, credential);
        if shared.is_known(credential) {
            shared.desk().line.succeeded(&login, shared.now());
            shared.go_on();
            return (Verdict::Accepted, users);
        }
        let (outcome, decided) = oneshot::channel();
        let ticket = {
            let mut desk = shared.desk();
            let Arrived { ticket, instead_of } = match desk.line.arrive(login, shared.now()) {
                Ok(arrived) => arrived,
                Err(Refused::Slowed) => return (Verdict::Slowed, users),
                Err(Refused::Busy) => return (Verdict::Busy, users),
            };
            let work = Some(Work { user: user.to_owned(), password: password.to_vec() });
            desk.logins.insert(ticket, Open { work, outcome });
            if let Some(displaced) = instead_of {
                desk.decide(displaced, Verdict::Busy, &users);
            }
            ticket
        };
        let _waiting = Waiting { shared, ticket };
        shared.go_on();
        // Without an outcome, the runtime is going down.
        decided.await.unwrap_or((Verdict::Busy, users))
    }
}

impl Desk {
    fn decide(&mut self, ticket: Ticket, verdict: Verdict, users: &Arc<Users>) {
        if let Some(Open { outcome, .. }) = self.logins.remove(&ticket) {
            // Whoever has gone is not told.
            let _ = outcome.send((verdict, users.clone()));
        }
    }
}

impl Shared {
    fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn login(&self, user: &str, from: IpAddr, credential: Option<Fingerprint>) -> Login {
        let address = network::customer(from);
        Login {
            network: self.digest.hash_one(("network", network::neighbourhood(from))),
            address: self.digest.hash_one(("address", address)),
            user: self.digest.hash_one(("user", user)),
            pair: self.digest.hash_one(("pair", address, user)),
            credential,
        }
    }

    fn is_known(&self, credential: Option<Fingerprint>) -> bool {
        credential.is_some_and(|credential| lock(&self.cache).contains(credential))
    }

    fn fingerprint(&self, users: &Users, user: &str, password: &[u8]) -> Option<Fingerprint> {
        self.key.as_ref().map(|key| key.fingerprint(user, password, users.hash_of(user)))
    }

    /// Begins every verification whose turn it is, and has somebody look again when the time comes of those who wait.
    fn go_on(self: &Arc<Self>) {
        let mut desk = self.desk();
        let now = self.now();
        while let Some(ticket) = desk.line.next(now) {
            match desk.logins.get_mut(&ticket).and_then(|open| open.work.take()) {
                Some(work) => {
                    let shared = Arc::clone(self);
                    // Bounded by the line: never more than limits::VERIFICATIONS.
                    tokio::task::spawn_blocking(move || shared.work(ticket, &work));
                }
                None => drop(desk.line.settle(ticket, None, now)),
            }
        }
        if let Some(due) = desk.line.due()
            && desk.armed.is_none_or(|armed| due < armed)
        {
            desk.armed = Some(due);
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(due.saturating_sub(now)).await;
                let mut desk = shared.desk();
                if desk.armed == Some(due) {
                    desk.armed = None;
                }
                drop(desk);
                shared.go_on();
            });
        }
    }

    /// The expensive part. Blocks.
    fn work(self: &Arc<Self>, ticket: Ticket, Work { user, password }: &Work) {
        // The list that is in force now: it may have changed during the wait.
        let users = self.users();
        // Told whatever happens: a login that is never settled would hold its place for ever.
        let mut settling = Settling { shared: self, ticket, users: users.clone(), accepted: None };
        let credential = self.fingerprint(&users, user, password);
        // Somebody else may have come in with the same credential meanwhile.
        let good = self.is_known(credential) || users.verify(user, password);
        if let Some(credential) = credential.filter(|_| good) {
            lock(&self.cache).insert(credential);
        }
        settling.accepted = Some(good);
    }
}

/// A verification that runs.
struct Settling<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
    users: Arc<Users>,
    accepted: Option<bool>,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        let verdict = match self.accepted {
            Some(true) => Verdict::Accepted,
            Some(false) => Verdict::Rejected,
            None => Verdict::Busy,
        };
        {
            let mut desk = self.shared.desk();
            let repetitions = desk.line.settle(self.ticket, self.accepted, self.shared.now());
            for ticket in [self.ticket].into_iter().chain(repetitions) {
                desk.decide(ticket, verdict, &self.users);
            }
        }
        self.shared.go_on();
    }
}

/// A login that waits; taken out of the line if its connection goes meanwhile.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.line.leave(self.ticket);
        desk.logins.remove(&self.ticket);
    }
}

/// A thread that panicked with the lock held has left nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
