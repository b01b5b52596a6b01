//! The lifecycle of a server: start, reload, stop.
//!
//! The order of a stop matters: new connections are refused, and open ones are read until they are silent ([`super::stop`]); the core gets the end of every
//! connection, and so stores all unconfirmed messages; the store commits, and the ids are written; the port is closed last.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[cfg(feature = "webhooks")]
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use super::access::{Access, Identity, Logins};
use super::certificates::Certificates;
use super::clock::Clock;
use super::core::Core;
use super::counters::{Counters, WarningLimit};
use super::engine::Engine;
use super::error::ServeError;
use super::fatal::Fatal;
use super::handshakes::Handshakes;
#[cfg(feature = "webhooks")]
use super::http::run_webhooks;
use super::hub::{Hub, Options, Parts};
use super::ids::Ids;
use super::listener::{self, Bound};
use super::loops::{Loops, Threads};
use super::opening;
use super::platform;
#[cfg(feature = "webhooks")]
use super::settings::Webhook;
use super::settings::{AccessSettings, Reload, Settings};
use super::storage::{self, Storage};
use super::turns::Turns;
use crate::limits;
use wsmb_auth::{Change, Credentials, IssueError, IssuedToken, OwnKey, Rates, TokenRequest, Verifier};
use wsmb_core::broker::{self, Broker, Event};
use wsmb_core::message::MessageId;
use wsmb_store::Background;

/// Starts a [`RunningServer`].
#[derive(Clone, Copy, Debug)]
pub struct Server;

/// A server that listens. A drop without [`Self::shutdown`] cuts all connections, but every accepted message is in the store.
#[derive(Debug)]
pub struct RunningServer {
    hub: Arc<Hub>,
    addresses: Vec<SocketAddr>,
    /// Those with TLS.
    tls_addresses: Vec<SocketAddr>,
    listeners: Vec<JoinHandle<()>>,
    handshakes: Arc<Handshakes>,
    threads: Arc<Threads>,
    tasks: Vec<JoinHandle<()>>,
    credentials: Arc<Mutex<Credentials>>,
    /// The certificate of the listeners with TLS.
    certificates: Option<Arc<Certificates>>,
    settings: Mutex<Settings>,
    #[cfg(feature = "webhooks")]
    webhooks: watch::Sender<Arc<[Webhook]>>,
    is_stopping: bool,
}

impl Server {
    /// Opens the store and every address, and serves. Must be called within a tokio runtime, of one thread or many.
    ///
    /// # Errors
    /// The first address, store or system resource that cannot be opened.
    pub async fn start(settings: Settings) -> Result<RunningServer, ServeError> {
        let certificates = load_certificates(&settings).await?;
        platform::keep_freed_memory();
        let listeners = listener::bind(&settings.listeners).await?;
        let addresses = listeners.iter().map(|bound| bound.listener.local_addr()).collect::<Result<_, _>>()?;
        let (credentials, own_key, store, clock, (summary, suspect), (ids, found)) = {
            let Settings { access, store, broker: broker::Settings { dedup_window, .. }, .. } = settings.clone();
            blocking(move || {
                let credentials = Credentials::load(&access.htpasswd, &access.users);
                let own_key = OwnKey::load(access.token_key);
                let (opened, clock, found) = opening::open(&store, dedup_window)?;
                // After the store, because the store's lock also protects the file of ids.
                let since = opening::dedup_start(clock.now(), dedup_window);
                let ids = Ids::open(store.ids.as_deref(), since, clock.now());
                Ok::<_, ServeError>((credentials, own_key, opened, clock, found, ids))
            })
            .await??
        };
        let (own_key, warning) = own_key;
        for warning in credentials.all_warnings(settings.access.anonymous).into_iter().chain(warning) {
            warn!("{warning}");
        }
        let clean = summary.clean;
        let restored = storage::restored(summary, suspect, found);
        let restored_up_to = restored.last_id;
        info!(store = %settings.store.name, channels_with_backlog = restored.channels.len(), clean, "store opened");
        let clock = Arc::new(clock);
        let (verifier, tickets) = (Verifier::new(credentials.users()), Mutex::default());
        let logins = Arc::new(Logins { verifier, own_key, tickets, clock: clock.clone() });
        let access = access(&settings.access, logins);
        let options = options(&settings);
        let engine =
            Engine::new(Broker::new(settings.broker.clone(), restored), options.engine(), opening::seed(clock.now()));
        let fatal = Arc::new(Fatal::default());
        let core = Arc::new(Core::new(engine, fatal.clone()));
        let ids = Arc::new(ids);
        let storage = start_storage(store, &core, &ids, &clock, &fatal)?;
        let loops = Arc::new(Loops::new(settings.threads));
        let threads = Arc::new(Threads::start(&loops, &fatal)?);
        let budget = settings.broker.memory_budget;
        info!(mebibytes = budget >> 20, "memory budget");
        let hub = Arc::new(Hub::new(Parts { core, storage, ids, clock, fatal, loops, options, access, budget }));
        let handshakes = Arc::new(Handshakes::new(settings.limits.max_handshakes));
        let mut server = RunningServer {
            hub,
            addresses,
            tls_addresses: Vec::new(),
            listeners: Vec::new(),
            handshakes,
            threads,
            tasks: Vec::new(),
            credentials: Arc::new(Mutex::new(credentials)),
            certificates,
            #[cfg(feature = "webhooks")]
            webhooks: watch::Sender::new(settings.webhooks.clone().into()),
            settings: Mutex::new(settings),
            is_stopping: false,
        };
        server.run(listeners, restored_up_to);
        Ok(server)
    }
}

