//! The lifecycle of a server: start, reload, stop.
//!
//! The order of a stop matters: new connections are refused, and open ones are read until they are silent ([`super::stop`]); the core gets the end of every
//! connection, and so stores all unconfirmed messages; the store commits, and the ids are written; the port is closed last.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use super::access::Access;
use super::clock::Clock;
use super::core::Core;
use super::counters::{Counters, WarningLimit};
use super::engine::Engine;
use super::error::ServeError;
use super::fatal::Fatal;
use super::handshakes::Handshakes;
use super::hub::{Hub, Options, Parts};
use super::ids::Ids;
use super::listener::{self, Bound};
use super::loops::{Loops, Threads};
use super::opening;
use super::platform::{self, Signal, Signals};
use super::settings::{AccessSettings, Reload, Settings};
use super::storage::{self, Storage};
use crate::limits;
use wsmb_auth::{Change, Credentials, Rates, Verifier};
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
    listeners: Vec<JoinHandle<()>>,
    handshakes: Arc<Handshakes>,
    threads: Arc<Threads>,
    tasks: Vec<JoinHandle<()>>,
    credentials: Arc<Mutex<Credentials>>,
    settings: Mutex<Settings>,
    is_stopping: bool,
}

impl Server {
    /// Opens the store and every address, and serves. Must be called within a tokio runtime, of one thread or many.
    ///
    /// # Errors
    /// The first address, store or system resource that cannot be opened.
    pub async fn start(settings: Settings) -> Result<RunningServer, ServeError> {
        platform::keep_freed_memory();
        let listeners = listener::bind(&settings.listeners).await?;
        let addresses = listeners.iter().map(|bound| bound.listener.local_addr()).collect::<Result<_, _>>()?;
        let (credentials, store, clock, (summary, suspect), (ids, found)) = {
            let Settings { access, store, broker: broker::Settings { dedup_window, .. }, .. } = settings.clone();
            blocking(move || {
                let credentials = Credentials::load(&access.htpasswd, &access.users);
                let (opened, clock, found) = opening::open(&store, dedup_window)?;
                // After the store, because the store's lock also protects the file of ids.
                let since = opening::dedup_start(clock.now(), dedup_window);
                let ids = Ids::open(store.ids.as_deref(), since, clock.now());
                Ok::<_, ServeError>((credentials, opened, clock, found, ids))
            })
            .await??
        };
        for warning in credentials.all_warnings(settings.access.anonymous) {
            warn!("{warning}");
        }
        let clean = summary.clean;
        let restored = storage::restored(summary, suspect, found);
        let restored_up_to = restored.last_id;
        info!(store = %settings.store.name, channels_with_backlog = restored.channels.len(), clean, "store opened");
        let verifier = Arc::new(Verifier::new(credentials.users()));
        let access = access(&settings.access, verifier);
        let options = options(&settings);
        let engine =
            Engine::new(Broker::new(settings.broker.clone(), restored), options.engine(), opening::seed(clock.now()));
        let fatal = Arc::new(Fatal::default());
        let core = Arc::new(Core::new(engine, fatal.clone()));
        let (ids, clock) = (Arc::new(ids), Arc::new(clock));
        let storage = start_storage(store, &core, &ids, &clock, &fatal)?;
        let loops = Arc::new(Loops::new(settings.threads));
        let threads = Arc::new(Threads::start(&loops, &fatal)?);
        let budget = settings.broker.memory_budget;
        info!(mebibytes = budget >> 20, "memory budget");
        let run = opening::seed(clock.now());
        let hub = Arc::new(Hub::new(Parts { core, storage, ids, clock, fatal, loops, options, access, budget, run }));
        let handshakes = Arc::new(Handshakes::new(settings.limits.max_handshakes));
        let mut server = RunningServer {
            hub,
            addresses,
            listeners: Vec::new(),
            handshakes,
            threads,
            tasks: Vec::new(),
            credentials: Arc::new(Mutex::new(credentials)),
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
            spawn_vital(hub, "the task of passwords", watch_credentials(hub.clone(), self.credentials.clone())),
        ];
        let shared = Arc::new(listener::Shared {
            hub: hub.clone(),
            handshakes: self.handshakes.clone(),
            threads: self.threads.clone(),
            accept_warning: WarningLimit::default(),
        });
        for (bound, address) in listeners.into_iter().zip(&self.addresses) {
            info!(%address, proxy_protocol = bound.proxy_protocol, "listening");
            self.listeners.push(spawn_vital(hub, "a listener", listener::accept(shared.clone(), bound)));
        }
    }

