//! The server from its start to its end: opens everything, runs until told to stop, reloads, drains.
//!
//! The order of the end matters: no new connections, and everybody is heard out ([`super::stop`]); the core learns that everybody has gone, and so wants
//! everything unconfirmed stored; the store commits, the ids are written down; the port is closed last.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::{AbortHandle, JoinError, JoinHandle};
use tracing::{error, info, warn};

use super::access::Access;
use super::counters::{Counters, Seldom};
use super::error::ServeError;
use super::handshakes::Handshakes;
use super::ids::{self, Ids};
use super::listener::{self, Door};
use super::opening;
use super::runtime::{Hub, Options};
use super::storage::{self, Storage};
use crate::auth::{Change, Credentials, Permissions, Verifier};
use crate::broker::{self, Broker, Event, Settings};
use crate::config::{Config, ConfigError};
use crate::limits;
use crate::message::MessageId;

/// Makes a [`RunningServer`].
#[derive(Clone, Copy, Debug)]
pub struct Server;

/// A server that listens. Dropped without [`Self::shutdown`], it stops as if its connections had been cut, but what it has
/// accepted is in the store.
#[derive(Debug)]
pub struct RunningServer {
    hub: Arc<Hub>,
    addresses: Vec<SocketAddr>,
    doors: Vec<JoinHandle<()>>,
    handshakes: Arc<Handshakes>,
    tasks: Vec<AbortHandle>,
    credentials: Arc<Mutex<Credentials>>,
    config: Mutex<Config>,
    is_stopping: bool,
}

impl Server {
    /// Opens the store and every address, and serves. Must be called within a tokio runtime; one thread or many are both right.
    ///
    /// # Errors
    /// The first thing that can't be opened.
    pub async fn start(config: Config) -> Result<RunningServer, ServeError> {
        let listeners = listener::bind(&config.server.all_listeners()).await?;
        let addresses = listeners.iter().map(|door| door.listener.local_addr()).collect::<Result<_, _>>()?;
        let (credentials, store, clock, (summary, suspect), (ids, found)) = {
            let config = config.clone();
            blocking(move || {
                let credentials = Credentials::load(&config.auth.htpasswd, &config.auth.users);
                let (store, clock, found) = opening::open(&config)?;
                // Behind the store, whose lock is the file's, too.
                let since = opening::dedup_start(clock.now(), config.server.dedup_window);
                let ids = Ids::open(ids::path(&config).as_deref(), since, clock.now());
                Ok::<_, ServeError>((credentials, store, clock, found, ids))
            })
            .await??
        };
        for doubt in credentials.doubts(config.auth.anonymous) {
            warn!("{doubt}");
        }
        let clean = summary.clean;
        let restored = storage::restored(summary, suspect, found);
        let restored_up_to = restored.last_id;
        info!(store = %config.store.url, channels_with_backlog = restored.channels.len(), clean, "store opened");
        let verifier = Arc::new(Verifier::new(credentials.users()));
        let access = access(&config, verifier);
        let broker = Broker::new(settings(&config), restored);
        let storage = Storage::start(store)?;
        let hub = Arc::new(Hub::new(broker, (storage, ids), clock, options(&config), access));
        hub.storage.attach(&hub);
        let handshakes = Arc::new(Handshakes::new(config.server.max_handshakes));
        let mut server = RunningServer {
            hub,
            addresses,
            doors: Vec::new(),
            handshakes,
            tasks: Vec::new(),
            credentials: Arc::new(Mutex::new(credentials)),
            config: Mutex::new(config),
            is_stopping: false,
        };
        server.run(listeners, restored_up_to);
        Ok(server)
    }
}