impl RunningServer {
    fn run(&mut self, listeners: Vec<Bound>, restored_up_to: MessageId) {
        let hub = &self.hub;
        // Stored messages may be due already.
        hub.handle_event(Event::Tick);
        self.tasks = vec![
            spawn_vital(hub, "the task of deadlines", hub.clone().run_deadlines()),
            spawn_vital(hub, "the task of heartbeats", hub.clone().run_timers()),
            spawn_vital(hub, "the task of backpressure", hub.clone().run_backpressure()),
            spawn_vital(hub, "the task of the store's reports", hub.clone().run_reports()),
            spawn_vital(hub, "the task of memory", hub.clone().run_memory()),
            spawn_vital(hub, "the task of flushes", hub.loops.clone().run_flushes(0)),
            spawn_vital(hub, "the task of the clock", hub.clone().run_clock(restored_up_to)),
            spawn_vital(hub, "the task of ids", hub.clone().run_ids()),
            #[cfg(feature = "http")]
            spawn_vital(hub, "the task of mailboxes", hub.clone().run_mailboxes()),
            spawn_vital(hub, "the task of tokens", hub.clone().run_expiries()),
            #[cfg(feature = "webhooks")]
            spawn_vital(hub, "the task of webhooks", run_webhooks(hub.clone(), self.webhooks.subscribe())),
            spawn_vital(hub, "the task of passwords", watch_credentials(hub.clone(), self.credentials.clone())),
        ];
        if let Some(certificates) = &self.certificates {
            let watch = watch_certificates(certificates.clone());
            self.tasks.push(spawn_vital(hub, "the task of certificates", watch));
        }
        let shared = Arc::new(listener::Shared {
            hub: hub.clone(),
            handshakes: self.handshakes.clone(),
            threads: self.threads.clone(),
            certificates: self.certificates.clone(),
            accept_warning: WarningLimit::default(),
        });
        for (bound, address) in listeners.into_iter().zip(&self.addresses) {
            info!(%address, tls = bound.tls, proxy_protocol = bound.proxy_protocol, "listening");
            if bound.tls {
                self.tls_addresses.push(*address);
            }
            self.listeners.push(spawn_vital(hub, "a listener", listener::accept(shared.clone(), bound)));
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The addresses on which the server listens, with the actual ports.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Those of [`Self::local_addrs`] whose connections are encrypted.
    #[must_use]
    pub fn tls_addrs(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// The server's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.hub.counters
    }

    /// How long turns take: the longest one, and how many were long.
    #[must_use]
    pub fn turns(&self) -> &Turns {
        &self.hub.loops.turns
    }

    /// The core's counters.
    #[must_use]
    pub fn broker_counters(&self) -> broker::Counters {
        self.hub.with_broker(|broker| *broker.counters())
    }

    /// The number of messages that are not settled: waiting, delayed or in flight.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.hub.with_broker(Broker::unsettled)
    }

    /// Removes all messages of a channel, for an administrator.
    pub fn purge(&self, channel: wsmb_core::message::ChannelName) {
        self.hub.handle_event(Event::Purge { channel });
    }

    /// Issues a token of the broker to `user`, as if the user had asked for it after a login with a password.
    ///
    /// # Errors
    /// [`IssueError`]: the user does not exist or may not have such a token, or the broker has no key.
    pub async fn issue_token(&self, user: &str, request: &TokenRequest) -> Result<IssuedToken, IssueError> {
        self.hub.access().issue_token(&Identity::User(user.into()), request).await
    }

    /// Issues a ticket to `user`: a secret that is good for one login, as `?ticket=`, within [`wsmb_auth::limits::TICKET_TIME`]. `None`: there are too many
    /// tickets, or the system gives no random numbers.
    #[must_use]
    pub fn issue_ticket(&self, user: &str) -> Option<String> {
        let access = self.hub.access();
        access.issue_ticket(&Identity::User(user.into()), access.logins.verifier.users())
    }

    /// Applies new channel policies, users, keys for tokens, permissions, trusted proxies, origins, certificates and webhooks. Password files and
    /// certificates are read again.
    /// Connections whose user, password or right in use was withdrawn are ended.
    pub async fn reload(&self, new: Reload) {
        let (credentials, wanted) = (self.credentials.clone(), new.access.clone());
        let users = blocking(move || lock(&credentials).reload(&wanted.htpasswd, &wanted.users)).await;
        let logins = self.hub.access().logins.clone();
        if let (Some(certificates), Some(files)) = (self.certificates.clone(), new.tls) {
            // An error is a panic, which is logged.
            let _ = blocking(move || certificates.reload(&files)).await;
        }
        let revoked = match users {
            Ok(users) => logins.verifier.replace(users.clone()).revoked_by(&users),
            Err(_) => HashSet::new(),
        };
        let settings = {
            let mut settings = lock(&self.settings);
            settings.broker.policies = new.policies;
            settings.access = new.access;
            settings.webhooks = new.webhooks;
            settings.clone()
        };
        self.hub.reconfigure(options(&settings), access(&settings.access, logins), settings.broker);
        #[cfg(feature = "webhooks")]
        self.webhooks.send_replace(settings.webhooks.into());
        let hub = self.hub.clone();
        tokio::spawn(async move { hub.enforce(revoked).await });
    }

    /// Stops in an orderly way, as docs/deploying.md describes: reads until all clients are silent, ends every connection (within `server.drain`), commits, and
    /// closes the port last.
    ///
    /// # Errors
    /// Messages could not be stored, or the store could not be closed in an orderly way.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        // If the caller drops this future, the drop of the server must not wait for the store.
        self.is_stopping = true;
        let hub = self.hub.clone();
        let end = Instant::now() + lock(&self.settings).drain;
        info!(connections = hub.open_sessions(), "stopping: new connections are refused with 503");
        hub.begin_stop();
        hub.wait_until_silent(end).await;
        let left = hub.end_connections(end).await;
        if left > 0 {
            warn!(connections = left, "cut: these did not take their end in time");
        }
        hub.abort_all();
        hub.store_rest().await;
        for task in &mut self.tasks {
            task.abort();
            // Awaited, so that no task takes reports of the store any more.
            let _ = task.await;
        }
        hub.storage.note_time(hub.wall_now());
        let closing = hub.clone();
        let stopped = blocking(move || {
            let stopped = closing.storage.stop();
            closing.take_reports();
            // After the reports, because the last commit accepts ids too.
            closing.save_ids(true);
            stopped
        })
        .await?;
        self.close_listeners().await;
        match (hub.with_broker(Broker::unstored) as u64, stopped) {
            (0, Ok(())) => {
                let (turns, kept) = (&self.hub.loops.turns, self.unsettled());
                let longest = turns
                    .longest()
                    .map_or_else(String::new, |(took, cause)| format!("{:.1} ms ({cause})", took.as_secs_f64() * 1e3));
                info!(kept, longest_turn = %longest, long_turns = turns.long(), "stopped; everything accepted is in the store");
                Ok(())
            }
            (0, Err(cause)) => {
                error!(%cause, "stopped, but the store could not be closed in an orderly way; everything accepted is in it");
                Err(cause.into())
            }
            (messages, stopped) => {
                error!(messages, "stopped, but the store did not take these messages; they are lost");
                Err(ServeError::Unstored { messages, cause: stopped.err() })
            }
        }
    }