    /// The addresses on which the server listens, with the actual ports.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The server's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.hub.counters
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

    /// Applies new channel policies, users, permissions, trusted proxies and origins. Password files are read again.
    /// Connections whose user, password or right in use was withdrawn are ended.
    pub async fn reload(&self, new: Reload) {
        let (credentials, wanted) = (self.credentials.clone(), new.access.clone());
        let users = blocking(move || lock(&credentials).reload(&wanted.htpasswd, &wanted.users)).await;
        let verifier = self.hub.access().verifier.clone();
        let revoked = match users {
            Ok(users) => verifier.replace(users.clone()).revoked_by(&users),
            Err(_) => HashSet::new(),
        };
        let settings = {
            let mut settings = lock(&self.settings);
            settings.broker.policies = new.policies;
            settings.access = new.access;
            settings.clone()
        };
        self.hub.reconfigure(options(&settings), access(&settings.access, verifier), settings.broker);
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
                info!(kept = self.unsettled(), "stopped; everything accepted is in the store");
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

/// Reads the configuration again, for SIGHUP. An error is a sentence. Blocks. The function also applies settings that the server does not know (the log
/// level).
pub type Load = Box<dyn Fn() -> Result<Reload, String> + Send + Sync>;

/// Serves until SIGTERM or SIGINT (elsewhere: Ctrl-C) or until the terminal is closed, then stops in an orderly way. Any other SIGHUP reloads. `ready` is
/// called when the store and all addresses are open.
///
/// # Errors
/// The server did not start, a vital part has panicked, the stop failed (see [`RunningServer::shutdown`]), or a second signal came during the stop.
pub async fn serve(
    settings: Settings,
    load: Option<Load>,
    ready: impl FnOnce(&RunningServer),
) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let server = Server::start(settings).await?;
    ready(&server);
    let hub = server.hub.clone();
    let load = load.map(Arc::new);
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            part = hub.fatal.declared() => return Err(ServeError::Defect { part }),
        };
        match signal {
            Signal::Stop(name) => {
                info!(signal = name, "asked to stop");
                break;
            }
            Signal::Reload => match &load {
                Some(load) => reload(&server, load.clone()).await,
                None => warn!("asked to reload, but there is no configuration to read"),
            },
        }
    }
    tokio::select! {
        done = server.shutdown() => done,
        part = hub.fatal.declared() => Err(ServeError::Defect { part }),
        () = signals.insist(Instant::now()) => Err(ServeError::Interrupted { unstored: hub.with_broker(Broker::unstored) as u64 }),
    }
}

async fn reload(server: &RunningServer, load: Arc<Load>) {
    match blocking(move || load()).await {
        Ok(Ok(new)) => {
            let needs_restart = new.needs_restart.clone();
            server.reload(new).await;
            info!(
                "reloaded: channel policies, users, permissions, rates, origins and trusted proxies are as configured now"
            );
            if !needs_restart.is_empty() {
                warn!(keys = needs_restart.join(", "), "changed, but taken over only by a restart");
            }
        }
        Ok(Err(problems)) => error!("not reloaded, the old configuration stays in force: {problems}"),
        Err(cause) => error!(%cause, "not reloaded, the old configuration stays in force"),
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
                let revoked = hub.access().verifier.replace(users.clone()).revoked_by(&users);
                hub.enforce(revoked).await;
                limits::HTPASSWD_CHECK
            }
            Ok(Change::None) | Err(_) => limits::HTPASSWD_CHECK,
        };
    }
}

/// Runs blocking work outside the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, std::io::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error: JoinError| std::io::Error::other(error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(settings: &Settings) -> Options {
    Options { limits: settings.limits.clone(), policies: settings.broker.policies.clone() }
}

fn access(settings: &AccessSettings, verifier: Arc<Verifier>) -> Access {
    Access {
        verifier,
        permissions: settings.permissions.clone(),
        admins: settings.admins.clone(),
        rates: Rates::new(settings.rates.clone()),
        anonymous: settings.anonymous,
        trusted: settings.trusted_proxies.clone(),
        origins: settings.origins.clone(),
    }
}