impl RunningServer {
    fn run(&mut self, listeners: Vec<Door>, restored_up_to: MessageId) {
        let hub = &self.hub;
        // What the store held may be due already.
        hub.happened(Event::Tick);
        self.tasks = vec![
            vital(hub, "the task of deadlines", hub.clone().run_deadlines()).abort_handle(),
            vital(hub, "the task of heartbeats", hub.clone().run_timers()).abort_handle(),
            vital(hub, "the task of backpressure", hub.clone().run_gate()).abort_handle(),
            vital(hub, "the task of the clock", hub.clone().run_clock(restored_up_to)).abort_handle(),
            vital(hub, "the task of ids", hub.clone().run_ids()).abort_handle(),
            vital(hub, "the task of passwords", watch_credentials(hub.clone(), self.credentials.clone()))
                .abort_handle(),
        ];
        let trouble = Arc::new(Seldom::default());
        for (door, address) in listeners.into_iter().zip(&self.addresses) {
            info!(%address, proxy_protocol = door.proxy_protocol, "listening");
            let accept = listener::accept(hub.clone(), door, self.handshakes.clone(), trouble.clone());
            self.doors.push(vital(hub, "a listener", accept));
        }
    }

    pub(super) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses that are listened on, ports resolved.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the sockets have seen.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.hub.counters
    }

    /// What the core has seen.
    #[must_use]
    pub fn broker_counters(&self) -> broker::Counters {
        self.hub.with_broker(|broker| *broker.counters())
    }

    /// Messages that are not settled: waiting, delayed or in flight.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.hub.with_broker(Broker::unsettled)
    }

    /// Empties a channel, as an administrator's wish.
    pub fn purge(&self, channel: crate::message::ChannelName) {
        self.hub.happened(Event::Purge { channel });
    }

    /// Takes over what a running server can take over from `new`: channel policies, users, permissions, trusted proxies, origins. Password files are read anew.
    /// Whoever is connected and has lost the user, the password or a right in use is ended.
    /// Returns the keys that differ and need a restart; they stay as they were.
    pub async fn reload(&self, new: Config) -> Vec<&'static str> {
        let needs_restart = self.config().changes_needing_restart(&new);
        let (credentials, auth) = (self.credentials.clone(), new.auth.clone());
        let users = blocking(move || lock(&credentials).reload(&auth.htpasswd, &auth.users)).await;
        let verifier = self.hub.access().verifier.clone();
        let revoked = match users {
            Ok(users) => verifier.replace(users.clone()).revoked_by(&users),
            Err(_) => HashSet::new(),
        };
        let config = {
            let mut config = self.config();
            config.policies = new.policies;
            config.server.trusted_proxies = new.server.trusted_proxies;
            config.server.origins = new.server.origins;
            config.auth = new.auth;
            config.log = new.log;
            config.clone()
        };
        self.hub.reconfigure(options(&config), access(&config, verifier), settings(&config));
        let hub = self.hub.clone();
        tokio::spawn(async move { hub.enforce(revoked).await });
        needs_restart
    }

    /// Stops in an orderly way, as docs/deploying.md says: hears everybody out, ends every connection (within `server.drain`), commits, and closes the port
    /// last.
    ///
    /// # Errors
    /// If not everything could be stored.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        // If the caller gives up waiting, nothing waits in its place.
        self.is_stopping = true;
        let hub = self.hub.clone();
        let end = Instant::now() + self.config().server.drain;
        info!(connections = hub.open_connections(), "stopping: new connections are refused with 503");
        hub.begin_stop();
        hub.hear_out(end).await;
        let left = hub.part(end).await;
        if left > 0 {
            warn!(connections = left, "cut: these did not take their end in time");
        }
        hub.abort_all();
        hub.store_rest().await;
        self.tasks.iter().for_each(AbortHandle::abort);
        hub.storage.note_time(hub.wall_now());
        let closing = hub.clone();
        let stopped = blocking(move || {
            let stopped = closing.storage.stop();
            // Last: what the last commit made safe is an accepted id, too.
            closing.ids.save(&closing, true);
            stopped
        })
        .await?;
        self.close_doors().await;
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

    /// Closes the port, once whoever has connected by now is answered.
    async fn close_doors(&mut self) {
        self.hub.stop.close_doors();
        let answered = async {
            for door in &mut self.doors {
                // It can only have ended already.
                let _ = door.await;
            }
            while self.handshakes.open() > 0 {
                tokio::time::sleep(limits::STOP_LOOK).await;
            }
        };
        // Who has connected and says nothing is not waited for.
        let _ = tokio::time::timeout(limits::STOP_ANSWERS, answered).await;
    }
}