    /// Closes the port, after the clients that have connected by now were answered or [`limits::STOP_ANSWERS`] has passed.
    async fn close_listeners(&mut self) {
        self.hub.stop.close_listeners();
        let answered = async {
            for listener in &mut self.listeners {
                // An error means that the task has ended already.
                let _ = listener.await;
            }
            while self.handshakes.open() > 0 {
                tokio::time::sleep(limits::STOP_LOOK).await;
            }
        };
        // A client that has connected and sends nothing is not waited for.
        let _ = tokio::time::timeout(limits::STOP_ANSWERS, answered).await;
    }
}

/// Starts the store's thread. The thread saves the ids of publications before it removes rows, because the store knows the id of a publication only
/// as long as its rows exist.
fn start_storage(
    store: Box<dyn Background>,
    core: &Arc<Core>,
    ids: &Arc<Ids>,
    clock: &Arc<Clock>,
    fatal: &Arc<Fatal>,
) -> std::io::Result<Storage> {
    let (core, ids, clock, fatal) = (core.clone(), ids.clone(), clock.clone(), fatal.clone());
    let save_ids = move || {
        super::defect::strike("store");
        ids.save(&core, &clock, false);
    };
    Storage::start(store, save_ids, move || fatal.declare("the store's thread"))
}

/// Spawns a vital task: a panic in it is declared as a defect of `part`.
fn spawn_vital(hub: &Arc<Hub>, part: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let guard = PanicGuard { hub: hub.clone(), part };
    tokio::spawn(async move {
        let _guard = guard;
        task.await;
    })
}