/// Starts a task without which the server can't do its work: its death is the server's.
fn vital(hub: &Arc<Hub>, part: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let watch = Watch { hub: hub.clone(), part };
    tokio::spawn(async move {
        let _watch = watch;
        task.await;
    })
}

/// Tells of the death of the task that has it.
struct Watch {
    hub: Arc<Hub>,
    part: &'static str,
}

impl Drop for Watch {
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
            // Nothing of it can be trusted to tidy up.
            return;
        }
        self.doors.iter().for_each(JoinHandle::abort);
        self.tasks.iter().for_each(AbortHandle::abort);
        self.hub.abort_all();
        if self.is_stopping {
            return;
        }
        // A failure has been reported by the store itself; there is nobody to return it to.
        let _ = self.hub.storage.stop();
        self.hub.ids.save(&self.hub, true);
    }
}

/// Reads the configuration again, for SIGHUP. Blocks. Whoever gives it also applies what concerns him (the log level).
pub type Load = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Serves until SIGTERM or SIGINT (elsewhere: Ctrl-C) or until its terminal is closed, then stops in an orderly way. Any other SIGHUP reloads. `ready` is called once
/// everything is open.
///
/// # Errors
/// If it does not start, not everything could be stored at the end, or a second signal came meanwhile.
pub async fn serve(config: Config, load: Option<Load>, ready: impl FnOnce(&RunningServer)) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let server = Server::start(config).await?;
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
        Ok(Ok(config)) => {
            let needs_restart = server.reload(config).await;
            info!("reloaded: channel policies, users, permissions, origins and trusted proxies are as configured now");
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
            Ok(Change::Settling) => limits::HTPASSWD_SETTLED,
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

/// Runs what may block beside the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, std::io::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error: JoinError| std::io::Error::other(error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(config: &Config) -> Settings {
    Settings {
        policies: config.policies.clone(),
        batch: config.store.batch,
        delay: config.store.delay,
        write_delay: config.store.write_delay,
        confirm_timeout: config.server.confirm_timeout,
        dedup_window: config.server.dedup_window,
    }
}

fn options(config: &Config) -> Options {
    Options {
        heartbeat: config.server.heartbeat,
        max_message: config.server.max_message,
        max_queue: config.server.max_queue,
        trust_fin: config.server.trust_fin,
        max_connections: config.server.max_connections,
        policies: config.policies.clone(),
    }
}

fn access(config: &Config, verifier: Arc<Verifier>) -> Access {
    let permissions = config.auth.permissions.iter().fold(Permissions::default(), |permissions, permission| {
        permissions.with(&permission.user, &permission.send, &permission.receive)
    });
    let trusted = config.server.trusted_proxies.clone();
    let origins = config.server.origins.clone();
    Access { verifier, permissions, anonymous: config.auth.anonymous, trusted, origins }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Stop(&'static str),
    #[cfg_attr(not(unix), allow(dead_code))] // Only Unix has a signal for it.
    Reload,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    terminal: super::terminal::Terminal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminal: super::terminal::Terminal::at_start(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                if self.terminal.is_gone() { Signal::Stop("SIGHUP, the terminal was closed") } else { Signal::Reload }
            }
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a way to be told, the process is ended from outside.
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}

impl Signals {
    /// Returns when a signal asks for the end that is no echo of the one that came at `first`.
    async fn insist(&mut self, first: Instant) {
        while self.next().await == Signal::Reload || first.elapsed() < limits::SECOND_SIGNAL {}
    }
}