/// Declares the defect when the task that holds this value panics.
struct PanicGuard {
    hub: Arc<Hub>,
    part: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let is_core = self.hub.is_core_broken();
            self.hub.fatal.declare(if is_core { "the core" } else { self.part });
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.hub.fatal.is_declared() {
            // After a defect no part may write to the store.
            return;
        }
        self.listeners.iter().for_each(JoinHandle::abort);
        self.tasks.iter().for_each(JoinHandle::abort);
        self.hub.abort_all();
        if self.is_stopping {
            return;
        }
        // The store has logged its failure, and a drop cannot return one.
        let _ = self.hub.storage.stop();
        self.hub.take_reports();
        self.hub.save_ids(true);
    }
}

/// Reads the certificate, if a listener needs it.
async fn load_certificates(settings: &Settings) -> Result<Option<Arc<Certificates>>, ServeError> {
    if !settings.listeners.iter().any(|listener| listener.tls) {
        return Ok(None);
    }
    let Some(files) = settings.tls.clone() else {
        return Err(ServeError::Tls("a listener has TLS, but there is no certificate".to_owned()));
    };
    let loaded = blocking(move || Certificates::load(&files)).await?;
    loaded.map(|certificates| Some(Arc::new(certificates))).map_err(ServeError::Tls)
}

async fn watch_certificates(certificates: Arc<Certificates>) {
    let mut pause = limits::HTPASSWD_CHECK;
    loop {
        tokio::time::sleep(pause).await;
        let certificates = certificates.clone();
        pause = blocking(move || certificates.reload_if_changed()).await.unwrap_or(limits::HTPASSWD_CHECK);
    }
}

async fn watch_credentials(hub: Arc<Hub>, credentials: Arc<Mutex<Credentials>>) {
    let mut pause = limits::HTPASSWD_CHECK;
    loop {
        tokio::time::sleep(pause).await;
        let credentials = credentials.clone();
        pause = match blocking(move || lock(&credentials).reload_if_changed()).await {
            Ok(Change::Unstable) => wsmb_auth::limits::HTPASSWD_STABLE,
            Ok(Change::New(users)) => {
                info!(users = users.len(), "password files have changed; the new list is in force");
                let revoked = hub.access().logins.verifier.replace(users.clone()).revoked_by(&users);
                hub.enforce(revoked).await;
                limits::HTPASSWD_CHECK
            }
            Ok(Change::None) | Err(_) => limits::HTPASSWD_CHECK,
        };
    }
}

/// Runs blocking work outside the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, std::io::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error: JoinError| std::io::Error::other(error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(settings: &Settings) -> Options {
    Options { limits: settings.limits.clone(), policies: settings.broker.policies.clone() }
}

fn access(settings: &AccessSettings, logins: Arc<Logins>) -> Access {
    Access {
        logins,
        keys: settings.keys.clone(),
        permissions: settings.permissions.clone(),
        admins: settings.admins.clone(),
        rates: Rates::new(settings.rates.clone()),
        anonymous: settings.anonymous,
        trusted: settings.trusted_proxies.clone(),
        origins: settings.origins.clone(),
    }
}
